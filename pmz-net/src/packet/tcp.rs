//! The TCP header (RFC 9293 3.1), as far as cutting, joining and refusing need it.

/// Bytes of a header without options.
pub(super) const MIN_HDR_LEN: usize = 20;
/// Where the checksum stands.
pub(super) const CHECKSUM_AT: usize = 16;
/// Where the flags stand.
pub(super) const FLAGS_AT: usize = 13;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;
/// Congestion window reduced (RFC 3168).
pub(super) const CWR: u8 = 0x80;

/// A header whose data offset lies within the segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    fixed: &'a [u8; MIN_HDR_LEN],
    len: usize,
}

impl<'a> Header<'a> {
    /// `segment` is header and payload.
    pub(super) fn parse(segment: &'a [u8]) -> Option<Self> {
        let fixed: &[u8; MIN_HDR_LEN] = segment.first_chunk()?;
        let len = usize::from(fixed[12] >> 4) * 4;
        (MIN_HDR_LEN..=segment.len())
            .contains(&len)
            .then_some(Self { fixed, len })
    }

    /// Bytes of the header with its options.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn flags(&self) -> u8 {
        self.fixed[FLAGS_AT]
    }

    pub(super) fn seq(&self) -> u32 {
        self.u32_at(4)
    }

    pub(super) fn ack(&self) -> u32 {
        self.u32_at(8)
    }

    fn u32_at(&self, at: usize) -> u32 {
        let bytes = self.fixed[at..].first_chunk().copied();
        u32::from_be_bytes(bytes.unwrap_or_default())
    }
}
