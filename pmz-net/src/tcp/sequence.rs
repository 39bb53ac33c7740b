//! Sequence numbers. On the wire they are 32 bits and wrap; inside an endpoint they are counted on in 64
//! bits from the initial one, so that comparing them is comparing numbers.

/// The sequence space of one direction: what its initial sequence number was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    initial: u32,
}

/// The SYN stands at 0 of its space; payload begins here.
pub(super) const FIRST_BYTE: u64 = 1;

impl Space {
    pub(super) fn new(initial: u32) -> Self {
        Self { initial }
    }

    /// As it stands in a header.
    pub(super) fn wire(self, number: u64) -> u32 {
        self.initial.wrapping_add(number as u32)
    }

    /// The number that a header means, of all that it could be the one nearest to `near`. `None` if that
    /// would be before the initial one.
    pub(super) fn number(self, wire: u32, near: u64) -> Option<u64> {
        let distance = wire.wrapping_sub(self.wire(near)).cast_signed();
        near.checked_add_signed(distance.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_where_the_wires_wrap() {
        let space = Space::new(0xffff_fff0);
        let number = (1 << 33) + 5;
        assert_eq!(space.wire(number), 0xffff_fff5);
        for near in [number - (1 << 31) + 1, number, number + (1 << 31)] {
            assert_eq!(space.number(0xffff_fff5, near), Some(number));
        }
    }

    #[test]
    fn what_is_before_the_first_is_no_number() {
        let space = Space::new(1000);
        assert_eq!(space.number(1000, 0), Some(0));
        assert_eq!(space.number(999, 0), None);
        assert_eq!(space.number(999, 5), None);
    }
}
