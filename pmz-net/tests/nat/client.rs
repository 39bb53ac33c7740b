//! A client behind the NAT: a smoltcp interface whose packets go through the NAT's inbox and egress, and
//! an egress that checks each frame.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use pmz_net::nat::{Egress, Inbox, Nat, NatConfig, NatSnapshot, PeerId, RunningNat, Waker, Way};
use pmz_net::packet::{GsoKind, MAX_PACKET, VNET_HDR_LEN, VnetHdr};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{
    HardwareAddress, IpAddress, IpCidr, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket,
};

pub(crate) const PEER: PeerId = PeerId(7);
pub(crate) const MTU: u16 = 1280;
pub(crate) const CLIENT_V4: &str = "10.1.0.2";
pub(crate) const CLIENT_V6: &str = "fd00:1::2";
const PATIENCE: Duration = Duration::from_secs(20);

/// What a test can change about the way to the client.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) closed: AtomicBool,
    pub(crate) in_flight: AtomicUsize,
}

struct Checked {
    to_client: Sender<Vec<u8>>,
    link: Arc<Link>,
}

impl Egress for Checked {
    fn has_room(&self, _: PeerId, _: u32) -> bool {
        !self.link.closed.load(Ordering::SeqCst)
    }

    fn transmit(&mut self, peer: PeerId, _: u32, frame: &mut [u8]) {
        assert_eq!(peer, PEER);
        check(frame);
        // The test may be over.
        let _ = self.to_client.send(frame.to_vec());
    }

    fn transmit_gathered(&mut self, peer: PeerId, hash: u32, head: &mut [u8], payload: [&[u8]; 2]) {
        let mut frame = head.to_vec();
        payload
            .iter()
            .for_each(|piece| frame.extend_from_slice(piece));
        self.transmit(peer, hash, &mut frame);
    }

    fn flush(&mut self) {}

    fn way(&self, _: PeerId) -> Way {
        Way {
            mtu: MTU,
            lossless: false,
            in_flight_limit: self.link.in_flight.load(Ordering::SeqCst),
        }
    }
}

/// Completes a frame's checksum and asserts that the frame is one that a TUN would take.
fn check(frame: &mut [u8]) {
    let header = VnetHdr::parse(frame).expect("a virtio-net header");
    let packet = &mut frame[VNET_HDR_LEN..];
    assert!(packet.len() <= MAX_PACKET);
    if header.needs_csum {
        let start = usize::from(header.csum_start);
        let field = start + usize::from(header.csum_offset);
        let sum = !smoltcp::wire::checksum::data(&packet[start..]);
        packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mtu = usize::from(MTU);
    match header.gso {
        GsoKind::None => assert!(packet.len() <= mtu, "{} bytes without GSO", packet.len()),
        GsoKind::UdpL4 => {
            let (hdr_len, size) = (usize::from(header.hdr_len), usize::from(header.gso_size));
            assert!(hdr_len + size <= mtu);
            assert!(packet.len() > hdr_len + size);
        }
        GsoKind::TcpV4 | GsoKind::TcpV6 => {
            assert_eq!(header.gso == GsoKind::TcpV6, packet[0] >> 4 == 6);
            let (hdr_len, size) = (usize::from(header.hdr_len), usize::from(header.gso_size));
            assert!(hdr_len + size <= mtu);
            assert!(packet.len() > hdr_len + size);
        }
    }
    let (src, dst, protocol, payload): (IpAddress, IpAddress, _, _) = if packet[0] >> 4 == 4 {
        let ip = Ipv4Packet::new_checked(&*packet).expect("an IPv4 packet");
        assert!(ip.verify_checksum());
        assert_eq!(usize::from(ip.total_len()), packet.len());
        if ip.more_frags() || ip.frag_offset() != 0 {
            return;
        }
        let payload = &packet[usize::from(ip.header_len())..];
        (
            ip.src_addr().into(),
            ip.dst_addr().into(),
            ip.next_header(),
            payload,
        )
    } else {
        let ip = Ipv6Packet::new_checked(&*packet).expect("an IPv6 packet");
        assert_eq!(ip.total_len(), packet.len());
        let payload = &packet[40..];
        (
            ip.src_addr().into(),
            ip.dst_addr().into(),
            ip.next_header(),
            payload,
        )
    };
    match protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).expect("a TCP segment");
            assert!(tcp.verify_checksum(&src, &dst), "TCP checksum");
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).expect("a UDP datagram");
            assert!(udp.verify_checksum(&src, &dst), "UDP checksum");
        }
        _ => {}
    }
}

/// A NAT and one client of it.
pub(crate) struct Client {
    pub(crate) nat: RunningNat,
    pub(crate) inbox: Inbox,
    pub(crate) waker: Waker,
    pub(crate) link: Arc<Link>,
    from_nat: Receiver<Vec<u8>>,
    interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    wire: Wire,
    next_port: u16,
    epoch: Instant,
}

impl Client {
    /// A NAT that may dial loopback.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut NatConfig)) -> Self {
        let mut config = NatConfig {
            deny: Vec::new(),
            own_addresses: vec!["10.1.0.1".parse().unwrap(), "fd00:1::1".parse().unwrap()],
            ..NatConfig::default()
        };
        change(&mut config);
        let link = Arc::new(Link::default());
        link.in_flight.store(usize::MAX, Ordering::SeqCst);
        let (to_client, from_nat) = channel();
        let egress = Checked {
            to_client,
            link: Arc::clone(&link),
        };
        let nat = Nat::new(config).unwrap();
        let (inbox, waker) = (nat.inbox(), nat.waker());
        let nat = nat.start(Box::new(egress)).unwrap();

        let mut wire = Wire::default();
        let mut iface_config = Config::new(HardwareAddress::Ip);
        iface_config.random_seed = 1;
        let mut interface = Interface::new(iface_config, &mut wire, SmolInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            for address in [CLIENT_V4, CLIENT_V6] {
                let address: IpAddr = address.parse().unwrap();
                addresses.push(IpCidr::new(address.into(), 8)).unwrap();
            }
        });
        interface
            .routes_mut()
            .add_default_ipv4_route("10.1.0.1".parse().unwrap())
            .unwrap();
        interface
            .routes_mut()
            .add_default_ipv6_route("fd00:1::1".parse().unwrap())
            .unwrap();
        Self {
            nat,
            inbox,
            waker,
            link,
            from_nat,
            interface,
            sockets: SocketSet::new(Vec::new()),
            wire,
            next_port: 20_000,
            epoch: Instant::now(),
        }
    }

    pub(crate) fn counters(&self) -> NatSnapshot {
        self.nat.counters().snapshot()
    }

    /// Begins a connection with buffers of this size.
    pub(crate) fn connect(&mut self, service: SocketAddr, buffer: usize) -> SocketHandle {
        let socket = Socket::new(
            SocketBuffer::new(vec![0; buffer]),
            SocketBuffer::new(vec![0; buffer]),
        );
        let handle = self.sockets.add(socket);
        self.next_port += 1;
        let socket = self.sockets.get_mut::<Socket>(handle);
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let local: IpAddr = match service {
            SocketAddr::V4(_) => CLIENT_V4.parse().unwrap(),
            SocketAddr::V6(_) => CLIENT_V6.parse().unwrap(),
        };
        socket
            .connect(
                self.interface.context(),
                (IpAddress::from(service.ip()), service.port()),
                (IpAddress::from(local), self.next_port),
            )
            .unwrap();
        handle
    }

    /// A connection that stands.
    pub(crate) fn connected(&mut self, service: SocketAddr, buffer: usize) -> SocketHandle {
        let handle = self.connect(service, buffer);
        self.until("the connection stands", |c| c.tcp(handle).may_send());
        handle
    }

    pub(crate) fn tcp(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(crate) fn state(&mut self, handle: SocketHandle) -> State {
        self.tcp(handle).state()
    }

    /// Sends a raw IP packet.
    pub(crate) fn send(&self, packet: &[u8]) {
        self.send_frame(VnetHdr::default(), packet);
    }

    pub(crate) fn send_frame(&self, header: VnetHdr, packet: &[u8]) {
        let mut frame = self.inbox.frames().take(VNET_HDR_LEN + packet.len());
        frame.buffer().resize(VNET_HDR_LEN, 0);
        header.emit(frame.buffer());
        frame.extend_from_slice(packet);
        let deadline = Instant::now() + PATIENCE;
        while let Err(back) = self.inbox.try_push(PEER, frame) {
            assert!(Instant::now() < deadline, "the inbox stays full");
            frame = back;
            std::thread::yield_now();
        }
        self.inbox.settle();
    }

    /// The next IP packet from the NAT, past the client's own TCP.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        match self.from_nat.recv_timeout(PATIENCE) {
            Ok(frame) => frame[VNET_HDR_LEN..].to_vec(),
            Err(e) => panic!("nothing came: {e}"),
        }
    }

    /// Whether nothing comes within a moment.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.from_nat
            .recv_timeout(Duration::from_millis(100))
            .is_err()
    }

    /// Lets packets move until something is so.
    pub(crate) fn until(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < deadline, "in vain: {what}");
            self.step();
        }
    }

    /// Lets packets move once, and waits a moment for some.
    pub(crate) fn step(&mut self) {
        let now = SmolInstant::from_micros(self.epoch.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        while let Some(packet) = self.wire.out.pop_front() {
            let header = self.wire.header(&packet);
            self.send_frame(header, &packet);
        }
        let wait = self.interface.poll_delay(now, &self.sockets);
        let wait = wait.map_or(5_000, |d| d.total_micros()).min(5_000);
        if let Ok(frame) = self.from_nat.recv_timeout(Duration::from_micros(wait)) {
            self.wire.take(&frame);
            while let Ok(frame) = self.from_nat.try_recv() {
                self.wire.take(&frame);
            }
        }
    }
}

/// A wire with an MTU of 64 KiB, as a TUN with offloads is one.
#[derive(Default)]
struct Wire {
    received: VecDeque<Vec<u8>>,
    out: VecDeque<Vec<u8>>,
}

impl Wire {
    fn take(&mut self, frame: &[u8]) {
        self.received.push_back(frame[VNET_HDR_LEN..].to_vec());
    }

    fn header(&self, packet: &[u8]) -> VnetHdr {
        let v6 = packet[0] >> 4 == 6;
        if packet.len() <= usize::from(MTU) {
            return VnetHdr::default();
        }
        let ip: u16 = if v6 { 40 } else { 20 };
        VnetHdr {
            needs_csum: true,
            gso: if v6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 },
            hdr_len: ip + 20,
            gso_size: MTU - ip - 20,
            csum_start: ip,
            csum_offset: 16,
            ..VnetHdr::default()
        }
    }
}

impl Device for Wire {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Rx, Tx<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Rx(packet), Tx(&mut self.out)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Tx<'_>> {
        (self.out.len() < 64).then_some(Tx(&mut self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = MAX_PACKET;
        caps.checksum = ChecksumCapabilities::ignored();
        let largest = std::num::NonZeroUsize::new(MAX_PACKET);
        caps.segmentation.tcpv4 = largest;
        caps.segmentation.tcpv6 = largest;
        caps
    }
}

struct Rx(Vec<u8>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}
