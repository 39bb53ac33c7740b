//! IP fragments: putting them together (RFC 791, 815, 8200, 5722) and making them.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::MAX_PACKET;
use super::checksum::fill_v4_header;
use super::ip::{FragmentInfo, IpView, V4_HDR_LEN, V6_HDR_LEN};

/// How long a datagram's fragments are waited for (RFC 8200 4.5 says 60 s at most; the kernel takes 30 s).
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Datagrams that can be incomplete at once.
pub const MAX_DATAGRAMS: usize = 64;
/// Bytes that all incomplete datagrams together may hold.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Pieces with gaps between them that one datagram may have. An honest sender's come in order or nearly so.
const MAX_PIECES: usize = 128;

/// What became of datagrams that came in fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReassemblyCounters {
    /// Complete ones.
    pub completed: u64,
    /// Given up because fragments were missing after [`TIMEOUT`].
    pub timed_out: u64,
    /// Given up because others needed the room.
    pub evicted: u64,
    /// Given up because fragments overlapped or contradicted each other.
    pub damaged: u64,
}

/// Puts fragments together, within bounds of time, number and bytes. Sans-IO.
#[derive(Default)]
pub struct Reassembler {
    datagrams: HashMap<Key, Datagram>,
    /// Keys of all datagrams, the one that began first in front.
    order: VecDeque<Key>,
    bytes: usize,
    counters: ReassemblyCounters,
}

/// What fragments of one datagram have in common. IPv6 leaves the protocol out (RFC 8200 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    protocol: u8,
}

struct Datagram {
    began: Instant,
    /// The headers that the whole packet gets, once the first fragment is there: as in it, without the fragment
    /// header and with lengths not yet right.
    headers: Option<Vec<u8>>,
    payload: Vec<u8>,
    /// What of `payload` is there: from, to; sorted, not touching.
    pieces: Vec<(usize, usize)>,
    /// Length of the whole payload, once the last fragment is there.
    total: Option<usize>,
    /// Given up: its further fragments are ignored (RFC 5722).
    damaged: bool,
}

impl Reassembler {
    /// One that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a packet. Returns the whole packet if this was the last missing fragment, or if it is no fragment at
    /// all. The transport checksum is not looked at.
    pub fn push(&mut self, now: Instant, packet: &[u8]) -> Option<Vec<u8>> {
        self.expire(now);
        let view = IpView::parse(packet)?;
        let Some(info) = view.fragment() else {
            return Some(view.bytes().to_vec());
        };
        let key = Key {
            src: view.src(),
            dst: view.dst(),
            id: info.id,
            protocol: if view.is_v4() { view.protocol() } else { 0 },
        };
        if !self.datagrams.contains_key(&key) {
            self.begin(key, now);
        }
        let datagram = self.datagrams.get_mut(&key)?;
        if datagram.damaged {
            return None;
        }
        let before = datagram.held();
        let complete = datagram.add(&view, info);
        self.bytes = self.bytes - before + datagram.held();
        match complete {
            Ok(false) => {
                self.make_room(key);
                None
            }
            Ok(true) => {
                let datagram = self.remove(key)?;
                let whole = datagram.into_packet(view.is_v4());
                match whole {
                    Some(_) => self.counters.completed += 1,
                    None => self.counters.damaged += 1,
                }
                whole
            }
            Err(Damaged) => {
                self.bytes -= datagram.held();
                datagram.give_up();
                self.counters.damaged += 1;
                None
            }
        }
    }

    /// Gives up the datagrams whose time is over.
    pub fn expire(&mut self, now: Instant) {
        while let Some(deadline) = self.poll_timeout() {
            if now < deadline {
                return;
            }
            if self.remove_oldest().is_some_and(|d| !d.damaged) {
                self.counters.timed_out += 1;
            }
        }
    }

    /// When [`Reassembler::expire`] has something to do next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let oldest = self.datagrams.get(self.order.front()?)?;
        Some(oldest.began + TIMEOUT)
    }

    /// What became of datagrams so far.
    pub fn counters(&self) -> ReassemblyCounters {
        self.counters
    }

    /// Bytes that incomplete datagrams hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn begin(&mut self, key: Key, now: Instant) {
        while self.datagrams.len() >= MAX_DATAGRAMS {
            self.evict_oldest();
        }
        let datagram = Datagram {
            began: now,
            headers: None,
            payload: Vec::new(),
            pieces: Vec::new(),
            total: None,
            damaged: false,
        };
        self.datagrams.insert(key, datagram);
        self.order.push_back(key);
    }

    fn make_room(&mut self, newest: Key) {
        while self.bytes > MAX_BYTES && self.order.front().is_some_and(|key| *key != newest) {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        if self.remove_oldest().is_some_and(|d| !d.damaged) {
            self.counters.evicted += 1;
        }
    }

    fn remove_oldest(&mut self) -> Option<Datagram> {
        let key = *self.order.front()?;
        self.remove(key)
    }

    fn remove(&mut self, key: Key) -> Option<Datagram> {
        self.order.retain(|k| *k != key);
        let datagram = self.datagrams.remove(&key)?;
        self.bytes -= datagram.held();
        Some(datagram)
    }
}

/// The datagram's fragments contradict each other.
struct Damaged;

impl Datagram {
    /// Bytes that it holds.
    fn held(&self) -> usize {
        self.payload.len() + self.headers.as_ref().map_or(0, Vec::len)
    }

    /// Returns whether the datagram is complete.
    fn add(&mut self, view: &IpView<'_>, info: FragmentInfo) -> Result<bool, Damaged> {
        let part = view.transport();
        let (from, to) = (info.offset, info.offset + part.len());
        let misaligned = info.more && !part.len().is_multiple_of(8);
        if misaligned || part.is_empty() || to > MAX_PACKET {
            return Err(Damaged);
        }
        if !info.more {
            let known = self.total.is_some_and(|total| total != to);
            if known || self.payload.len() > to {
                return Err(Damaged);
            }
            self.total = Some(to);
        }
        if self.total.is_some_and(|total| to > total) {
            return Err(Damaged);
        }
        if !self.insert(from, to, part)? {
            return Ok(false);
        }
        if from == 0 {
            self.headers = Some(headers_of(view, info));
        }
        let whole =
            matches!((self.total, &self.pieces[..]), (Some(total), [(0, to)]) if *to == total);
        Ok(whole && self.headers.is_some())
    }

    /// Returns false for what is there already.
    fn insert(&mut self, from: usize, to: usize, part: &[u8]) -> Result<bool, Damaged> {
        let at = self.pieces.partition_point(|(_, end)| *end <= from);
        if let Some((start, end)) = self.pieces.get(at) {
            // A duplicate made by the network is no attack (RFC 8200 4.5).
            if *start <= from && to <= *end && self.payload.get(from..to) == Some(part) {
                return Ok(false);
            }
            if *start < to {
                return Err(Damaged);
            }
        }
        let joins_next = self.pieces.get(at).is_some_and(|(start, _)| *start == to);
        let joins_last = at > 0 && self.pieces[at - 1].1 == from;
        match (joins_last, joins_next) {
            (true, true) => {
                let (_, end) = self.pieces.remove(at);
                self.pieces[at - 1].1 = end;
            }
            (true, false) => self.pieces[at - 1].1 = to,
            (false, true) => self.pieces[at].0 = from,
            (false, false) if self.pieces.len() == MAX_PIECES => return Err(Damaged),
            (false, false) => self.pieces.insert(at, (from, to)),
        }
        if self.payload.len() < to {
            self.payload.resize(to, 0);
        }
        self.payload[from..to].copy_from_slice(part);
        Ok(true)
    }

    fn give_up(&mut self) {
        self.damaged = true;
        self.headers = None;
        self.payload = Vec::new();
        self.pieces = Vec::new();
    }

    fn into_packet(self, v4: bool) -> Option<Vec<u8>> {
        let mut packet = self.headers?;
        let headers = packet.len();
        packet.extend_from_slice(&self.payload);
        let len = packet.len();
        if len > MAX_PACKET {
            return None;
        }
        if v4 {
            packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            // Neither offset nor 'more fragments'.
            packet[6] &= 0x40;
            packet[7] = 0;
            fill_v4_header(&mut packet[..headers]);
        } else {
            packet[4..6].copy_from_slice(&((len - V6_HDR_LEN) as u16).to_be_bytes());
        }
        Some(packet)
    }
}

/// The first fragment's headers without IPv6's fragment header.
fn headers_of(view: &IpView<'_>, info: FragmentInfo) -> Vec<u8> {
    let bytes = view.bytes();
    if view.is_v4() {
        return bytes[..view.transport_offset()].to_vec();
    }
    let mut headers = bytes[..info.header_at].to_vec();
    headers[info.next_header_at] = view.protocol();
    headers
}

/// Cuts an IPv4 packet into fragments of at most `mtu` bytes and calls `emit` with each; one that fits is passed on as
/// it is. False, with nothing emitted, where it must not be cut ('don't fragment'), `mtu` has no room for 8 bytes
/// behind the header, or it is no IPv4 packet.
pub fn fragment_v4(packet: &[u8], mtu: u16, emit: &mut impl FnMut(&[u8])) -> bool {
    let Some(view) = IpView::parse(packet).filter(IpView::is_v4) else {
        return false;
    };
    let bytes = view.bytes();
    if bytes.len() <= usize::from(mtu) {
        emit(bytes);
        return true;
    }
    let header = &bytes[..view.transport_offset()];
    let per_fragment = usize::from(mtu).saturating_sub(header.len()) & !7;
    if header[6] & 0x40 != 0 || per_fragment == 0 {
        return false;
    }
    // The packet may be a fragment itself.
    let base = view.fragment();
    let base_offset = base.map_or(0, |f| f.offset);
    let more_behind = base.is_some_and(|f| f.more);
    let further_header = further_header(header);
    let payload = view.transport();
    let mut fragment = Vec::with_capacity(usize::from(mtu));
    let mut at = 0;
    while at < payload.len() {
        let header = if at == 0 { header } else { &further_header };
        let part = &payload[at..payload.len().min(at + per_fragment)];
        let more = more_behind || at + part.len() < payload.len();
        let field = ((base_offset + at) / 8) as u16 | if more { 0x2000 } else { 0 };
        fragment.clear();
        fragment.extend_from_slice(header);
        fragment.extend_from_slice(part);
        let len = fragment.len() as u16;
        fragment[2..4].copy_from_slice(&len.to_be_bytes());
        fragment[6..8].copy_from_slice(&field.to_be_bytes());
        fill_v4_header(&mut fragment[..header.len()]);
        emit(&fragment);
        at += part.len();
    }
    true
}

/// The header of all fragments but the first: only the options that say so are copied (RFC 791, 3.1).
fn further_header(header: &[u8]) -> Vec<u8> {
    let (fixed, mut options) = header.split_at(V4_HDR_LEN);
    let mut out = fixed.to_vec();
    while let [kind, rest @ ..] = options {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => match rest.first() {
                Some(len) if *len >= 2 && usize::from(*len) <= options.len() => usize::from(*len),
                _ => break,
            },
        };
        if kind & 0x80 != 0 {
            out.extend_from_slice(&options[..len]);
        }
        options = &options[len..];
    }
    out.resize(out.len().next_multiple_of(4), 0);
    out[0] = 0x40 | (out.len() / 4) as u8;
    out
}

#[cfg(test)]
mod tests;
