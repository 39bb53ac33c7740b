//! Bytes that the application gave, kept until they are acknowledged.

use std::collections::VecDeque;

use super::memory::{Account, Block, LARGE, SMALL};

/// A block that is filled from its front; the first one is also emptied from there.
#[derive(Debug)]
struct Piece {
    block: Block,
    /// Number of the byte that stands at the block's front.
    first: u64,
    filled: usize,
}

impl Piece {
    fn end(&self) -> u64 {
        self.first + self.filled as u64
    }
}

/// A queue of bytes, each with its sequence number.
#[derive(Debug)]
pub(super) struct Outgoing {
    account: Account,
    pieces: VecDeque<Piece>,
    start: u64,
    end: u64,
}

impl Outgoing {
    pub(super) fn new(account: Account, first: u64) -> Self {
        Self {
            account,
            pieces: VecDeque::new(),
            start: first,
            end: first,
        }
    }

    /// The number behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes in the queue.
    pub(super) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Room behind the last byte, in one piece. Empty where memory is refused; never so while the queue is
    /// empty.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let full = self
            .pieces
            .back()
            .is_none_or(|piece| piece.filled == piece.block.len());
        if full {
            let block = match self.account.take_spare(LARGE) {
                Some(block) => block,
                None if self.pieces.is_empty() => self.account.take_reserved(SMALL),
                None => return &mut [],
            };
            self.pieces.push_back(Piece {
                block,
                first: self.end,
                filled: 0,
            });
        }
        match self.pieces.back_mut() {
            Some(piece) => &mut piece.block[piece.filled..],
            None => &mut [],
        }
    }

    /// Appends the first `n` bytes of [`Outgoing::room`].
    pub(super) fn commit(&mut self, n: usize) {
        let Some(piece) = self.pieces.back_mut() else {
            return;
        };
        let n = n.min(piece.block.len() - piece.filled);
        piece.filled += n;
        self.end += n as u64;
        if piece.filled == 0 {
            self.pieces.pop_back();
        } else if piece.filled <= SMALL / 2
            && piece.block.len() > SMALL
            && let Some(mut small) = self.account.take_spare(SMALL)
        {
            // Few bytes must not hold a large block as long as a round trip takes.
            small[..piece.filled].copy_from_slice(&piece.block[..piece.filled]);
            piece.block = small;
        }
    }

    /// Copies the bytes from `from` on into all of `out`; they must be in the queue.
    pub(super) fn copy(&self, from: u64, out: &mut [u8]) {
        let mut done = 0;
        for slice in self.slices(from, out.len()) {
            out[done..done + slice.len()].copy_from_slice(slice);
            done += slice.len();
        }
        debug_assert_eq!(done, out.len(), "bytes that are not there");
    }

    /// The bytes from `from` on, at most `len` of them, in their pieces.
    pub(super) fn slices(&self, from: u64, len: usize) -> impl Iterator<Item = &[u8]> {
        let index = self.pieces.partition_point(|piece| piece.end() <= from);
        let mut at = from;
        let mut left = len;
        self.pieces.range(index..).map_while(move |piece| {
            let begin = at.checked_sub(piece.first)? as usize;
            let n = left.min(piece.filled.saturating_sub(begin));
            if n == 0 {
                return None;
            }
            at += n as u64;
            left -= n;
            Some(&piece.block[begin..begin + n])
        })
    }

    /// The bytes from `from` on, if they stand in no more than two pieces.
    pub(super) fn two_pieces(&self, from: u64, len: usize) -> Option<[&[u8]; 2]> {
        let mut slices = self.slices(from, len);
        let pieces = [
            slices.next().unwrap_or_default(),
            slices.next().unwrap_or_default(),
        ];
        (pieces[0].len() + pieces[1].len() == len).then_some(pieces)
    }

    /// Forgets the bytes before `number`.
    pub(super) fn release(&mut self, number: u64) {
        self.start = number.clamp(self.start, self.end);
        while self
            .pieces
            .front()
            .is_some_and(|piece| piece.end() <= self.start)
        {
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() && self.pieces.capacity() > 8 {
            self.pieces.shrink_to(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Stock;
    use super::*;

    fn put(queue: &mut Outgoing, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = queue.room();
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            queue.commit(n);
            bytes = &bytes[n..];
        }
    }

    fn pattern(from: u64, len: usize) -> Vec<u8> {
        (from..from + len as u64)
            .map(|i| (i * 7 % 251) as u8)
            .collect()
    }

    #[test]
    fn bytes_are_found_by_their_numbers_across_blocks() {
        let stock = Stock::new(1 << 30);
        let mut queue = Outgoing::new(stock.account(1 << 30), 1);
        let mut end = 1;
        for len in [1, 3000, 1, 60_000, 200_000, 5, 4096] {
            put(&mut queue, &pattern(end, len));
            end += len as u64;
        }
        assert_eq!((queue.end(), queue.len()), (end, (end - 1) as usize));
        for (from, len) in [
            (1, 1),
            (2, 3500),
            (100, 200_000),
            (end - 1, 1),
            (60_000, 8000),
        ] {
            let mut out = vec![0; len];
            queue.copy(from, &mut out);
            assert_eq!(out, pattern(from, len), "{len} from {from}");
        }
        queue.release(100_000);
        let mut out = vec![0; 1000];
        queue.copy(100_000, &mut out);
        assert_eq!(out, pattern(100_000, 1000));
        queue.release(end + 10);
        assert_eq!((queue.len(), stock.used()), (0, 0));
    }

    #[test]
    fn few_bytes_hold_a_small_block_and_nothing_holds_none() {
        let stock = Stock::new(1 << 20);
        let mut queue = Outgoing::new(stock.account(1 << 20), 1);
        put(&mut queue, b"x");
        assert_eq!(stock.used(), SMALL);
        queue.room();
        queue.commit(0);
        queue.release(2);
        assert_eq!(stock.used(), 0);
        queue.room();
        queue.commit(0);
        assert_eq!(stock.used(), 0);
    }

    #[test]
    fn a_queue_without_bytes_gets_room_whatever_the_limits_say() {
        let stock = Stock::new(0);
        let mut queue = Outgoing::new(stock.account(0), 1);
        put(&mut queue, &[1; SMALL]);
        assert!(queue.room().is_empty());
        queue.release(1 + SMALL as u64);
        assert!(!queue.room().is_empty());
    }
}
