//! UDP, echo and fragments through the NAT.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use pmz_net::packet::{GsoKind, Reassembler, VnetHdr};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpAddress, IpProtocol, IpRepr,
    Ipv4Packet, Ipv6Packet, UdpPacket,
};

use crate::client::{CLIENT_V4, CLIENT_V6, Client};

pub(crate) fn client_ip(v6: bool) -> IpAddr {
    if v6 { CLIENT_V6 } else { CLIENT_V4 }.parse().unwrap()
}

/// An IP packet from the client with this payload.
pub(crate) fn ip(to: IpAddr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let from: IpAddress = client_ip(to.is_ipv6()).into();
    let repr = IpRepr::new(from, to.into(), protocol, payload.len(), 64);
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    packet[repr.header_len()..].copy_from_slice(payload);
    packet
}

/// A UDP packet from the client.
pub(crate) fn udp(from: u16, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; 8 + payload.len()];
    let mut udp = UdpPacket::new_unchecked(&mut datagram[..]);
    udp.set_src_port(from);
    udp.set_dst_port(to.port());
    udp.set_len(8 + payload.len() as u16);
    udp.payload_mut().copy_from_slice(payload);
    ip(to.ip(), IpProtocol::Udp, &datagram)
}

fn header_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

/// Source, ports and payload of a UDP packet.
fn read_udp(packet: &[u8]) -> (u16, u16, Vec<u8>) {
    let udp = UdpPacket::new_checked(&packet[header_len(packet)..]).unwrap();
    (udp.src_port(), udp.dst_port(), udp.payload().to_vec())
}

/// ICMP type and code.
fn icmp(packet: &[u8]) -> (u8, u8) {
    let l4 = header_len(packet);
    let protocol = if l4 == 20 { packet[9] } else { packet[6] };
    assert!(protocol == 1 || protocol == 58, "not ICMP: {protocol}");
    (packet[l4], packet[l4 + 1])
}

fn unreachable(v6: bool) -> u8 {
    if v6 {
        Icmpv6Message::DstUnreachable.into()
    } else {
        Icmpv4Message::DstUnreachable.into()
    }
}

/// A UDP service on loopback that the test plays itself.
fn service(v6: bool) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(if v6 { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn datagrams_go_both_ways_over_both_families() {
    for v6 in [false, true] {
        let mut client = Client::new();
        let (socket, address) = service(v6);
        for payload in [&b"ping"[..], &[], &[5; 1200]] {
            client.send(&udp(4000, address, payload));
            let mut buf = [0; 2000];
            let (n, nat) = socket.recv_from(&mut buf).unwrap();
            assert_eq!(&buf[..n], payload);
            socket.send_to(&buf[..n], nat).unwrap();
            let (from, to, got) = read_udp(&client.receive());
            assert_eq!((from, to), (address.port(), 4000));
            assert_eq!(got, payload);
        }
        assert_eq!(client.counters().udp_flows, 1);
    }
}

#[test]
fn a_super_packet_arrives_as_the_datagrams_that_it_holds() {
    for v6 in [false, true] {
        let client = Client::new();
        let (socket, address) = service(v6);
        let payload: Vec<u8> = (0..100u8).flat_map(|i| [i; 500]).chain([200; 70]).collect();
        let header = VnetHdr {
            gso: GsoKind::UdpL4,
            gso_size: 500,
            hdr_len: if v6 { 48 } else { 28 },
            needs_csum: true,
            ..VnetHdr::default()
        };
        client.send_frame(header, &udp(4000, address, &payload));
        let mut buf = [0; 2000];
        for i in 0..100u8 {
            let n = socket.recv(&mut buf).unwrap();
            assert_eq!(&buf[..n], [i; 500]);
        }
        let n = socket.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], [200; 70]);
        // A lone datagram larger than the segments before stays one.
        client.send(&udp(4000, address, &[1; 1000]));
        assert_eq!(socket.recv(&mut buf).unwrap(), 1000);
    }
}

#[test]
fn datagrams_that_the_service_sends_as_one_arrive_as_a_super_packet() {
    let mut client = Client::new();
    let (socket, address) = service(false);
    client.send(&udp(4000, address, b"go"));
    let (_, nat) = socket.recv_from(&mut [0; 10]).unwrap();
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGsoSegment, &1000).unwrap();
    socket.send_to(&[6; 9500], nat).unwrap();
    let mut got = Vec::new();
    while got.len() < 9500 {
        got.extend(read_udp(&client.receive()).2);
    }
    assert_eq!(got, [6; 9500]);
    assert_eq!(client.counters().frames_out, 1);
}

#[test]
fn a_datagram_larger_than_the_mtu_arrives_in_fragments() {
    for v6 in [false, true] {
        let mut client = Client::new();
        let (socket, address) = service(v6);
        client.send(&udp(4000, address, b"go"));
        let (_, nat) = socket.recv_from(&mut [0; 10]).unwrap();
        let payload: Vec<u8> = (0..9000u32).map(|i| i as u8).collect();
        socket.send_to(&payload, nat).unwrap();
        let mut reassembler = Reassembler::new();
        let whole = loop {
            let fragment = client.receive();
            assert!(fragment.len() <= 1280);
            if let Some(whole) = reassembler.push(std::time::Instant::now(), &fragment) {
                break whole;
            }
        };
        let l4 = header_len(&whole);
        let (src, dst): (IpAddress, IpAddress) = (address.ip().into(), client_ip(v6).into());
        let datagram = UdpPacket::new_checked(&whole[l4..]).unwrap();
        assert!(datagram.verify_checksum(&src, &dst));
        assert_eq!(datagram.payload(), payload);
    }
}

/// Cuts a packet of the client into fragments of at most `step` bytes of payload, a multiple of 8.
fn fragments(packet: &[u8], step: usize) -> Vec<Vec<u8>> {
    let l4 = header_len(packet);
    let payload = &packet[l4..];
    let count = payload.len().div_ceil(step);
    let cut = payload.chunks(step).enumerate().map(|(i, piece)| {
        let (offset, more) = (i * step, i + 1 < count);
        if l4 == 20 {
            let mut fragment = [&packet[..20], piece].concat();
            let len = fragment.len() as u16;
            let mut ip = Ipv4Packet::new_unchecked(&mut fragment[..]);
            ip.set_total_len(len);
            ip.set_ident(77);
            ip.set_dont_frag(false);
            ip.set_more_frags(more);
            ip.set_frag_offset(offset as u16);
            ip.fill_checksum();
            fragment
        } else {
            let offset = (offset as u16 | u16::from(more)).to_be_bytes();
            let extension = [packet[6], 0, offset[0], offset[1], 0, 0, 0, 77];
            let mut fragment = [&packet[..40], &extension, piece].concat();
            let len = fragment.len() as u16 - 40;
            let mut ip = Ipv6Packet::new_unchecked(&mut fragment[..]);
            ip.set_next_header(IpProtocol::Ipv6Frag);
            ip.set_payload_len(len);
            fragment
        }
    });
    cut.collect()
}

#[test]
fn fragments_of_the_client_arrive_as_one_datagram() {
    for v6 in [false, true] {
        let client = Client::new();
        let (socket, address) = service(v6);
        let payload: Vec<u8> = (0..5000u32).map(|i| (i / 7) as u8).collect();
        let mut pieces = fragments(&udp(4000, address, &payload), 1200);
        pieces.reverse();
        for piece in &pieces {
            client.send(piece);
        }
        let mut buf = [0; 9000];
        let n = socket.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], payload);
        assert_eq!(client.counters().reassembled, 1);
    }
}

#[test]
fn a_port_where_nobody_listens_is_unreachable() {
    for v6 in [false, true] {
        let mut client = Client::new();
        let (_, address) = service(v6);
        client.send(&udp(4000, address, b"anybody?"));
        let answer = client.receive();
        let code = if v6 { 4 } else { 3 };
        assert_eq!(icmp(&answer), (unreachable(v6), code));
        // The quoted packet is the client's: the kernel finds the socket by it.
        let quoted = &answer[header_len(&answer) + 8..];
        let ports = &quoted[header_len(quoted)..][..4];
        let (from, to) = (4000u16.to_be_bytes(), address.port().to_be_bytes());
        assert_eq!(ports, [from, to].concat());
    }
}

#[test]
fn what_policy_refuses_is_prohibited_and_counted() {
    let mut client = Client::with(|config| {
        config.deny = pmz_net::nat::NatConfig::default().deny;
    });
    for (v6, code, address) in [
        (false, 13, "127.0.0.1:9"),
        (false, 13, "169.254.169.254:80"),
        (true, 1, "[::1]:9"),
        (true, 1, "[fe80::1]:9"),
    ] {
        client.send(&udp(4000, address.parse().unwrap(), b"x"));
        assert_eq!(icmp(&client.receive()), (unreachable(v6), code));
    }
    let counters = client.counters();
    assert_eq!((counters.denied, counters.flows), (4, 0));
}

fn echo_request(v6: bool, to: &str, ident: u16, data: &[u8]) -> Vec<u8> {
    let to: IpAddr = to.parse().unwrap();
    let mut message = vec![0; 8 + data.len()];
    message[0] = if v6 { 128 } else { 8 };
    message[4..6].copy_from_slice(&ident.to_be_bytes());
    message[6..8].copy_from_slice(&9u16.to_be_bytes());
    message[8..].copy_from_slice(data);
    let protocol = if v6 {
        IpProtocol::Icmpv6
    } else {
        IpProtocol::Icmp
    };
    match (to, client_ip(v6)) {
        (IpAddr::V6(to), IpAddr::V6(from)) => {
            Icmpv6Packet::new_unchecked(&mut message[..]).fill_checksum(&from, &to);
        }
        _ => Icmpv4Packet::new_unchecked(&mut message[..]).fill_checksum(),
    }
    ip(to, protocol, &message)
}

fn assert_echo_reply(v6: bool, packet: &[u8], ident: u16, data: &[u8]) {
    let l4 = header_len(packet);
    let message = &packet[l4..];
    assert_eq!(message[0], if v6 { 129 } else { 0 });
    assert_eq!(message[4..6], ident.to_be_bytes());
    assert_eq!(message[6..8], 9u16.to_be_bytes());
    assert_eq!(&message[8..], data);
    if v6 {
        let ip = Ipv6Packet::new_checked(packet).unwrap();
        let icmp = Icmpv6Packet::new_checked(message).unwrap();
        assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
    } else {
        assert!(
            Icmpv4Packet::new_checked(message)
                .unwrap()
                .verify_checksum()
        );
    }
}

#[test]
fn the_agents_own_address_answers_echo_and_refuses_the_rest() {
    for (v6, own, code) in [(false, "10.1.0.1", 3), (true, "fd00:1::1", 4)] {
        let mut client = Client::new();
        client.send(&echo_request(v6, own, 7, b"data of a ping"));
        assert_echo_reply(v6, &client.receive(), 7, b"data of a ping");
        let service = SocketAddr::new(own.parse().unwrap(), 53);
        client.send(&udp(4000, service, b"x"));
        assert_eq!(icmp(&client.receive()), (unreachable(v6), code));
        let handle = client.connect(service, 4096);
        client.until("the reset", |c| {
            c.state(handle) == smoltcp::socket::tcp::State::Closed
        });
        assert_eq!(client.counters().flows, 0);
    }
}

/// Whether this process may open echo sockets.
fn may_ping(v6: bool) -> bool {
    use socket2::{Domain, Protocol, Socket, Type};
    let (domain, protocol) = if v6 {
        (Domain::IPV6, Protocol::ICMPV6)
    } else {
        (Domain::IPV4, Protocol::ICMPV4)
    };
    Socket::new(domain, Type::DGRAM, Some(protocol)).is_ok()
}

#[test]
fn echo_goes_by_unprivileged_sockets_or_is_prohibited() {
    for (v6, loopback, code) in [(false, "127.0.0.1", 13), (true, "::1", 1)] {
        let mut client = Client::new();
        client.send(&echo_request(v6, loopback, 4711, &[3; 900]));
        let answer = client.receive();
        if may_ping(v6) {
            assert_echo_reply(v6, &answer, 4711, &[3; 900]);
            assert_eq!(client.counters().icmp_flows, 1);
        } else {
            assert_eq!(icmp(&answer), (unreachable(v6), code));
            assert_eq!(client.counters().echo_not_permitted, 1);
        }
    }
}

#[test]
fn an_idle_datagram_flow_makes_way_for_a_new_one() {
    let mut client = Client::with(|config| config.max_flows_per_peer = 4);
    let (socket, address) = service(false);
    for port in 4000..4010 {
        client.send(&udp(port, address, &port.to_be_bytes()));
        socket.recv(&mut [0; 10]).unwrap();
    }
    let counters = client.counters();
    assert_eq!((counters.udp_flows, counters.evicted), (4, 6));
    assert_eq!(counters.flow_limit_hits, 0);
    assert!(client.is_quiet());
}

#[test]
fn an_idle_datagram_flow_expires() {
    let mut client = Client::with(|config| config.udp_idle = Duration::from_millis(50));
    let (socket, address) = service(false);
    client.send(&udp(4000, address, b"x"));
    socket.recv(&mut [0; 10]).unwrap();
    client.until("it expired", |c| c.counters().udp_flows == 0);
    assert_eq!(client.counters().expired, 1);
}
