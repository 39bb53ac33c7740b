//! Network namespaces with a TUN each, and the wire between two TUNs.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use pmz_net::device::{Tun, open_tun};
use pmz_net::packet::checksum::{complete, transport_ok, v4_header_ok};
use pmz_net::packet::ip::IpView;
use pmz_net::packet::{VNET_HDR_LEN, VnetHdr};
use pmz_net::route::Netlink;

use crate::common::namespace::Namespace;
use crate::trial::ip;

/// The device's name, in each namespace.
pub(crate) const DEVICE: &str = "pmz0";
/// The machine's addresses, and the cluster's prefixes in its routes.
pub(crate) const MACHINE: [&str; 2] = ["10.8.0.2", "fd00:8::2"];

/// A network namespace with a TUN in it, and the TUN's other end.
pub(crate) struct Side {
    namespace: Namespace,
    tun: Arc<Tun>,
}

impl Side {
    /// The device has these addresses; packets to these prefixes go through it.
    pub(crate) fn new(addresses: &[&str], routes: &[&str]) -> Self {
        let namespace = Namespace::new();
        let tun = namespace.run(|| open_tun(DEVICE).unwrap());
        namespace.block_on(|| async {
            let netlink = Netlink::open().unwrap();
            netlink.bring_up(1, 65_535).await.unwrap();
            netlink.bring_up(tun.index, 1400).await.unwrap();
            for address in addresses {
                netlink.add_address(tun.index, ip(address)).await.unwrap();
            }
            for route in routes {
                let to = route.parse().unwrap();
                netlink.add_route(tun.index, to, None, None).await.unwrap();
            }
        });
        Self {
            namespace,
            tun: Arc::new(Tun::new(tun.fd).unwrap()),
        }
    }

    /// A machine whose packets to the usual prefixes go through the device.
    pub(crate) fn machine() -> Self {
        Self::new(
            &MACHINE,
            &[
                "10.96.0.0/12",
                "10.244.0.0/16",
                "240.0.0.0/16",
                "fd00:96::/64",
                "fd00:244::/64",
                "fd00:5::/64",
            ],
        )
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs `f` inside.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(f)
    }

    /// Whether all that was to leave by the device had room in its queue. Who reads it may be slow.
    pub(crate) fn lost_nothing(&self) -> bool {
        let interfaces = self.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let lines = interfaces.lines();
        let line = lines.filter_map(|line| line.trim_start().split_once(':'));
        let (_, counters) = { line }.find(|(name, _)| *name == DEVICE).unwrap();
        // Behind eight of what was received: bytes, packets, errors, and what was dropped.
        counters.split_whitespace().nth(11) == Some("0")
    }

    /// The next packet that has left by the device, without its virtio-net header, if one comes within the time.
    pub(crate) fn next(&self, within: Duration) -> Option<Vec<u8>> {
        let mut frame = vec![0; 70_000];
        let mut fds = [PollFd::new(self.tun.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(within).unwrap();
        if poll(&mut fds, timeout).unwrap() == 0 {
            return None;
        }
        let length = self.tun.recv(&mut frame).ok()?;
        Some(frame[VNET_HDR_LEN..length].to_vec())
    }
}

/// What has gone over a wire one way, as who stands on it counts it.
#[derive(Default)]
pub(crate) struct Passed {
    pub(crate) packets: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) super_packets: AtomicU64,
    /// Frames with a wrong checksum.
    pub(crate) wrong: AtomicU64,
    /// Of these addresses only.
    about: Option<IpAddr>,
}

impl Passed {
    /// Packets and bytes.
    pub(crate) fn volume(&self) -> (u64, u64) {
        (
            self.packets.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }

    fn count(&self, frame: &[u8], check: bool) {
        let header = VnetHdr::parse(frame).unwrap();
        let packet = &frame[VNET_HDR_LEN..];
        let view = IpView::parse(packet).unwrap();
        if self
            .about
            .is_some_and(|about| view.src() != about && view.dst() != about)
        {
            return;
        }
        let packets = if header.is_super_packet() {
            self.super_packets.fetch_add(1, Ordering::Relaxed);
            let payload = packet.len() - usize::from(header.hdr_len);
            payload.div_ceil(usize::from(header.gso_size))
        } else {
            1
        };
        self.packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
        if check && !right(frame) {
            self.wrong.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether the sums are right, once the part that a device would add is added.
fn right(frame: &[u8]) -> bool {
    let mut whole = frame.to_vec();
    if !complete(&mut whole) {
        return false;
    }
    let view = IpView::parse(&whole[VNET_HDR_LEN..]).unwrap();
    let header_ok = !view.is_v4() || v4_header_ok(&whole[VNET_HDR_LEN..][..20]);
    header_ok && transport_ok(&view)
}

/// Two TUNs, joined: what leaves by one arrives by the other, virtio-net headers and all.
pub(crate) struct Wire {
    pub(crate) out: Arc<Passed>,
    pub(crate) back: Arc<Passed>,
    stop: Arc<(EventFd, AtomicBool)>,
    threads: Vec<JoinHandle<()>>,
}

impl Wire {
    /// Joins them. With `check`, the sums in every frame are checked; what is counted is about `address`, where
    /// one is given.
    pub(crate) fn between(
        machine: &Side,
        cluster: &Side,
        check: bool,
        address: Option<&str>,
    ) -> Self {
        let passed = || {
            Arc::new(Passed {
                about: address.map(ip),
                ..Passed::default()
            })
        };
        let (out, back) = (passed(), passed());
        let stop = Arc::new((EventFd::new().unwrap(), AtomicBool::new(false)));
        let threads = [
            (&machine.tun, &cluster.tun, &out),
            (&cluster.tun, &machine.tun, &back),
        ]
        .map(|(from, to, passed)| {
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            let (passed, stop) = (Arc::clone(passed), Arc::clone(&stop));
            std::thread::spawn(move || carry(&from, &to, &passed, &stop, check))
        })
        .into();
        Self {
            out,
            back,
            stop,
            threads,
        }
    }
}

impl Wire {
    /// Frames with a wrong checksum, either way.
    pub(crate) fn wrong(&self) -> u64 {
        self.out.wrong.load(Ordering::Relaxed) + self.back.wrong.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.1.store(true, Ordering::Relaxed);
        self.stop.0.write(1).unwrap();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("the wire broke");
            }
        }
    }
}

fn carry(from: &Tun, to: &Tun, passed: &Passed, stop: &(EventFd, AtomicBool), check: bool) {
    let mut frame = vec![0; 70_000];
    while !stop.1.load(Ordering::Relaxed) {
        match from.recv(&mut frame) {
            Ok(length) => {
                passed.count(&frame[..length], check);
                // A device that is full or gone loses packets, as wires do.
                let _ = to.send(&frame[..length]);
            }
            Err(_) => {
                let mut fds = [
                    PollFd::new(from.as_fd(), PollFlags::POLLIN),
                    PollFd::new(stop.0.as_fd(), PollFlags::POLLIN),
                ];
                poll(&mut fds, PollTimeout::NONE).unwrap();
            }
        }
    }
}
