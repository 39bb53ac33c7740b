//! Who does the NAT's work: its thread, or whoever brings packets.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use pmz_net::nat::{Egress, Inbox, Nat, NatConfig, PeerId, RunningNat, Way};
use pmz_net::packet::VNET_HDR_LEN;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr};

const PEER: PeerId = PeerId(3);
const AGENT: [u8; 4] = [10, 1, 0, 1];
const CLIENT: [u8; 4] = [10, 1, 0, 2];
const PATIENCE: Duration = Duration::from_secs(20);

/// The identifier and the sequence number of an answer, and the thread that sent it.
type Answer = ((u16, u16), ThreadId);

struct Told {
    answers: Sender<Answer>,
    broken: Arc<AtomicBool>,
}

impl Egress for Told {
    fn has_room(&self, _: PeerId, _: u32) -> bool {
        true
    }

    fn transmit(&mut self, _: PeerId, _: u32, frame: &mut [u8]) {
        assert!(!self.broken.load(Ordering::SeqCst), "broken on purpose");
        let ip = Ipv4Packet::new_checked(&frame[VNET_HDR_LEN..]).unwrap();
        let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
        let answer = (icmp.echo_ident(), icmp.echo_seq_no());
        // The test may be over.
        let _ = self.answers.send((answer, thread::current().id()));
    }

    fn transmit_gathered(&mut self, _: PeerId, _: u32, _: &mut [u8], _: [&[u8]; 2]) {}

    fn flush(&mut self) {}

    fn way(&self, _: PeerId) -> Way {
        Way {
            mtu: 1280,
            lossless: false,
            in_flight_limit: usize::MAX,
        }
    }
}

struct Bed {
    nat: RunningNat,
    answers: Receiver<Answer>,
    broken: Arc<AtomicBool>,
}

impl Bed {
    fn new(change: impl FnOnce(&mut NatConfig)) -> Self {
        let (sender, answers) = channel();
        let broken = Arc::new(AtomicBool::new(false));
        let mut config = NatConfig {
            own_addresses: vec![AGENT.into()],
            ..NatConfig::default()
        };
        change(&mut config);
        let egress = Told {
            answers: sender,
            broken: Arc::clone(&broken),
        };
        let nat = Nat::spawn(config, Box::new(egress)).unwrap();
        Self {
            nat,
            answers,
            broken,
        }
    }

    fn answer(&self) -> Answer {
        self.answers.recv_timeout(PATIENCE).expect("an answer")
    }
}

/// A request to the agent's own address, which the NAT itself answers.
fn request(ident: u16, seq_no: u16) -> Vec<u8> {
    let icmp = Icmpv4Repr::EchoRequest {
        ident,
        seq_no,
        data: &[],
    };
    let ip = Ipv4Repr {
        src_addr: CLIENT.into(),
        dst_addr: AGENT.into(),
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; VNET_HDR_LEN + ip.buffer_len() + icmp.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[VNET_HDR_LEN..]);
    ip.emit(&mut packet, &checksums);
    icmp.emit(
        &mut Icmpv4Packet::new_unchecked(packet.payload_mut()),
        &checksums,
    );
    frame
}

fn push(inbox: &Inbox, frame: Vec<u8>) {
    let deadline = Instant::now() + PATIENCE;
    let mut frame = frame.into();
    while let Err(back) = inbox.try_push(PEER, frame) {
        assert!(Instant::now() < deadline, "the inbox stays full");
        frame = back;
        thread::yield_now();
    }
}

#[test]
fn whoever_brings_a_packet_does_the_work_while_the_thread_sleeps() {
    let bed = Bed::new(|_| {});
    let inbox = bed.nat.inbox();
    let (mut own, deadline) = (false, Instant::now() + PATIENCE);
    while !own {
        // The thread may just not sleep yet.
        assert!(Instant::now() < deadline, "the thread does all of it");
        push(&inbox, request(1, 1));
        inbox.settle();
        own = bed.answer().1 == thread::current().id();
    }
}

#[test]
fn what_is_handed_over_is_done_by_the_thread() {
    let bed = Bed::new(|_| {});
    let inbox = bed.nat.inbox();
    for number in 0..100 {
        push(&inbox, request(1, number));
        inbox.hand_over();
        let (answer, by) = bed.answer();
        assert_eq!(answer, (1, number));
        assert_ne!(by, thread::current().id());
    }
}

#[test]
fn of_what_many_threads_bring_at_once_nothing_is_forgotten() {
    const EACH: u16 = 5_000;
    // Small enough to be full at times.
    let bed = Bed::new(|config| config.inbox_frames = 64);
    let threads: Vec<_> = (1..=4)
        .map(|ident| {
            let inbox = bed.nat.inbox();
            thread::spawn(move || {
                for number in 0..EACH {
                    push(&inbox, request(ident, number));
                    // Batches of one, two and three.
                    if number % 3 != ident % 3 {
                        inbox.settle();
                    }
                }
                inbox.settle();
            })
        })
        .collect();
    let answers: HashSet<_> = (0..4 * usize::from(EACH)).map(|_| bed.answer().0).collect();
    assert_eq!(answers.len(), 4 * usize::from(EACH));
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_fault_ends_the_nat_whoever_was_at_work() {
    let bed = Bed::new(|_| {});
    bed.broken.store(true, Ordering::SeqCst);
    let inbox = bed.nat.inbox();
    let other = thread::spawn(move || {
        push(&inbox, request(1, 1));
        inbox.settle();
    });
    // It panicked where it was the one.
    let _ = other.join();
    let deadline = Instant::now() + PATIENCE;
    while !bed.nat.is_finished() {
        assert!(
            Instant::now() < deadline,
            "the thread goes on as if nothing was"
        );
        thread::yield_now();
    }
    let refused = bed.nat.inbox().try_push(PEER, request(1, 2).into());
    assert!(refused.is_err());
}
