//! TCP: the endpoint that ends a client's connection, and the flow that joins it to a socket.

mod flow;
mod guard;
mod joint;
mod opening;
mod own;
mod ring;
mod smol;
mod timewait;

use std::time::{Duration, Instant};

use super::Way;
use crate::tcp::Counters;
pub(super) use flow::{Memory, Outcome, TcpFlow};
pub(super) use opening::Opening;
pub(super) use ring::{RingPool, ring_size};
pub(super) use timewait::{TimeWait, Verdict as TimeWaitVerdict};

/// A TCP segment that an endpoint wrote, an IP packet without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Bytes of IP and TCP header.
    pub(super) header_len: usize,
    /// Bytes of payload; more than [`Endpoint::segment_size`] makes a super-packet.
    pub(super) payload_len: usize,
}

/// The numbers of a bare acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) seq: u32,
    pub(super) ack: u32,
    /// The window field, as last sent.
    pub(super) window: u16,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides closed, the client first: nothing more will come.
    Closed,
    /// Both sides closed, this end first: the client may not have got the last acknowledgement.
    TimeWait {
        /// The next sequence number that this end would send.
        seq: u32,
        /// The next one expected of the client.
        ack: u32,
    },
    /// The client reset it.
    Reset,
    /// This end reset it and said so.
    Aborted,
}

/// Takes received bytes, and says how many.
pub(super) type Direct<'a> = &'a mut dyn FnMut(&[u8]) -> usize;

/// The agent's end of a client's TCP connection, sans-IO: segments and bytes go in and out, time is an
/// argument. It is made when the service has taken the connection, with the client's SYN.
///
/// Received bytes are at the front of [`Endpoint::received`] until consumed, which opens the window.
/// Checksums are neither verified nor completed: see [`super::Egress`].
pub(super) trait Endpoint: Send {
    /// How packets travel from now on.
    fn adapt(&mut self, way: Way);

    /// Takes a segment of this connection: an IP packet without options, which it may change. An immediate
    /// answer is written to `reply` (room for an MTU). Bytes that are in order may be given to `direct` instead
    /// of being kept for [`Endpoint::received`]. `Err` when the segment does not fit the connection.
    fn handle_segment(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        reply: &mut [u8],
        direct: Direct<'_>,
    ) -> Result<Option<Segment>, BadSegment>;

    /// Writes the next segment to send, up to 64 KiB: its headers, and its payload unless
    /// [`Endpoint::payload`] has it.
    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Segment>;

    /// The payload of the segment written last, in two pieces, where it does not stand behind the headers.
    fn payload(&self) -> Option<[&[u8]; 2]>;

    /// When [`Endpoint::poll_transmit`] is to be called next, whatever happens; now or earlier means that
    /// it has something to send.
    fn poll_timeout(&mut self, now: Instant) -> Option<Instant>;

    /// No deadline is meant more exactly.
    fn resolution(&self) -> Duration;

    /// Received bytes, in order, as many as are in one piece.
    fn received(&mut self) -> &[u8];

    /// Takes bytes from the front of [`Endpoint::received`].
    fn consume(&mut self, now: Instant, n: usize);

    /// Room for bytes to send, as much as is in one piece and wanted. [`Endpoint::commit`] must follow.
    fn room(&mut self) -> &mut [u8];

    /// Sends the first `n` bytes of [`Endpoint::room`]; 0 gives the room back.
    fn commit(&mut self, n: usize);

    /// No more bytes will be committed: FIN after the last one.
    fn close(&mut self);

    /// Resets the connection.
    fn abort(&mut self);

    /// Whether the handshake is over.
    fn is_established(&self) -> bool;

    /// Whether the client has closed its direction and every byte before was consumed.
    fn is_receive_finished(&mut self) -> bool;

    /// Whether an acknowledgement is awaited, be it of bytes, SYN or FIN.
    fn awaits_acknowledgement(&self) -> bool;

    /// The most payload of one packet on the wire, in bytes.
    fn segment_size(&self) -> usize;

    /// What a bare acknowledgement says now.
    fn challenge(&self) -> Challenge;

    /// What was counted since the last call, where anything is.
    fn take_counters(&mut self) -> Counters;

    /// Whether and how the connection has ended.
    fn end(&mut self) -> Option<End>;
}

/// A segment that no honest sender would have sent on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadSegment;
