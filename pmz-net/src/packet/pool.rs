//! Buffers for frames that go from thread to thread.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{MAX_FRAME, VNET_HDR_LEN};

/// A buffer's length: the longest frame, and behind it room for its virtio-net header once more.
const BUFFER: usize = MAX_FRAME + VNET_HDR_LEN;

/// A bounded stock of buffers for frames of up to [`MAX_FRAME`] bytes. Clones share the stock.
#[derive(Clone)]
pub struct BufferPool {
    stock: Arc<Stock>,
}

struct Stock {
    shelf: Mutex<Shelf>,
    capacity: usize,
}

struct Shelf {
    free: Vec<Vec<u8>>,
    /// Buffers made so far, on the shelf and out.
    made: usize,
}

impl BufferPool {
    /// A pool of at most `capacity` buffers; each is made when it is first needed.
    pub fn new(capacity: usize) -> Self {
        Self {
            stock: Arc::new(Stock {
                shelf: Mutex::new(Shelf {
                    free: Vec::with_capacity(capacity),
                    made: 0,
                }),
                capacity,
            }),
        }
    }

    /// An empty frame, or `None` while all buffers are out.
    pub fn take(&self) -> Option<PooledFrame> {
        let recycled = {
            let mut shelf = self.stock.shelf.lock();
            let recycled = shelf.free.pop();
            if recycled.is_none() {
                if shelf.made == self.stock.capacity {
                    return None;
                }
                shelf.made += 1;
            }
            recycled
        };
        Some(PooledFrame {
            buffer: recycled.unwrap_or_else(|| vec![0; BUFFER]),
            len: 0,
            stock: Arc::clone(&self.stock),
        })
    }

    /// A frame holding a copy of `bytes`; `None` while all buffers are out or if `bytes` is longer than [`MAX_FRAME`].
    pub fn copy_of(&self, bytes: &[u8]) -> Option<PooledFrame> {
        if bytes.len() > MAX_FRAME {
            return None;
        }
        let mut frame = self.take()?;
        frame.space()[..bytes.len()].copy_from_slice(bytes);
        frame.set_len(bytes.len());
        Some(frame)
    }

    /// How many buffers are out.
    pub fn in_use(&self) -> usize {
        let shelf = self.stock.shelf.lock();
        shelf.made - shelf.free.len()
    }

    /// How many buffers can be out at once.
    pub fn capacity(&self) -> usize {
        self.stock.capacity
    }
}

/// A frame in a buffer of a pool, which it goes back to when dropped.
pub struct PooledFrame {
    buffer: Vec<u8>,
    len: usize,
    stock: Arc<Stock>,
}

impl PooledFrame {
    /// Room for the longest frame, [`MAX_FRAME`] bytes, to write into. What stands in it is left from earlier.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.buffer[..MAX_FRAME]
    }

    /// Says how much of the buffer the frame is; more than [`MAX_FRAME`] counts as that.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(MAX_FRAME);
    }

    /// The packet with its virtio-net header behind it. A frame of fewer bytes than such a header has no packet.
    pub fn header_behind(&mut self) -> &[u8] {
        let len = self.len.max(VNET_HDR_LEN);
        self.buffer.copy_within(..VNET_HDR_LEN, len);
        &self.buffer[VNET_HDR_LEN..len + VNET_HDR_LEN]
    }
}

impl Deref for PooledFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for PooledFrame {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }
}

impl Drop for PooledFrame {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.stock.shelf.lock().free.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_frames_buffer_is_used_again() {
        let pool = BufferPool::new(1);
        let frame = pool.copy_of(b"one").unwrap();
        let at = frame.as_ptr();
        assert_eq!(pool.in_use(), 1);
        drop(frame);
        assert_eq!(pool.in_use(), 0);
        let frame = pool.copy_of(b"another").unwrap();
        assert_eq!(frame.as_ptr(), at);
        assert_eq!(&frame[..], b"another");
    }

    #[test]
    fn no_more_buffers_than_allowed_are_out() {
        let pool = BufferPool::new(3);
        let mut frames: Vec<_> = std::iter::from_fn(|| pool.clone().take()).collect();
        assert_eq!(frames.len(), 3);
        assert_eq!(pool.in_use(), 3);
        frames.pop();
        assert!(pool.copy_of(b"x").is_some());
    }

    #[test]
    fn a_frame_is_as_long_as_it_says() {
        let pool = BufferPool::new(1);
        let mut frame = pool.take().unwrap();
        assert!(frame.is_empty());
        assert_eq!(frame.space().len(), MAX_FRAME);
        frame.space()[..3].copy_from_slice(b"abc");
        frame.set_len(3);
        frame[0] = b'x';
        assert_eq!(&frame[..], b"xbc");
        frame.set_len(usize::MAX);
        assert_eq!(frame.len(), MAX_FRAME);
        drop(frame);
        assert!(pool.copy_of(&vec![0; MAX_FRAME + 1]).is_none());
    }

    #[test]
    fn the_header_is_put_behind_the_packet_also_of_the_longest_frame() {
        let pool = BufferPool::new(1);
        let mut frame = pool.copy_of(b"0123456789packet").unwrap();
        assert_eq!(frame.header_behind(), b"packet0123456789");
        assert_eq!(&frame[..], b"0123456789packet");
        drop(frame);
        let longest: Vec<u8> = (0..MAX_FRAME).map(|at| at as u8).collect();
        let mut frame = pool.copy_of(&longest).unwrap();
        let (header, packet) = longest.split_at(VNET_HDR_LEN);
        assert_eq!(frame.header_behind(), [packet, header].concat());
        frame.set_len(3);
        assert_eq!(frame.header_behind().len(), VNET_HDR_LEN);
    }

    #[test]
    fn frames_go_from_thread_to_thread() {
        let pool = BufferPool::new(4);
        let (sender, receiver) = std::sync::mpsc::sync_channel::<PooledFrame>(2);
        let reader = std::thread::spawn(move || receiver.iter().map(|f| f.len()).sum::<usize>());
        let mut expected = 0;
        for len in 1..500 {
            // Waits for the reader only by the channel: of four buffers two are queued and one is being read.
            let frame = loop {
                match pool.copy_of(&vec![1; len]) {
                    Some(frame) => break frame,
                    None => std::thread::yield_now(),
                }
            };
            expected += len;
            sender.send(frame).unwrap();
        }
        drop(sender);
        assert_eq!(reader.join().unwrap(), expected);
        assert_eq!(pool.in_use(), 0);
    }
}
