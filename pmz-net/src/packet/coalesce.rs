//! Joining the segments of a flow to super-packets, by the rules of the kernel's GRO (`tcp_gro_receive`,
//! `udp_gro_receive_segment`): what it would not join, this does not either.

mod segment;
mod slot;

use self::segment::{Flow, Segment};
use self::slot::{Join, Slot};
use super::ip::IpView;
use super::{MAX_FRAME, VNET_HDR_LEN, VnetHdr};

/// Flows whose super-packets can be open at once; each has a buffer of [`MAX_FRAME`] bytes.
const SLOTS: usize = 16;

/// Joins consecutive segments to super-packets. Packets of one flow come out in the order they came in.
pub struct Coalescer {
    slots: Vec<Slot>,
    /// Indices of the open slots, the one opened first in front.
    open: Vec<usize>,
    /// Indices of the others.
    free: Vec<usize>,
    scratch: Box<[u8]>,
    udp: bool,
    trusted: bool,
}

impl Coalescer {
    /// `udp`: join datagrams too; the TUN must take USO then. `trusted`: transport checksums are known to be right, as
    /// they are where the other end computed them and the AEAD was good; else each is verified, and packets where
    /// it is wrong are passed on as they are.
    pub fn new(udp: bool, trusted: bool) -> Self {
        let slots = (0..SLOTS).map(|_| Slot::new()).collect();
        Self {
            slots,
            open: Vec::with_capacity(SLOTS),
            free: (0..SLOTS).rev().collect(),
            scratch: vec![0; MAX_FRAME].into_boxed_slice(),
            udp,
            trusted,
        }
    }

    /// Takes one IP packet and calls `out` with the frames (virtio-net header and packet or super-packet) that are
    /// finished by it. Bytes behind the packet's own length and bytes that are no IP packet, or one
    /// longer than [`MAX_PACKET`], are dropped.
    pub fn push(&mut self, packet: &[u8], out: &mut impl FnMut(&mut [u8])) {
        let Some(view) = IpView::parse(packet) else {
            return;
        };
        if self.join(&view, out) {
            return;
        }
        let end = VNET_HDR_LEN + view.total_len();
        let Some(frame) = self.scratch.get_mut(..end) else {
            return;
        };
        frame[VNET_HDR_LEN..].copy_from_slice(view.bytes());
        VnetHdr::default().emit(frame);
        out(frame);
    }

    /// As [`Coalescer::push`] for a packet behind [`VNET_HDR_LEN`] bytes of room: one that is not joined is passed on
    /// without being copied.
    pub fn push_in_place(&mut self, room_and_packet: &mut [u8], out: &mut impl FnMut(&mut [u8])) {
        let Some(packet) = room_and_packet.get(VNET_HDR_LEN..) else {
            return;
        };
        let Some(view) = IpView::parse(packet) else {
            return;
        };
        let end = VNET_HDR_LEN + view.total_len();
        if self.join(&view, out) {
            return;
        }
        let frame = &mut room_and_packet[..end];
        VnetHdr::default().emit(frame);
        out(frame);
    }

    /// Calls `out` with all that is still open, at the end of a batch.
    pub fn flush(&mut self, out: &mut impl FnMut(&mut [u8])) {
        for at in self.open.drain(..) {
            out(self.slots[at].close());
            self.free.push(at);
        }
    }

    /// Whether nothing is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes the packet up into a super-packet, or returns false once it may be passed on alone.
    fn join(&mut self, view: &IpView<'_>, out: &mut impl FnMut(&mut [u8])) -> bool {
        if view.is_fragment() {
            self.close_between(view, out);
            return false;
        }
        let Some(flow) = Flow::of(view) else {
            return false;
        };
        let position = self.open.iter().position(|&at| self.slots[at].flow == flow);
        let segment = Segment::of(view, self.udp, self.trusted);
        if let Some(position) = position {
            let slot = &mut self.slots[self.open[position]];
            let join = match &segment {
                Some(segment) => slot.fit(segment),
                None => Join::No,
            };
            match (join, &segment) {
                (Join::Append, Some(segment)) => {
                    slot.append(segment);
                    return true;
                }
                (Join::AppendAndClose, Some(segment)) => {
                    slot.append(segment);
                    self.close(position, out);
                    return true;
                }
                _ => self.close(position, out),
            }
        }
        match segment {
            Some(segment) if segment.may_be_first() => {
                self.open_slot(flow, &segment, out);
                true
            }
            _ => false,
        }
    }

    fn open_slot(&mut self, flow: Flow, segment: &Segment<'_>, out: &mut impl FnMut(&mut [u8])) {
        if self.free.is_empty() {
            self.close(0, out);
        }
        if let Some(at) = self.free.pop() {
            self.slots[at].begin(flow, segment);
            self.open.push(at);
        }
    }

    fn close(&mut self, position: usize, out: &mut impl FnMut(&mut [u8])) {
        let at = self.open.remove(position);
        out(self.slots[at].close());
        self.free.push(at);
    }

    /// Closes all that is open between the same hosts: of a fragment no more is known.
    fn close_between(&mut self, view: &IpView<'_>, out: &mut impl FnMut(&mut [u8])) {
        let hosts = Flow::without_ports(view);
        while let Some(position) = self.open.iter().position(|&at| {
            let flow = &self.slots[at].flow;
            flow.addresses == hosts.addresses && flow.v4 == hosts.v4
        }) {
            self.close(position, out);
        }
    }
}

#[cfg(test)]
mod tests;
