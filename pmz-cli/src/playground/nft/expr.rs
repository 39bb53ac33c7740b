//! Expressions: what a rule is made of. They work on registers and stop the rule when a comparison fails.

use std::net::IpAddr;

use super::Transport;
use super::attrs::Attrs;

/// A register of 16 bytes (`NFT_REG_1`).
pub(super) const REG_1: u32 = 1;
/// Another (`NFT_REG_2`).
pub(super) const REG_2: u32 = 2;
const REG_VERDICT: u32 = 0;

const PAYLOAD_NETWORK_HEADER: u32 = 1;
const PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const JUMP: i32 = -3;

/// Something about a packet that isn't in it (`NFT_META_*`).
#[derive(Clone, Copy)]
pub(super) enum Meta {
    Mark = 3,
    OutputInterface = 7,
    Family = 15,
    Transport = 16,
}

/// Whether a comparison asks for the same or for something else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    Equal = 0,
    Not = 1,
}

/// The answer that a refused packet gets; errors are ICMP's or ICMPv6's as it fits.
#[derive(Clone, Copy)]
pub(super) enum Reject {
    /// Only for TCP.
    Reset,
    PortUnreachable,
    HostUnreachable,
}

impl Reject {
    /// Type (`NFT_REJECT_*`) and code (`NFT_REJECT_ICMPX_*`).
    fn type_and_code(self) -> (u32, u8) {
        match self {
            Self::Reset => (1, 0),
            Self::PortUnreachable => (2, 1),
            Self::HostUnreachable => (2, 2),
        }
    }
}

/// One step of a rule.
pub(super) enum Expr<'a> {
    /// Loads a register.
    Meta(Meta),
    /// Loads bytes of the packet.
    Payload { base: u32, offset: u32, len: u32 },
    /// Keeps the register's bits of the mask.
    Mask(Vec<u8>),
    /// Goes on only if the register is, or isn't, this.
    Compare(Is, Vec<u8>),
    /// Loads a random number below this.
    Random { below: u32 },
    /// Loads a constant.
    Load { register: u32, value: Vec<u8> },
    /// Marks the packet with what is in the register.
    SetMark,
    /// The destination becomes the address in the first register and the port in the second.
    Dnat { to: IpAddr },
    /// The source becomes the address of the interface that the packet leaves by.
    Masquerade,
    /// Answers, and drops the packet.
    Reject(Reject),
    /// Goes on in another chain.
    Jump(&'a str),
}

impl Expr<'_> {
    pub(super) fn write(&self, attrs: &mut Attrs<'_>) {
        attrs.string(1, self.name());
        attrs.nested(2, |attrs| self.write_data(attrs));
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta(_) | Self::SetMark => "meta",
            Self::Payload { .. } => "payload",
            Self::Mask(_) => "bitwise",
            Self::Compare(..) => "cmp",
            Self::Random { .. } => "numgen",
            Self::Load { .. } | Self::Jump(_) => "immediate",
            Self::Dnat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject(_) => "reject",
        }
    }

    fn write_data(&self, attrs: &mut Attrs<'_>) {
        match self {
            Self::Meta(key) => {
                attrs.be32(1, REG_1);
                attrs.be32(2, *key as u32);
            }
            Self::SetMark => {
                attrs.be32(2, Meta::Mark as u32);
                attrs.be32(3, REG_1);
            }
            Self::Payload { base, offset, len } => {
                attrs.be32(1, REG_1);
                attrs.be32(2, *base);
                attrs.be32(3, *offset);
                attrs.be32(4, *len);
            }
            Self::Mask(mask) => {
                attrs.be32(1, REG_1);
                attrs.be32(2, REG_1);
                attrs.be32(3, mask.len() as u32);
                attrs.nested(4, |attrs| attrs.bytes(1, mask));
                attrs.nested(5, |attrs| attrs.bytes(1, &vec![0; mask.len()]));
            }
            Self::Compare(is, value) => {
                attrs.be32(1, REG_1);
                attrs.be32(2, *is as u32);
                attrs.nested(3, |attrs| attrs.bytes(1, value));
            }
            Self::Random { below } => {
                attrs.be32(1, REG_1);
                attrs.be32(2, *below);
                attrs.be32(3, 1);
            }
            Self::Load { register, value } => {
                attrs.be32(1, *register);
                attrs.nested(2, |attrs| attrs.bytes(1, value));
            }
            Self::Jump(chain) => {
                attrs.be32(1, REG_VERDICT);
                attrs.nested(2, |attrs| {
                    attrs.nested(2, |attrs| {
                        attrs.bytes(1, &JUMP.to_be_bytes());
                        attrs.string(2, chain);
                    });
                });
            }
            Self::Dnat { to } => {
                attrs.be32(1, 1);
                attrs.be32(2, u32::from(family(*to)));
                attrs.be32(3, REG_1);
                attrs.be32(5, REG_2);
            }
            Self::Masquerade => {}
            Self::Reject(answer) => {
                let (kind, code) = answer.type_and_code();
                attrs.be32(1, kind);
                attrs.bytes(2, &[code]);
            }
        }
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// An address as it stands in a packet.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Which of a packet's addresses.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Source,
    Destination,
}

/// The packet is of the family of `address`.
pub(super) fn family_is(address: IpAddr) -> [Expr<'static>; 2] {
    [
        Expr::Meta(Meta::Family),
        Expr::Compare(Is::Equal, vec![family(address)]),
    ]
}

/// Loads an address of a packet that is of the family of `like`.
pub(super) fn load_address(side: Side, like: IpAddr) -> Expr<'static> {
    let (offset, len) = match (side, like) {
        (Side::Source, IpAddr::V4(_)) => (12, 4),
        (Side::Destination, IpAddr::V4(_)) => (16, 4),
        (Side::Source, IpAddr::V6(_)) => (8, 16),
        (Side::Destination, IpAddr::V6(_)) => (24, 16),
    };
    Expr::Payload {
        base: PAYLOAD_NETWORK_HEADER,
        offset,
        len,
    }
}

/// An address of the packet is this one.
pub(super) fn address_is(side: Side, address: IpAddr) -> [Expr<'static>; 2] {
    [
        load_address(side, address),
        Expr::Compare(Is::Equal, octets(address)),
    ]
}

/// An address of the packet is, or isn't, in a prefix.
pub(super) fn address_in(side: Side, is: Is, prefix: ipnet::IpNet) -> [Expr<'static>; 3] {
    [
        load_address(side, prefix.addr()),
        Expr::Mask(octets(prefix.netmask())),
        Expr::Compare(is, octets(prefix.network())),
    ]
}

/// The packet is of that transport and goes to that port.
pub(super) fn destination_port_is(transport: Transport, port: u16) -> [Expr<'static>; 4] {
    let number = match transport {
        Transport::Tcp => libc::IPPROTO_TCP,
        Transport::Udp => libc::IPPROTO_UDP,
    };
    [
        Expr::Meta(Meta::Transport),
        Expr::Compare(Is::Equal, vec![number as u8]),
        Expr::Payload {
            base: PAYLOAD_TRANSPORT_HEADER,
            offset: 2,
            len: 2,
        },
        Expr::Compare(Is::Equal, port.to_be_bytes().to_vec()),
    ]
}
