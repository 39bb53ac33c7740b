//! A peer that does what no honest one would: nothing breaks, nothing grows without bound, nobody gets more
//! than was asked for, and the rest of the connection goes on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pmz_net::tcp::{Congestion, Connection, Path, Setup, Stock, Syn};

use crate::wire::{ACK, FIN, RST, SYN, Segment, distance};

const OURS: u32 = 0xffff_f000;
const THEIRS: u32 = 0xffff_e000;
const SIZE: u32 = 1000;
const MEMORY: usize = 16 << 20;
/// A single operation takes no longer, in an unoptimised build on a busy machine either.
const LONGEST: Duration = Duration::from_millis(250);

struct Victim {
    connection: Connection,
    stock: Stock,
    now: Instant,
    out: Vec<u8>,
    addresses: [SocketAddr; 2],
    /// Behind all that it sent.
    next: u32,
    /// What it acknowledged last.
    told: u32,
    sent: Vec<Segment>,
    got: u64,
    bytes_in: usize,
    bytes_out: usize,
}

impl Victim {
    fn new(change: impl FnOnce(&mut Setup, &mut Syn)) -> Self {
        let addresses: [SocketAddr; 2] =
            ["10.96.0.1:80", "10.1.0.2:4000"].map(|text| text.parse().unwrap());
        let stock = Stock::new(MEMORY);
        let mut setup = Setup {
            local: addresses[0],
            remote: addresses[1],
            mtu: 1500,
            account: stock.account(MEMORY),
            max_buffer: 4 << 20,
            congestion: Congestion::Cubic,
            path: Path::Datagrams,
            seed: u64::from(OURS),
            keep_alive: Duration::from_secs(60),
        };
        let mut syn = Syn {
            isn: THEIRS,
            mss: Some(SIZE as u16),
            window_len: 65_535,
            window_scale: Some(8),
            sack_permitted: true,
            timestamp: None,
            ecn: false,
        };
        change(&mut setup, &mut syn);
        let start = Instant::now();
        let mut victim = Self {
            connection: Connection::accept(start, setup, &syn),
            stock,
            now: start,
            out: vec![0; 65_535],
            addresses,
            next: OURS.wrapping_add(1),
            told: THEIRS.wrapping_add(1),
            sent: Vec::new(),
            got: 0,
            bytes_in: 0,
            bytes_out: 0,
        };
        victim.drain();
        victim.pass(40);
        let stamps = victim.sent[0].stamps.map(|(value, _)| (6, value));
        victim.sent.clear();
        victim.feed(Segment {
            stamps,
            ..victim.acknowledgement(1)
        });
        victim
    }

    /// An acknowledgement of all before this number of ours, from where the peer stands.
    fn acknowledgement(&self, number: u32) -> Segment {
        Segment {
            flags: ACK,
            seq: THEIRS.wrapping_add(1),
            ack: OURS.wrapping_add(number),
            window: 60_000,
            ..Segment::default()
        }
    }

    fn feed(&mut self, segment: Segment) {
        let packet = segment.packet(self.addresses[1], self.addresses[0]);
        self.bytes_in += packet.len();
        self.now += Duration::from_micros(10);
        let before = Instant::now();
        let got = &mut self.got;
        let _ = self
            .connection
            .handle_segment(self.now, &packet, &mut |bytes| {
                *got += bytes.len() as u64;
                bytes.len()
            });
        let unread = self.connection.received().len();
        self.got += unread as u64;
        self.connection.consume(self.now, unread);
        self.drain();
        assert!(
            before.elapsed() < LONGEST,
            "{:?} for one segment",
            before.elapsed()
        );
    }

    fn drain(&mut self) {
        while let Some(written) = self.connection.poll_transmit(self.now, &mut self.out) {
            let len = written.header_len + written.payload_len;
            self.bytes_out += len;
            let segment = Segment::read(&self.out[..len]);
            let end = segment.seq.wrapping_add(segment.len());
            if distance(end, self.next) > 0 {
                self.next = end;
            }
            self.told = segment.ack;
            self.sent.push(segment);
        }
        assert!(
            self.stock.used() <= MEMORY + 4096,
            "{} bytes",
            self.stock.used()
        );
    }

    fn pass(&mut self, millis: u64) {
        let to = self.now + Duration::from_millis(millis);
        while let Some(at) = self
            .connection
            .poll_timeout(self.now)
            .filter(|at| *at <= to)
        {
            self.now = self.now.max(at);
            self.drain();
        }
        self.now = to;
    }

    fn write(&mut self, n: usize) {
        let mut left = n;
        while left > 0 {
            let n = self.connection.room().len().min(left);
            self.connection.commit(n);
            if n == 0 {
                break;
            }
            left -= n;
        }
        self.drain();
    }

    /// Numbers of ours that were sent, counted from the SYN's.
    fn sent_up_to(&self) -> u32 {
        self.next.wrapping_sub(OURS)
    }

    /// From here on the peer is honest: everything that was written arrives.
    fn goes_on(&mut self) {
        self.connection.close();
        for _ in 0..100_000 {
            let number = self.sent_up_to();
            self.feed(Segment {
                seq: self.told,
                ..self.acknowledgement(number)
            });
            if !self.connection.awaits_acknowledgement() {
                return;
            }
            self.pass(20);
        }
        panic!("it does not go on: {:?}", self.connection.state());
    }
}

#[test]
fn blocks_of_what_was_never_sent_or_makes_no_sense_change_nothing() {
    let mut victim = Victim::new(|_, _| {});
    victim.write(100_000);
    victim.pass(100);
    let sent = victim.sent_up_to();
    let resent = victim.connection.take_counters().resent;
    let (una, end) = (OURS.wrapping_add(1), OURS.wrapping_add(sent));
    let far = end.wrapping_add(1 << 30);
    for block in [
        (end, una),
        (end, far),
        (una, far),
        (end.wrapping_add(1), end.wrapping_add(1000)),
        (una.wrapping_sub(1 << 30), una),
        (una.wrapping_sub(5000), end.wrapping_add(5000)),
        (una, una),
        (una, una.wrapping_add(1 << 31)),
        (una.wrapping_add(1 << 31), una),
        (0, u32::MAX),
    ] {
        for _ in 0..20 {
            victim.feed(Segment {
                sack: vec![block],
                ..victim.acknowledgement(1)
            });
        }
    }
    // A probe of the tail or two.
    assert!(victim.connection.take_counters().resent <= resent + 2);
    victim.goes_on();
}

#[test]
fn blocks_of_everything_but_the_first_byte_lose_only_the_first_segment() {
    let mut victim = Victim::new(|_, _| {});
    victim.write(100_000);
    victim.pass(60);
    let end = victim.next;
    for _ in 0..100 {
        victim.feed(Segment {
            sack: vec![(OURS.wrapping_add(2), end)],
            ..victim.acknowledgement(1)
        });
    }
    assert!(victim.connection.take_counters().resent <= 2);
    victim.goes_on();
}

#[test]
fn thousands_of_holes_cost_neither_time_nor_a_flood() {
    for congestion in [Congestion::Bbr, Congestion::Cubic] {
        let mut victim = Victim::new(|setup, syn| {
            setup.congestion = congestion;
            setup.mtu = 100;
            syn.mss = Some(1);
        });
        let told = |victim: &Victim, number: u32| Segment {
            window: u16::MAX,
            ..victim.acknowledgement(number)
        };
        // The window grows to thousands of segments.
        while victim.sent_up_to() < 3_000_000 {
            victim.write(1 << 20);
            victim.pass(10);
            victim.feed(told(&victim, victim.sent_up_to()));
            victim.sent.clear();
        }
        let first = victim.sent_up_to();
        victim.write(1 << 20);
        victim.pass(9);
        let size = victim.connection.segment_size() as u32;
        let segments = (victim.sent_up_to() - first) / size;
        assert!(segments > 1000, "{congestion}: {segments} segments");
        // Every second one has arrived at once, they say, in whatever order.
        let (bytes_in, bytes_out) = (victim.bytes_in, victim.bytes_out);
        for n in 0..segments / 2 {
            let place = n.wrapping_mul(7919) % (segments / 2);
            let start = OURS.wrapping_add(first + (2 * place + 1) * size);
            victim.feed(Segment {
                sack: vec![(start, start.wrapping_add(size))],
                ..told(&victim, first)
            });
        }
        let (bytes_in, bytes_out) = (victim.bytes_in - bytes_in, victim.bytes_out - bytes_out);
        assert!(
            bytes_out < 10 * bytes_in,
            "{congestion}: {bytes_out} for {bytes_in}"
        );
        victim.pass(3000);
        victim.goes_on();
    }
}

#[test]
fn a_timeout_that_is_taken_back_again_and_again_costs_no_time() {
    let mut victim = Victim::new(|setup, syn| {
        setup.path = Path::Stream;
        setup.mtu = 100;
        syn.mss = Some(1);
        syn.timestamp = Some(5);
    });
    let ack = |victim: &Victim, number: u32, echo: u32| Segment {
        stamps: Some((7, echo)),
        window: u16::MAX,
        ..victim.acknowledgement(number)
    };
    let first = victim.connection.poll_timeout(victim.now);
    assert!(first.is_some());
    let mut stamp = 0;
    for n in 0..30 {
        for _ in 0..20 {
            victim.write(1 << 18);
        }
        stamp = victim
            .sent
            .last()
            .and_then(|s| s.stamps)
            .map_or(stamp, |s| s.0);
        victim.pass(1000);
        // Echoes the first sending of what was sent again since.
        let before = Instant::now();
        victim.feed(ack(&victim, 1 + 10 * n + 10, stamp.wrapping_sub(5000)));
        assert!(before.elapsed() < LONGEST, "{:?}", before.elapsed());
        victim.sent.clear();
    }
    let spurious = victim.connection.take_counters().spurious;
    assert!(spurious > 0, "{spurious}");
}

#[test]
fn acknowledgements_in_pieces_open_the_window_no_further_than_one_for_all() {
    let in_flight = |pieces: u32| {
        let mut victim = Victim::new(|_, _| {});
        victim.write(200_000);
        victim.pass(60);
        let sent = victim.sent_up_to() - 1;
        assert_eq!(sent, 10 * SIZE);
        for piece in 1..=pieces {
            victim.feed(victim.acknowledgement(1 + sent * piece / pieces));
        }
        victim.pass(60);
        victim.sent_up_to() - 1 - sent
    };
    let (whole, pieces) = (in_flight(1), in_flight(1000));
    assert!(pieces <= whole + 2 * SIZE, "{pieces} and {whole}");
}

#[test]
fn acknowledgements_of_what_has_not_left_are_no_acknowledgements() {
    let mut victim = Victim::new(|_, _| {});
    victim.write(200_000);
    victim.pass(60);
    let sent = victim.sent_up_to();
    victim.sent.clear();
    for ahead in 1..1000 {
        victim.feed(victim.acknowledgement(sent + ahead * 100));
    }
    assert_eq!(victim.sent_up_to(), sent);
    assert!(victim.sent.len() <= 10, "{} answers", victim.sent.len());
    victim.goes_on();
}

#[test]
fn optimistic_acknowledgements_never_have_more_in_flight_than_the_window() {
    let mut victim = Victim::new(|_, _| {});
    for _ in 0..2000 {
        victim.write(1 << 20);
        // All that was sent is acknowledged at once, whatever has arrived.
        let number = victim.sent_up_to();
        victim.feed(Segment {
            window: 20,
            ..victim.acknowledgement(number)
        });
        let after = victim.sent_up_to() - number;
        assert!(after <= 20 << 8, "{after} in flight");
        victim.pass(1);
        victim.sent.clear();
    }
}

#[test]
fn nothing_asked_for_by_nonsense_is_answered_more_than_ten_times_a_second() {
    type Make = fn(&Victim, u32) -> Segment;
    let kinds: [(&str, Make); 6] = [
        ("resets", |v, n| Segment {
            flags: RST,
            seq: THEIRS.wrapping_add(2 + n),
            ..v.acknowledgement(1)
        }),
        ("SYNs", |v, n| Segment {
            flags: SYN,
            seq: THEIRS.wrapping_add(n * 77),
            ..v.acknowledgement(1)
        }),
        ("SYNs that acknowledge", |v, n| Segment {
            flags: SYN | ACK,
            seq: THEIRS.wrapping_add(n * 77),
            ..v.acknowledgement(1)
        }),
        ("acknowledgements of the future", |v, n| {
            v.acknowledgement(2 + n)
        }),
        ("data beyond the window", |v, n| Segment {
            seq: THEIRS.wrapping_add((8 << 20) + n),
            payload: vec![0; 10],
            ..v.acknowledgement(1)
        }),
        ("old keep-alives", |v, n| Segment {
            seq: THEIRS.wrapping_sub(n),
            ..v.acknowledgement(1)
        }),
    ];
    for (name, make) in kinds {
        let mut victim = Victim::new(|_, _| {});
        victim.sent.clear();
        for n in 0..2000 {
            victim.feed(make(&victim, n));
        }
        let answers = victim.sent.len();
        assert!(answers <= 10, "{name}: {answers} answers");
        victim.pass(1001);
        for n in 0..2000 {
            victim.feed(make(&victim, n));
        }
        let answers = victim.sent.len();
        assert!(answers <= 20, "{name}: {answers} answers");
        assert!(!victim.connection.is_reset(), "{name}");
        victim.goes_on();
    }
}

#[test]
fn whatever_comes_in_no_more_bytes_go_out_to_a_peer_that_asks_for_nothing() {
    let mut victim = Victim::new(|_, _| {});
    let (bytes_in, bytes_out) = (victim.bytes_in, victim.bytes_out);
    for n in 0..5000_u32 {
        let start = THEIRS.wrapping_add(1 + n.wrapping_mul(7919) % 60_000);
        victim.feed(Segment {
            seq: start,
            payload: vec![1; 60],
            ..victim.acknowledgement(1)
        });
    }
    let (bytes_in, bytes_out) = (victim.bytes_in - bytes_in, victim.bytes_out - bytes_out);
    assert!(
        bytes_out <= bytes_in,
        "{bytes_out} bytes out for {bytes_in}"
    );
}

#[test]
fn overlapping_segments_give_each_byte_once() {
    let mut victim = Victim::new(|_, _| {});
    let total = 50_000_u32;
    let mut place = 0_u32;
    for n in 0..4000_u32 {
        place = (place + 7919) % total;
        let len = (n % 50 * 40 + 1).min(total - place);
        victim.feed(Segment {
            seq: THEIRS.wrapping_add(1 + place),
            payload: vec![n as u8; len as usize],
            ..victim.acknowledgement(1)
        });
    }
    victim.feed(Segment {
        flags: ACK | FIN,
        payload: vec![0; total as usize],
        ..victim.acknowledgement(1)
    });
    assert_eq!(victim.got, u64::from(total));
    assert!(victim.connection.is_receive_finished());
    assert_eq!(victim.stock.used(), 0);
}

#[test]
fn single_bytes_all_over_the_window_hold_no_more_memory_than_the_window() {
    let mut victim = Victim::new(|_, _| {});
    for n in 0..100_000_u32 {
        victim.feed(Segment {
            seq: THEIRS.wrapping_add(2 + n.wrapping_mul(7919) % 130_000),
            payload: vec![1],
            ..victim.acknowledgement(1)
        });
    }
    let used = victim.stock.used();
    assert!(used <= 4 * (64 << 10), "{used} bytes");
    victim.goes_on();
}

#[test]
fn several_fins_are_one_and_nothing_comes_behind_it() {
    let mut victim = Victim::new(|_, _| {});
    let with_fin = |victim: &Victim, at: u32, len: usize| Segment {
        flags: ACK | FIN,
        seq: THEIRS.wrapping_add(1 + at),
        payload: vec![0; len],
        ..victim.acknowledgement(1)
    };
    victim.feed(with_fin(&victim, 2000, 0));
    victim.feed(with_fin(&victim, 1000, 0));
    victim.feed(with_fin(&victim, 5000, 100));
    victim.feed(Segment {
        payload: vec![0; 9000],
        ..victim.acknowledgement(1)
    });
    assert_eq!(victim.got, 2000);
    assert!(victim.connection.is_receive_finished());
    victim.goes_on();
}

#[test]
fn a_window_of_one_byte_gets_single_bytes_and_no_flood() {
    let mut victim = Victim::new(|_, syn| {
        syn.window_len = 1;
        syn.window_scale = None;
    });
    victim.feed(Segment {
        window: 1,
        ..victim.acknowledgement(1)
    });
    victim.write(1000);
    for _ in 0..50 {
        victim.pass(40);
        let number = victim.sent_up_to();
        victim.feed(Segment {
            window: 1,
            ..victim.acknowledgement(number)
        });
    }
    let sent = victim.sent_up_to() - 1;
    assert!((40..=52).contains(&sent), "{sent} bytes");
}

#[test]
fn options_that_are_garbage_end_in_an_error_and_not_in_a_loop() {
    let mut victim = Victim::new(|_, _| {});
    for kind in 0..=255 {
        for len in [0, 1, 2, 3, 4, 10, 39, 40, 41, 255] {
            let mut raw_options = vec![kind, len];
            raw_options.resize(40, kind);
            victim.feed(Segment {
                raw_options,
                ..victim.acknowledgement(1)
            });
        }
    }
    victim.goes_on();
}

#[test]
fn the_sequence_numbers_turn_around_in_both_directions() {
    const CHUNK: usize = 60_000;
    let mut victim = Victim::new(|setup, _| {
        setup.path = Path::Stream;
        setup.max_buffer = 1 << 20;
    });
    let (mut there, mut back) = (0_u64, 0_u64);
    let mut packet = Segment {
        payload: vec![9; CHUNK],
        ..victim.acknowledgement(1)
    }
    .packet(victim.addresses[1], victim.addresses[0]);
    while there < (1 << 32) + (1 << 20) {
        packet[24..28].copy_from_slice(&THEIRS.wrapping_add(1 + there as u32).to_be_bytes());
        packet[28..32].copy_from_slice(&OURS.wrapping_add(1 + back as u32).to_be_bytes());
        let now = victim.now;
        let mut got = 0;
        let taken = victim
            .connection
            .handle_segment(now, &packet, &mut |bytes| {
                got += bytes.len();
                bytes.len()
            });
        assert!(taken.is_ok() && got == CHUNK, "{got} at {there}");
        there += CHUNK as u64;
        let n = victim.connection.room().len().min(CHUNK);
        victim.connection.commit(n);
        while let Some(written) = victim.connection.poll_transmit(now, &mut victim.out) {
            back += written.payload_len as u64;
        }
        victim.now += Duration::from_millis(1);
    }
    assert!(back > 1 << 32, "{back}");
}
