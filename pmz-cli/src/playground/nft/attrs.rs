//! Netlink's attributes (linux/netlink.h).

/// In an attribute's type: others stand in it.
const NESTED: u16 = 0x8000;

/// Attributes being written (`struct nlattr`).
pub(super) struct Attrs<'a>(pub(super) &'a mut Vec<u8>);

impl Attrs<'_> {
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.header(kind, value.len());
        self.0.extend_from_slice(value);
        self.pad();
    }

    pub(super) fn string(&mut self, kind: u16, value: &str) {
        self.header(kind, value.len() + 1);
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        self.pad();
    }

    pub(super) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(super) fn nested(&mut self, kind: u16, write: impl FnOnce(&mut Attrs<'_>)) {
        let start = self.0.len();
        self.header(kind | NESTED, 0);
        write(&mut Attrs(self.0));
        // What is nested here is some expressions long: far below 64 KiB.
        let len = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    fn header(&mut self, kind: u16, len: usize) {
        self.0.extend_from_slice(&((len + 4) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
    }

    fn pad(&mut self) {
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested_ones_hold_the_others() {
        let mut bytes = Vec::new();
        let mut attrs = Attrs(&mut bytes);
        attrs.nested(4, |attrs| {
            attrs.string(1, "ab");
            attrs.be32(2, 7);
        });
        let mut expected = Vec::new();
        expected.extend_from_slice(&20u16.to_ne_bytes());
        expected.extend_from_slice(&0x8004u16.to_ne_bytes());
        expected.extend_from_slice(&7u16.to_ne_bytes());
        expected.extend_from_slice(&1u16.to_ne_bytes());
        expected.extend_from_slice(b"ab\0\0");
        expected.extend_from_slice(&8u16.to_ne_bytes());
        expected.extend_from_slice(&2u16.to_ne_bytes());
        expected.extend_from_slice(&[0, 0, 0, 7]);
        assert_eq!(bytes, expected);
    }
}
