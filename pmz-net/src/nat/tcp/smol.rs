//! smoltcp's TCP socket as an [`Endpoint`]: an interface and a socket for one connection.
//!
//! smoltcp is shown a device with an MTU of 64 KiB, so that it writes super-packets for both families
//! (its own segmentation metadata is missing for IPv6), while the MSS that it works with, and the one that
//! the client reads in the SYN-ACK, are the tunnel's.

mod port;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, DeviceCapabilities};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{
    HardwareAddress, IpListenEndpoint, IpProtocol, Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket,
    TcpRepr, TcpSeqNumber,
};

use super::super::wire::{emit_ip, ip_header_len, smol};
use super::guard::{Admission, Guard};
use super::ring::Ring;
use super::{BadSegment, Challenge, Direct, End, Endpoint, Segment, Way};
use crate::tcp::{Counters, Syn};
use port::{Port, capabilities};

/// No timer of smoltcp's is finer.
const RESOLUTION: Duration = Duration::from_millis(1);
const TCP_HEADER_LEN: usize = 20;
/// Room for a SYN as [`SmolEndpoint::open`] writes it.
const SYN_ROOM: usize = 40 + 40;
/// A client that says nothing of its MSS takes this (RFC 9293, 3.7.1).
const DEFAULT_MSS: [u16; 2] = [536, 1220];
/// As small as Linux lets it be.
const MIN_MSS: usize = 48;

/// What is needed to make an endpoint.
pub(super) struct Setup {
    pub(super) client: SocketAddr,
    pub(super) service: SocketAddr,
    pub(super) syn: Syn,
    /// The largest inner packet, in bytes.
    pub(super) mtu: u16,
    pub(super) receive: Ring,
    pub(super) send: Ring,
    /// Unpredictable: the initial sequence number comes from it.
    pub(super) seed: u64,
    /// A silent client is probed this often.
    pub(super) keep_alive: Duration,
}

pub(super) struct SmolEndpoint {
    interface: Interface,
    /// Holds the one socket, which uses `_rings`' memory: before them, so that it is dropped first.
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    _rings: [Ring; 2],
    guard: Guard,
    caps: DeviceCapabilities,
    epoch: Instant,
    ip_header_len: usize,
    /// The most payload of a segment to the client.
    mss: usize,
    /// What the SYN-ACK offers the client.
    offered_mss: u16,
    /// Bytes that may be on their way.
    in_flight_limit: usize,
    reset: bool,
    aborted: bool,
    /// In TIME-WAIT, the client's FIN was acknowledged: smoltcp must not be polled any more, because
    /// its own timer would throw away what was received and is still to be consumed.
    time_wait_done: bool,
}

impl SmolEndpoint {
    /// Makes the endpoint and gives it the SYN; the SYN-ACK comes from `poll_transmit`.
    /// `None` where the addresses' families differ.
    pub(super) fn open(now: Instant, setup: Setup) -> Option<Self> {
        let Setup {
            client,
            service,
            syn,
            mtu,
            mut receive,
            mut send,
            seed,
            keep_alive,
        } = setup;
        let ip_header_len = ip_header_len(service.ip());
        let headers = ip_header_len + TCP_HEADER_LEN;
        let offered_mss = usize::from(mtu).saturating_sub(headers).max(MIN_MSS);
        let default = DEFAULT_MSS[usize::from(service.is_ipv6())];
        let client_mss = syn.mss.filter(|mss| *mss != 0).unwrap_or(default);
        let mss = usize::from(client_mss).clamp(MIN_MSS, offered_mss);

        let shift = match syn.window_scale {
            Some(_) => window_shift(receive.len()),
            None => 0,
        };
        let caps = capabilities(headers, mss);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut port = Port::new(&caps);
        let mut interface = Interface::new(config, &mut port, SmolInstant::ZERO);
        interface.set_any_ip(true);

        // SAFETY: the slices go into `sockets` alone, which is dropped before `_rings`; each is made once.
        let (rx, tx) = unsafe { (receive.slice(), send.slice()) };
        let mut socket = Socket::new(SocketBuffer::new(rx), SocketBuffer::new(tx));
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(keep_alive.into()));
        socket
            .listen(IpListenEndpoint {
                addr: None,
                port: service.port(),
            })
            .ok()?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);

        let mut endpoint = Self {
            interface,
            sockets,
            handle,
            _rings: [receive, send],
            guard: Guard::new(syn.isn, shift),
            caps,
            epoch: now,
            ip_header_len,
            mss,
            offered_mss: u16::try_from(offered_mss).unwrap_or(u16::MAX),
            in_flight_limit: usize::MAX,
            reset: false,
            aborted: false,
            time_wait_done: false,
        };
        let mut packet = [0; SYN_ROOM];
        let len = emit_syn(&mut packet, client, service, &syn, mss)?;
        endpoint.feed(now, &packet[..len], &mut []);
        (endpoint.state() == State::SynReceived).then_some(endpoint)
    }

    /// Bytes committed and not yet acknowledged.
    fn unacknowledged(&self) -> usize {
        self.sockets.get::<Socket>(self.handle).send_queue()
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn state(&self) -> State {
        self.sockets.get::<Socket>(self.handle).state()
    }

    fn time(&self, now: Instant) -> SmolInstant {
        let micros = now.saturating_duration_since(self.epoch).as_micros();
        SmolInstant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn feed(&mut self, now: Instant, packet: &[u8], reply: &mut [u8]) -> usize {
        let now = self.time(now);
        let mut port = Port {
            caps: &self.caps,
            received: Some(packet),
            out: reply,
            written: 0,
        };
        let result = self
            .interface
            .poll_ingress_single(now, &mut port, &mut self.sockets);
        debug_assert!(result != PollIngressSingleResult::None);
        port.written
    }

    /// Notes what smoltcp wrote, corrects the SYN-ACK's MSS, and measures.
    fn written(&mut self, packet: &mut [u8]) -> Option<Segment> {
        let tcp = packet.get_mut(self.ip_header_len..)?;
        let header = TcpPacket::new_checked(&*tcp).ok()?;
        let tcp_header_len = usize::from(header.header_len());
        let payload_len = tcp.len() - tcp_header_len;
        self.guard.sent(&header, payload_len);
        if header.syn() {
            offer_mss(&mut tcp[..tcp_header_len], self.offered_mss);
        }
        Some(Segment {
            header_len: self.ip_header_len + tcp_header_len,
            payload_len,
        })
    }

    fn has_taken_fin(&self) -> bool {
        matches!(
            self.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        )
    }
}

impl Endpoint for SmolEndpoint {
    fn adapt(&mut self, way: Way) {
        self.in_flight_limit = way.in_flight_limit;
    }

    fn handle_segment(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        reply: &mut [u8],
        _: Direct<'_>,
    ) -> Result<Option<Segment>, BadSegment> {
        let header_len = self.ip_header_len;
        let tcp = packet.get(header_len..).ok_or(BadSegment)?;
        let tcp = TcpPacket::new_checked(tcp).map_err(|_| BadSegment)?;
        let (rst, fin, seq) = (tcp.rst(), tcp.fin(), tcp.seq_number().0.cast_unsigned());
        let mut payload_len = tcp.payload().len();
        let (trim, ack) = match self.guard.admit(&tcp, payload_len)? {
            Admission::Ignore => return Ok(None),
            Admission::Feed { trim, ack } => (trim, ack),
        };

        let len = packet.len() - trim;
        let packet = &mut packet[..len];
        if trim > 0 {
            payload_len -= trim;
            set_ip_len(packet);
        }
        let mut tcp = TcpPacket::new_unchecked(&mut packet[header_len..]);
        if !rst {
            tcp.set_ack_number(TcpSeqNumber(ack.cast_signed()));
            self.guard.acknowledged(ack);
        }
        if trim > 0 {
            tcp.set_fin(false);
        }

        let had_fin = self.has_taken_fin();
        let written = self.feed(now, packet, reply);
        if rst && matches!(self.state(), State::Closed | State::Listen) {
            self.reset = true;
        }
        if fin && !had_fin && self.has_taken_fin() {
            let end = seq
                .wrapping_add(u32::try_from(payload_len).unwrap_or(0))
                .wrapping_add(1);
            self.guard.finished(end);
        }
        let Some(reply) = reply.get_mut(..written).filter(|r| !r.is_empty()) else {
            return Ok(None);
        };
        Ok(self.written(reply))
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Segment> {
        if self.reset || self.time_wait_done {
            return None;
        }
        let in_time_wait = self.state() == State::TimeWait;
        let now = self.time(now);
        let mut port = Port {
            caps: &self.caps,
            received: None,
            out: &mut *out,
            written: 0,
        };
        self.interface
            .poll_egress(now, &mut port, &mut self.sockets);
        let written = port.written;
        self.time_wait_done = in_time_wait;
        if written == 0 {
            return None;
        }
        self.written(out.get_mut(..written)?)
    }

    fn payload(&self) -> Option<[&[u8]; 2]> {
        None
    }

    fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        if self.reset || self.time_wait_done {
            return None;
        }
        let smol_now = self.time(now);
        let at = self.interface.poll_at(smol_now, &self.sockets)?;
        if at <= smol_now {
            return Some(now);
        }
        Some(now + Duration::from_micros((at - smol_now).total_micros()))
    }

    fn resolution(&self) -> Duration {
        RESOLUTION
    }

    fn received(&mut self) -> &[u8] {
        self.socket().peek(usize::MAX).unwrap_or_default()
    }

    fn consume(&mut self, _: Instant, n: usize) {
        // In a state without bytes to receive there were none to consume either.
        let _ = self.socket().recv(|bytes| (n.min(bytes.len()), ()));
    }

    fn room(&mut self) -> &mut [u8] {
        let on_the_way = self.unacknowledged();
        let allowed = self.in_flight_limit.saturating_sub(on_the_way);
        let room = self.socket().send(|bytes| (0, bytes)).unwrap_or_default();
        let n = room.len().min(allowed);
        &mut room[..n]
    }

    fn commit(&mut self, n: usize) {
        // As in `consume`.
        let _ = self.socket().send(|bytes| (n.min(bytes.len()), ()));
    }

    fn close(&mut self) {
        self.socket().close();
    }

    fn abort(&mut self) {
        self.aborted = true;
        // What TIME-WAIT waits for is over for the client: there is nobody to reset.
        if self.state() != State::TimeWait {
            self.socket().abort();
        }
    }

    fn is_established(&self) -> bool {
        !matches!(self.state(), State::SynReceived | State::Listen)
    }

    fn is_receive_finished(&mut self) -> bool {
        matches!(self.socket().peek(1), Err(RecvError::Finished))
    }

    fn awaits_acknowledgement(&self) -> bool {
        !self.guard.all_acknowledged() || self.unacknowledged() > 0
    }

    fn segment_size(&self) -> usize {
        self.mss
    }

    fn take_counters(&mut self) -> Counters {
        Counters::default()
    }

    fn challenge(&self) -> Challenge {
        self.guard.challenge()
    }

    fn end(&mut self) -> Option<End> {
        if self.reset {
            return Some(End::Reset);
        }
        match self.state() {
            State::TimeWait if self.aborted => Some(End::Aborted),
            State::TimeWait if self.time_wait_done && self.received().is_empty() => {
                let Challenge { seq, ack, .. } = self.challenge();
                Some(End::TimeWait { seq, ack })
            }
            // smoltcp forgets the addresses once the RST is out.
            State::Closed if self.aborted => {
                let said = self.socket().remote_endpoint().is_none();
                said.then_some(End::Aborted)
            }
            State::Closed if self.received().is_empty() => Some(End::Closed),
            _ => None,
        }
    }
}

/// The scale that smoltcp chooses for the window of a ring of this size.
fn window_shift(ring: usize) -> u8 {
    let bits = usize::BITS - ring.leading_zeros();
    u8::try_from(bits.saturating_sub(16)).unwrap_or(u8::MAX)
}

/// Writes the client's SYN anew, with nothing in it but what was understood.
fn emit_syn(
    out: &mut [u8],
    client: SocketAddr,
    service: SocketAddr,
    syn: &Syn,
    mss: usize,
) -> Option<usize> {
    let repr = TcpRepr {
        src_port: client.port(),
        dst_port: service.port(),
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(syn.isn.cast_signed()),
        ack_number: None,
        window_len: syn.window_len,
        window_scale: syn.window_scale,
        max_seg_size: u16::try_from(mss).ok(),
        sack_permitted: syn.sack_permitted,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let len = repr.buffer_len();
    let start = emit_ip(out, client.ip(), service.ip(), IpProtocol::Tcp, len)?;
    repr.emit(
        &mut TcpPacket::new_unchecked(out.get_mut(start..start + len)?),
        &smol(client.ip()),
        &smol(service.ip()),
        &ChecksumCapabilities::ignored(),
    );
    Some(start + len)
}

/// Puts the MSS into a SYN-ACK, whose first option it is.
fn offer_mss(tcp_header: &mut [u8], mss: u16) {
    const MSS_OPTION: [u8; 2] = [2, 4];
    if let Some(option) = tcp_header.get_mut(TCP_HEADER_LEN..TCP_HEADER_LEN + 4)
        && option[..2] == MSS_OPTION
    {
        option[2..].copy_from_slice(&mss.to_be_bytes());
    }
}

/// Makes the IP header's length that of the slice.
fn set_ip_len(packet: &mut [u8]) {
    let len = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    match packet.first().map(|b| b >> 4) {
        Some(4) => Ipv4Packet::new_unchecked(packet).set_total_len(len),
        Some(6) => Ipv6Packet::new_unchecked(packet)
            .set_payload_len(len - smoltcp::wire::IPV6_HEADER_LEN as u16),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
