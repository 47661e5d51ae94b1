//! The state of one call, as its pick keeps it.

/// The index of the address in use: an instance has at most 16.
const ADDRESS: Field = Field { shift: 0, bits: 5 };
/// How many addresses have failed, up to 7.
const FAILED_ADDRESSES: Field = Field { shift: 5, bits: 3 };
/// The epoch of the endpoint in which it was picked.
const EPOCH: Field = Field { shift: 8, bits: 16 };
/// When the call began, in microseconds since the resolver did, modulo 12.7 days; 0 where that is of no interest.
const BEGAN: Field = Field { shift: 24, bits: 40 };

/// The state of one call, in one word: a pick of two words is passed in registers, whereas a larger one is copied
/// through memory whenever it moves.
#[derive(Clone, Copy)]
pub(super) struct Call(u64);

impl Call {
    /// A call to an address, by its index; `began` in microseconds since the resolver began, where that is of interest.
    pub(super) fn new(epoch: u16, address: usize, began: Option<u64>) -> Self {
        // The instant 0 is rounded up, since 0 stands for none.
        let began = began.map_or(0, |began| BEGAN.fitted(began).max(1));
        let word = BEGAN.put(0, began);
        let word = EPOCH.put(word, u64::from(epoch));
        Self(ADDRESS.put(word, address as u64))
    }

    pub(super) fn epoch(self) -> u16 {
        // It is 16 bits wide.
        EPOCH.get(self.0) as u16
    }

    pub(super) fn address(self) -> usize {
        ADDRESS.get(self.0) as usize
    }

    pub(super) fn set_address(&mut self, index: usize) {
        self.0 = ADDRESS.put(self.0, index as u64);
    }

    /// Counts an address that has failed. Returns how many have.
    pub(super) fn count_failed_address(&mut self) -> usize {
        let failed = (FAILED_ADDRESSES.get(self.0) + 1).min(FAILED_ADDRESSES.mask());
        self.0 = FAILED_ADDRESSES.put(self.0, failed);
        failed as usize
    }

    /// Whether its latency is of interest, and was not taken yet.
    pub(super) fn is_timed(self) -> bool {
        BEGAN.get(self.0) != 0
    }

    /// Takes how long the call has lasted at `now`, in microseconds. It is not timed any longer after that.
    pub(super) fn take_latency(&mut self, now: u64) -> u64 {
        let began = BEGAN.get(self.0);
        self.0 = BEGAN.put(self.0, 0);
        BEGAN.fitted(now.wrapping_sub(began))
    }
}

/// Some bits of a word.
#[derive(Clone, Copy)]
struct Field {
    shift: u32,
    bits: u32,
}

impl Field {
    const fn mask(self) -> u64 {
        (1 << self.bits) - 1
    }

    const fn fitted(self, value: u64) -> u64 {
        value & self.mask()
    }

    const fn get(self, word: u64) -> u64 {
        self.fitted(word >> self.shift)
    }

    const fn put(self, word: u64, value: u64) -> u64 {
        word & !(self.mask() << self.shift) | self.fitted(value) << self.shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_kept_whatever_the_others_do() {
        let mut call = Call::new(u16::MAX, 15, Some(1_000));
        assert_eq!((call.epoch(), call.address()), (u16::MAX, 15));
        call.set_address(3);
        let failed: Vec<usize> = (0..9).map(|_| call.count_failed_address()).collect();
        assert_eq!(failed, [1, 2, 3, 4, 5, 6, 7, 7, 7]);
        assert_eq!((call.epoch(), call.address()), (u16::MAX, 3));
        assert!(call.is_timed());
        assert_eq!(call.take_latency(1_250), 250);
        assert!(!call.is_timed(), "it is taken once");
        assert_eq!((call.epoch(), call.address()), (u16::MAX, 3));
    }

    #[test]
    fn a_latency_outlasts_the_wrap_around() {
        let last = BEGAN.mask();
        assert_eq!(Call::new(0, 0, Some(last)).take_latency(last + 11), 11);
        assert_eq!(Call::new(0, 0, Some(0)).take_latency(500), 499);
        assert!(!Call::new(0, 0, None).is_timed());
    }

    #[test]
    fn it_is_one_word() {
        assert_eq!(size_of::<Call>(), 8);
        assert_eq!(size_of::<Option<super::super::Pick>>(), 16, "in two registers");
    }
}
