//! Drawing by weight in constant time: the alias method (Vose, IEEE TSE 17(9), 1991).

/// A table from which an index is drawn as often as its weight says.
#[derive(Debug)]
pub(super) struct Alias {
    /// For each index, the share of draws that stay there, of 2^32, and where the others go.
    cells: Vec<(u32, u32)>,
}

impl Alias {
    /// The table of these weights; none where all are alike, or there is nothing to weigh.
    pub(super) fn of(weights: &[f64]) -> Option<Self> {
        let first = *weights.first()?;
        let sum: f64 = weights.iter().sum();
        if weights.iter().all(|weight| *weight == first) || !(sum.is_finite() && sum > 0.0) {
            return None;
        }
        let scale = weights.len() as f64 / sum;
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight * scale).collect();
        let mut cells: Vec<(u32, u32)> = (0..).take(weights.len()).map(|index| (u32::MAX, index)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|index| shares[*index] < 1.0);
        while let (Some(less), Some(more)) = (small.pop(), large.pop()) {
            // It rounds, and saturates: a share of one is nearly always itself.
            cells[less] = (
                (shares[less] * TWO_TO_32) as u32,
                u32::try_from(more).unwrap_or(0),
            );
            shares[more] -= 1.0 - shares[less];
            if shares[more] < 1.0 {
                small.push(more);
            } else {
                large.push(more);
            }
        }
        Some(Self { cells })
    }

    /// An index, by 64 random bits.
    pub(super) fn draw(&self, random: u64) -> usize {
        let index = scaled(random as u32, self.cells.len());
        let (share, other) = self.cells[index];
        if ((random >> 32) as u32) < share {
            index
        } else {
            other as usize
        }
    }
}

/// A number below `count`, by 32 random bits (Lemire, ACM TOMACS 29(1), 2019, without its correction: the
/// sets are small).
pub(super) fn scaled(random: u32, count: usize) -> usize {
    ((u64::from(random) * count as u64) >> 32) as usize
}

const TWO_TO_32: f64 = 4_294_967_296.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The share of all draws that each index gets: exactly, out of its cells.
    fn shares(table: &Alias, count: usize) -> Vec<f64> {
        let mut shares = vec![0.0; count];
        for (index, (share, other)) in table.cells.iter().enumerate() {
            let stays = f64::from(*share) / TWO_TO_32;
            shares[index] += stays / count as f64;
            shares[*other as usize] += (1.0 - stays) / count as f64;
        }
        shares
    }

    proptest! {
        #[test]
        fn draws_as_often_as_the_weights_say(weights in prop::collection::vec(0_u16..1000, 1..200)) {
            let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
            let sum: f64 = weights.iter().sum();
            if let Some(table) = Alias::of(&weights) {
                for (share, weight) in shares(&table, weights.len()).iter().zip(&weights) {
                    prop_assert!((share - weight / sum).abs() < 1e-6, "{share} for {weight} of {sum}");
                }
            }
        }
    }

    #[test]
    fn there_is_no_table_where_nothing_differs() {
        assert!(Alias::of(&[]).is_none());
        assert!(Alias::of(&[100.0]).is_none());
        assert!(Alias::of(&[5.0, 5.0]).is_none());
        assert!(Alias::of(&[0.0, 0.0]).is_none());
        assert!(Alias::of(&[0.0, 1.0]).is_some());
    }

    #[test]
    fn numbers_are_below_the_count() {
        for count in [1, 2, 3, 1000] {
            assert_eq!(scaled(0, count), 0);
            assert_eq!(scaled(u32::MAX, count), count - 1);
        }
    }
}
