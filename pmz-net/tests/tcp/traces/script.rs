//! Reading a trace, and playing it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use pmz_net::tcp::{Congestion, Connection, Counters, Path, Setup, Stock};

use crate::network::{add, syn_of};
use crate::wire::{ACK, CE, CWR, ECE, ECT0, FIN, PSH, RST, SYN, Segment, complete};

/// Sequence numbers wrap early in each trace.
const OURS: u32 = 0xffff_f800;
const THEIRS: u32 = 0xffff_fc00;
const CLOCK: u32 = 0xffff_fff0;
/// What is expected at a time may come so much later.
const LATE: Duration = Duration::from_micros(1500);
const LOCAL: &str = "10.96.0.1:80";
const REMOTE: &str = "10.1.0.2:4000";

struct Player {
    start: Instant,
    now: Duration,
    congestion: Congestion,
    stock: Stock,
    max_buffer: u64,
    connection: Option<Connection>,
    sent: VecDeque<(Duration, Segment)>,
    /// The application takes what comes at once.
    reads: bool,
    size: usize,
    counted: Counters,
    line: String,
}

/// Plays a trace with BBR.
pub(super) fn trace(script: &str) {
    play(script, Congestion::Bbr);
}

/// Plays a trace with Cubic.
pub(super) fn cubic(script: &str) {
    play(script, Congestion::Cubic);
}

fn play(script: &str, congestion: Congestion) {
    let mut player = Player {
        start: Instant::now(),
        now: Duration::ZERO,
        congestion,
        stock: Stock::new(64 << 20),
        max_buffer: 60_000,
        connection: None,
        sent: VecDeque::new(),
        reads: true,
        size: 0,
        counted: Counters::default(),
        line: String::new(),
    };
    for line in script.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        line.clone_into(&mut player.line);
        player.step(line);
    }
    player.quiet();
}

fn millis(text: &str) -> Duration {
    let millis: f64 = text.parse().unwrap_or_else(|_| panic!("no time: {text}"));
    Duration::from_nanos((millis * 1e6).round() as u64)
}

fn parsed<T: FromStr>(text: Option<&str>) -> T {
    let text = text.expect("another word");
    text.parse().unwrap_or_else(|_| panic!("no number: {text}"))
}

/// `a:b`, `a/b` or `a-b`.
fn pair(text: &str, between: char) -> (u32, u32) {
    let (a, b) = text.split_once(between).expect("a pair");
    (parsed(Some(a)), parsed(Some(b)))
}

impl Player {
    fn step(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let time = words.next().expect("a time");
        let (from, to) = match time.split_once('-') {
            Some((from, to)) => (millis(from), millis(to)),
            None => (millis(time), millis(time) + LATE),
        };
        let verb = words.next().expect("what happens");
        if verb == ">" {
            self.expect(from, to, &mut words);
            return;
        }
        self.advance(from);
        match verb {
            "<" => {
                let segment = self.input(&mut words);
                self.deliver(&segment);
            }
            "connect" => {
                let setup = self.setup();
                self.connection = Some(Connection::connect(self.instant(), setup));
            }
            "buffer" => self.max_buffer = parsed(words.next()),
            "memory" => self.stock = Stock::new(parsed(words.next())),
            "write" => {
                self.write(parsed(words.next()));
                if words.next() == Some("close") {
                    self.connection().close();
                }
            }
            "close" => self.connection().close(),
            "abort" => self.connection().abort(),
            "read" => {
                let (n, instant) = (parsed(words.next()), self.instant());
                self.read(n, instant);
            }
            "reader" => self.reads = words.next() == Some("on"),
            "mtu" => {
                let mtu = parsed(words.next());
                self.connection().set_mtu(mtu);
            }
            "quiet" => self.quiet(),
            "state" => {
                let state = format!("{:?}", self.connection().state());
                assert_eq!(Some(state.as_str()), words.next(), "{}", self.line);
            }
            "was-reset" => {
                let expected: bool = parsed(words.next());
                assert_eq!(self.connection().is_reset(), expected, "{}", self.line);
            }
            "unread" => {
                let n: usize = parsed(words.next());
                assert_eq!(self.connection().received().len(), n, "{}", self.line);
            }
            "counted" => {
                let more = self.connection().take_counters();
                add(&mut self.counted, more);
                let counters = self.counted;
                let n = match words.next() {
                    Some("resent") => counters.resent,
                    Some("timeouts") => counters.timeouts,
                    Some("tail-probes") => counters.tail_probes,
                    Some("spurious") => counters.spurious,
                    other => panic!("nothing counted: {other:?}"),
                };
                let expected: u64 = parsed(words.next());
                assert_eq!(n, expected, "{}", self.line);
            }
            other => panic!("{other}?"),
        }
        self.drain();
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("a connection")
    }

    fn setup(&self) -> Setup {
        Setup {
            local: LOCAL.parse().unwrap(),
            remote: REMOTE.parse().unwrap(),
            mtu: 1500,
            account: self.stock.account(usize::MAX),
            max_buffer: self.max_buffer,
            congestion: self.congestion,
            path: Path::Datagrams,
            seed: u64::from(CLOCK) << 32 | u64::from(OURS),
            keep_alive: Duration::from_secs(60),
        }
    }

    /// Lets time pass, and what is due happen.
    fn advance(&mut self, to: Duration) {
        assert!(
            to >= self.now,
            "{}: it is {:?} already",
            self.line,
            self.now
        );
        while self.advance_once(to) {}
        self.now = to;
    }

    /// Lets time pass until the next timer; whether there was one until then.
    fn advance_once(&mut self, to: Duration) -> bool {
        let instant = self.instant();
        let timer = self
            .connection
            .as_mut()
            .and_then(|c| c.poll_timeout(instant));
        let timer = timer.map(|at| at.saturating_duration_since(self.start));
        let Some(at) = timer.filter(|at| *at <= to) else {
            return false;
        };
        self.now = self.now.max(at);
        let before = self.sent.len();
        self.drain();
        let instant = self.instant();
        let next = self.connection().poll_timeout(instant);
        let stuck = next.is_some_and(|next| next <= instant);
        assert!(
            !stuck || self.sent.len() > before,
            "{}: always now",
            self.line
        );
        true
    }

    /// The next segment that goes out until then.
    fn next_sent(&mut self, to: Duration) -> Option<(Duration, Segment)> {
        while self.sent.is_empty() && self.advance_once(to) {}
        self.sent.pop_front()
    }

    fn drain(&mut self) {
        let instant = self.instant();
        let Some(connection) = &mut self.connection else {
            return;
        };
        let mut out = vec![0; 65_535];
        while let Some(written) = connection.poll_transmit(instant, &mut out) {
            let len = complete(connection, written, &mut out);
            let segment = Segment::read(&out[..len]);
            self.size = connection.segment_size();
            let cut = segment.cut(self.size);
            if std::env::var_os("PMZ_TCP_TRACE").is_some() {
                println!(
                    "{:?} {:?}",
                    self.now,
                    cut.iter().map(relative).collect::<Vec<_>>()
                );
            }
            self.sent
                .extend(cut.into_iter().map(|piece| (self.now, piece)));
        }
    }

    fn write(&mut self, n: usize) {
        let mut left = n;
        while left > 0 {
            let room = self.connection().room();
            let n = room.len().min(left);
            assert!(n > 0, "no room");
            room[..n].fill(b'x');
            self.connection().commit(n);
            left -= n;
        }
    }

    fn read(&mut self, n: usize, instant: Instant) {
        let mut left = n;
        while left > 0 {
            let n = self.connection().received().len().min(left);
            assert!(n > 0, "{}: nothing to read", self.line);
            self.connection().consume(instant, n);
            left -= n;
        }
    }

    fn deliver(&mut self, segment: &Segment) {
        let instant = self.instant();
        if self.connection.is_none() {
            let setup = self.setup();
            self.connection = Some(Connection::accept(instant, setup, &syn_of(segment)));
            return;
        }
        let [local, remote]: [SocketAddr; 2] = [LOCAL, REMOTE].map(|text| text.parse().unwrap());
        let packet = segment.packet(remote, local);
        let reads = self.reads;
        let mut direct = |bytes: &[u8]| if reads { bytes.len() } else { 0 };
        let connection = self.connection();
        let _ = connection.handle_segment(instant, &packet, &mut direct);
        while reads && connection.has_unread() {
            let n = connection.received().len();
            connection.consume(instant, n);
        }
    }

    fn input<'a>(&self, words: &mut impl Iterator<Item = &'a str>) -> Segment {
        let mut segment = Segment {
            flags: flags(words.next()),
            ..Segment::default()
        };
        let (seq, end) = pair(words.next().expect("numbers"), ':');
        segment.seq = THEIRS.wrapping_add(seq);
        segment.payload = vec![b'y'; end.wrapping_sub(seq) as usize];
        while let Some(word) = words.next() {
            match word {
                "ack" => segment.ack = OURS.wrapping_add(parsed(words.next())),
                "win" => segment.window = parsed(words.next()),
                "mss" => segment.mss = Some(parsed(words.next())),
                "scale" => segment.scale = Some(parsed(words.next())),
                "sackok" => segment.sack_permitted = true,
                "ts" => {
                    let (value, echo) = pair(words.next().expect("stamps"), '/');
                    segment.stamps = Some((value, CLOCK.wrapping_add(echo)));
                }
                "sack" => segment.sack = blocks(words.next(), OURS),
                "ce" => segment.ecn = CE,
                "ect" => segment.ecn = ECT0,
                other => panic!("{other}?"),
            }
        }
        segment
    }

    fn expect<'a>(
        &mut self,
        from: Duration,
        to: Duration,
        words: &mut impl Iterator<Item = &'a str>,
    ) {
        let expected = flags(words.next());
        let (seq, end) = pair(words.next().expect("numbers"), ':');
        let Some((at, first)) = self.next_sent(to) else {
            panic!("{}: nothing was sent", self.line);
        };
        let line = self.line.clone();
        let what = || format!("{line} but {at:?} {:?}", relative(&first));
        assert!(at >= from && at <= to, "{}", what());
        assert_eq!(first.seq.wrapping_sub(OURS), seq, "{}", what());
        let mut last = first.clone();
        let mut reached = seq.wrapping_add(first.payload.len() as u32);
        while reached != end {
            let next = self.next_sent(to);
            let (at, next) = next.unwrap_or_else(|| panic!("{} but only to {reached}", what()));
            assert!(
                at <= to,
                "{}, and then {at:?} {:?}",
                what(),
                relative(&next)
            );
            assert_eq!(
                next.seq.wrapping_sub(OURS),
                reached,
                "{}, {:?}",
                what(),
                relative(&next)
            );
            reached = reached.wrapping_add(next.payload.len() as u32);
            last = next;
        }
        let ignored = PSH;
        assert_eq!(last.flags & !ignored, expected & !ignored, "{}", what());
        assert!(expected & PSH == 0 || last.has(PSH), "{}", what());
        while let Some(word) = words.next() {
            match word {
                "ack" => {
                    let ack: u32 = parsed(words.next());
                    assert_eq!(last.ack.wrapping_sub(THEIRS), ack, "{}", what());
                }
                "win" => assert_eq!(last.window, parsed::<u16>(words.next()), "{}", what()),
                "mss" => assert_eq!(last.mss, Some(parsed(words.next())), "{}", what()),
                "scale" => assert_eq!(last.scale, Some(parsed(words.next())), "{}", what()),
                "noscale" => assert_eq!(last.scale, None, "{}", what()),
                "sackok" => assert!(last.sack_permitted, "{}", what()),
                "nosackok" => assert!(!last.sack_permitted, "{}", what()),
                "ts" => {
                    let (value, echo) = pair(words.next().expect("stamps"), '/');
                    let stamps = last.stamps.map(|(v, e)| (v.wrapping_sub(CLOCK), e));
                    assert_eq!(stamps, Some((value, echo)), "{}", what());
                }
                "nots" => assert_eq!(last.stamps, None, "{}", what()),
                "sack" => assert_eq!(last.sack, blocks(words.next(), THEIRS), "{}", what()),
                "nosack" => assert!(last.sack.is_empty(), "{}", what()),
                "ect" => assert_eq!(last.ecn, ECT0, "{}", what()),
                "noect" => assert_eq!(last.ecn, 0, "{}", what()),
                other => panic!("{other}?"),
            }
        }
    }

    fn quiet(&self) {
        let sent: Vec<_> = self.sent.iter().map(|(at, s)| (at, relative(s))).collect();
        assert!(sent.is_empty(), "{}, but {sent:?}", self.line);
    }
}

/// With numbers as they stand in a trace.
fn relative(segment: &Segment) -> Segment {
    let blocks = segment.sack.iter();
    let blocks = blocks.map(|(a, b)| (a.wrapping_sub(THEIRS), b.wrapping_sub(THEIRS)));
    Segment {
        seq: segment.seq.wrapping_sub(OURS),
        ack: segment.ack.wrapping_sub(THEIRS),
        sack: blocks.collect(),
        ..segment.clone()
    }
}

fn flags(text: Option<&str>) -> u8 {
    let text = text.expect("flags");
    text.chars().fold(0, |flags, letter| {
        flags
            | match letter {
                'S' => SYN,
                'F' => FIN,
                'R' => RST,
                'P' => PSH,
                '.' => ACK,
                'E' => ECE,
                'W' => CWR,
                '-' => 0,
                other => panic!("flag {other}"),
            }
    })
}

/// `a-b,c-d`.
fn blocks(text: Option<&str>, isn: u32) -> Vec<(u32, u32)> {
    let text = text.expect("blocks");
    text.split(',')
        .map(|block| {
            let (start, end) = pair(block, '-');
            (isn.wrapping_add(start), isn.wrapping_add(end))
        })
        .collect()
}
