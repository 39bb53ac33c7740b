//! Two ends against each other over a virtual wire with loss, reordering, duplication and delay.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const A: [u8; 4] = [10, 9, 0, 1];
const B: [u8; 4] = [10, 9, 0, 2];

fn packet(from: [u8; 4], to: [u8; 4], number: u32, len: usize) -> Vec<u8> {
    let total = 20 + 4 + len;
    let mut p = vec![0_u8; total];
    p[0] = 0x45;
    p[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    p[12..16].copy_from_slice(&from);
    p[16..20].copy_from_slice(&to);
    p[20..24].copy_from_slice(&number.to_be_bytes());
    p
}

fn pair() -> (Tunnel<()>, Tunnel<()>) {
    let (a, b) = (Tunnel::generate(), Tunnel::generate());
    a.add_peer(b.public_key(), vec!["10.9.0.2/32".parse().unwrap()], ())
        .unwrap();
    b.add_peer(a.public_key(), vec!["10.9.0.1/32".parse().unwrap()], ())
        .unwrap();
    (a, b)
}

/// Messages under way, by the time at which they arrive.
struct Wire {
    rng: StdRng,
    loss: f64,
    now: u64,
    flying: BTreeMap<(u64, u64), (bool, Vec<u8>)>,
    sent: u64,
}

impl Wire {
    fn new(seed: u64, loss: f64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            loss,
            now: 0,
            flying: BTreeMap::new(),
            sent: 0,
        }
    }

    fn send(&mut self, to_b: bool, message: &[u8]) {
        let copies = if self.rng.random_bool(0.05) { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.random_bool(self.loss) {
                continue;
            }
            self.sent += 1;
            let at = self.now + self.rng.random_range(1..20);
            self.flying
                .insert((at, self.sent), (to_b, message.to_vec()));
        }
    }

    fn next(&mut self) -> Option<(bool, Vec<u8>)> {
        let ((at, _), what) = self.flying.pop_first()?;
        self.now = at;
        Some(what)
    }
}

/// Lets everything that flies arrive; what was opened at B is returned.
fn settle(a: &Tunnel<()>, b: &Tunnel<()>, wire: &mut Wire) -> Vec<Vec<u8>> {
    let mut out = vec![0_u8; 2048];
    let mut arrived = Vec::new();
    while let Some((to_b, message)) = wire.next() {
        let end = if to_b { b } else { a };
        match end.open(&message, Some(IpAddr::from([192, 0, 2, 1])), &mut out) {
            Opened::Packet { len, .. } => arrived.push(out[..len].to_vec()),
            Opened::Reply { len, .. } => wire.send(!to_b, &out[..len]),
            Opened::Empty { .. } | Opened::Dropped(_) => {}
        }
    }
    arrived
}

fn connect(a: &Tunnel<()>, b: &Tunnel<()>, wire: &mut Wire) {
    let mut out = [0_u8; MAX_HANDSHAKE];
    let peer = a.route(B.into()).unwrap();
    // Each round is an initiation whose answer was overdue.
    for _ in 0..100 {
        if peer.has_session() {
            return;
        }
        let len = peer.initiate(&mut out).unwrap();
        wire.send(true, &out[..len]);
        settle(a, b, wire);
    }
    panic!("no session after 100 initiations");
}

#[test]
fn packets_cross_a_wire_that_loses_reorders_duplicates_and_delays() {
    for seed in 0..30 {
        let (a, b) = pair();
        let mut wire = Wire::new(seed, 0.2);
        connect(&a, &b, &mut wire);
        let peer = a.route(B.into()).unwrap();
        let mut out = vec![0_u8; 2048];
        let mut arrived = Vec::new();
        for number in 0..200 {
            let p = packet(A, B, number, 100);
            let Sealed::Data(len) = peer.seal(&p, &mut out) else {
                panic!("no session")
            };
            wire.send(true, &out[..len]);
            if number % 20 == 0 {
                arrived.extend(settle(&a, &b, &mut wire));
            }
        }
        arrived.extend(settle(&a, &b, &mut wire));
        let mut numbers: Vec<u32> = arrived
            .iter()
            .map(|p| u32::from_be_bytes(p[20..24].try_into().unwrap()))
            .collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(
            numbers.len(),
            count,
            "a duplicate came through (seed {seed})"
        );
        assert!(
            (100..=200).contains(&count),
            "{count} of 200 arrived (seed {seed})"
        );
        assert!(
            b.drops().replay > 0,
            "duplicates were not counted (seed {seed})"
        );
    }
}

#[test]
fn an_inner_packet_from_somebody_elses_address_is_dropped_and_counted() {
    let (a, b) = pair();
    let mut wire = Wire::new(1, 0.0);
    connect(&a, &b, &mut wire);
    let peer = a.route(B.into()).unwrap();
    let mut out = vec![0_u8; 2048];
    let spoofed = packet([10, 9, 0, 77], B, 0, 10);
    let Sealed::Data(len) = peer.seal(&spoofed, &mut out) else {
        panic!("no session")
    };
    wire.send(true, &out[..len]);
    assert!(settle(&a, &b, &mut wire).is_empty());
    assert!(b.drops().wrong_source >= 1);
}

#[test]
fn a_stranger_gets_no_session() {
    let (_, b) = pair();
    let stranger: Tunnel<()> = Tunnel::generate();
    let peer = stranger
        .add_peer(b.public_key(), vec!["10.9.0.2/32".parse().unwrap()], ())
        .unwrap();
    let mut out = [0_u8; 256];
    let len = peer.initiate(&mut out).unwrap();
    let message = out[..len].to_vec();
    let answer = b.open(&message, None, &mut out);
    assert!(
        matches!(answer, Opened::Dropped(Drop::UnknownKey)),
        "{answer:?}"
    );
}

#[test]
fn a_flood_of_initiations_is_answered_with_cookies() {
    let (a, b) = pair();
    let peer = a.route(B.into()).unwrap();
    let mut out = [0_u8; 256];
    let mut cookies = 0;
    for _ in 0..1200 {
        let len = peer.initiate(&mut out).unwrap();
        let message = out[..len].to_vec();
        if let Opened::Reply { peer: None, .. } =
            b.open(&message, Some(IpAddr::from([192, 0, 2, 1])), &mut out)
        {
            cookies += 1;
        }
    }
    assert!(cookies > 0, "1200 initiations at once and no cookie");
}

#[test]
fn random_bytes_never_do_more_than_be_counted() {
    let (_, b) = pair();
    let mut rng = StdRng::seed_from_u64(7);
    let mut out = vec![0_u8; 4096];
    for _ in 0..20_000 {
        let mut junk = vec![0_u8; rng.random_range(0..300)];
        rng.fill(&mut junk[..]);
        if let Some(first) = junk.first_mut() {
            *first %= 6;
        }
        if junk.len() > 4 && rng.random_bool(0.5) {
            junk[1..4].fill(0);
        }
        assert!(matches!(b.open(&junk, None, &mut out), Opened::Dropped(_)));
    }
}

#[test]
fn a_key_or_an_address_belongs_to_one_peer_at_a_time() {
    let t: Tunnel<()> = Tunnel::generate();
    let net = |s: &str| vec![s.parse::<IpNet>().unwrap()];
    let first = t.add_peer([1; 32], net("10.9.0.5/32"), ()).unwrap();
    assert_eq!(
        t.add_peer([1; 32], net("10.9.0.6/32"), ()).unwrap_err(),
        AddPeerError::DuplicateKey
    );
    assert!(matches!(
        t.add_peer([2; 32], net("10.9.0.5/32"), ()),
        Err(AddPeerError::DuplicateAddress(_))
    ));
    t.remove_peer(first.id());
    let second = t.add_peer([1; 32], net("10.9.0.5/32"), ()).unwrap();
    assert_ne!(
        first.id(),
        second.id(),
        "a peer's number was given out twice"
    );
}
