//! A connection that is fed operations, and what must hold after each.

mod honest;
mod hostile;
mod watch;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pmz_net::tcp::{Congestion, Connection, Path, Setup, Stock, Syn};

use super::program::Program;
use crate::wire::{ACK, SYN, Segment};

/// Memory, and what is taken in spite of the limit.
const MEMORY: usize = 1 << 20;
const RESERVED: usize = 4 << 10;
const OURS: u32 = 0xffff_f000;
const THEIRS: u32 = 0xffff_e000;
/// Virtual time in which an honest peer gets what is left.
const PATIENCE: Duration = Duration::from_secs(3600);

pub(super) struct Machine {
    connection: Connection,
    stock: Stock,
    start: Instant,
    now: Duration,
    addresses: [SocketAddr; 2],
    out: Vec<u8>,
    reads: bool,
    /// Windows that the peer tells are in units of so much.
    shift: u8,
    our_shift: u8,
    scaled: bool,
    stamps: bool,
    // What the endpoint sent.
    sent_anything: bool,
    next: u32,
    told: u32,
    told_right: u32,
    echo: u32,
    stamp: u32,
    resets: u32,
    packets: u64,
    bare: u64,
    last: Option<Segment>,
    // What it was told.
    acked: u32,
    right: u32,
    given: u32,
    inputs: u64,
    wakes: u64,
    /// What an honest peer has, behind a gap.
    kept: Vec<(u32, u32)>,
    // The application.
    written: u64,
    read: u64,
    fed: u64,
    closed: bool,
    aborted: bool,
}

impl Machine {
    pub(super) fn new(program: &mut Program<'_>) -> Self {
        let start = Instant::now();
        let kind = program.byte();
        let texts = match kind & 1 {
            0 => ["10.96.0.1:80", "10.1.0.2:4000"],
            _ => ["[fd00:96::1]:80", "[fd00:1::2]:4000"],
        };
        let addresses: [SocketAddr; 2] = texts.map(|text| text.parse().unwrap());
        let stock = Stock::new(MEMORY);
        let max_buffer = program.choose(&[16 << 10, 60_000, 256 << 10, 0, 1 << 20]);
        let setup = Setup {
            local: addresses[0],
            remote: addresses[1],
            mtu: program.choose(&[1500, 1280, 68, 9000, 0, 65_535]),
            account: stock.account(MEMORY),
            max_buffer,
            congestion: if kind & 2 == 0 {
                Congestion::Bbr
            } else {
                Congestion::Cubic
            },
            path: if kind & 12 == 12 {
                Path::Stream
            } else {
                Path::Datagrams
            },
            seed: 0x1234_5678_0000_0000 | u64::from(OURS),
            keep_alive: Duration::from_secs(60),
        };
        let scale = program.one_in(2).then(|| program.byte() % 20);
        let stamps = program.one_in(2);
        let syn = Syn {
            isn: THEIRS,
            mss: program.choose(&[
                Some(1460),
                Some(536),
                Some(0),
                Some(1),
                Some(u16::MAX),
                None,
            ]),
            window_len: program.choose(&[65_535, 0, 1, 1000]),
            window_scale: scale,
            sack_permitted: kind & 16 == 0,
            timestamp: stamps.then_some(5),
            ecn: kind & 32 != 0,
        };
        let active = kind & 192 == 192;
        let connection = match active {
            true => Connection::connect(start, setup),
            false => Connection::accept(start, setup, &syn),
        };
        let mut machine = Self {
            connection,
            stock,
            start,
            now: Duration::ZERO,
            addresses,
            out: vec![0; 65_535],
            reads: kind & 4 == 0,
            shift: scale.unwrap_or(0).min(14),
            our_shift: 0,
            scaled: scale.is_some(),
            stamps,
            sent_anything: false,
            next: OURS,
            told: THEIRS.wrapping_add(1),
            told_right: THEIRS.wrapping_add(1),
            echo: 0,
            stamp: 0,
            resets: 0,
            packets: 0,
            bare: 0,
            last: None,
            acked: OURS,
            right: OURS.wrapping_add(1).wrapping_add(u32::from(syn.window_len)),
            given: THEIRS.wrapping_add(1),
            inputs: 1,
            kept: Vec::new(),
            wakes: 0,
            written: 0,
            read: 0,
            fed: 0,
            closed: false,
            aborted: false,
        };
        machine.drain();
        if active {
            machine.answer(&syn);
        }
        if kind & 3 != 3 {
            machine.acknowledge_handshake();
        }
        machine
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn size(&self) -> u32 {
        self.connection.segment_size() as u32
    }

    /// The peer's SYN for a connection that this end opened.
    fn answer(&mut self, syn: &Syn) {
        let segment = Segment {
            flags: SYN | ACK,
            seq: syn.isn,
            ack: OURS.wrapping_add(1),
            window: syn.window_len,
            mss: syn.mss,
            scale: syn.window_scale,
            sack_permitted: syn.sack_permitted,
            stamps: syn.timestamp.map(|value| (value, self.stamp)),
            ..Segment::default()
        };
        self.feed(&segment);
    }

    fn acknowledge_handshake(&mut self) {
        let segment = Segment {
            flags: ACK,
            seq: self.told,
            ack: self.next,
            window: u16::MAX,
            stamps: self.stamps.then_some((6, self.stamp)),
            ..Segment::default()
        };
        self.feed(&segment);
    }

    /// One operation.
    pub(super) fn step(&mut self, program: &mut Program<'_>) {
        match program.byte() % 32 {
            0..=17 => {
                let segment = self.segment(program);
                if program.one_in(16) {
                    let mut packet = segment.packet(self.addresses[1], self.addresses[0]);
                    for _ in 0..program.byte() % 4 + 1 {
                        let at = program.word() as usize % packet.len();
                        packet[at] ^= 1 << (program.byte() % 8);
                    }
                    if program.one_in(4) {
                        packet.truncate(program.word() as usize % (packet.len() + 1));
                    }
                    // What it says now is not known: it may be anything.
                    self.feed_damaged(&segment, &packet);
                } else {
                    self.feed(&segment);
                }
            }
            18..=20 => {
                let micros =
                    program.choose(&[0, 1, 100, 1000, 10_000, 100_000, 1_000_000, 70_000_000]);
                self.pass(Duration::from_micros(micros));
            }
            21..=23 => self.pass_to_timer(),
            24..=26 => {
                let n = program.choose(&[0, 1, 100, 1000, 5000, 70_000]);
                self.write(n);
            }
            27 | 28 => {
                let n = self.connection.received().len();
                let n = n.min(program.choose(&[1, 100, 5000, usize::MAX]));
                let instant = self.instant();
                self.connection.consume(instant, n);
                self.read += n as u64;
                self.inputs += 1;
            }
            29 => self.reads = !self.reads,
            30 => match program.byte() % 16 {
                0..=2 => {
                    self.connection.close();
                    self.closed = true;
                }
                3 => {
                    self.connection.abort();
                    self.aborted = true;
                }
                4..=6 => self.connection.set_path(Path::Stream),
                7..=9 => self.connection.set_path(Path::Datagrams),
                _ => {}
            },
            _ => {
                let mtu = program.choose(&[1500, 576, 1280, 9000, 0, 100, 65_535]);
                self.connection.set_mtu(mtu);
            }
        }
        self.drain();
        self.check();
    }

    fn pass(&mut self, time: Duration) {
        let to = self.now + time;
        while let Some(at) = self.timer().filter(|at| *at <= to) {
            self.now = self.now.max(at);
            self.wakes += 1;
            if self.drain() == 0 {
                self.check();
            }
            if self.wakes > 1_000_000 {
                panic!("a million times woken up");
            }
        }
        self.now = to;
    }

    fn pass_to_timer(&mut self) {
        if let Some(at) = self.timer() {
            self.now = self.now.max(at);
            self.wakes += 1;
        }
    }

    fn timer(&mut self) -> Option<Duration> {
        let instant = self.instant();
        let at = self.connection.poll_timeout(instant)?;
        Some(at.saturating_duration_since(self.start))
    }

    fn write(&mut self, n: usize) {
        let room = self.connection.room();
        let n = n.min(room.len());
        for (byte, at) in room[..n].iter_mut().zip(self.written..) {
            *byte = at as u8 ^ 0x33;
        }
        self.connection.commit(n);
        self.written += n as u64;
    }

    /// Where the connection is, roughly.
    pub(super) fn situation(&mut self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let counters = self.connection.take_counters();
        let instant = self.instant();
        let timer = self.connection.poll_timeout(instant);
        let wait = timer.map(|at| {
            at.saturating_duration_since(instant)
                .as_millis()
                .max(1)
                .ilog2()
        });
        format!("{:?}", self.connection.state()).hash(&mut hasher);
        (wait, self.closed, self.connection.has_unread()).hash(&mut hasher);
        [
            counters.resent,
            counters.timeouts,
            counters.tail_probes,
            counters.spurious,
        ]
        .map(|n| n.min(2))
        .hash(&mut hasher);
        let last = self.last.take();
        last.map(|last| {
            let size = last.payload.len().min(3000) / 700;
            (
                last.flags,
                last.sack.len(),
                size,
                last.window.checked_ilog2(),
            )
        })
        .hash(&mut hasher);
        self.connection.awaits_acknowledgement().hash(&mut hasher);
        hasher.finish()
    }
}
