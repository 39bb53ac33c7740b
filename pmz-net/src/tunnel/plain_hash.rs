//! A hash for numbers that this end has given out itself, one after another: nobody else can choose them to collide.

use std::hash::{BuildHasherDefault, Hasher};

/// Takes the number as it is, spread so that its low and its high bits tell.
pub(super) type PlainHash = BuildHasherDefault<PlainHasher>;

#[derive(Default)]
pub(super) struct PlainHasher(u64);

impl Hasher for PlainHasher {
    fn finish(&self) -> u64 {
        // Fibonacci hashing (Knuth, The Art of Computer Programming, 6.4): 2^64 by the golden ratio.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 ^ self.0 >> 56 ^ u64::from(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;
    use crate::tunnel::PeerId;

    #[test]
    fn numbers_in_a_row_fall_far_apart_at_both_ends_of_the_hash() {
        let hash = |number| PlainHash::default().hash_one(PeerId(number));
        let first: Vec<u64> = (1..=128).map(hash).collect();
        let distinct = |part: fn(&u64) -> u64| first.iter().map(part).collect::<HashSet<_>>().len();
        assert_eq!(distinct(|hash| hash & 0xff), 128);
        assert!(distinct(|hash| hash >> 57) > 64);
    }
}
