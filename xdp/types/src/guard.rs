//! What the guard before the tunnel's UDP socket shares with its loader.

/// The program in a driver, for frames that may lie in several pieces (Linux 5.18).
pub const PROGRAM: &str = "pmz_guard";
/// The same for kernels before that.
pub const PROGRAM_OLD: &str = "pmz_guard_old";
/// The program at the tunnel's UDP socket.
pub const PROGRAM_SOCKET: &str = "pmz_guard_socket";

/// The read-only global with the tunnel's UDP port, as the number that it is, for the programs in a driver.
pub const PORT: &str = "PMZ_GUARD_PORT";

/// [`Config`] at index 0.
pub const CONFIG: &str = "PMZ_GUARD_CONF";
/// A peer's number, which is a receiver index without its lowest byte, to nothing.
pub const PEERS: &str = "PMZ_GUARD_PEERS";
/// A prefix of an address that a session's peer was heard from, to nothing.
pub const KNOWN: &str = "PMZ_GUARD_KNOWN";
/// A prefix that handshake initiations came from, to its [`Bucket`]. The least recently used one makes way.
pub const SOURCES: &str = "PMZ_GUARD_SRCS";
/// The [`Bucket`] of all initiations from prefixes that are not in [`KNOWN`], at index 0.
pub const ALL: &str = "PMZ_GUARD_ALL";
/// Counters by [`count`], for each CPU.
pub const COUNTS: &str = "PMZ_GUARD_CNTS";

/// Peers that can be told apart at a time.
pub const MAX_PEERS: u32 = 65_536;
/// Prefixes that can be known at a time: as many as peers.
pub const MAX_KNOWN: u32 = MAX_PEERS;
/// Prefixes whose initiations are counted at a time.
pub const MAX_SOURCES: u32 = 16_384;

/// Bits of an IPv4 source that make its prefix: what one network is announced as at the least.
pub const V4_PREFIX: u32 = 24;
/// Bits of an IPv6 source that make its prefix: what one site gets (RFC 6177).
pub const V6_PREFIX: u32 = 56;

/// Bytes of a handshake initiation (WireGuard paper, 5.4.2).
pub const INITIATION: u32 = 148;
/// Bytes of a handshake response (5.4.3).
pub const RESPONSE: u32 = 92;
/// Bytes of a cookie reply (5.4.7).
pub const COOKIE: u32 = 64;
/// Bytes of the shortest data message, a keepalive (5.4.6). The paper pads what is inside to 16 bytes; not every
/// implementation does, and boringtun does not, so any length above is right.
pub const DATA: u32 = 32;

/// Initiations, by the generic cell rate algorithm (ITU-T I.371): one in this many nanoseconds, and this many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub interval: u64,
    pub burst: u64,
}

/// From one prefix. Clients behind one address translator (a node port's, an office's) share it: 1000 of them that
/// renew their sessions every two minutes (5.1) send 8 a second, and after a network's return they all do at once.
pub const SOURCE_RATE: Rate = Rate {
    interval: 1_000_000_000 / 200,
    burst: 1_000,
};
/// From all prefixes that are not known. An initiation that does not know our key costs user space a keyed hash,
/// about a microsecond, before it is dropped there.
pub const ALL_RATE: Rate = Rate {
    interval: 1_000_000_000 / 10_000,
    burst: 2_000,
};

/// What holds for all datagrams.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// This type's constants.
    pub flags: u32,
}

impl Config {
    /// The kernel may have joined datagrams of one flow (GRO, UDP_SEGMENT) before the program sees them: what is
    /// longer than its first message is a train of such.
    pub const JOINED: u32 = 1;
    /// Peers are not all in the map, so a receiver that is not may be one.
    pub const ANY_RECEIVER: u32 = 2;
}

/// When the next initiation would be due if they came evenly, by `CLOCK_MONOTONIC`, in nanoseconds. One word, so
/// that CPUs which change it at once lose one of them and spoil nothing.
pub type Bucket = u64;

/// Places in [`COUNTS`].
pub mod count {
    /// Passed: could be WireGuard.
    pub const PASSED: u32 = 0;
    /// Dropped: of no type that WireGuard has, or with reserved bytes that are not zero.
    pub const KIND: u32 = 1;
    /// Dropped: of a length that its type does not have.
    pub const LENGTH: u32 = 2;
    /// Dropped: to a receiver that no peer is.
    pub const RECEIVER: u32 = 3;
    /// Dropped: an initiation beyond [`super::SOURCE_RATE`].
    pub const SOURCE_RATE: u32 = 4;
    /// Dropped: an initiation beyond [`super::ALL_RATE`].
    pub const ALL_RATE: u32 = 5;
    /// How many there are.
    pub const LEN: u32 = 6;
}

#[cfg(feature = "loader")]
// SAFETY: `repr(C)`, of one integer, every bit pattern valid.
unsafe impl aya::Pod for Config {}
