//! UDP flows that the kernel remembers (ctnetlink, linux/netfilter/nfnetlink_conntrack.h).
//!
//! Rules see a flow's first packet only. A flow that began before its service had an endpoint, or whose
//! endpoint has gone, would be remembered for as long as its sender goes on, and lead nowhere: so
//! kube-proxy forgets such flows, and this does.

use std::net::{IpAddr, SocketAddr};

const NEW: u16 = 0x100;
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;

const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_SOURCE: u16 = 3;
const IP_V6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE_PORT: u16 = 2;
const PROTOCOL_DESTINATION_PORT: u16 = 3;

/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS_LEN: usize = 20;
/// Kind bits that aren't flags (`NLA_TYPE_MASK`).
const KIND_MASK: u16 = 0x3fff;

/// A UDP flow that the kernel remembers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flow {
    /// Where its sender sends to.
    pub(super) destination: SocketAddr,
    /// Who answers, as seen before the answer is translated back.
    pub(super) answers_from: SocketAddr,
    family: u8,
    /// The attribute that names it, as the kernel wrote it.
    name: Vec<u8>,
}

/// Asks for all flows.
pub(super) fn dump_request() -> Vec<u8> {
    request(GET, REQUEST | DUMP, 0, &[])
}

/// Has one forgotten.
pub(super) fn delete_request(flow: &Flow) -> Vec<u8> {
    request(DELETE, REQUEST, flow.family, &flow.name)
}

fn request(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADERS_LEN + attributes.len());
    bytes.extend_from_slice(&((HEADERS_LEN + attributes.len()) as u32).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[family, 0, 0, 0]);
    bytes.extend_from_slice(attributes);
    bytes
}

/// Reads one message of a dump; none if it isn't about a UDP flow.
pub(super) fn parse(kind: u16, body: &[u8]) -> Option<Flow> {
    if kind != NEW {
        return None;
    }
    let (head, attributes) = body.split_first_chunk::<4>()?;
    let original = attribute(attributes, TUPLE_ORIGINAL)?;
    let (_, destination) = ends(original.value)?;
    let (answers_from, _) = ends(attribute(attributes, TUPLE_REPLY)?.value)?;
    Some(Flow {
        destination,
        answers_from,
        family: head[0],
        name: original.whole.to_vec(),
    })
}

/// Source and destination of a UDP tuple.
fn ends(tuple: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let protocol = attribute(tuple, TUPLE_PROTOCOL)?.value;
    let number = attribute(protocol, PROTOCOL_NUMBER)?.value.first()?;
    if i32::from(*number) != libc::IPPROTO_UDP {
        return None;
    }
    let port = |kind| {
        Some(u16::from_be_bytes(
            *attribute(protocol, kind)?.value.first_chunk()?,
        ))
    };
    let ip = attribute(tuple, TUPLE_IP)?.value;
    let address = |v4, v6| match (attribute(ip, v4), attribute(ip, v6)) {
        (Some(v4), _) => Some(IpAddr::from(*v4.value.first_chunk::<4>()?)),
        (None, Some(v6)) => Some(IpAddr::from(*v6.value.first_chunk::<16>()?)),
        (None, None) => None,
    };
    let source = SocketAddr::new(
        address(IP_V4_SOURCE, IP_V6_SOURCE)?,
        port(PROTOCOL_SOURCE_PORT)?,
    );
    let destination = SocketAddr::new(
        address(IP_V4_DESTINATION, IP_V6_DESTINATION)?,
        port(PROTOCOL_DESTINATION_PORT)?,
    );
    Some((source, destination))
}

struct Attribute<'a> {
    value: &'a [u8],
    /// With its header and padding.
    whole: &'a [u8],
}

/// The first attribute of that kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<Attribute<'_>> {
    while let Some(header) = attributes.first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND_MASK;
        let value = attributes.get(4..len)?;
        let padded = len.next_multiple_of(4).min(attributes.len());
        let (whole, rest) = attributes.split_at(padded);
        if kind == wanted {
            return Some(Attribute { value, whole });
        }
        attributes = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(kind: u16, protocol: u8, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
        let ip = [attr(IP_V4_SOURCE, &from.0), attr(IP_V4_DESTINATION, &to.0)].concat();
        let ports = [
            attr(PROTOCOL_NUMBER, &[protocol]),
            attr(PROTOCOL_SOURCE_PORT, &from.1.to_be_bytes()),
            attr(PROTOCOL_DESTINATION_PORT, &to.1.to_be_bytes()),
        ];
        attr(
            kind | 0x8000,
            &[
                attr(TUPLE_IP | 0x8000, &ip),
                attr(TUPLE_PROTOCOL | 0x8000, &ports.concat()),
            ]
            .concat(),
        )
    }

    #[test]
    fn a_flow_is_read_with_the_attribute_that_names_it() {
        let original = tuple(
            TUPLE_ORIGINAL,
            17,
            ([10, 0, 0, 1], 4000),
            ([10, 96, 0, 11], 7),
        );
        let reply = tuple(
            TUPLE_REPLY,
            17,
            ([10, 244, 0, 3], 7007),
            ([10, 0, 0, 1], 4000),
        );
        let body = [vec![2, 0, 0, 0], original.clone(), reply].concat();
        let flow = parse(NEW, &body).unwrap();
        assert_eq!(flow.destination, "10.96.0.11:7".parse().unwrap());
        assert_eq!(flow.answers_from, "10.244.0.3:7007".parse().unwrap());
        assert_eq!(delete_request(&flow)[HEADERS_LEN..], original);
        for len in 0..body.len() {
            let _ = parse(NEW, &body[..len]);
        }
    }

    #[test]
    fn other_transports_are_left_alone() {
        let ends = (([10, 0, 0, 1], 4000), ([10, 96, 0, 11], 7));
        let tuples = [
            tuple(TUPLE_ORIGINAL, 6, ends.0, ends.1),
            tuple(TUPLE_REPLY, 6, ends.1, ends.0),
        ];
        assert_eq!(
            parse(NEW, &[vec![2, 0, 0, 0], tuples.concat()].concat()),
            None
        );
    }
}
