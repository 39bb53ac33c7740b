//! A peer that does what no honest one would: nothing breaks, nothing grows without bound, nobody gets more
//! than was asked for, and the rest of the connection goes on.

mod acknowledgements;
mod answers;
mod data;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pmz_net::tcp::{Congestion, Connection, Path, Setup, Stock, Syn};

use crate::wire::{ACK, Segment, distance};

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
