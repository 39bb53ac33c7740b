//! From the local side into the tunnel.

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Instant;

use super::{Direction, Engine, Paths, count};
use crate::carrier::stream::{QueuedFrame, StreamQueue};
use crate::carrier::udp::{MAX_BATCH, MAX_SEGMENTS, UdpCarrier};
use crate::packet::{BufferPool, IpView, PooledFrame, Segmenter, VNET_HDR_LEN, flow_hash};
use crate::tunnel::{DATA_OVERHEAD, MAX_HANDSHAKE, Peer, Sealed};

/// The largest segment that is cut for UDP: jumbo frames.
const MAX_SEGMENT: usize = 9216;

/// What one sending thread keeps: the UDP batch that it fills, and room for one segment.
pub struct Outbound {
    batch: Batch,
    segment: Box<[u8]>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            batch: Batch::default(),
            segment: vec![0; MAX_SEGMENT].into_boxed_slice(),
        }
    }
}

/// Sealed messages for one address, one behind the other, all of one size but the last.
struct Batch {
    buffer: Box<[u8]>,
    len: usize,
    segment: usize,
    count: usize,
    /// A shorter message ended the batch.
    complete: bool,
    to: Option<SocketAddr>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            buffer: vec![0; MAX_BATCH + MAX_HANDSHAKE].into_boxed_slice(),
            len: 0,
            segment: 0,
            count: 0,
            complete: false,
            to: None,
        }
    }
}

impl Batch {
    /// Room for a message of `len` bytes to `to`; sends what can't go with it.
    fn room(&mut self, udp: &UdpCarrier, to: SocketAddr, len: usize) -> &mut [u8] {
        let fits = self.count == 0
            || (self.to == Some(to)
                && !self.complete
                && self.count < MAX_SEGMENTS
                && len <= self.segment
                && self.len + len <= MAX_BATCH);
        if !fits {
            self.flush(udp);
        }
        self.to = Some(to);
        &mut self.buffer[self.len..]
    }

    fn commit(&mut self, len: usize) {
        if self.count == 0 {
            self.segment = len;
        }
        self.complete = len < self.segment;
        self.len += len;
        self.count += 1;
    }

    fn flush(&mut self, udp: &UdpCarrier) {
        if let (Some(to), true) = (self.to.take(), self.count > 0) {
            // A failure is counted by the carrier; to the flows it is a loss like any other.
            let _ = udp.send(to, &self.buffer[..self.len], self.segment);
        }
        self.len = 0;
        self.count = 0;
        self.complete = false;
    }
}

/// A frame to be sent.
enum Frame<'a> {
    /// Copied where it has to wait.
    Lent(&'a [u8]),
    /// Kept where it has to wait. Never `None` before that.
    Given(&'a mut Option<PooledFrame>),
}

impl Frame<'_> {
    /// What is to wait; `None` where it needs a buffer and the pool has nothing left.
    fn queued(self, pool: &BufferPool) -> Option<QueuedFrame> {
        match self {
            Self::Lent(frame) => QueuedFrame::copy_of(frame, pool),
            Self::Given(frame) => QueuedFrame::taken(frame),
        }
    }
}

impl Deref for Frame<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lent(frame) => frame,
            Self::Given(frame) => frame.as_deref().unwrap_or_default(),
        }
    }
}

impl Engine {
    /// Sends a frame to whichever peer its destination belongs to.
    pub fn route(&self, outbound: &mut Outbound, frame: &[u8]) {
        self.route_either(outbound, Frame::Lent(frame));
    }

    /// As [`Engine::route`], of a frame in one of [`Engine::pool`]'s buffers, which may be gone after that.
    pub(super) fn route_taking(&self, outbound: &mut Outbound, frame: &mut Option<PooledFrame>) {
        self.route_either(outbound, Frame::Given(frame));
    }

    fn route_either(&self, outbound: &mut Outbound, frame: Frame<'_>) {
        let Some(view) = frame.get(VNET_HDR_LEN..).and_then(IpView::parse) else {
            return count(&self.counters.unreadable);
        };
        let Some(peer) = self.tunnel.route(view.dst()) else {
            return count(&self.counters.no_peer);
        };
        let hash = flow_hash(&frame[VNET_HDR_LEN..]);
        self.send_either(outbound, &peer, hash, frame);
    }

    /// Sends a frame to `peer`. On UDP it may stay in `outbound` until [`Engine::flush`].
    pub fn send(&self, outbound: &mut Outbound, peer: &Peer<Paths>, flow_hash: u32, frame: &[u8]) {
        self.send_either(outbound, peer, flow_hash, Frame::Lent(frame));
    }

    fn send_either(
        &self,
        outbound: &mut Outbound,
        peer: &Peer<Paths>,
        flow_hash: u32,
        frame: Frame<'_>,
    ) {
        match peer.attached.direction() {
            Direction::Udp(to) => self.send_udp(outbound, peer, to, &frame),
            Direction::Stream => self.send_stream(outbound, peer, flow_hash, frame),
            Direction::None => count(&self.counters.no_carrier),
        }
    }

    /// As [`Engine::send`] for a TCP super-packet whose payload stands elsewhere, in two pieces: `head` is its
    /// virtio-net header and all other headers.
    pub fn send_gathered(
        &self,
        outbound: &mut Outbound,
        peer: &Peer<Paths>,
        flow_hash: u32,
        head: &[u8],
        payload: [&[u8]; 2],
    ) {
        let mtu = peer.attached.mtu();
        match peer.attached.direction() {
            Direction::Udp(to) => match (&self.udp, Segmenter::gathered(head, payload, mtu)) {
                (Some(udp), Some(segments)) => Self::seal_udp(outbound, peer, udp, to, segments),
                (None, _) => count(&self.counters.no_carrier),
                (_, None) => count(&self.counters.unreadable),
            },
            Direction::Stream => {
                let Some(stream) = peer.attached.stream_for(flow_hash) else {
                    return count(&self.counters.no_carrier);
                };
                if !peer.attached.super_packets() {
                    return match Segmenter::gathered(head, payload, mtu) {
                        Some(segments) => {
                            self.queue_segments(outbound, &stream, flow_hash, segments)
                        }
                        None => count(&self.counters.unreadable),
                    };
                }
                let frame = QueuedFrame::gather(head, payload, &self.pool);
                self.queue(Instant::now(), &stream, flow_hash, frame);
            }
            Direction::None => count(&self.counters.no_carrier),
        }
    }

    /// Sends what is held back.
    pub fn flush(&self, outbound: &mut Outbound) {
        if let Some(udp) = &self.udp {
            outbound.batch.flush(udp);
        }
    }

    fn send_udp(&self, outbound: &mut Outbound, peer: &Peer<Paths>, to: SocketAddr, frame: &[u8]) {
        let Some(udp) = &self.udp else {
            return count(&self.counters.no_carrier);
        };
        match Segmenter::new(frame, peer.attached.mtu()) {
            Some(segments) => Self::seal_udp(outbound, peer, udp, to, segments),
            None => count(&self.counters.unreadable),
        }
    }

    fn seal_udp(
        outbound: &mut Outbound,
        peer: &Peer<Paths>,
        udp: &UdpCarrier,
        to: SocketAddr,
        mut segments: Segmenter<'_>,
    ) {
        while let Some(len) = segments.next_into(&mut outbound.segment) {
            let room = outbound.batch.room(udp, to, len + DATA_OVERHEAD);
            match peer.seal(&outbound.segment[..len], room) {
                Sealed::Data(len) => outbound.batch.commit(len),
                Sealed::Initiation(len) => {
                    // It has a size of its own and must not wait.
                    outbound.batch.commit(len);
                    return outbound.batch.flush(udp);
                }
                Sealed::Nothing => return,
            }
        }
    }

    fn send_stream(
        &self,
        outbound: &mut Outbound,
        peer: &Peer<Paths>,
        flow_hash: u32,
        frame: Frame<'_>,
    ) {
        let Some(stream) = peer.attached.stream_for(flow_hash) else {
            return count(&self.counters.no_carrier);
        };
        if peer.attached.super_packets() {
            let frame = frame.queued(&self.pool);
            return self.queue(Instant::now(), &stream, flow_hash, frame);
        }
        match Segmenter::new(&frame, peer.attached.mtu()) {
            Some(segments) => self.queue_segments(outbound, &stream, flow_hash, segments),
            None => count(&self.counters.unreadable),
        }
    }

    /// Has a frame wait, where there was a buffer for it.
    fn queue(
        &self,
        now: Instant,
        stream: &StreamQueue,
        flow_hash: u32,
        frame: Option<QueuedFrame>,
    ) {
        match frame {
            Some(frame) => stream.push(now, flow_hash, frame),
            None => count(&self.counters.no_buffer),
        }
    }

    /// For an end that takes no super-packets.
    fn queue_segments(
        &self,
        outbound: &mut Outbound,
        stream: &StreamQueue,
        flow_hash: u32,
        mut segments: Segmenter<'_>,
    ) {
        let now = Instant::now();
        // An ordinary packet is a frame whose virtio-net header says nothing: all zeros.
        while let Some(len) = segments.next_into(&mut outbound.segment[VNET_HDR_LEN..]) {
            outbound.segment[..VNET_HDR_LEN].fill(0);
            let frame = &outbound.segment[..VNET_HDR_LEN + len];
            let frame = QueuedFrame::copy_of(frame, &self.pool);
            self.queue(now, stream, flow_hash, frame);
        }
    }
}
