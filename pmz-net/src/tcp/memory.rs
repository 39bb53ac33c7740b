//! Memory for payload: blocks from a stock, with a bound for all connections together and one for each
//! peer's.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// Bytes of a block for little.
pub(super) const SMALL: usize = 4 << 10;
/// Bytes of a block for much.
pub(super) const LARGE: usize = 64 << 10;
/// Bytes of unused blocks that are kept.
const KEPT: usize = 32 << 20;

/// What the blocks of all connections are taken from. It lives on one thread; clones share it.
#[derive(Clone, Debug)]
pub struct Stock(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    used: Cell<usize>,
    /// How often a block was refused because of this limit, and because of a peer's.
    refused: Cell<u64>,
    refused_to_peers: Cell<u64>,
    small: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
    kept: Cell<usize>,
}

impl Stock {
    /// A stock of which at most `limit` bytes are out.
    pub fn new(limit: usize) -> Self {
        Self(Rc::new(Inner {
            limit,
            used: Cell::new(0),
            refused: Cell::new(0),
            refused_to_peers: Cell::new(0),
            small: RefCell::default(),
            large: RefCell::default(),
            kept: Cell::new(0),
        }))
    }

    /// An account of one peer: at most `limit` bytes of its blocks are out.
    pub fn account(&self, limit: usize) -> Account {
        Account(Rc::new(Ledger {
            stock: Rc::clone(&self.0),
            limit,
            used: Cell::new(0),
        }))
    }

    /// Bytes of blocks that are out.
    pub fn used(&self) -> usize {
        self.0.used.get()
    }

    /// How often a block was refused because of the stock's limit, and because of a peer's.
    pub fn refused(&self) -> (u64, u64) {
        (self.0.refused.get(), self.0.refused_to_peers.get())
    }
}

impl Inner {
    fn shelf(&self, size: usize) -> &RefCell<Vec<Box<[u8]>>> {
        if size == SMALL {
            &self.small
        } else {
            &self.large
        }
    }

    fn take(&self, size: usize) -> Box<[u8]> {
        self.used.set(self.used.get() + size);
        match self.shelf(size).borrow_mut().pop() {
            Some(kept) => {
                self.kept.set(self.kept.get() - size);
                kept
            }
            None => vec![0; size].into_boxed_slice(),
        }
    }

    fn put(&self, memory: Box<[u8]>) {
        let size = memory.len();
        self.used.set(self.used.get() - size);
        if self.kept.get() + size <= KEPT {
            self.kept.set(self.kept.get() + size);
            self.shelf(size).borrow_mut().push(memory);
        }
    }
}

/// One peer's part of a [`Stock`]. Clones share it.
#[derive(Clone, Debug)]
pub struct Account(Rc<Ledger>);

#[derive(Debug)]
struct Ledger {
    stock: Rc<Inner>,
    limit: usize,
    used: Cell<usize>,
}

impl Account {
    /// A block of [`SMALL`] or [`LARGE`] bytes; its content is whatever was there before. `None` where a
    /// limit forbids it, which is counted.
    pub fn take(&self, size: usize) -> Option<Block> {
        self.take_leaving(size, 0)
    }

    /// As [`Account::take`], but leaves a block of [`LARGE`] bytes: what is sent, or stands behind a gap, must
    /// not hold up what the application could take and so give memory back.
    pub fn take_spare(&self, size: usize) -> Option<Block> {
        self.take_leaving(size, LARGE)
    }

    fn take_leaving(&self, size: usize, spare: usize) -> Option<Block> {
        let (ledger, stock) = (&self.0, &self.0.stock);
        let counter = if ledger.used.get() + size + spare > ledger.limit {
            &stock.refused_to_peers
        } else if stock.used.get() + size + spare > stock.limit {
            &stock.refused
        } else {
            return Some(self.take_reserved(size));
        };
        counter.set(counter.get() + 1);
        None
    }

    /// A block in spite of the limits: what a connection needs to get on at all.
    pub fn take_reserved(&self, size: usize) -> Block {
        self.0.used.set(self.0.used.get() + size);
        Block {
            memory: self.0.stock.take(size),
            account: Rc::clone(&self.0),
        }
    }

    /// Bytes that may still be taken.
    pub fn left(&self) -> usize {
        let peer = self.0.limit.saturating_sub(self.0.used.get());
        let all = self.0.stock.limit.saturating_sub(self.0.stock.used.get());
        peer.min(all)
    }

    /// Bytes of blocks that are out.
    pub fn used(&self) -> usize {
        self.0.used.get()
    }
}

/// A block of memory, back to its stock on drop.
#[derive(Debug)]
pub struct Block {
    memory: Box<[u8]>,
    account: Rc<Ledger>,
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let used = &self.account.used;
        used.set(used.get() - memory.len());
        self.account.stock.put(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_and_is_taken_again_as_it_was() {
        let stock = Stock::new(1 << 20);
        let account = stock.account(1 << 20);
        account.take(LARGE).unwrap().fill(7);
        assert_eq!((stock.used(), account.used()), (0, 0));
        let again = account.take(LARGE).unwrap();
        assert!(again.iter().all(|byte| *byte == 7));
        assert_eq!((stock.used(), account.used()), (LARGE, LARGE));
    }

    #[test]
    fn both_limits_hold_and_are_counted_apart() {
        let stock = Stock::new(3 * LARGE);
        let (one, other) = (stock.account(2 * LARGE), stock.account(2 * LARGE));
        let _blocks = [one.take(LARGE).unwrap(), one.take(LARGE).unwrap()];
        assert!(one.take(SMALL).is_none());
        assert_eq!(stock.refused(), (0, 1));
        let _block = other.take(LARGE).unwrap();
        assert!(other.take(SMALL).is_none());
        assert_eq!(stock.refused(), (1, 1));
        assert_eq!((one.left(), other.left()), (0, 0));
        assert_eq!(other.take_reserved(SMALL).len(), SMALL);
    }

    #[test]
    fn no_more_unused_memory_is_kept_than_said() {
        let stock = Stock::new(usize::MAX);
        let account = stock.account(usize::MAX);
        let blocks: Vec<_> = (0..KEPT / LARGE + 10)
            .map(|_| account.take(LARGE).unwrap())
            .collect();
        drop(blocks);
        assert_eq!(stock.0.kept.get(), KEPT);
    }
}
