//! pmz's own TCP as an [`Endpoint`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{BadSegment, Challenge, Direct, End, Endpoint, Segment, Way};
use crate::tcp::{Connection, Counters, Path, Setup, State, Syn, Written};

/// A pace may ask for a turn this soon, and no sooner: what the thread costs itself.
const RESOLUTION: Duration = Duration::from_micros(20);

/// A connection towards a client, and what of it is over.
pub(super) struct OwnEndpoint {
    connection: Connection,
    now: Instant,
}

impl OwnEndpoint {
    /// Makes the endpoint, with the client's SYN; `None` where the addresses' families differ.
    pub(super) fn open(now: Instant, setup: Setup, syn: &Syn) -> Option<Self> {
        let SocketAddr::V4(_) = setup.local else {
            return setup
                .remote
                .is_ipv6()
                .then(|| Self::accept(now, setup, syn));
        };
        setup
            .remote
            .is_ipv4()
            .then(|| Self::accept(now, setup, syn))
    }

    fn accept(now: Instant, setup: Setup, syn: &Syn) -> Self {
        Self {
            connection: Connection::accept(now, setup, syn),
            now,
        }
    }
}

impl Endpoint for OwnEndpoint {
    fn adapt(&mut self, way: Way) {
        self.connection.set_mtu(way.mtu);
        self.connection.set_path(if way.lossless {
            Path::Stream
        } else {
            Path::Datagrams
        });
    }

    fn handle_segment(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        _: &mut [u8],
        direct: Direct<'_>,
    ) -> Result<Option<Segment>, BadSegment> {
        self.now = now;
        let taken = self.connection.handle_segment(now, packet, direct);
        taken.map(|()| None).map_err(|_| BadSegment)
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Segment> {
        self.now = now;
        let Written {
            header_len,
            payload_len,
        } = self.connection.poll_transmit(now, out)?;
        Some(Segment {
            header_len,
            payload_len,
        })
    }

    fn payload(&self) -> Option<[&[u8]; 2]> {
        self.connection.payload()
    }

    fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        self.connection.poll_timeout(now)
    }

    fn resolution(&self) -> Duration {
        RESOLUTION
    }

    fn received(&mut self) -> &[u8] {
        self.connection.received()
    }

    fn consume(&mut self, now: Instant, n: usize) {
        self.connection.consume(now, n);
    }

    fn room(&mut self) -> &mut [u8] {
        self.connection.room()
    }

    fn commit(&mut self, n: usize) {
        self.connection.commit(n);
    }

    fn close(&mut self) {
        self.connection.close();
    }

    fn abort(&mut self) {
        self.connection.abort();
    }

    fn is_established(&self) -> bool {
        self.connection.is_established()
    }

    fn is_receive_finished(&mut self) -> bool {
        self.connection.is_receive_finished()
    }

    fn awaits_acknowledgement(&self) -> bool {
        self.connection.awaits_acknowledgement()
    }

    fn segment_size(&self) -> usize {
        self.connection.segment_size()
    }

    fn take_counters(&mut self) -> Counters {
        self.connection.take_counters()
    }

    fn challenge(&self) -> Challenge {
        let (seq, ack, window) = self.connection.bare_acknowledgement();
        Challenge { seq, ack, window }
    }

    fn end(&mut self) -> Option<End> {
        if self.connection.is_reset() {
            return Some(End::Reset);
        }
        if self.connection.is_aborted() {
            return Some(End::Aborted);
        }
        if self.connection.has_unread() {
            return None;
        }
        match self.connection.state() {
            State::TimeWait if !self.connection.owes_acknowledgement(self.now) => {
                let Challenge { seq, ack, .. } = self.challenge();
                Some(End::TimeWait { seq, ack })
            }
            State::Closed if !self.connection.is_aborting() => Some(End::Closed),
            _ => None,
        }
    }
}
