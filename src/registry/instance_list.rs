//! The instances of a snapshot in their order, in chunks that snapshots share.
//!
//! A change of one instance among many must not cost a copy of all of them in every process that watches. So the
//! list is cut into chunks: a changed list has one new chunk and shares the others with the list before, and two
//! lists are compared by skipping the chunks that they share.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::instance::{Instance, InstanceId, Key, ServiceName};
use crate::net::Distance;

/// Instances in a chunk, at most. A change copies one chunk, and a clone of the list copies one pointer a chunk:
/// 128 makes both about equal for 10,000 instances.
const MAX_CHUNK: usize = 128;
/// Two neighbouring chunks that hold fewer together become one, so that chunks do not stay nearly empty.
const MIN_PAIR: usize = MAX_CHUNK / 2;
const DISTANCES: [Distance; 3] = [Distance::ThisHost, Distance::ThisSubnet, Distance::Rest];

/// Instances by service, then the nearest first, then by id; at most one of each key. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct InstanceList {
    /// None of them is empty.
    chunks: Vec<Arc<Vec<Entry>>>,
    len: usize,
}

/// An instance, and how far it is.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) instance: Arc<Instance>,
    pub(crate) distance: Distance,
}

/// The difference between two lists.
#[derive(Debug, Default)]
pub(crate) struct Difference<'a> {
    /// Instances of the old list, each with its successor where that has the same key and place.
    pub(crate) old: Vec<(&'a Entry, Option<&'a Entry>)>,
    /// Instances of the new list that have no predecessor at the same place.
    pub(crate) new: Vec<&'a Entry>,
}

impl Difference<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.old.is_empty() && self.new.is_empty()
    }
}

impl Entry {
    fn order(&self) -> (&ServiceName, Distance, &InstanceId) {
        (self.instance.service(), self.distance, self.instance.id())
    }

    fn is_same(&self, other: &Self) -> bool {
        self.distance == other.distance && Arc::ptr_eq(&self.instance, &other.instance)
    }
}

impl InstanceList {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The entry at a position. Takes time linear in the number of chunks.
    pub(crate) fn at(&self, mut position: usize) -> Option<&Entry> {
        for chunk in &self.chunks {
            if position < chunk.len() {
                return chunk.get(position);
            }
            position -= chunk.len();
        }
        None
    }

    /// The entries of one service, the nearest first.
    pub(crate) fn of<'a>(&'a self, service: &'a ServiceName) -> impl Iterator<Item = &'a Entry> + Clone {
        let start = |chunk: &Vec<Entry>| chunk.partition_point(|entry| entry.instance.service() < service);
        let last = |chunk: &Arc<Vec<Entry>>| {
            chunk
                .last()
                .is_some_and(|entry| entry.instance.service() < service)
        };
        let first = self.chunks.partition_point(last);
        let chunks = self.chunks[first..].iter().enumerate();
        chunks
            .flat_map(move |(n, chunk)| &chunk[if n == 0 { start(chunk) } else { 0 }..])
            .take_while(move |entry| entry.instance.service() == service)
    }

    pub(crate) fn get(&self, service: &ServiceName, id: &InstanceId) -> Option<&Entry> {
        let (chunk, position) = self.find_key(service, id)?;
        self.chunks.get(chunk)?.get(position)
    }

    /// Puts an instance in the place of that of its key.
    pub(crate) fn put(&mut self, instance: Arc<Instance>, distance: Distance) {
        let entry = Entry { instance, distance };
        if let Some((chunk, position)) = self.find_key(entry.instance.service(), entry.instance.id()) {
            let chunk = &mut self.chunks[chunk];
            if chunk[position].distance == distance {
                Arc::make_mut(chunk)[position] = entry;
                return;
            }
            self.remove(&entry.instance.key().clone());
        }
        let n = self.chunk_for(entry.order());
        match self.chunks.get_mut(n) {
            None => self.chunks.push(Arc::new(vec![entry])),
            Some(chunk) => {
                let chunk = Arc::make_mut(chunk);
                let position = chunk.partition_point(|other| other.order() < entry.order());
                chunk.insert(position, entry);
                if chunk.len() > MAX_CHUNK {
                    let rest = chunk.split_off(chunk.len() / 2);
                    self.chunks.insert(n + 1, Arc::new(rest));
                }
            }
        }
        self.len += 1;
    }

    /// Removes the instance of a key.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Instance>> {
        let (n, position) = self.find_key(&key.service, &key.id)?;
        let removed = Arc::make_mut(&mut self.chunks[n]).remove(position);
        self.len -= 1;
        let len = |n: usize| self.chunks.get(n).map_or(MAX_CHUNK, |chunk| chunk.len());
        if len(n) == 0 {
            self.chunks.remove(n);
        } else {
            let pairs = [n.checked_sub(1), Some(n)].into_iter().flatten();
            if let Some(first) = pairs
                .into_iter()
                .find(|first| len(*first) + len(first + 1) < MIN_PAIR)
            {
                let next = self.chunks.remove(first + 1);
                Arc::make_mut(&mut self.chunks[first]).extend(next.iter().cloned());
            }
        }
        Some(removed.instance)
    }

    /// Compares this list with a later one. Takes time linear in the number of chunks and in the size of
    /// those that differ.
    pub(crate) fn difference<'a>(&'a self, later: &'a Self) -> Difference<'a> {
        let mut difference = Difference::default();
        let (mut old, mut new) = (Cursor::of(self), Cursor::of(later));
        loop {
            if let (Some(one), Some(other)) = (old.whole_chunk(), new.whole_chunk())
                && Arc::ptr_eq(one, other)
            {
                old.skip_chunk();
                new.skip_chunk();
                continue;
            }
            let order = match (old.entry(), new.entry()) {
                (None, None) => return difference,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) if one.is_same(other) => {
                    old.advance();
                    new.advance();
                    continue;
                }
                (Some(one), Some(other)) => one.order().cmp(&other.order()),
            };
            let gone = if order.is_le() { old.take() } else { None };
            let come = if order.is_ge() { new.take() } else { None };
            match (gone, come) {
                (Some(gone), come) => difference.old.push((gone, come)),
                (None, Some(come)) => difference.new.push(come),
                (None, None) => {}
            }
        }
    }

    fn find_key(&self, service: &ServiceName, id: &InstanceId) -> Option<(usize, usize)> {
        DISTANCES
            .iter()
            .find_map(|distance| self.find((service, *distance, id)))
    }

    fn find(&self, order: (&ServiceName, Distance, &InstanceId)) -> Option<(usize, usize)> {
        let n = self.chunks.partition_point(|chunk| ends_before(chunk, order));
        let chunk = self.chunks.get(n)?;
        let position = chunk.binary_search_by(|entry| entry.order().cmp(&order)).ok()?;
        Some((n, position))
    }

    /// The chunk that an entry belongs to: the first that does not end before it, or the last one.
    fn chunk_for(&self, order: (&ServiceName, Distance, &InstanceId)) -> usize {
        let n = self.chunks.partition_point(|chunk| ends_before(chunk, order));
        n.min(self.chunks.len().saturating_sub(1))
    }
}

fn ends_before(chunk: &[Entry], order: (&ServiceName, Distance, &InstanceId)) -> bool {
    chunk.last().is_some_and(|entry| entry.order() < order)
}

impl FromIterator<Entry> for InstanceList {
    /// Sorts them; of several with one key the last one stays.
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut entries: Vec<Entry> = entries.into_iter().collect();
        // Stable, so that of the same key the last one comes last.
        entries.sort_by(|one, other| one.instance.key().cmp(other.instance.key()));
        entries.reverse();
        entries.dedup_by(|one, other| one.instance.key() == other.instance.key());
        entries.sort_unstable_by(|one, other| one.order().cmp(&other.order()));
        let len = entries.len();
        let mut chunks = Vec::with_capacity(len.div_ceil(MAX_CHUNK / 2));
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            // Half full, so that the next to come does not split it.
            chunks.push(Arc::new(entries.by_ref().take(MAX_CHUNK / 2).collect()));
        }
        Self { chunks, len }
    }
}

/// A place in a list.
struct Cursor<'a> {
    chunks: &'a [Arc<Vec<Entry>>],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn of(list: &'a InstanceList) -> Self {
        Self {
            chunks: &list.chunks,
            position: 0,
        }
    }

    /// The chunk that begins here.
    fn whole_chunk(&self) -> Option<&'a Arc<Vec<Entry>>> {
        self.chunks.first().filter(|_| self.position == 0)
    }

    fn skip_chunk(&mut self) {
        self.chunks = &self.chunks[1..];
        self.position = 0;
    }

    fn entry(&self) -> Option<&'a Entry> {
        self.chunks.first()?.get(self.position)
    }

    fn advance(&mut self) {
        self.position += 1;
        if self
            .chunks
            .first()
            .is_some_and(|chunk| self.position >= chunk.len())
        {
            self.skip_chunk();
        }
    }

    fn take(&mut self) -> Option<&'a Entry> {
        let entry = self.entry();
        self.advance();
        entry
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::instance::Generation;

    type Model = BTreeMap<Key, (usize, u64)>;

    fn entry(service: u8, id: u16, far: usize, revision: u64) -> Entry {
        let service = ServiceName::new(format!("s{service}")).unwrap();
        let id = InstanceId::new(format!("i{id}")).unwrap();
        let instance = Instance::found(service, id, Vec::new());
        Entry {
            instance: Arc::new(instance.with_generation(Generation::new(1, revision))),
            distance: DISTANCES[far],
        }
    }

    fn shown(entries: impl Iterator<Item = Entry>) -> Vec<(Key, Distance, u64)> {
        let shown = |e: Entry| {
            (
                e.instance.key().clone(),
                e.distance,
                e.instance.generation().revision(),
            )
        };
        entries.map(shown).collect()
    }

    fn expected(model: &Model) -> Vec<(Key, Distance, u64)> {
        let mut all: Vec<_> = model
            .iter()
            .map(|(key, (far, revision))| (key.clone(), DISTANCES[*far], *revision))
            .collect();
        all.sort_by(|a, b| (&a.0.service, a.1, &a.0.id).cmp(&(&b.0.service, b.1, &b.0.id)));
        all
    }

    fn changes() -> impl Strategy<Value = Vec<(bool, u8, u16, usize, u64)>> {
        let change = (
            prop::bool::weighted(0.7),
            0_u8..3,
            0_u16..300,
            0_usize..3,
            0_u64..1000,
        );
        prop::collection::vec(change, 0..600)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn it_is_what_a_sorted_map_is_and_the_difference_leads_from_one_to_the_other(
            first in changes(), second in changes()
        ) {
            let mut model = Model::new();
            let mut list = InstanceList::default();
            let mut apply = |list: &mut InstanceList, changes: Vec<(bool, u8, u16, usize, u64)>| {
                for (puts, service, id, far, revision) in changes {
                    let entry = entry(service, id, far, revision);
                    let key = entry.instance.key().clone();
                    if puts {
                        list.put(entry.instance, entry.distance);
                        model.insert(key, (far, revision));
                    } else {
                        assert_eq!(list.remove(&key).is_some(), model.remove(&key).is_some());
                    }
                }
                model.clone()
            };
            let model = apply(&mut list, first);
            prop_assert_eq!(shown(list.iter().cloned()), expected(&model));
            prop_assert_eq!(list.len(), model.len());
            prop_assert!(list.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= MAX_CHUNK));
            let again: InstanceList = list.iter().cloned().collect();
            prop_assert_eq!(shown(again.iter().cloned()), expected(&model));
            for service in ["s0", "s1", "s2", "s3"] {
                let service = ServiceName::new(service).unwrap();
                let mut of = expected(&model);
                of.retain(|(key, ..)| key.service == service);
                prop_assert_eq!(shown(list.of(&service).cloned()), of);
            }
            for (position, entry) in list.iter().enumerate() {
                prop_assert!(list.at(position).unwrap().is_same(entry));
                prop_assert!(list.get(entry.instance.service(), entry.instance.id()).unwrap().is_same(entry));
            }
            prop_assert!(list.at(list.len()).is_none());
            let before = list.clone();
            let model = apply(&mut list, second);
            let difference = before.difference(&list);
            let mut applied: BTreeMap<_, _> = before.iter().map(|e| (e.order(), e)).collect();
            for (old, new) in &difference.old {
                prop_assert!(applied.remove(&old.order()).is_some());
                applied.extend(new.map(|new| (new.order(), new)));
            }
            for new in &difference.new {
                prop_assert!(applied.insert(new.order(), new).is_none());
            }
            prop_assert_eq!(shown(applied.into_values().cloned()), expected(&model));
        }
    }

    #[test]
    fn what_is_shared_is_not_compared() {
        let all = (0..1000).map(|id| entry(0, id, 2, 0));
        let list: InstanceList = all.collect();
        let mut later = list.clone();
        let changed = entry(0, 500, 2, 1);
        later.put(changed.instance.clone(), changed.distance);
        let shared = list.chunks.iter().zip(&later.chunks);
        assert_eq!(shared.filter(|(one, other)| !Arc::ptr_eq(one, other)).count(), 1);
        let difference = list.difference(&later);
        assert_eq!((difference.old.len(), difference.new.len()), (1, 0));
    }
}
