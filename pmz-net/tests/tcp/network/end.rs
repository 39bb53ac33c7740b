//! One end of the network: a connection, its application, its memory, and what is known of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pmz_net::tcp::{Connection, Counters, Path, Setup, Stock, Syn};
use rand::Rng;
use rand::rngs::StdRng;

use super::app::App;
use super::watch::Watch;
use super::{EndSetup, Scenario, ensure, is_final};
use crate::wire::{ACK, CE, CWR, ECE, RST, SYN, Segment, complete};

/// The largest block that is taken in spite of all limits.
const RESERVED: usize = 4 << 10;

pub(super) enum Sent {
    Nothing,
    Packet(Vec<Segment>),
}

pub(super) struct End {
    pub(super) name: &'static str,
    setup: EndSetup,
    scenario: Scenario,
    addresses: [SocketAddr; 2],
    seed: u64,
    stock: Stock,
    connection: Option<Connection>,
    app: App,
    pub(super) watch: Watch,
    out: Vec<u8>,
    may_be_reset: bool,
    /// A mark came, and the sender has not said that it reacted.
    marks: bool,
    counted: Counters,
}

impl End {
    pub(super) fn pair(scenario: &Scenario, seeds: &mut StdRng) -> [Self; 2] {
        let texts = match scenario.v6 {
            false => ["10.1.0.2:4000", "10.96.0.1:80"],
            true => ["[fd00:1::2]:4000", "[fd00:96::1]:80"],
        };
        let addresses: [SocketAddr; 2] = texts.map(|text| text.parse().unwrap());
        let aborts = scenario.ends.iter().any(|end| end.app.abort_at.is_some());
        [0, 1].map(|i| {
            let setup = scenario.ends[i].clone();
            Self {
                name: ["client", "server"][i],
                scenario: scenario.clone(),
                addresses: [addresses[i], addresses[1 - i]],
                seed: seeds.random(),
                stock: Stock::new(setup.memory),
                connection: None,
                app: App::new(setup.app.clone(), i),
                watch: Watch::new(i, setup.app.total, scenario.ends[1 - i].app.total),
                out: vec![0; 65_535],
                may_be_reset: aborts,
                marks: false,
                counted: Counters::default(),
                setup,
            }
        })
    }

    fn connection_setup(&self) -> Setup {
        Setup {
            local: self.addresses[0],
            remote: self.addresses[1],
            mtu: self.setup.mtu,
            account: self.stock.account(usize::MAX),
            max_buffer: self.setup.max_buffer,
            congestion: self.setup.congestion,
            path: match self.scenario.stream {
                true => Path::Stream,
                false => Path::Datagrams,
            },
            seed: self.seed,
            keep_alive: Duration::from_secs(self.setup.keep_alive_s),
        }
    }

    pub(super) fn connect(&mut self, now: Instant) {
        self.connection = Some(Connection::connect(now, self.connection_setup()));
    }

    /// Takes a segment; what the host answers, if the connection does not.
    pub(super) fn deliver(
        &mut self,
        instant: Instant,
        now: Duration,
        mut segment: Segment,
    ) -> Result<Option<Segment>, String> {
        if segment.has(SYN) {
            self.strip(&mut segment);
        }
        if self.scenario.ecn && self.name == "client" {
            self.marks = (self.marks && !segment.has(CWR)) || segment.ecn == CE;
        }
        self.watch.delivered(&segment);
        let Some(connection) = &mut self.connection else {
            if segment.flags & (SYN | ACK | RST | ECE | CWR) & !(ECE | CWR) == SYN {
                let syn = syn_of(&segment);
                self.connection = Some(Connection::accept(instant, self.connection_setup(), &syn));
            }
            return Ok(None);
        };
        if is_over(connection) && connection.state() == pmz_net::tcp::State::Closed {
            return Ok((!segment.has(RST)).then(|| refusal(&segment)));
        }
        let packet = segment.packet(self.addresses[1], self.addresses[0]);
        let app = &mut self.app;
        let mut failed = None;
        let _ = connection.handle_segment(instant, &packet, &mut |bytes| {
            if !app.takes_directly() {
                return 0;
            }
            app.take(now, bytes).unwrap_or_else(|error| {
                failed = Some(error);
                0
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if connection.is_reset() {
            let through = self.app.closed && self.has_read_all();
            ensure!(self.may_be_reset || through, "{} was reset", self.name);
        }
        self.check_memory()?;
        Ok(None)
    }

    /// What does not get through with a SYN.
    fn strip(&self, segment: &mut Segment) {
        if self.scenario.no_stamps {
            segment.stamps = None;
        }
        if self.scenario.no_sack {
            segment.sack_permitted = false;
        }
        if self.scenario.no_scaling {
            segment.scale = None;
        }
        if self.scenario.ecn && !segment.has(ACK) {
            segment.flags |= ECE | CWR;
        }
    }

    /// Lets the application do what it wants to.
    pub(super) fn work(&mut self, instant: Instant, now: Duration) -> Result<bool, String> {
        let Some(connection) = &mut self.connection else {
            return Ok(false);
        };
        if let Some((at, mtu)) = self.setup.new_mtu
            && now >= Duration::from_millis(at)
        {
            connection.set_mtu(mtu);
            self.setup.new_mtu = None;
            self.setup.mtu = mtu;
        }
        if is_over(connection) && !connection.has_unread() {
            return Ok(false);
        }
        let read = self.app.read(now, connection, instant)?;
        if connection.is_receive_finished() {
            let right = self.app.read == self.watch.expected();
            ensure!(right, "{} ended after {} bytes", self.name, self.app.read);
        }
        let wrote = self.app.work(now, connection);
        self.check_memory()?;
        Ok(read || wrote)
    }

    pub(super) fn next_work(&mut self, now: Duration) -> Option<Duration> {
        let connection = self.connection.as_mut()?;
        let room = !connection.room().is_empty();
        connection.commit(0);
        let mtu = self.setup.new_mtu.map(|(at, _)| Duration::from_millis(at));
        let mtu = mtu.filter(|_| !is_over(connection));
        let over = is_over(connection) && !connection.has_unread();
        let work = self.app.next_work(now, connection.has_unread(), room);
        work.filter(|_| !over).into_iter().chain(mtu).min()
    }

    pub(super) fn timer(&mut self, instant: Instant) -> Option<Instant> {
        self.connection.as_mut()?.poll_timeout(instant)
    }

    /// What the connection sends next, cut as it goes over the wire.
    pub(super) fn transmit(&mut self, instant: Instant) -> Result<Sent, String> {
        let Some(connection) = &mut self.connection else {
            return Ok(Sent::Nothing);
        };
        let Some(written) = connection.poll_transmit(instant, &mut self.out) else {
            return Ok(Sent::Nothing);
        };
        let size = connection.segment_size();
        let largest = written.header_len + written.payload_len.min(size);
        let mtu = usize::from(self.setup.mtu);
        ensure!(largest <= mtu, "{largest} bytes where {mtu} are the most");
        let len = complete(connection, written, &mut self.out);
        let mut segment = Segment::read(&self.out[..len]);
        ensure!(segment.payload.len() == written.payload_len, "lengths");
        if self.marks && !segment.has(SYN | RST) {
            segment.flags |= ECE;
        }
        let closed = self.app.closed;
        self.watch
            .sends(&segment, closed)
            .map_err(|error| format!("{} sent {segment:?}: {error}", self.name))?;
        Ok(Sent::Packet(segment.cut(size)))
    }

    fn check_memory(&self) -> Result<(), String> {
        let (used, limit) = (self.stock.used(), self.setup.memory + RESERVED);
        ensure!(
            used <= limit,
            "{used} bytes of memory, {limit} are the most"
        );
        Ok(())
    }

    pub(super) fn has_read_all(&self) -> bool {
        self.app.read == self.watch.expected()
    }

    pub(super) fn was_aborted(&self) -> bool {
        self.app.aborted
    }

    pub(super) fn is_unopened(&self) -> bool {
        self.connection.is_none()
    }

    pub(super) fn is_over(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            let gone = connection.is_reset() || connection.is_aborted();
            gone || (is_final(connection.state()) && self.has_read_all() && self.app.closed)
        })
    }

    pub(super) fn counters(&mut self) -> Counters {
        if let Some(connection) = &mut self.connection {
            add(&mut self.counted, connection.take_counters());
        }
        self.counted
    }

    /// The connection goes, and must leave nothing behind.
    pub(super) fn leave(&mut self) -> Result<(), String> {
        if !self.may_be_reset {
            let (read, written) = (self.app.read, self.app.written);
            ensure!(self.has_read_all(), "{} read {read} bytes", self.name);
            ensure!(written == self.app.total(), "{} wrote {written}", self.name);
            ensure!(self.stock.used() == 0, "memory for nothing");
        }
        self.connection = None;
        ensure!(self.stock.used() == 0, "memory was not given back");
        Ok(())
    }

    pub(super) fn describe(&mut self) -> String {
        let counters = self.counters();
        let connection = self.connection.as_ref();
        format!(
            "{}: {:?}, {} of {} written, {} of {} read, {} unread, window {}, {:?}",
            self.name,
            connection.map(Connection::state),
            self.app.written,
            self.app.total(),
            self.app.read,
            self.watch.expected(),
            connection.map_or(0, |connection| connection.received().len()),
            self.watch.heard_window(),
            counters,
        )
    }
}

fn is_over(connection: &Connection) -> bool {
    connection.is_reset() || connection.is_aborted() || is_final(connection.state())
}

/// Adds what was counted since.
pub(crate) fn add(all: &mut Counters, more: Counters) {
    all.resent += more.resent;
    all.timeouts += more.timeouts;
    all.tail_probes += more.tail_probes;
    all.spurious += more.spurious;
    all.segment_limit += more.segment_limit;
    all.buffer_limit += more.buffer_limit;
    all.refused_bytes += more.refused_bytes;
}

pub(crate) fn syn_of(segment: &Segment) -> Syn {
    Syn {
        isn: segment.seq,
        mss: segment.mss,
        window_len: segment.window,
        window_scale: segment.scale,
        sack_permitted: segment.sack_permitted,
        timestamp: segment.stamps.map(|stamps| stamps.0),
        ecn: segment.has(ECE) && segment.has(CWR),
    }
}

/// What a host answers for a connection that it does not know (RFC 9293, 3.10.7.1).
fn refusal(segment: &Segment) -> Segment {
    if segment.has(ACK) {
        return Segment {
            flags: RST,
            seq: segment.ack,
            ..Segment::default()
        };
    }
    Segment {
        flags: RST | ACK,
        ack: segment.seq.wrapping_add(segment.len()),
        ..Segment::default()
    }
}
