//! Buffers for frames, taken from a pool and going back to it when dropped.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::packet::MAX_FRAME;

/// Room for an ordinary packet; larger frames get [`MAX_FRAME`].
const SMALL: usize = 2048;
/// Buffers kept for reuse: 2 MiB of small ones, at most 32 MiB of large ones.
const SMALL_KEPT: usize = 1024;
const LARGE_KEPT: usize = 512;

#[derive(Debug, Default)]
struct Shelf {
    small: Mutex<Vec<Vec<u8>>>,
    large: Mutex<Vec<Vec<u8>>>,
}

/// A pool of buffers in two sizes. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct FramePool(Arc<Shelf>);

impl FramePool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty frame that holds `capacity` bytes without allocating again.
    pub fn take(&self, capacity: usize) -> Frame {
        let (shelf, size) = if capacity <= SMALL {
            (&self.0.small, SMALL)
        } else {
            (&self.0.large, MAX_FRAME)
        };
        let kept = shelf.lock().pop();
        let buf = kept.unwrap_or_else(|| Vec::with_capacity(size.max(capacity)));
        Frame {
            buf,
            home: Some(Arc::clone(&self.0)),
        }
    }
}

/// A virtio-net header and an IP packet behind it. The buffer goes back to its pool on drop.
#[derive(Debug)]
pub struct Frame {
    buf: Vec<u8>,
    home: Option<Arc<Shelf>>,
}

impl Frame {
    /// Appends bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// The buffer itself, to be filled in place.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }
}

/// A frame of no pool.
impl From<Vec<u8>> for Frame {
    fn from(buf: Vec<u8>) -> Self {
        Self { buf, home: None }
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buf
    }
}

impl DerefMut for Frame {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buf
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else { return };
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        let (shelf, kept) = if buf.capacity() >= MAX_FRAME {
            (&home.large, LARGE_KEPT)
        } else if buf.capacity() >= SMALL {
            (&home.small, SMALL_KEPT)
        } else {
            return;
        };
        let mut shelf = shelf.lock();
        if shelf.len() < kept {
            shelf.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_frame_is_taken_again_empty() {
        let pool = FramePool::new();
        let mut frame = pool.take(100);
        frame.extend_from_slice(b"abc");
        let address = frame.as_ptr();
        drop(frame);
        let again = pool.take(SMALL);
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), address);
    }

    #[test]
    fn small_and_large_frames_do_not_mix() {
        let pool = FramePool::new();
        drop(pool.take(10));
        let mut large = pool.take(SMALL + 1);
        assert!(large.buffer().capacity() >= MAX_FRAME);
    }
}
