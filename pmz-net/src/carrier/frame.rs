//! Frames on a stream: a length, 4 bytes big-endian, then that many bytes. A frame of length 0 says only that
//! the sender lives.

use crate::packet::MAX_FRAME;

/// Bytes of the length before each frame.
pub const FRAME_HDR_LEN: usize = 4;

/// The longest frame: a super-packet with its virtio-net header and what WireGuard adds to it.
pub const MAX_FRAME_LEN: usize = MAX_FRAME + 64;

/// The buffer holds several of the longest frames, so that one read takes many frames and moving the
/// unfinished last one to the front is rare.
const BUFFER_LEN: usize = 4 * (FRAME_HDR_LEN + MAX_FRAME_LEN);

/// What can be wrong with a stream's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The stream can't be used any more: where the next frame begins is unknown.
    #[error(
        "a frame of {0} bytes was announced, the largest allowed is {MAX_FRAME_LEN}: the other end is not pmz, or the stream is damaged"
    )]
    TooLarge(usize),
}

/// The header of a frame of `len` bytes, at most [`MAX_FRAME_LEN`].
pub fn encode_header(len: usize) -> [u8; FRAME_HDR_LEN] {
    debug_assert!(len <= MAX_FRAME_LEN);
    (len as u32).to_be_bytes()
}

/// Finds the frames in a stream's bytes. Sans-IO: read into [`Decoder::buffer`], say how much with
/// [`Decoder::advance`], then take frames by [`Decoder::next`] until there is none.
pub struct Decoder {
    buffer: Box<[u8]>,
    /// Bytes before this one are done with.
    start: usize,
    /// Bytes from this one on are free.
    end: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// Space to read into; empty only where whole frames wait for [`Decoder::next`].
    pub fn buffer(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        if self.buffer.len() - self.end < FRAME_HDR_LEN + MAX_FRAME_LEN {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buffer[self.end..]
    }

    /// Says that `n` bytes were read into [`Decoder::buffer`]; more than it has count as all of it.
    pub fn advance(&mut self, n: usize) {
        self.end = (self.end + n).min(self.buffer.len());
    }

    /// The next whole frame, in place: the bytes may be changed. `None` if more must be read first.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`], again at each further call: the stream is to be closed.
    // Not an iterator: each frame borrows the decoder's buffer.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<&mut [u8]>, FrameError> {
        loop {
            let Some(header) = self.buffer[self.start..self.end].first_chunk() else {
                return Ok(None);
            };
            let len = u32::from_be_bytes(*header) as usize;
            if len > MAX_FRAME_LEN {
                return Err(FrameError::TooLarge(len));
            }
            let from = self.start + FRAME_HDR_LEN;
            if self.end - from < len {
                return Ok(None);
            }
            self.start = from + len;
            if len > 0 {
                return Ok(Some(&mut self.buffer[from..from + len]));
            }
        }
    }
}

#[cfg(test)]
mod tests;
