//! What tests on real traffic have in common: a machine and a cluster, programs between them, sockets.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use pmz_net::steer::{PrefixKind, Steering, Target, TargetChange};

use crate::scene::{DEVICE, Side};
use crate::trial::{ip, steered};

/// Long enough for anything that happens at once on a busy machine, and shorter than any retransmission's end.
pub(crate) const SOON: Duration = Duration::from_millis(900);

pub(crate) fn attached(side: &Side) -> Steering {
    set_up(side.run(|| Steering::attach(DEVICE)).unwrap())
}

pub(crate) fn set_up(mut steering: Steering) -> Steering {
    steering
        .set_prefixes(&steered(&[
            ("10.96.0.0/12", PrefixKind::Services),
            ("fd00:96::/64", PrefixKind::Services),
            ("240.0.0.0/16", PrefixKind::Services),
            ("fd00:5::/64", PrefixKind::Services),
            ("10.244.0.0/16", PrefixKind::Other),
            ("fd00:244::/64", PrefixKind::Other),
        ]))
        .unwrap();
    steering.set_complete(true).unwrap();
    steering
}

pub(crate) fn put(steering: &mut Steering, address: &str, real: Option<&str>, reject: bool) {
    let target = Target {
        address: ip(address),
        real: real.map(ip),
        reject,
        service: true,
    };
    steering.apply(&[TargetChange::Put(target)]).unwrap();
}

pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

/// The error of a datagram socket that has sent to the address.
pub(crate) fn error_after_sending(side: &Side, to: &str, data: &[u8]) -> io::Error {
    side.run(|| {
        let any = if ip(to).is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        socket.connect(at(to, 53)).unwrap();
        socket.send(data).unwrap();
        socket.recv(&mut [0; 16]).unwrap_err()
    })
}

/// A cluster whose services have both their own addresses and the stand-ins of [`FAMILIES`].
pub(crate) const FAMILIES: [(&str, &str); 2] =
    [("240.0.0.7", "10.96.0.10"), ("fd00:5::7", "fd00:96::10")];

pub(crate) fn cluster() -> Side {
    Side::new(
        &["10.96.0.10", "fd00:96::10"],
        &["10.8.0.0/24", "fd00:8::/64"],
    )
}

pub(crate) fn remapped(machine: &Side) -> Steering {
    let mut steering = attached(machine);
    for (used, real) in FAMILIES {
        put(&mut steering, used, Some(real), false);
    }
    steering
}

pub(crate) const TEN_MEGABYTES: usize = 10_000_000;

/// Bytes of which every position differs from its neighbours, so that what is lost or doubled shows.
pub(crate) fn pattern() -> Vec<u8> {
    (0..TEN_MEGABYTES)
        .map(|n| (n * 31 + n / 251) as u8)
        .collect()
}

/// Whether it becomes true within the time: the last packets of a closing connection are still on their way.
pub(crate) fn within(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::yield_now();
    }
}
