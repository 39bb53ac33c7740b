//! The programs at a cgroup.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket};
use std::os::fd::BorrowedFd;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError};
use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr};
use pmz_xdp_types::capture::{
    BIND_PROGRAMS, CONFIG, Config, NETNS, OWN, PROGRAMS, SERVERS, SLOTS, V4_NETWORK,
};
use pmz_xdp_types::{Address, DIVERTED, FLOWS, ORIGINS, PREFIX_VOLUMES, TARGETS, TRAFFIC, guard};
use serde::{Deserialize, Serialize};

use super::{CaptureError, CaptureSockets, Slot, Slots, servers};
use crate::steer::SteerError;
use crate::steer::load::{open, with_memory};
use crate::steer::maps::typed;
use crate::steer::verify::verified;

/// Maps of the same object that others use.
const OTHERS: [&str; 9] = [
    TARGETS,
    ORIGINS,
    TRAFFIC,
    FLOWS,
    PREFIX_VOLUMES,
    DIVERTED,
    guard::PEERS,
    guard::KNOWN,
    guard::SOURCES,
];

const ROOT: &str = "the root cgroup";

/// An address at which the programs, and nobody else, hear something. Which one is drawn by lot: it does no harm where
/// another process guesses it, whose own queries are not caught then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock(SocketAddrV4);

impl Knock {
    /// Tells the programs that this process is our own name server: what it asks is not caught from now on. Nothing is
    /// sent.
    ///
    /// # Errors
    /// [`CaptureError::Unseen`] where no program heard it.
    pub fn announce(self) -> Result<(), CaptureError> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(CaptureError::Sockets)?;
        match socket.connect(self.0) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(CaptureError::Unseen(error.to_string())),
            Ok(()) => Err(CaptureError::Unseen(format!("{} was reached", self.0))),
        }
    }
}

/// The programs at a cgroup. Dropping it takes them away, and so does the end of the process.
pub struct Capture {
    slots: Slots,
    own: Knock,
    servers: HashMap<MapData, u32, Address>,
    /// Its links are what holds the programs at the cgroup.
    _programs: Ebpf,
}

impl Capture {
    /// Catches the queries of all processes below a cgroup that are in the calling thread's network namespace, from
    /// the moment at which this returns. They arrive at the sockets.
    ///
    /// Addresses of `slots` for IPv6 must be this machine's: a local route leads them here.
    ///
    /// # Errors
    /// [`CaptureError`] tells what is missing.
    pub fn attach(
        cgroup: BorrowedFd<'_>,
        slots: Slots,
    ) -> Result<(Self, CaptureSockets), CaptureError> {
        let sockets = CaptureSockets::open(slots.v6().is_some()).map_err(CaptureError::Sockets)?;
        let [v4_ports, v6_ports] = sockets.ports().map_err(CaptureError::Sockets)?;
        let slots = Slots::new(slots.v6().filter(|_| v6_ports.is_some()));
        let (knock, own) = knocks();
        let config = Config {
            v6_network: slots.v6().map(words).unwrap_or_default(),
            v4_ports: v4_ports.map(in_packets).unwrap_or_default(),
            v6_ports: v6_ports.map(in_packets).unwrap_or_default(),
            knock_address: u32::from_ne_bytes(knock.0.ip().octets()),
            knock_netns: u32::from(knock.0.port().to_be()),
            knock_own: u32::from(own.0.port().to_be()),
            seed: rand::random(),
        };
        let mut programs = with_memory(load)?;
        let mut map: Array<MapData, Config> = typed(&mut programs, CONFIG)?;
        map.set(0, config, 0)
            .map_err(|error| SteerError::writing(CONFIG, &error))?;
        // The programs hold these.
        let _: Array<MapData, u64> = typed(&mut programs, NETNS)?;
        let _: Array<MapData, u32> = typed(&mut programs, OWN)?;
        let mut known: HashMap<MapData, u32, u32> = typed(&mut programs, SERVERS)?;
        let servers = typed(&mut programs, SLOTS)?;
        for process in servers::running() {
            known
                .insert(process, 1, 0)
                .map_err(|error| SteerError::writing(SERVERS, &error))?;
        }
        attach(&mut programs, cgroup)?;
        let capture = Self {
            slots,
            own,
            servers,
            _programs: programs,
        };
        // All of them at once: a query that goes out by one comes back by another.
        knock.announce()?;
        Ok((capture, sockets))
    }

    /// Which addresses stand for servers.
    pub fn slots(&self) -> Slots {
        self.slots
    }

    /// How our own name server makes itself known.
    pub fn knock(&self) -> Knock {
        self.own
    }

    /// The server that a slot stands for, once and for all; `None` where it stands for none yet.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn server(&self, slot: Slot) -> Result<Option<IpAddr>, CaptureError> {
        match self.servers.get(&u32::from(slot.0), 0) {
            Ok(address) => Ok(Some(ip(&address))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(SteerError::reading(SLOTS, &error).into()),
        }
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

fn load() -> Result<Ebpf, SteerError> {
    let mut programs = open(&[], &OTHERS)?;
    for name in PROGRAMS {
        let program = sock_addr(&mut programs, name)?;
        verified(name, || program.load())?;
    }
    for name in BIND_PROGRAMS {
        let program = sock(&mut programs, name)?;
        verified(name, || program.load())?;
    }
    Ok(programs)
}

/// By links, which the kernel always lets stand beside those of others, whatever this mode is called.
fn attach(programs: &mut Ebpf, cgroup: BorrowedFd<'_>) -> Result<(), SteerError> {
    for name in PROGRAMS {
        sock_addr(programs, name)?
            .attach(cgroup, CgroupAttachMode::Single)
            .map_err(|error| SteerError::attaching(ROOT, &error))?;
    }
    for name in BIND_PROGRAMS {
        sock(programs, name)?
            .attach(cgroup, CgroupAttachMode::Single)
            .map_err(|error| SteerError::attaching(ROOT, &error))?;
    }
    Ok(())
}

fn sock_addr<'a>(
    programs: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut CgroupSockAddr, SteerError> {
    programs
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| missing(name))
}

fn sock<'a>(programs: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSock, SteerError> {
    programs
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| missing(name))
}

fn missing(name: &str) -> SteerError {
    SteerError::Load(format!("the object has no program {name}"))
}

/// Two ports of one loopback address that is no slot.
fn knocks() -> (Knock, Knock) {
    let [low, high, third, lower, upper] = rand::random::<[u8; 5]>();
    let [a, b, ..] = V4_NETWORK;
    let address = Ipv4Addr::new(a, b + 1, low, high);
    // Neither of them 0, which to the programs is no port.
    let port = u16::from_be_bytes([lower, upper]) | 1;
    let other = port ^ (u16::from(third | 1) << 8);
    let at = |port| Knock(SocketAddrV4::new(address, port));
    (at(port), at(other))
}

fn in_packets(ports: [u16; 2]) -> [u32; 2] {
    ports.map(|port| u32::from(port.to_be()))
}

fn words(address: Ipv6Addr) -> Address {
    let octets = address.octets();
    let (words, _) = octets.as_chunks::<4>();
    let mut all = [0; 4];
    for (into, word) in all.iter_mut().zip(words) {
        *into = u32::from_ne_bytes(*word);
    }
    Address(all)
}

fn ip(address: &Address) -> IpAddr {
    let mut octets = [0; 16];
    for (into, word) in octets.chunks_exact_mut(4).zip(address.0) {
        into.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(octets).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_same_in_a_map_and_here() {
        for text in ["8.8.8.8", "127.0.0.53", "::1", "2001:db8::53", "0.0.0.0"] {
            let address: IpAddr = text.parse().unwrap();
            let mapped = match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            assert_eq!(ip(&words(mapped)), address, "{text}");
        }
    }

    #[test]
    fn what_is_said_by_a_knock_is_told_apart_and_no_slot_is_used_for_it() {
        for _ in 0..1000 {
            let (one, other) = knocks();
            assert_eq!(one.0.ip(), other.0.ip());
            assert_ne!(one.0.port(), other.0.port());
            assert!(one.0.port() != 0 && other.0.port() != 0);
            assert_eq!(Slots::random().slot((*one.0.ip()).into()), None);
        }
    }
}
