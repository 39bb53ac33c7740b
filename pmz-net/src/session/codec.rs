//! Frames of the control protocol on a byte stream: a 32-bit big-endian length, then that much JSON.
//!
//! The length is never believed: a buffer grows with the bytes that have come, not with what was
//! announced, and a frame above the caller's limit is refused at its fourth byte.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::MAX_FRAME;

/// Bytes of the length before each frame.
const HEADER: usize = 4;
/// The most that is reserved ahead of the bytes that have come.
const READ_AHEAD: usize = 64 << 10;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The other end announced a frame above the limit. The stream can't be read any further.
    #[error("a frame of {length} bytes was announced, the limit here is {limit}")]
    TooLarge {
        /// Announced, in bytes.
        length: usize,
        /// Allowed, in bytes.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("the connection ended inside a frame, after {got} of {wanted} bytes")]
    Truncated {
        /// Bytes of the frame that came, its length field among them.
        got: usize,
        /// Bytes that it should have had.
        wanted: usize,
    },
    /// A frame that is not the message that was expected here.
    #[error("a frame is not the message expected here: {0}")]
    Malformed(#[source] serde_json::Error),
    /// A message of ours that does not fit into a frame.
    #[error("a message could not be made into a frame: {0}")]
    Unencodable(#[source] serde_json::Error),
    /// The stream itself failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// The bytes of one frame: length and JSON.
///
/// # Errors
/// [`CodecError::Unencodable`] where serde refuses the message, [`CodecError::TooLarge`] above
/// [`MAX_FRAME`], which no other end would take.
pub fn encode<T: Serialize + ?Sized>(message: &T) -> Result<Vec<u8>, CodecError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message).map_err(CodecError::Unencodable)?;
    let length = frame.len() - HEADER;
    let header = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME);
    let Some(header) = header else {
        return Err(CodecError::TooLarge {
            length,
            limit: MAX_FRAME,
        });
    };
    frame[..HEADER].copy_from_slice(&header.to_be_bytes());
    Ok(frame)
}

/// Takes one frame off the front of `buffer`; `None` while it isn't complete.
///
/// # Errors
/// [`CodecError::TooLarge`] as soon as the length is there, [`CodecError::Malformed`] for a frame that
/// is not a `T`. After `Malformed` the frame is gone from the buffer and the next one can be read.
pub fn decode<T: DeserializeOwned>(
    buffer: &mut BytesMut,
    limit: usize,
) -> Result<Option<T>, CodecError> {
    let Some(length) = announced(buffer, limit)? else {
        return Ok(None);
    };
    if buffer.len() - HEADER < length {
        return Ok(None);
    }
    buffer.advance(HEADER);
    let body = buffer.split_to(length);
    serde_json::from_slice(&body)
        .map(Some)
        .map_err(CodecError::Malformed)
}

/// Reads one frame and not a byte more, so that the stream can become something else after it.
/// `None` where the stream ended before the frame's first byte.
///
/// Not cancel-safe: a caller that gives up waiting must give up the stream. See [`FrameReader`].
///
/// # Errors
/// As [`decode`]; [`CodecError::Truncated`] where the stream ends within the frame.
pub async fn read_frame<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<Option<T>, CodecError> {
    let mut buffer = BytesMut::new();
    loop {
        let wanted = HEADER + announced(&buffer, limit)?.unwrap_or(0);
        if buffer.len() >= HEADER && buffer.len() >= wanted {
            return decode(&mut buffer, limit);
        }
        let missing = (wanted - buffer.len()).min(READ_AHEAD);
        buffer.reserve(missing);
        if reader.read_buf(&mut (&mut buffer).limit(missing)).await? == 0 {
            return end_of_stream(&buffer, limit);
        }
    }
}

/// Writes one message as a frame, and flushes.
///
/// # Errors
/// As [`encode`], and those of the stream.
pub async fn write_frame<T: Serialize + ?Sized>(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), CodecError> {
    let frame = encode(message)?;
    writer.write_all(&frame).await?;
    writer.flush().await?;
    Ok(())
}

/// Reads frames from a stream, keeping what it has read of the next one.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    limit: usize,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader that refuses frames above `limit` bytes.
    pub fn new(reader: R, limit: usize) -> Self {
        Self {
            reader,
            limit,
            buffer: BytesMut::new(),
        }
    }

    /// Changes the limit for the frames that follow, say once the other end has said who it is.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The stream, and what was read of it beyond the last frame.
    pub fn into_parts(self) -> (R, BytesMut) {
        (self.reader, self.buffer)
    }

    /// The next message; `None` where the stream ended between two frames.
    ///
    /// Cancel-safe: what has been read of a frame stays here until the rest comes.
    ///
    /// # Errors
    /// As [`read_frame`]. After [`CodecError::Malformed`] the next frame can be read, after any other
    /// error the stream is of no more use.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CodecError> {
        loop {
            if let Some(message) = decode(&mut self.buffer, self.limit)? {
                return Ok(Some(message));
            }
            let wanted = HEADER + announced(&self.buffer, self.limit)?.unwrap_or(0);
            let missing = wanted.saturating_sub(self.buffer.len());
            self.buffer.reserve(missing.clamp(HEADER, READ_AHEAD));
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return end_of_stream(&self.buffer, self.limit);
            }
        }
    }
}

/// The length of the frame at the front, once its header is there.
fn announced(buffer: &[u8], limit: usize) -> Result<Option<usize>, CodecError> {
    let Some(header) = buffer.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*header) as usize;
    if length > limit {
        return Err(CodecError::TooLarge { length, limit });
    }
    Ok(Some(length))
}

fn end_of_stream<T>(buffer: &[u8], limit: usize) -> Result<Option<T>, CodecError> {
    if buffer.is_empty() {
        return Ok(None);
    }
    let wanted = HEADER + announced(buffer, limit)?.unwrap_or(0);
    Err(CodecError::Truncated {
        got: buffer.len(),
        wanted,
    })
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use tokio::io::ReadBuf;

    use super::*;
    use crate::session::{MAX_OPEN_FRAME, ToAgent};

    /// Gives one byte per read, and lets the reader wait before each.
    struct Trickle {
        bytes: Vec<u8>,
        at: usize,
        rested: bool,
    }

    impl Trickle {
        fn new(bytes: Vec<u8>) -> Self {
            Self {
                bytes,
                at: 0,
                rested: false,
            }
        }
    }

    impl AsyncRead for Trickle {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if !self.rested {
                self.rested = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.rested = false;
            if let Some(byte) = self.bytes.get(self.at).copied() {
                buffer.put_slice(&[byte]);
                self.at += 1;
            }
            Poll::Ready(Ok(()))
        }
    }

    fn pings(count: u64) -> Vec<u8> {
        (0..count)
            .flat_map(|nonce| encode(&ToAgent::Ping { nonce }).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn messages_come_out_as_they_went_in() {
        let (mut near, far) = tokio::io::duplex(16);
        let writer = tokio::spawn(async move {
            write_frame(&mut near, &ToAgent::Ping { nonce: 7 })
                .await
                .unwrap();
            write_frame(&mut near, &ToAgent::Bye).await.unwrap();
        });
        let mut frames = FrameReader::new(far, MAX_OPEN_FRAME);
        assert_eq!(
            frames.next().await.unwrap(),
            Some(ToAgent::Ping { nonce: 7 })
        );
        assert_eq!(frames.next().await.unwrap(), Some(ToAgent::Bye));
        assert_eq!(frames.next::<ToAgent>().await.unwrap(), None);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn frames_fed_byte_by_byte_are_put_together() {
        let mut frames = FrameReader::new(Trickle::new(pings(3)), MAX_OPEN_FRAME);
        for nonce in 0..3 {
            assert_eq!(frames.next().await.unwrap(), Some(ToAgent::Ping { nonce }));
        }
        assert_eq!(frames.next::<ToAgent>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_cancelled_next_loses_no_byte() {
        let mut frames = FrameReader::new(Trickle::new(pings(2)), MAX_OPEN_FRAME);
        let mut cancelled = 0;
        for nonce in 0..2 {
            loop {
                tokio::select! {
                    biased;
                    message = frames.next::<ToAgent>() => {
                        assert_eq!(message.unwrap(), Some(ToAgent::Ping { nonce }));
                        break;
                    }
                    () = std::future::ready(()) => cancelled += 1,
                }
            }
        }
        assert!(cancelled > 20, "every byte was waited for: {cancelled}");
    }

    #[tokio::test]
    async fn read_frame_takes_no_byte_of_what_follows() {
        let mut bytes = encode(&ToAgent::Bye).unwrap();
        bytes.extend_from_slice(b"carrier");
        let mut stream = bytes.as_slice();
        assert_eq!(
            read_frame(&mut stream, MAX_OPEN_FRAME).await.unwrap(),
            Some(ToAgent::Bye)
        );
        assert_eq!(stream, b"carrier");
        let mut nothing: &[u8] = &[];
        assert_eq!(
            read_frame::<ToAgent>(&mut nothing, MAX_OPEN_FRAME)
                .await
                .unwrap(),
            None
        );
    }

    #[tokio::test]
    async fn an_oversized_frame_is_refused_at_its_header() {
        // The stream stays open and says nothing more: the header alone must be enough.
        let (mut near, far) = tokio::io::duplex(16);
        near.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let mut frames = FrameReader::new(far, 100);
        let error = tokio::time::timeout(Duration::from_secs(5), frames.next::<ToAgent>())
            .await
            .unwrap()
            .unwrap_err();
        assert!(matches!(
            error,
            CodecError::TooLarge {
                length: 0xffff_ffff,
                limit: 100
            }
        ));

        let mut header: &[u8] = &101u32.to_be_bytes();
        let error = read_frame::<ToAgent>(&mut header, 100).await.unwrap_err();
        assert!(matches!(
            error,
            CodecError::TooLarge {
                length: 101,
                limit: 100
            }
        ));
    }

    #[tokio::test]
    async fn an_announced_length_reserves_no_memory() {
        let bytes = (MAX_FRAME as u32).to_be_bytes().to_vec();
        let mut frames = FrameReader::new(Trickle::new(bytes), MAX_FRAME);
        let error = frames.next::<ToAgent>().await.unwrap_err();
        assert!(matches!(error, CodecError::Truncated { got: 4, .. }));
        assert!(frames.into_parts().1.capacity() <= 2 * READ_AHEAD);
    }

    #[tokio::test]
    async fn garbage_in_a_frame_is_malformed_and_the_next_frame_is_read() {
        let mut bytes = 5u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(b"\xff\x00{[}");
        bytes.extend(encode(&ToAgent::Bye).unwrap());
        let mut frames = FrameReader::new(bytes.as_slice(), MAX_OPEN_FRAME);
        assert!(matches!(
            frames.next::<ToAgent>().await,
            Err(CodecError::Malformed(_))
        ));
        assert_eq!(frames.next().await.unwrap(), Some(ToAgent::Bye));
    }

    #[tokio::test]
    async fn an_end_within_a_frame_is_told_from_an_end_between_frames() {
        let whole = encode(&ToAgent::Bye).unwrap();
        for cut in 1..whole.len() {
            let error = read_frame::<ToAgent>(&mut &whole[..cut], 100)
                .await
                .unwrap_err();
            assert!(
                matches!(error, CodecError::Truncated { got, .. } if got == cut),
                "{error}"
            );
            let error = FrameReader::new(&whole[..cut], 100)
                .next::<ToAgent>()
                .await
                .unwrap_err();
            assert!(
                matches!(error, CodecError::Truncated { got, .. } if got == cut),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn an_empty_frame_is_malformed() {
        let mut frame: &[u8] = &[0; HEADER];
        let error = read_frame::<ToAgent>(&mut frame, 100).await.unwrap_err();
        assert!(matches!(error, CodecError::Malformed(_)));
    }

    #[test]
    fn a_message_above_the_largest_frame_is_not_sent() {
        let text = "x".repeat(MAX_FRAME);
        assert!(matches!(encode(&text), Err(CodecError::TooLarge { .. })));
    }
}
