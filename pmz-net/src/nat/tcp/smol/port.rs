//! The device that smoltcp sees.

use std::num::NonZeroUsize;

use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken,
};
use smoltcp::time::Instant as SmolInstant;

use crate::packet::MAX_PACKET;

/// A device whose MTU never is the limit; super-packets are cut into whole segments, so that none but a
/// stream's last is short.
pub(super) fn capabilities(headers: usize, mss: usize) -> DeviceCapabilities {
    let largest = headers + (MAX_PACKET - headers) / mss * mss;
    let mut caps = DeviceCapabilities::default();
    caps.medium = Medium::Ip;
    caps.max_transmission_unit = MAX_PACKET;
    caps.checksum = ChecksumCapabilities::ignored();
    caps.checksum.ipv4 = Checksum::Tx;
    caps.segmentation.tcpv4 = NonZeroUsize::new(largest);
    caps.segmentation.tcpv6 = NonZeroUsize::new(largest);
    caps
}

/// A device for one packet in and one out.
pub(super) struct Port<'a> {
    pub(super) caps: &'a DeviceCapabilities,
    pub(super) received: Option<&'a [u8]>,
    pub(super) out: &'a mut [u8],
    /// Bytes of the packet in `out`.
    pub(super) written: usize,
}

impl<'a> Port<'a> {
    pub(super) fn new(caps: &'a DeviceCapabilities) -> Self {
        Self {
            caps,
            received: None,
            out: &mut [],
            written: 0,
        }
    }
}

impl Device for Port<'_> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Free<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: SmolInstant) -> Option<(Received<'_>, Free<'_>)> {
        let packet = self.received.take()?;
        Some((
            Received(packet),
            Free {
                out: self.out,
                written: &mut self.written,
            },
        ))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Free<'_>> {
        (self.written == 0 && !self.out.is_empty()).then_some(Free {
            out: self.out,
            written: &mut self.written,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.caps.clone()
    }
}

pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(super) struct Free<'a> {
    out: &'a mut [u8],
    written: &'a mut usize,
}

impl TxToken for Free<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        match self.out.get_mut(..len) {
            Some(out) => {
                *self.written = len;
                f(out)
            }
            // An answer for which the caller gave no room: written and forgotten.
            None => f(&mut vec![0; len]),
        }
    }
}
