//! How much is sent to one address, and to all: a packet to everybody on the link costs less than one that somebody else has to
//! take whose address was forged.

use std::collections::HashMap;
use std::net::IpAddr;

use tokio::time::Instant;

/// The number of full answers to one address at once; then one a second follows. A first look asks three times by each family, and two of
/// them may begin together.
const FULL_AT_ONCE: f64 = 6.0;
/// The rate of bytes to one address: 1 MB within ten seconds.
const BYTES: Rate = Rate {
    at_once: 1e6,
    a_second: 1e5,
};
/// The rate of bytes to all addresses together.
const BYTES_TO_ALL: Rate = Rate {
    at_once: 8e6,
    a_second: 1e6,
};
const FULL: Rate = Rate {
    at_once: FULL_AT_ONCE,
    a_second: 1.0,
};
/// The number of addresses that are known at a time; others are answered by multicast.
const MAX_SOURCES: usize = 1_024;

#[derive(Clone, Copy, Debug)]
struct Rate {
    at_once: f64,
    a_second: f64,
}

/// A budget that fills up with time. More than is left may be spent, and then has to be waited for: the
/// answer to one who asks for the first time is not bounded.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self {
            left: rate.at_once,
            at: now,
        }
    }

    fn refill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * rate.a_second).min(rate.at_once);
        self.at = now;
    }
}

/// The budgets for answers by unicast.
#[derive(Debug)]
pub(super) struct Budget {
    sources: HashMap<IpAddr, Source>,
    all: Bucket,
}

#[derive(Debug)]
struct Source {
    full: Bucket,
    bytes: Bucket,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sources: HashMap::new(),
            all: Bucket::full(BYTES_TO_ALL, now),
        }
    }

    /// Begins an answer to an address. Returns whether it may be sent now.
    pub(super) fn try_begin(&mut self, to: IpAddr, is_full: bool, now: Instant) -> bool {
        if !self.sources.contains_key(&to) && self.sources.len() >= MAX_SOURCES {
            self.sources.retain(|_, source| {
                source.full.refill(FULL, now);
                source.bytes.refill(BYTES, now);
                source.full.left < FULL.at_once || source.bytes.left < BYTES.at_once
            });
            if self.sources.len() >= MAX_SOURCES {
                return false;
            }
        }
        let source = self.sources.entry(to).or_insert_with(|| Source {
            full: Bucket::full(FULL, now),
            bytes: Bucket::full(BYTES, now),
        });
        source.full.refill(FULL, now);
        source.bytes.refill(BYTES, now);
        self.all.refill(BYTES_TO_ALL, now);
        (!is_full || source.full.left >= 1.0) && source.bytes.left > 0.0 && self.all.left > 0.0
    }

    /// Takes an answer that is sent to an address out of its budget.
    pub(super) fn spend(&mut self, to: IpAddr, is_full: bool, bytes: usize) {
        #[allow(clippy::cast_precision_loss, reason = "a packet has fewer than 2^52 bytes")]
        let bytes = bytes as f64;
        self.all.left -= bytes;
        if let Some(source) = self.sources.get_mut(&to) {
            source.full.left -= f64::from(u8::from(is_full));
            source.bytes.left -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn take(budget: &mut Budget, to: IpAddr, is_full: bool, bytes: usize, now: Instant) -> bool {
        let may = budget.try_begin(to, is_full, now);
        if may {
            budget.spend(to, is_full, bytes);
        }
        may
    }

    #[test]
    fn an_address_gets_a_full_answer_a_second_and_a_megabyte_in_ten() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let to: IpAddr = "10.0.0.1".parse().unwrap();
        let other: IpAddr = "10.0.0.2".parse().unwrap();
        let at = |seconds| start + Duration::from_secs(seconds);
        let full = |budget: &mut Budget, now| (0..100).filter(|_| take(budget, to, true, 10, now)).count();
        assert_eq!(full(&mut budget, start), 6);
        assert_eq!(full(&mut budget, at(3)), 3);
        assert!(take(&mut budget, to, false, 10, at(3)), "a small one is sent");
        assert!(
            take(&mut budget, other, true, 2_500_000, at(3)),
            "one who asks for the first time"
        );
        assert!(!take(&mut budget, other, false, 10, at(17)));
        assert!(take(&mut budget, other, false, 10, at(19)));
        let bytes = (0..1_000)
            .filter(|_| take(&mut budget, to, false, 10_000, at(30)))
            .count();
        assert_eq!(bytes, 100);
    }

    #[test]
    fn many_addresses_together_get_no_more_than_all_may() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let ips = (0..2_000_u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
        let answered = ips
            .filter(|ip| take(&mut budget, *ip, true, 100_000, start))
            .count();
        assert_eq!(answered, 80);
    }
}
