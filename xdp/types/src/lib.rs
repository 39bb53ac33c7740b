//! What pmz's eBPF programs and their loader share: the maps' names, sizes and plain data.
//!
//! Both sides run on one machine, so numbers are in its byte order, and addresses lie as they do in packets.

#![no_std]

pub mod capture;
pub mod guard;

/// The program at the TUN's egress: packets from the machine to the tunnel.
pub const STEER: &str = "pmz_steer";
/// The program at the TUN's ingress: packets from the tunnel to the machine.
pub const RETURN: &str = "pmz_return";
/// The program at the egress of other devices: what they would take of the steered prefixes goes to the TUN.
pub const DIVERT: &str = "pmz_divert";

/// The read-only global with the bytes before the IP header: 0 on a TUN, 14 on Ethernet.
pub const LINK_HEADER: &str = "PMZ_LINK_HEADER";

/// [`Config`] at index 0.
pub const CONFIG: &str = "PMZ_CONFIG";
/// Longest-prefix match: address to [`Prefix`].
pub const PREFIXES: &str = "PMZ_PREFIXES";
/// [`Volume`] by a prefix's index, for each CPU.
pub const PREFIX_VOLUMES: &str = "PMZ_PREFIX_VOL";
/// [`Address`] as the machine uses it, to [`Target`].
pub const TARGETS: &str = "PMZ_TARGETS";
/// [`Address`] in the cluster, to the [`Address`] that the machine uses for it.
pub const ORIGINS: &str = "PMZ_ORIGINS";
/// [`Address`] as the machine uses it, to [`Traffic`], for each CPU.
pub const TRAFFIC: &str = "PMZ_TRAFFIC";
/// [`Flow`]s that were counted lately.
pub const FLOWS: &str = "PMZ_FLOWS";
/// Counters by [`count`], for each CPU.
pub const COUNTS: &str = "PMZ_COUNTS";
/// How many entries of [`TRAFFIC`] were made for addresses without a target, at index 0.
pub const STRANGERS: &str = "PMZ_STRANGERS";
/// A device's index, to the [`Divert`] that holds there.
pub const DIVERTS: &str = "PMZ_DIVERTS";
/// [`Exchange`] to [`Diverted`]; forgets what was not used for the longest time.
pub const DIVERTED: &str = "PMZ_DIVERTED";
/// Cookies of sockets that carry the tunnel itself: what they send is never diverted into it.
pub const CARRIERS: &str = "PMZ_CARRIERS";

/// Prefixes that can be steered by at a time.
pub const MAX_PREFIXES: u32 = 1024;
/// Prefixes that the map holds: while one set replaces another, both are in it.
pub const PREFIX_SLOTS: u32 = 2 * MAX_PREFIXES;
/// Addresses with a target, and addresses whose traffic is counted.
pub const MAX_TARGETS: u32 = 65_536;
/// Of the addresses whose traffic is counted, those without a target: a scan of a large prefix must leave room
/// for the services.
pub const MAX_STRANGERS: u64 = 32_768;
/// Flows that are remembered, so that they are counted once.
pub const MAX_FLOWS: u32 = 16_384;
/// Devices that are diverted from at a time.
pub const MAX_DIVERTS: u32 = 64;
/// Flows whose own source address is remembered. The next packet that goes out brings back one that was forgotten.
pub const MAX_DIVERTED: u32 = 16_384;
/// Sockets that carry the tunnel.
pub const MAX_CARRIERS: u32 = 64;

/// Marks, in `skb->tc_index`, an answer on its short way from the TUN's egress to its ingress: nothing that
/// came out of the tunnel, so nothing to count or to translate.
pub const ANSWER_MARK: u32 = 0x706d;

/// Marks, in `skb->tc_index`, a diverted packet on its way to the TUN's egress: its flow is known already.
pub const DIVERT_MARK: u32 = 0x7064;

/// An address of either family, as it lies in packets; IPv4 as `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(pub [u32; 4]);

impl Address {
    /// The third word of every IPv4 address.
    pub const MAPPED: u32 = 0xffff_u32.to_be();
    /// The bits before an IPv4 address.
    pub const MAPPED_BITS: u32 = 96;

    /// The IPv4 address that lies in a packet as `word`.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, Self::MAPPED, word])
    }

    /// Whether this is an IPv4 address. Such bytes in an IPv6 packet's header are a forgery.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == Self::MAPPED
    }
}

/// What holds for all packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// This type's constants.
    pub flags: u32,
}

impl Config {
    /// Every service is among the targets, so that another address of a [`Prefix::SERVICES`] has none.
    pub const COMPLETE: u32 = 1;
    /// There are diverted flows, or were.
    pub const DIVERTING: u32 = 2;
}

/// What is done with the addresses of a prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// One of this type's constants.
    pub kind: u32,
    /// Its place in [`PREFIX_VOLUMES`].
    pub index: u32,
}

impl Prefix {
    /// As if it were not there: keeps IPv4 addresses from matching an IPv6 prefix that is shorter than 96 bits.
    pub const NONE: u32 = 0;
    /// Into the tunnel; ClusterIPs, or what stands for them.
    pub const SERVICES: u32 = 1;
    /// Into the tunnel; pods, and what the user added.
    pub const OTHER: u32 = 2;
    /// Not into the tunnel.
    pub const EXCLUDED: u32 = 3;
}

/// What is known of an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The address in the cluster, where it is another one ([`Target::REMAPPED`]).
    pub real: Address,
    /// This type's constants.
    pub flags: u32,
}

impl Target {
    /// The destination becomes [`Target::real`], and on the way back the source becomes the machine's address.
    pub const REMAPPED: u32 = 1;
    /// A service without endpoints: refused at once.
    pub const REJECT: u32 = 2;
    /// A service's address.
    pub const SERVICE: u32 = 4;
}

/// Packets and bytes both ways. A super-packet counts as the packets that it stands for; its bytes as they
/// are, with one IP and transport header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub received_packets: u64,
    pub received_bytes: u64,
}

/// The traffic of one address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub volume: Volume,
    /// Flows that the machine began.
    pub flows: u64,
    /// When the last packet passed, by `CLOCK_MONOTONIC`, in nanoseconds.
    pub last: u64,
}

/// What tells one flow that the machine begins from another.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flow {
    pub source: Address,
    pub destination: Address,
    /// Both ports as they lie in the packet; of an echo, its identifier.
    pub ports: u32,
    /// Of TCP the initial sequence number: a port that is used again begins another flow, a SYN that is
    /// sent again does not.
    pub sequence: u32,
    pub protocol: u32,
}

/// What holds at a device that is diverted from.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Divert {
    /// The tunnel's addresses, which packets get as their source; all zeroes: nothing of that family is diverted.
    pub v4: Address,
    pub v6: Address,
    /// When it ends, by `CLOCK_MONOTONIC`, in nanoseconds. A filter outlives the process that renews this.
    pub until: u64,
    /// The TUN's index.
    pub tun: u32,
    /// The TUN's MTU in bytes: what is larger has to be sent again in smaller pieces.
    pub mtu: u32,
    /// One of this type's constants.
    pub link: u32,
    /// Bytes before the IP header. A number that the verifier does not know costs it half of what two known ones do.
    pub header: u32,
}

impl Divert {
    /// Packets begin with their IP header, and come back in by the device (ARPHRD_NONE: TUN, WireGuard).
    pub const BARE: u32 = 0;
    /// 14 bytes of Ethernet stand before it, and are needed on the way back.
    pub const ETHERNET: u32 = 1;
    /// Packets begin with their IP header, and come back in by the TUN: to such a device (PPP) not every kernel can
    /// redirect.
    pub const ONE_WAY: u32 = 2;
}

/// What tells one diverted flow from another, once all have the tunnel's source address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Exchange {
    /// The cluster's end, as the machine uses it.
    pub cluster: Address,
    /// Both ports as they lie in what goes out; of an echo, its identifier; of fragments, theirs.
    pub ports: u32,
    /// The transport, and [`Exchange::FRAGMENTS`].
    pub protocol: u32,
}

impl Exchange {
    /// Later fragments of a packet that came from the tunnel.
    pub const FRAGMENTS: u32 = 256;
}

/// Where a diverted flow came from; or, so that it is not taken for one, that a flow was routed into the TUN: without a
/// device, and with [`Divert::ONE_WAY`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diverted {
    /// Its own source address.
    pub source: Address,
    /// When its last packet passed, by `CLOCK_MONOTONIC`, in nanoseconds.
    pub last: u64,
    /// The device that its last packet would have left by.
    pub device: u32,
    /// As [`Divert::link`], and [`Diverted::CLOSING`].
    pub link: u32,
    /// On Ethernet, the device's own address, as it lies in frames, and two zeroes.
    pub mac: u64,
}

impl Diverted {
    /// A FIN or RST went by.
    pub const CLOSING: u32 = 256;
}

/// Places in [`COUNTS`].
pub mod count {
    /// Dropped: neither IPv4 nor IPv6.
    pub const NOT_IP: u32 = 0;
    /// Dropped: too short for its headers, IPv6 with an IPv4-mapped address, or source-routed.
    pub const MALFORMED: u32 = 1;
    /// Dropped: no steered prefix holds the destination.
    pub const NO_PREFIX: u32 = 2;
    /// Dropped: the destination is excluded.
    pub const EXCLUDED: u32 = 3;
    /// Dropped: refused, but what may not be answered (RFC 1122 section 3.2.2, RFC 9293 section 3.10.7.1).
    pub const UNANSWERABLE: u32 = 4;
    /// Dropped: the kernel had no memory for a change, or the packet has a form that can't be changed.
    pub const FAILED: u32 = 5;
    /// Refused: an address in a prefix of services that no service has.
    pub const UNKNOWN: u32 = 6;
    /// Refused: a service without endpoints.
    pub const NO_ENDPOINTS: u32 = 7;
    /// Passed without counting by address: the map of traffic is full.
    pub const UNTRACKED: u32 = 8;
    /// Refused: a diverted flow that only its source address told from another one. Dropped: a routed one.
    pub const COLLIDED: u32 = 9;
    /// Answered: larger than the tunnel takes.
    pub const TOO_BIG: u32 = 10;
    /// How many there are.
    pub const LEN: u32 = 11;
}

#[cfg(feature = "loader")]
mod loader {
    use super::{
        Address, Config, Divert, Diverted, Exchange, Flow, Prefix, Target, Traffic, Volume,
    };

    // SAFETY: of each: `repr(C)`, of integers only, every bit pattern valid, and without padding (asserted below).
    unsafe impl aya::Pod for Address {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Prefix {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Target {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Volume {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Traffic {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Divert {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Exchange {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Diverted {}
}

const _: () =
    assert!(size_of::<Address>() == 16 && size_of::<Target>() == 20 && size_of::<Prefix>() == 8);
const _: () =
    assert!(size_of::<Volume>() == 32 && size_of::<Traffic>() == 48 && size_of::<Flow>() == 44);
const _: () = assert!(
    size_of::<Divert>() == 56 && size_of::<Exchange>() == 24 && size_of::<Diverted>() == 40
);
