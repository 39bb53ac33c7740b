//! Memory for payload: blocks from a stock, with a bound for all connections together and one for each
//! peer's.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

/// Bytes of a block for little.
pub(super) const SMALL: usize = 4 << 10;
/// Bytes of a block for much.
pub(super) const LARGE: usize = 64 << 10;
/// Bytes of unused blocks that are kept.
const KEPT: usize = 32 << 20;

/// What the blocks of all connections are taken from. Clones share it. Its limits are exact where one thread at
/// a time takes blocks.
#[derive(Clone, Debug)]
pub struct Stock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    used: AtomicUsize,
    /// How often a block was refused because of this limit, and because of a peer's.
    refused: AtomicU64,
    refused_to_peers: AtomicU64,
    shelves: Mutex<Shelves>,
}

/// Blocks that are not in use.
#[derive(Debug, Default)]
struct Shelves {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
    /// Their bytes.
    kept: usize,
}

impl Shelves {
    fn of(&mut self, size: usize) -> &mut Vec<Box<[u8]>> {
        if size == SMALL {
            &mut self.small
        } else {
            &mut self.large
        }
    }
}

impl Stock {
    /// A stock of which at most `limit` bytes are out.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner {
            limit,
            used: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            refused_to_peers: AtomicU64::new(0),
            shelves: Mutex::default(),
        }))
    }

    /// An account of one peer: at most `limit` bytes of its blocks are out.
    pub fn account(&self, limit: usize) -> Account {
        Account(Arc::new(Ledger {
            stock: Arc::clone(&self.0),
            limit,
            used: AtomicUsize::new(0),
        }))
    }

    /// Bytes of blocks that are out.
    pub fn used(&self) -> usize {
        self.0.used.load(Relaxed)
    }

    /// How often a block was refused because of the stock's limit, and because of a peer's.
    pub fn refused(&self) -> (u64, u64) {
        let refused = [&self.0.refused, &self.0.refused_to_peers];
        let [all, peers] = refused.map(|counter| counter.load(Relaxed));
        (all, peers)
    }
}

impl Inner {
    fn take(&self, size: usize) -> Box<[u8]> {
        self.used.fetch_add(size, Relaxed);
        let mut shelves = self.shelves.lock();
        let Some(kept) = shelves.of(size).pop() else {
            drop(shelves);
            return vec![0; size].into_boxed_slice();
        };
        shelves.kept -= size;
        kept
    }

    fn put(&self, memory: Box<[u8]>) {
        let size = memory.len();
        self.used.fetch_sub(size, Relaxed);
        let mut shelves = self.shelves.lock();
        if shelves.kept + size <= KEPT {
            shelves.kept += size;
            shelves.of(size).push(memory);
        }
    }
}

/// One peer's part of a [`Stock`]. Clones share it.
#[derive(Clone, Debug)]
pub struct Account(Arc<Ledger>);

#[derive(Debug)]
struct Ledger {
    stock: Arc<Inner>,
    limit: usize,
    used: AtomicUsize,
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
        let counter = if ledger.used.load(Relaxed) + size + spare > ledger.limit {
            &stock.refused_to_peers
        } else if stock.used.load(Relaxed) + size + spare > stock.limit {
            &stock.refused
        } else {
            return Some(self.take_reserved(size));
        };
        counter.fetch_add(1, Relaxed);
        None
    }

    /// A block in spite of the limits: what a connection needs to get on at all.
    pub fn take_reserved(&self, size: usize) -> Block {
        self.0.used.fetch_add(size, Relaxed);
        Block {
            memory: self.0.stock.take(size),
            account: Arc::clone(&self.0),
        }
    }

    /// Bytes that may still be taken.
    pub fn left(&self) -> usize {
        let peer = self.0.limit.saturating_sub(self.0.used.load(Relaxed));
        let stock = &self.0.stock;
        let all = stock.limit.saturating_sub(stock.used.load(Relaxed));
        peer.min(all)
    }

    /// Bytes of blocks that are out.
    pub fn used(&self) -> usize {
        self.0.used.load(Relaxed)
    }
}

/// A block of memory, back to its stock on drop.
#[derive(Debug)]
pub struct Block {
    memory: Box<[u8]>,
    account: Arc<Ledger>,
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
        self.account.used.fetch_sub(memory.len(), Relaxed);
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
        assert_eq!(stock.0.shelves.lock().kept, KEPT);
    }
}
