//! What the capture of DNS queries shares with its loader.
//!
//! A query goes to an address of this machine that stands for the server which the program asked: its last sixteen
//! bits are that server's *slot*. So our server knows from the address it was asked at what was meant, and an answer's
//! source tells it to the program, with nothing remembered for a socket. A slot keeps its server for as long as the
//! maps live: a socket that is connected to it must not find another one behind it.

use crate::Address;

/// The programs, in the order of `bpf_attach_type`: connect, sendmsg, recvmsg, getpeername, each for IPv4 and IPv6.
pub const PROGRAMS: [&str; 8] = [
    "pmz_connect4",
    "pmz_connect6",
    "pmz_sendmsg4",
    "pmz_sendmsg6",
    "pmz_recvmsg4",
    "pmz_recvmsg6",
    "pmz_peername4",
    "pmz_peername6",
];
/// Programs that learn who serves names, after a socket was bound.
pub const BIND_PROGRAMS: [&str; 2] = ["pmz_dns_bind4", "pmz_dns_bind6"];

/// [`Config`] at index 0.
pub const CONFIG: &str = "PMZ_DNS_CONFIG";
/// Cookie of the network namespace whose queries are caught, at index 0; none are while it is 0.
pub const NETNS: &str = "PMZ_DNS_NETNS";
/// Thread group of our own server, at index 0.
pub const OWN: &str = "PMZ_DNS_OWN";
/// Slot to the [`Address`] of the server that it stands for.
pub const SLOTS: &str = "PMZ_DNS_SLOTS";
/// Thread groups of other name servers of this machine. The least recently used one makes way.
pub const SERVERS: &str = "PMZ_DNS_SERVERS";

/// How many slots there are numbers for. Those in use are fewer, so that a free one is found in a few steps.
pub const SLOT_NUMBERS: u32 = 1 << 16;
/// Servers that can have a slot. Queries to another one are left alone.
pub const MAX_SLOTS: u32 = SLOT_NUMBERS / 4;
/// Numbers that are tried for a server.
pub const PROBES: u32 = 8;
/// Name servers of this machine that can be told apart.
pub const MAX_SERVERS: u32 = 1024;

/// The network in which slots of IPv4 servers lie: part of the loopback network, which every machine has.
pub const V4_NETWORK: [u8; 4] = [127, 112, 0, 0];

/// The port of DNS.
pub const DNS_PORT: u16 = 53;

/// What holds for all sockets. Ports and addresses as they lie in packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The network in which slots of IPv6 servers lie; its last sixteen bits are zero. All zero where there is none.
    pub v6_network: Address,
    /// Where our server listens: UDP, then TCP.
    pub v4_ports: [u32; 2],
    /// As [`Config::v4_ports`].
    pub v6_ports: [u32; 2],
    /// Who connects to this address says something by it, and is refused.
    pub knock_address: u32,
    /// At this port: that queries of its network namespace are to be caught from now on.
    pub knock_netns: u32,
    /// At this port: that its process is our own server, whose queries are not caught.
    pub knock_own: u32,
    /// Where a server's slot is looked for depends on it.
    pub seed: u32,
}

const _: () = assert!(size_of::<Config>() == 48);

/// The first slot number to try for a server.
#[inline(always)]
pub const fn first_slot(server: &Address, seed: u32) -> u32 {
    let mut hash = seed;
    let mut word = 0;
    while word < 4 {
        hash = (hash ^ server.0[word]).wrapping_mul(0x9e37_79b1);
        hash ^= hash >> 15;
        word += 1;
    }
    hash % SLOT_NUMBERS
}

#[cfg(feature = "loader")]
// SAFETY: `repr(C)`, of integers only, every bit pattern valid, and without padding (asserted above).
unsafe impl aya::Pod for Config {}
