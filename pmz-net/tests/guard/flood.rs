//! What a flood of junk costs a tunnel, and what the guard costs without one:
//! `cargo test --release -p pmz-net --test guard flood -- --ignored --nocapture`.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use nix::unistd::gettid;
use pmz_net::guard::Guard;

use crate::common::skip::need_root;
use crate::ends::{AGENT, Ends, Place, processor_time};
use crate::frames::{PORT, to_receiver};
use crate::net::{ETH, Lab};

const TIME: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 5;
const BATCH: usize = 64;

/// Sends junk until it is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    begun: Instant,
}

impl Flood {
    /// From the neighbour, `rate` datagrams a second or as many as it can.
    fn new(lab: &Lab, to: IpAddr, rate: u64) -> Self {
        let socket = lab
            .neighbour
            .run(|| UdpSocket::bind((lab.neighbour.v4(), 0)))
            .unwrap();
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let thread = {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            let to = SocketAddr::new(to, PORT);
            std::thread::spawn(move || {
                send(&socket, to, rate, &sent, |_| stop.load(Ordering::Relaxed));
            })
        };
        Self {
            stop,
            sent,
            thread: Some(thread),
            begun: Instant::now(),
        }
    }

    /// Datagrams a second so far.
    fn rate(&self) -> f64 {
        self.sent.load(Ordering::Relaxed) as f64 / self.begun.elapsed().as_secs_f64()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Sends until `enough` says so of the number sent.
fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    rate: u64,
    sent: &AtomicU64,
    enough: impl Fn(u64) -> bool,
) {
    // As long as a tunnel's acknowledgements, and to a receiver that nobody is.
    let junk = to_receiver(4, 96, 0xdead_0000);
    let buffers = vec![[std::io::IoSlice::new(&junk)]; BATCH];
    let addresses = vec![Some(SockaddrStorage::from(to)); BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let begun = Instant::now();
    loop {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        let done = sent.load(Ordering::Relaxed);
        if enough(done) {
            return;
        }
        if done > due {
            let ahead = Duration::from_secs_f64((done - due) as f64 / rate as f64);
            // The rate is kept by the clock.
            std::thread::sleep(ahead.min(Duration::from_millis(1)));
            continue;
        }
        let batch = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &buffers,
            &addresses,
            [],
            MsgFlags::empty(),
        );
        sent.fetch_add(batch.map_or(0, Iterator::count) as u64, Ordering::Relaxed);
    }
}

/// Gbit/s of one TCP connection from the client to this address of the agent's.
fn throughput(lab: &Lab, to: IpAddr) -> f64 {
    let at = SocketAddr::new(to, 80);
    let listener = lab.agent.run(|| TcpListener::bind(at)).unwrap();
    let mut near = lab.client.run(|| TcpStream::connect(at)).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        let begun = Instant::now();
        let mut total = 0_u64;
        while let Ok(length @ 1..) = far.read(&mut buffer) {
            total += length as u64;
        }
        total as f64 * 8.0 / begun.elapsed().as_secs_f64() / 1e9
    });
    let data = vec![7; 1 << 18];
    let begun = Instant::now();
    while begun.elapsed() < TIME {
        near.write_all(&data).unwrap();
    }
    drop(near);
    reader.join().unwrap()
}

/// Where the junk goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Junk {
    None,
    /// Out of the neighbour's own loopback, to nobody: it costs the machine the sending, and the tunnel nothing.
    Elsewhere,
    ToTheTunnel,
}

fn cell(place: Option<Place>, junk: Junk, rate: u64) -> (f64, f64) {
    let lab = Lab::new();
    let mut ends = Ends::new((&lab.client, lab.client.v4()), (&lab.agent, lab.agent.v4()));
    let _guard = place.map(|place| {
        let mut guard = ends.agent.guard(&lab.agent, place);
        guard.add_peer(ends.client_id).unwrap();
        guard
    });
    assert!(ends.answers());
    // Bound and never read: its queue is full soon, and what comes then is dropped.
    let sink = lab
        .neighbour
        .run(|| UdpSocket::bind((lab.neighbour.v4(), PORT)))
        .unwrap();
    let to = match junk {
        Junk::ToTheTunnel => lab.agent.v4(),
        _ => lab.neighbour.v4(),
    };
    let flood = (junk != Junk::None).then(|| Flood::new(&lab, to, rate));
    let speed = throughput(&lab, AGENT.into());
    drop(sink);
    (speed, flood.map_or(0.0, |flood| flood.rate()))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "a measurement"]
fn a_tunnel_under_a_flood() {
    need_root!();
    let places = [None, Some(Place::Driver), Some(Place::Socket)];
    for rate in [200_000, 1_000_000] {
        let mut cells = Vec::new();
        for junk in [Junk::None, Junk::Elsewhere, Junk::ToTheTunnel] {
            for place in places {
                // With no junk the rate says nothing.
                if junk != Junk::None || rate == 200_000 {
                    cells.push((place, junk, Vec::new(), Vec::new()));
                }
            }
        }
        for _ in 0..ROUNDS {
            for (place, junk, speeds, rates) in &mut cells {
                let (speed, sent) = cell(*place, *junk, rate);
                speeds.push(speed);
                rates.push(sent);
            }
        }
        for (place, junk, speeds, rates) in cells {
            println!(
                "guard {place:?}, junk {junk:?} at {:.0}/s: {:.2} Gbit/s",
                median(rates),
                median(speeds)
            );
        }
    }
}

/// Without a tunnel: what else comes by the interface.
#[test]
#[ignore = "a measurement"]
fn other_traffic_of_a_guarded_interface() {
    need_root!();
    let places = [None, Some(Place::Driver), Some(Place::Socket)];
    let mut all = places.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (place, speeds) in places.iter().zip(&mut all) {
            let lab = Lab::new();
            let bind = || UdpSocket::bind((lab.agent.v4(), PORT));
            let tunnel = lab.agent.run(bind).unwrap();
            let _guard = place.map(|place| match place {
                Place::Driver => lab.agent.run(|| Guard::at_interface(ETH, PORT)).unwrap(),
                Place::Socket => Guard::at_socket(tunnel.as_fd()).unwrap(),
            });
            speeds.push(throughput(&lab, lab.agent.v4()));
        }
    }
    for (place, speeds) in places.iter().zip(all) {
        println!("guard {place:?}: {:.1} Gbit/s of plain TCP", median(speeds));
    }
}

/// Processor time for each datagram of junk, which tells more than throughput where others use the machine, too: at the
/// sender, whose processor on veth does all that is done before the socket, and in the thread behind the socket.
#[test]
#[ignore = "a measurement"]
fn what_a_datagram_of_junk_costs() {
    need_root!();
    const NUMBER: u64 = 300_000;
    for place in [None, Some(Place::Driver), Some(Place::Socket)] {
        let (mut sending, mut receiving, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let lab = Lab::new();
            let mut ends = Ends::new((&lab.client, lab.client.v4()), (&lab.agent, lab.agent.v4()));
            let _guard = place.map(|place| {
                let mut guard = ends.agent.guard(&lab.agent, place);
                guard.add_peer(ends.client_id).unwrap();
                guard
            });
            assert!(ends.answers());
            let bind = || UdpSocket::bind((lab.neighbour.v4(), 0));
            let socket = lab.neighbour.run(bind).unwrap();
            let to = SocketAddr::new(lab.agent.v4(), PORT);
            let (before, begun) = (ends.agent.receiving(), Instant::now());
            let flood = std::thread::spawn(move || {
                let sent = AtomicU64::new(0);
                send(&socket, to, u64::MAX, &sent, |sent| sent >= NUMBER);
                // It began with this thread.
                (sent.into_inner(), processor_time(gettid()))
            });
            let (sent, sender) = flood.join().unwrap();
            rates.push(sent as f64 / begun.elapsed().as_secs_f64());
            // What has come before is done with.
            assert!(ends.answers());
            let each = |time: Duration| time.as_nanos() as f64 / sent as f64;
            sending.push(each(sender));
            receiving.push(each(ends.agent.receiving() - before));
        }
        println!(
            "guard {place:?}: {:.0} ns at the sender, {:.0} ns behind the socket, at {:.0}/s",
            median(sending),
            median(receiving),
            median(rates)
        );
    }
}
