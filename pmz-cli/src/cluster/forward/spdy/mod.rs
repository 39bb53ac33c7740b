//! A port-forward by SPDY/3.1: two streams on the connection, one for what goes wrong and one for the bytes.

mod frame;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use frame::{FIN, HEADER_LEN, Header};

/// Tells what went wrong, in words. The client's streams have odd numbers.
const ERROR: u32 = 1;
const DATA: u32 = 3;

/// Bytes in one frame. The node reads a frame whole before it passes it on.
const MAX_FRAME: usize = 64 << 10;
/// Of the words in which something went wrong.
const MAX_WORDS: usize = 4096;

/// A byte stream over a connection that speaks SPDY.
pub(super) struct SpdyStream<S> {
    io: S,
    /// A frame's header, as far as it was read.
    header: [u8; HEADER_LEN],
    header_len: usize,
    /// What the rest of a frame is for, and its length.
    rest: Option<(Rest, usize)>,
    words: Vec<u8>,
    ended: bool,
    /// A frame that is being written, and how much of it has gone out.
    out: Vec<u8>,
    written: usize,
    /// Goes out with what is written next.
    pongs: Vec<u8>,
    /// The end of what is written has been told.
    closed: bool,
    /// Streams that were not taken yet.
    waiting: u8,
}

/// What the bytes of a frame are for.
#[derive(Clone, Copy, Debug)]
enum Rest {
    Data { fin: bool },
    Words { fin: bool },
    Ping([u8; 4]),
    Nothing,
}

impl<S: AsyncRead + AsyncWrite + Unpin> SpdyStream<S> {
    /// Opens the two streams, to that port, and waits until they are taken: the node drops what comes before.
    /// Whether the port is listened on shows in what is read.
    ///
    /// # Errors
    /// Where the connection fails, or something else is answered.
    pub(super) async fn begin(io: S, port: u16) -> io::Result<Self> {
        let mut stream = Self::new(io);
        let port = port.to_string();
        let headers = |kind| [("streamtype", kind), ("port", &*port), ("requestid", "0")];
        stream.out = frame::syn_stream(ERROR, &headers("error"), true);
        stream
            .out
            .extend(frame::syn_stream(DATA, &headers("data"), false));
        stream.flush().await?;
        poll_fn(|cx| stream.poll_taken(cx)).await?;
        // Nothing is ever written to it.
        stream.out.extend(frame::data(ERROR, FIN, 0));
        stream.flush().await?;
        Ok(stream)
    }

    fn new(io: S) -> Self {
        Self {
            io,
            header: [0; HEADER_LEN],
            header_len: 0,
            rest: None,
            words: Vec::new(),
            ended: false,
            out: Vec::with_capacity(HEADER_LEN + MAX_FRAME),
            written: 0,
            pongs: Vec::new(),
            closed: false,
            waiting: 2,
        }
    }

    /// Reads until both streams are taken.
    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut early = [0];
        while self.waiting > 0 {
            let mut early = ReadBuf::new(&mut early);
            if ready!(self.poll_step(cx, &mut early))? {
                return Poll::Ready(Err(invalid("data before there was a stream")));
            }
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What follows the header that was read; `Err` is what the reader is to be told.
    fn take(&mut self, header: Header) -> io::Result<(Rest, usize)> {
        Ok(match header {
            Header::Data { stream, fin, len } if stream == DATA => (Rest::Data { fin }, len),
            Header::Data { stream, fin, len } if stream == ERROR => (Rest::Words { fin }, len),
            Header::Data { .. } => return Err(invalid("data on an unknown stream")),
            Header::Reply { len } => {
                self.waiting = self.waiting.saturating_sub(1);
                (Rest::Nothing, len)
            }
            Header::Reset { .. } => return Err(io::ErrorKind::ConnectionReset.into()),
            Header::Ping { len: 4 } => (Rest::Ping([0; 4]), 4),
            Header::Ping { .. } => return Err(invalid("a ping of another length")),
            Header::Other { len } => (Rest::Nothing, len),
            Header::Unknown => return Err(invalid("something else than SPDY/3.1")),
        })
    }

    /// A frame has been read to its end.
    fn finish(&mut self, rest: Rest) -> io::Result<()> {
        match rest {
            Rest::Data { fin } => self.ended |= fin,
            Rest::Words { fin: true } if !self.words.is_empty() => {
                let words = String::from_utf8_lossy(&self.words).into_owned();
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, words));
            }
            // Only those with even numbers are the other end's.
            Rest::Ping(number) if number[3].is_multiple_of(2) => {
                self.pongs = frame::ping(number);
            }
            Rest::Words { .. } | Rest::Ping(_) | Rest::Nothing => {}
        }
        Ok(())
    }

    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.header_len < HEADER_LEN {
            let mut into = ReadBuf::new(&mut self.header[self.header_len..]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut into))?;
            let n = into.filled().len();
            if n == 0 {
                self.ended = true;
                return Poll::Ready(match (self.header_len, self.words.is_empty()) {
                    (0, true) => Ok(()),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                });
            }
            self.header_len += n;
        }
        self.header_len = 0;
        let header = Header::decode(self.header);
        self.rest = Some(self.take(header)?);
        Poll::Ready(Ok(()))
    }

    /// Reads a header, or more of what follows one; true where that was data of the stream's.
    fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let Some((rest, left)) = self.rest else {
            return self.poll_header(cx).map_ok(|()| false);
        };
        if left == 0 {
            self.rest = None;
            return Poll::Ready(self.finish(rest).map(|()| false));
        }
        let is_data = matches!(rest, Rest::Data { .. });
        let n = if is_data {
            let before = into.filled().len();
            let mut part = (&mut self.io).take(left as u64);
            ready!(Pin::new(&mut part).poll_read(cx, into))?;
            into.filled().len() - before
        } else {
            ready!(self.poll_aside(cx, left))?
        };
        if n == 0 {
            self.ended = true;
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some((_, left)) = &mut self.rest {
            *left -= n;
        }
        Poll::Ready(Ok(is_data))
    }

    /// Reads what is no data of the stream's.
    fn poll_aside(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<usize>> {
        let mut aside = [0; 512];
        let room = len.min(aside.len());
        let mut into = ReadBuf::new(&mut aside[..room]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut into))?;
        let read = into.filled();
        match &mut self.rest {
            Some((Rest::Words { .. }, _)) => {
                let room = MAX_WORDS.saturating_sub(self.words.len());
                self.words.extend(&read[..read.len().min(room)]);
            }
            Some((Rest::Ping(number), left)) => {
                number[4 - *left..][..read.len()].copy_from_slice(read);
            }
            _ => {}
        }
        Poll::Ready(Ok(read.len()))
    }

    /// Writes out the frame that was begun.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        self.out.clear();
        self.written = 0;
        self.out.append(&mut self.pongs);
        Poll::Ready(Ok(()))
    }
}

fn invalid(what: &str) -> io::Error {
    let text = format!("the port-forward sent {what}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for SpdyStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.ended && into.remaining() > 0 {
            if ready!(this.poll_step(cx, into))? {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for SpdyStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        let part = &from[..from.len().min(MAX_FRAME)];
        if part.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.out.extend(frame::data(DATA, 0, part.len()));
        this.out.extend_from_slice(part);
        // On its way at once, as on a TCP socket; when it can't, the next write waits.
        match this.poll_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(part.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.out.is_empty() {
            ready!(this.poll_out(cx))?;
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            ready!(this.poll_out(cx))?;
            this.closed = true;
            this.out.extend(frame::data(DATA, FIN, 0));
            this.out.extend(frame::goaway());
        }
        while !this.out.is_empty() {
            ready!(this.poll_out(cx))?;
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
