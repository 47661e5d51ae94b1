//! An array in chunks that copies share, so that a change of one element costs a copy of one chunk.

use std::sync::Arc;

/// An array whose clones share what neither of them has changed, in chunks of `CHUNK` elements: a power of two, so that
/// an index is split by a shift.
#[derive(Debug)]
pub(super) struct Chunked<T, const CHUNK: usize> {
    /// All are full but the last one, which is not empty.
    chunks: Vec<Arc<[Option<T>; CHUNK]>>,
    len: usize,
}

impl<T, const CHUNK: usize> Chunked<T, CHUNK> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)?.as_ref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    /// The elements from an index on, then those before it.
    pub(super) fn iter_from(&self, index: usize) -> impl Iterator<Item = &T> {
        (index..self.len)
            .chain(0..index.min(self.len))
            .filter_map(|n| self.get(n))
    }
}

impl<T: Clone, const CHUNK: usize> Chunked<T, CHUNK> {
    /// Adds an element at the end; returns its index.
    pub(super) fn push(&mut self, element: T) -> usize {
        let index = self.len;
        if index.is_multiple_of(CHUNK) {
            self.chunks.push(Arc::new(std::array::from_fn(|_| None)));
        }
        self.len += 1;
        self.replace(index, Some(element));
        index
    }

    /// Replaces the element at an index; nothing happens where there is none.
    pub(super) fn set(&mut self, index: usize, element: T) {
        if index < self.len {
            self.replace(index, Some(element));
        }
    }

    /// Removes the element at an index by putting the last one in its place, and returns the one that has moved.
    pub(super) fn swap_remove(&mut self, index: usize) -> Option<&T> {
        let last = self.replace(self.len.checked_sub(1)?, None);
        self.len -= 1;
        self.chunks.truncate(self.len.div_ceil(CHUNK));
        if index >= self.len {
            return None;
        }
        self.replace(index, last);
        self.get(index)
    }

    fn replace(&mut self, index: usize, element: Option<T>) -> Option<T> {
        let chunk = Arc::make_mut(self.chunks.get_mut(index / CHUNK)?);
        std::mem::replace(chunk.get_mut(index % CHUNK)?, element)
    }
}

impl<T, const CHUNK: usize> Default for Chunked<T, CHUNK> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<T, const CHUNK: usize> Clone for Chunked<T, CHUNK> {
    fn clone(&self) -> Self {
        Self {
            chunks: self.chunks.clone(),
            len: self.len,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_a_vector_is_and_clones_keep_their_elements(
            steps in prop::collection::vec((0_u8..4, 0_usize..400), 0..800)
        ) {
            let (mut vector, mut chunked) = (Vec::new(), Chunked::<usize, 64>::default());
            let mut clones = Vec::new();
            for (n, (step, index)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => {
                        vector.push(n);
                        prop_assert_eq!(chunked.push(n), vector.len() - 1);
                    }
                    2 if index < vector.len() => {
                        vector[index] = n;
                        chunked.set(index, n);
                    }
                    3 if index < vector.len() => {
                        vector.swap_remove(index);
                        prop_assert_eq!(chunked.swap_remove(index), vector.get(index));
                    }
                    _ => {}
                }
                if n % 100 == 0 {
                    clones.push((vector.clone(), chunked.clone()));
                }
            }
            clones.push((vector, chunked));
            for (vector, chunked) in clones {
                prop_assert_eq!(chunked.len(), vector.len());
                prop_assert_eq!(chunked.iter().copied().collect::<Vec<_>>(), vector.clone());
                let from = vector.len() / 3;
                let turned: Vec<_> = vector[from..].iter().chain(&vector[..from]).copied().collect();
                prop_assert_eq!(chunked.iter_from(from).copied().collect::<Vec<_>>(), turned);
                prop_assert!(chunked.get(vector.len()).is_none());
            }
        }
    }
}
