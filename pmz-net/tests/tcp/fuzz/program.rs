//! Bytes, read as choices.

pub(super) struct Program<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Program<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn is_over(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next byte; 0 behind the last.
    pub(super) fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    pub(super) fn word(&mut self) -> u32 {
        u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// One in so many.
    pub(super) fn one_in(&mut self, n: u8) -> bool {
        self.byte() % n == n - 1
    }

    pub(super) fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    /// A number with something about it.
    pub(super) fn offset(&mut self, segment: u32) -> u32 {
        let kind = self.byte();
        match kind % 16 {
            0..=5 => 0,
            6 => 1,
            7 => u32::MAX,
            8 => segment * u32::from(kind >> 4),
            9 => segment * (u32::from(kind >> 4) + 1) - 1,
            10 => u32::from(self.byte()),
            11 => u32::from(self.byte()).wrapping_neg(),
            12 => self.choose(&[
                1 << 31,
                (1 << 31) - 1,
                1 << 30,
                (1 << 30) + 1,
                3 << 30,
                1 << 16,
            ]),
            13 => u32::from(u16::from_be_bytes([self.byte(), self.byte()])),
            14 => segment.wrapping_mul(u32::from(kind >> 4)).wrapping_neg(),
            _ => self.word(),
        }
    }
}
