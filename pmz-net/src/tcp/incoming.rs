//! Bytes that came and that the application has not taken yet, those behind a gap included.

use std::collections::VecDeque;

use super::memory::{Account, Block, LARGE};

/// Blocks of [`LARGE`] bytes one behind the other; where nothing has come yet there need not be one.
#[derive(Debug)]
pub(super) struct Incoming {
    account: Account,
    blocks: VecDeque<Option<Block>>,
    /// Number of the byte at the front of the first block.
    first: u64,
    /// Number of the next byte for the application.
    start: u64,
}

impl Incoming {
    pub(super) fn new(account: Account, first: u64) -> Self {
        Self {
            account,
            blocks: VecDeque::new(),
            first,
            start: first,
        }
    }

    /// The number of the next byte for the application.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Writes bytes whose first has this number, which is not before [`Incoming::start`]; how many, where
    /// memory is refused. `behind_gap`: they can't be taken yet.
    pub(super) fn write(&mut self, number: u64, bytes: &[u8], behind_gap: bool) -> usize {
        if self.blocks.is_empty() {
            self.first = self.start;
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = (number - self.first) as usize + done;
            let (index, offset) = (at / LARGE, at % LARGE);
            if self.blocks.len() <= index {
                self.blocks.resize_with(index + 1, || None);
            }
            let slot = &mut self.blocks[index];
            let block = match slot {
                Some(block) => block,
                None => {
                    let taken = match behind_gap {
                        true => self.account.take_spare(LARGE),
                        false => self.account.take(LARGE),
                    };
                    match taken {
                        Some(block) => slot.insert(block),
                        None => break,
                    }
                }
            };
            let n = (bytes.len() - done).min(LARGE - offset);
            block[offset..offset + n].copy_from_slice(&bytes[done..done + n]);
            done += n;
        }
        done
    }

    /// The bytes from [`Incoming::start`] to `end`, which have come, as many as are in one piece.
    pub(super) fn front(&self, end: u64) -> &[u8] {
        let Some(Some(block)) = self.blocks.front() else {
            return &[];
        };
        let begin = (self.start - self.first) as usize;
        let len = (end.saturating_sub(self.start) as usize).min(LARGE - begin);
        &block[begin..begin + len]
    }

    /// Forgets `n` bytes at the front, which may be ones that were never written.
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n as u64;
        while !self.blocks.is_empty() && self.start - self.first >= LARGE as u64 {
            self.blocks.pop_front();
            self.first += LARGE as u64;
        }
    }

    /// Gives back the memory, if nothing is in it.
    pub(super) fn release(&mut self) {
        self.blocks = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Stock;
    use super::*;

    #[test]
    fn bytes_come_in_any_order_and_go_in_theirs() {
        let stock = Stock::new(1 << 30);
        let mut queue = Incoming::new(stock.account(1 << 30), 1);
        let all: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
        for (from, to) in [
            (200_000, 300_000),
            (0, 10),
            (10, 120_000),
            (110_000, 200_000),
        ] {
            let written = queue.write(1 + from as u64, &all[from..to], false);
            assert_eq!(written, to - from);
        }
        let mut got = Vec::new();
        loop {
            let piece = queue.front(300_001);
            if piece.is_empty() {
                break;
            }
            let n = piece.len().min(50_000);
            got.extend_from_slice(&piece[..n]);
            queue.consume(n);
        }
        assert!(got == all);
        queue.release();
        assert_eq!(stock.used(), 0);
    }

    #[test]
    fn a_gap_takes_no_memory_and_a_limit_stops_a_write() {
        let stock = Stock::new(2 * LARGE);
        let mut queue = Incoming::new(stock.account(2 * LARGE), 1);
        assert_eq!(queue.write(1 + 3 * LARGE as u64, &[1; 10], false), 10);
        assert_eq!(stock.used(), LARGE);
        assert_eq!(queue.write(1, &[2; 2 * LARGE], false), LARGE);
        assert_eq!(queue.front(1 + LARGE as u64).len(), LARGE);
    }

    #[test]
    fn what_was_never_written_can_be_passed_over() {
        let stock = Stock::new(1 << 20);
        let mut queue = Incoming::new(stock.account(1 << 20), 1);
        queue.consume(1000);
        queue.write(1001, b"abc", false);
        assert_eq!(queue.front(1004), b"abc");
        queue.consume(3);
        assert!(queue.front(1004).is_empty());
    }
}
