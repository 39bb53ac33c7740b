//! Ring memory: taken from a pool, never zeroed for a flow.

use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;

/// Bytes kept for reuse, all sizes together.
const KEPT: usize = 32 << 20;
/// The smallest ring.
pub(super) const MIN_RING: usize = 4 << 10;
/// Sizes are powers of two from [`MIN_RING`]; this many of them.
const CLASSES: usize = 15;

#[derive(Debug, Default)]
struct Shelves {
    classes: [Vec<NonNull<[u8]>>; CLASSES],
    kept: usize,
}

impl Drop for Shelves {
    fn drop(&mut self) {
        for memory in self.classes.iter_mut().flat_map(std::mem::take) {
            // SAFETY: only `Ring::drop` puts pointers here, each from `Box::into_raw` and no longer used.
            drop(unsafe { Box::from_raw(memory.as_ptr()) });
        }
    }
}

// SAFETY: the shelves own their memory; no other pointer to it exists.
unsafe impl Send for Shelves {}

/// The pool. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct RingPool(Arc<Mutex<Shelves>>);

impl RingPool {
    /// Memory of this many bytes, a power of two; its content is whatever was there before.
    pub(super) fn take(&self, size: usize) -> Ring {
        let kept = class(size).and_then(|class| {
            let mut shelves = self.0.lock();
            let memory = shelves.classes[class].pop()?;
            shelves.kept -= memory.len();
            Some(memory)
        });
        let memory = kept.unwrap_or_else(|| {
            let fresh = Box::into_raw(vec![0; size].into_boxed_slice());
            // SAFETY: `Box::into_raw` never gives null.
            unsafe { NonNull::new_unchecked(fresh) }
        });
        Ring {
            memory,
            pool: Arc::clone(&self.0),
        }
    }
}

fn class(size: usize) -> Option<usize> {
    let class = (size.is_power_of_two() && size >= MIN_RING)
        .then(|| (size.trailing_zeros() - MIN_RING.trailing_zeros()) as usize)?;
    (class < CLASSES).then_some(class)
}

/// One piece of ring memory, back to the pool on drop.
#[derive(Debug)]
pub(super) struct Ring {
    memory: NonNull<[u8]>,
    pool: Arc<Mutex<Shelves>>,
}

// SAFETY: the ring owns its memory; whoever got a slice of it moves with it, by `slice`'s contract.
unsafe impl Send for Ring {}

impl Ring {
    pub(super) fn len(&self) -> usize {
        self.memory.len()
    }

    /// The memory, with a lifetime that the compiler can't check.
    ///
    /// # Safety
    /// The slice must not be used after this ring is dropped, and no second one may be made while it is
    /// in use.
    pub(super) unsafe fn slice(&mut self) -> &'static mut [u8] {
        // SAFETY: the memory is ours, initialised, and alive until `self` is dropped; that it is used no
        // longer and only once is the caller's promise.
        unsafe { self.memory.as_mut() }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let len = self.memory.len();
        let mut shelves = self.pool.lock();
        if let Some(class) = class(len)
            && shelves.kept + len <= KEPT
        {
            shelves.kept += len;
            shelves.classes[class].push(self.memory);
            return;
        }
        // SAFETY: the pointer came from `Box::into_raw`, and by `slice`'s contract nobody uses it any more.
        drop(unsafe { Box::from_raw(self.memory.as_ptr()) });
    }
}

/// The size of each of a new flow's two rings, or `None` when the peer's budget is used up.
///
/// Half of the budget is set aside so that every flow up to the limit gets a small ring. The other half
/// goes out in shares of what is left of it: the first flows get large rings, later ones smaller ones.
pub(in super::super) fn ring_size(
    budget: usize,
    used: usize,
    flows: usize,
    max_flows: usize,
    max_ring: usize,
) -> Option<usize> {
    let floor = floor_power_of_two(budget / 4 / max_flows.max(1)).max(MIN_RING);
    let extra_used = used.saturating_sub(2 * floor * flows);
    let extra_left = (budget / 2).saturating_sub(extra_used);
    let max = floor_power_of_two(max_ring).max(floor);
    let size = floor_power_of_two(extra_left / 32).clamp(floor, max);
    (used + 2 * size <= budget).then_some(size)
}

fn floor_power_of_two(n: usize) -> usize {
    match n.checked_ilog2() {
        Some(log) => 1 << log,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_is_not_zeroed() {
        let pool = RingPool::default();
        let mut ring = pool.take(8192);
        // SAFETY: used before the drop below, once.
        unsafe { ring.slice() }.fill(7);
        drop(ring);
        let mut again = pool.take(8192);
        // SAFETY: as above.
        assert!(unsafe { again.slice() }.iter().all(|b| *b == 7));
        assert_eq!(pool.take(4096).len(), 4096);
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_bound() {
        let pool = RingPool::default();
        let rings: Vec<_> = (0..40).map(|_| pool.take(1 << 20)).collect();
        drop(rings);
        assert_eq!(pool.0.lock().kept, KEPT);
    }

    #[test]
    fn first_flows_get_large_rings_and_the_last_still_gets_one() {
        let (budget, max_flows) = (128 << 20, 4096);
        let mut used = 0;
        let mut sizes = Vec::new();
        for flows in 0..max_flows {
            let size =
                ring_size(budget, used, flows, max_flows, 1 << 20).expect("within the limit");
            used += 2 * size;
            sizes.push(size);
        }
        assert!(sizes[..16].iter().all(|s| *s == 1 << 20));
        assert!(sizes.is_sorted_by(|a, b| a >= b));
        assert_eq!(sizes.last(), Some(&(8 << 10)));
        assert!(used <= budget);
        assert_eq!(ring_size(64 << 10, 64 << 10, 8, 16, 1 << 20), None);
    }
}
