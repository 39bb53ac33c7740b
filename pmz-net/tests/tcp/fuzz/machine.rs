//! A connection that is fed operations, and what must hold after each.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pmz_net::tcp::{Congestion, Connection, Path, Setup, State, Stock, Syn};

use super::program::Program;
use crate::wire::{ACK, FIN, PSH, RST, SYN, Segment, complete, distance};

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

    fn segment(&mut self, program: &mut Program<'_>) -> Segment {
        let size = self.size().max(1);
        let kind = program.byte();
        let flags = match kind % 16 {
            0..=10 => ACK,
            11 => ACK | PSH,
            12 => ACK | FIN,
            13 => program.choose(&[RST, RST | ACK, SYN, SYN | ACK]),
            _ => program.byte() | if kind & 16 == 0 { ACK } else { 0 },
        };
        let seq_base = match kind >> 5 {
            0..=4 => self.told,
            5 => self.told_right,
            6 => self.given,
            _ => self.told.wrapping_add(10 * size),
        };
        let ack_base = match program.byte() % 4 {
            0 | 1 => self.acked,
            2 => self.next,
            _ => self
                .acked
                .wrapping_add((self.next.wrapping_sub(self.acked)) / 2),
        };
        let len = match program.byte() % 16 {
            0..=7 => 0,
            8 => 1,
            9 => u32::from(program.byte()),
            10..=13 => size.min(9000),
            14 => 2 * size.min(9000),
            _ => program.word() % 60_000,
        };
        let mut segment = Segment {
            flags,
            seq: seq_base.wrapping_add(program.offset(size)),
            ack: ack_base.wrapping_add(program.offset(size)),
            window: program.choose(&[65_535, 0, 1, 100, 1000, 1500, 20_000, 65_535]),
            payload: vec![0x5a; len as usize],
            ecn: program.byte() % 4,
            ..Segment::default()
        };
        if self.stamps || program.one_in(8) {
            let value = self.echo.wrapping_add(program.offset(1000));
            segment.stamps = Some((value, self.stamp.wrapping_sub(program.offset(10))));
        }
        for _ in 0..program.choose(&[0_u8, 0, 0, 1, 1, 2, 3, 4]) {
            let start = self.acked.wrapping_add(program.offset(size));
            let end = match program.byte() % 4 {
                0 | 1 => start.wrapping_add(program.offset(size)),
                2 => self.next,
                _ => start.wrapping_add(size),
            };
            segment.sack.push((start, end));
        }
        if segment.stamps.is_some() {
            segment.sack.truncate(3);
        }
        if program.one_in(16) {
            segment.raw_options = (0..program.byte() % 40).map(|_| program.byte()).collect();
        }
        if program.one_in(16) {
            segment.mss = Some(program.word() as u16);
        }
        segment
    }

    fn feed(&mut self, segment: &Segment) {
        let packet = segment.packet(self.addresses[1], self.addresses[0]);
        self.feed_damaged(segment, &packet);
    }

    fn feed_damaged(&mut self, segment: &Segment, packet: &[u8]) {
        let intact = Segment::read_hostile(packet);
        for told in intact.iter().chain([segment]) {
            self.note(told);
        }
        if std::env::var_os("PMZ_TCP_TRACE").is_some() {
            println!(
                "{:?} <- {segment:?} {:?}",
                self.now,
                intact.as_ref() == Some(segment)
            );
        }
        self.inputs += 1;
        self.fed += packet.len() as u64;
        let (instant, reads) = (self.instant(), self.reads);
        let mut taken = 0;
        let _ = self
            .connection
            .handle_segment(instant, packet, &mut |bytes| {
                let n = if reads { bytes.len() } else { 0 };
                taken += n as u64;
                n
            });
        self.read += taken;
        self.drain();
    }

    /// What the endpoint may believe of it.
    fn note(&mut self, segment: &Segment) {
        let behind = distance(self.next, segment.ack);
        if segment.has(ACK) && (0..1 << 30).contains(&behind) {
            if distance(segment.ack, self.acked) > 0 {
                self.acked = segment.ack;
            }
            let shift = if segment.has(SYN) { 0 } else { self.shift };
            let right = segment.ack.wrapping_add(u32::from(segment.window) << shift);
            if distance(right, self.right) > 0 {
                self.right = right;
            }
        }
        let end = segment.seq.wrapping_add(segment.len());
        let near = distance(segment.seq, self.told).abs() <= 1 << 29;
        if near && distance(end, self.given) > 0 {
            self.given = end;
        }
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

    /// Takes everything that is to go out; packets.
    fn drain(&mut self) -> u64 {
        let mut packets = 0;
        let instant = self.instant();
        while let Some(written) = self.connection.poll_transmit(instant, &mut self.out) {
            packets += 1;
            assert!(packets < 20_000, "no end of packets");
            let len = complete(&self.connection, written, &mut self.out);
            let segment = Segment::read(&self.out[..len]);
            self.sent(segment);
        }
        packets
    }

    fn sent(&mut self, segment: Segment) {
        if std::env::var_os("PMZ_TCP_TRACE").is_some() {
            println!("{:?} -> {segment:?}", self.now);
        }
        self.packets += 1;
        self.sent_anything = true;
        if segment.has(SYN) {
            self.our_shift = segment.scale.unwrap_or(0);
        }
        let end = segment.seq.wrapping_add(segment.len());
        if segment.has(RST) {
            self.resets += 1;
            assert_eq!(self.resets, 1, "one reset is enough");
            self.last = Some(segment);
            return;
        }
        assert!(self.resets == 0, "a word after the reset");
        if !segment.payload.is_empty() {
            let beyond = distance(end, self.right);
            // A FIN behind the payload may stand there.
            assert!(beyond <= 0, "{beyond} bytes beyond the window: {segment:?}");
            let first = u64::from(segment.seq.wrapping_sub(OURS.wrapping_add(1)));
            for (byte, at) in segment.payload.iter().zip(first..) {
                assert!(at < self.written, "a byte that nobody wrote");
                assert_eq!(*byte, at as u8 ^ 0x33, "byte {at}");
            }
        } else if segment.len() == 0 {
            self.bare += 1;
        }
        if distance(end, self.next) > 0 {
            self.next = end;
        }
        if let Some((value, echo)) = segment.stamps {
            self.stamp = value;
            self.echo = echo;
        }
        if segment.has(ACK) {
            let before = std::mem::replace(&mut self.told, segment.ack);
            let known = before != THEIRS.wrapping_add(1) || self.packets > 1;
            assert!(
                !known || distance(self.told, before) >= 0,
                "acknowledges less"
            );
            assert!(
                distance(self.told, self.given) <= 0,
                "acknowledges {} of {}",
                self.told.wrapping_sub(THEIRS),
                self.given.wrapping_sub(THEIRS),
            );
            let shift = if segment.has(SYN) {
                0
            } else {
                self.shift_told()
            };
            let right = segment.ack.wrapping_add(u32::from(segment.window) << shift);
            assert!(
                distance(right, self.told_right) >= 0,
                "takes the window back"
            );
            self.told_right = right;
        }
        self.last = Some(segment);
    }

    /// Our windows are scaled only if the peer's are.
    fn shift_told(&self) -> u8 {
        if self.scaled { self.our_shift } else { 0 }
    }

    fn check(&mut self) {
        let instant = self.instant();
        if self.timer().is_some_and(|at| at <= self.now) && self.drain() == 0 {
            let still = self.timer().is_some_and(|at| at <= self.now);
            assert!(!still, "always now: {:?}", self.connection);
        }
        let used = self.stock.used();
        assert!(used <= MEMORY + RESERVED, "{used} bytes of memory");
        let answers = self.inputs + self.wakes + 2 * self.written / 16 + 100;
        assert!(
            self.bare <= answers,
            "{} acknowledgements of {}",
            self.bare,
            self.inputs
        );
        assert!(self.read <= self.fed, "bytes out of nothing");
        let _ = self.connection.owes_acknowledgement(instant);
        let _ = self.connection.bare_acknowledgement();
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

    /// From now on the peer is honest: it gets everything that was written, unless the connection is gone.
    pub(super) fn finish(&mut self) {
        let handshake = !self.connection.is_established();
        let over = matches!(self.connection.state(), State::Closed | State::TimeWait);
        if over || self.aborted || handshake || self.connection.is_reset() {
            return;
        }
        self.connection.close();
        self.closed = true;
        self.reads = true;
        let end = OURS.wrapping_add(self.written as u32).wrapping_add(2);
        // What the peer knows of its own timestamps may be old: the answer to a probe tells.
        self.pass(Duration::from_secs(2));
        let probe = Segment {
            flags: ACK,
            seq: self.told.wrapping_sub(1),
            ack: self.acked,
            stamps: self.stamps.then_some((self.echo, self.stamp)),
            ..Segment::default()
        };
        self.feed(&probe);
        let mut acked = self.acked;
        let until = self.now + PATIENCE;
        while self.now < until && !self.connection.is_reset() {
            let n = self.connection.received().len();
            let instant = self.instant();
            self.connection.consume(instant, n);
            let before = acked;
            self.honest_acknowledgement(acked);
            self.honest_drain(&mut acked);
            if acked == end {
                self.honest_acknowledgement(acked);
                assert!(
                    !self.connection.awaits_acknowledgement(),
                    "all was acknowledged"
                );
                return;
            }
            if acked == before {
                self.pass_to_timer();
                self.honest_drain(&mut acked);
            }
            self.now += Duration::from_millis(100);
        }
        let gone = self.connection.is_reset();
        assert!(gone, "{acked} of {end} in an hour: {:?}", self.connection);
    }

    fn honest_acknowledgement(&mut self, acked: u32) {
        let segment = Segment {
            flags: ACK,
            // Behind all that was said before: else its window would be an old one.
            seq: self.told_right,
            ack: acked,
            window: 60_000,
            stamps: self.stamps.then_some((self.echo, self.stamp)),
            ..Segment::default()
        };
        self.note(&segment);
        let packet = segment.packet(self.addresses[1], self.addresses[0]);
        let instant = self.instant();
        self.inputs += 1;
        let _ = self
            .connection
            .handle_segment(instant, &packet, &mut |bytes| bytes.len());
    }

    fn honest_drain(&mut self, acked: &mut u32) {
        let instant = self.instant();
        for _ in 0..20_000 {
            let Some(written) = self.connection.poll_transmit(instant, &mut self.out) else {
                return;
            };
            let len = complete(&self.connection, written, &mut self.out);
            let segment = Segment::read(&self.out[..len]);
            let (start, end) = (segment.seq, segment.seq.wrapping_add(segment.len()));
            self.kept.push((start, end));
            let mut again = true;
            while std::mem::take(&mut again) {
                for &(start, end) in &self.kept {
                    if distance(start, *acked) <= 0 && distance(end, *acked) > 0 {
                        *acked = end;
                        again = true;
                    }
                }
                self.kept.retain(|(_, end)| distance(*end, *acked) > 0);
            }
            self.sent(segment);
        }
        panic!("no end of packets");
    }
}
