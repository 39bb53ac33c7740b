//! One stream of a peer: a task that opens what comes, and one that seals what waits.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::inbound::OPEN_BUFFER;
use super::{Engine, Paths, Via};
use crate::carrier::frame::{self, Decoder, FRAME_HDR_LEN};
use crate::carrier::stream::{Next, QueuedFrame, StreamQueue};
use crate::packet::{MAX_FRAME, VNET_HDR_LEN};
use crate::tunnel::{DATA_OVERHEAD, MAX_HANDSHAKE, Peer, Sealed};

/// Sealed bytes that are written with one call, about.
const WRITE_BATCH: usize = 128 << 10;
/// The largest message: a frame, whose header travels behind the packet, and WireGuard's overhead.
const MAX_MESSAGE: usize = MAX_FRAME + DATA_OVERHEAD;

/// Carries a peer's messages on `io` until either side ends it. The stream is the peer's while this runs.
///
/// # Errors
/// Where the stream fails, or what comes on it is not a frame.
pub async fn run<S>(
    engine: &Arc<Engine>,
    peer: &Arc<Peer<Paths>>,
    queue: Arc<StreamQueue>,
    io: S,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (reader, writer) = tokio::io::split(io);
    peer.attached.add_stream(queue.clone());
    let open = Open {
        engine,
        peer,
        queue,
    };
    tokio::select! {
        result = read(engine, &open.queue, reader) => result,
        result = write(engine, peer, &open.queue, writer) => result,
        () = open.queue.closed() => Ok(()),
    }
}

/// Takes the stream from its peer when it ends, also when its task is ended from outside.
struct Open<'a> {
    engine: &'a Engine,
    peer: &'a Peer<Paths>,
    queue: Arc<StreamQueue>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.queue.close();
        self.peer.attached.remove_stream(&self.queue);
        // Those who waited for room here find another stream.
        self.engine.local.peer_has_room(self.peer.id());
    }
}

async fn read<R>(
    engine: &Engine,
    queue: &Arc<StreamQueue>,
    mut reader: ReadHalf<R>,
) -> io::Result<()>
where
    R: AsyncRead + Send,
{
    let via = Via::Stream(queue.clone());
    let mut decoder = Decoder::new();
    let mut opened = vec![0_u8; OPEN_BUFFER].into_boxed_slice();
    loop {
        let read = reader.read(decoder.buffer()).await?;
        if read == 0 {
            return Ok(());
        }
        queue.count(0, read);
        decoder.advance(read);
        while let Some(message) = decoder.next().map_err(io::Error::other)? {
            let Some((peer, len)) = engine.open(message, &via, &mut opened) else {
                continue;
            };
            if !engine.local.deliver(peer, &opened[..len]) {
                engine.local.deliver_waiting(peer, &opened[..len]).await;
            }
        }
        // The local side's work would keep the runtime's other tasks waiting, this stream's own writer among them.
        engine.local.settle(true);
    }
}

async fn write<W>(
    engine: &Engine,
    peer: &Peer<Paths>,
    queue: &StreamQueue,
    mut writer: WriteHalf<W>,
) -> io::Result<()>
where
    W: AsyncWrite + Send,
{
    let mut out =
        vec![0_u8; WRITE_BATCH + FRAME_HDR_LEN + MAX_MESSAGE + MAX_HANDSHAKE].into_boxed_slice();
    loop {
        let mut len = 0;
        while len < WRITE_BATCH {
            let Some(next) = queue.pop(Instant::now()) else {
                break;
            };
            len += match next {
                Next::Message(message) => put(&mut out[len..], &message),
                Next::Frame(mut frame) => seal(peer, &mut frame, &mut out[len..]),
            };
        }
        if queue.takes_room_wish() {
            engine.local.peer_has_room(peer.id());
        }
        if len == 0 {
            queue.ready().await;
            continue;
        }
        writer.write_all(&out[..len]).await?;
        writer.flush().await?;
        queue.count(len, 0);
    }
}

fn put(out: &mut [u8], message: &[u8]) -> usize {
    out[..FRAME_HDR_LEN].copy_from_slice(&frame::encode_header(message.len()));
    out[FRAME_HDR_LEN..FRAME_HDR_LEN + message.len()].copy_from_slice(message);
    FRAME_HDR_LEN + message.len()
}

/// Seals a frame behind its length; returns the bytes of both.
fn seal(peer: &Peer<Paths>, frame: &mut QueuedFrame, out: &mut [u8]) -> usize {
    let packet = if peer.attached.super_packets() {
        // The packet's own length says where it ends and the header begins.
        frame.header_behind()
    } else {
        &frame[VNET_HDR_LEN..]
    };
    match peer.seal(packet, &mut out[FRAME_HDR_LEN..]) {
        Sealed::Data(len) | Sealed::Initiation(len) => {
            out[..FRAME_HDR_LEN].copy_from_slice(&frame::encode_header(len));
            FRAME_HDR_LEN + len
        }
        Sealed::Nothing => 0,
    }
}
