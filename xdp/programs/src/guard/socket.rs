//! What the guard sees of a datagram at the socket itself.

use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative};
use aya_ebpf::programs::SkBuffContext;

use super::datagram::{Datagram, v4_source, v6_source};
use super::frame::Frame;
use crate::packet::{Ipv4, Ipv6};

/// `BPF_HDR_START_NET` of `enum bpf_hdr_start_off`, linux/bpf.h.
const IP_HEADER: u32 = 1;

/// A datagram that the kernel has found the socket for; it begins with its UDP header.
pub(super) struct Delivered<'a>(pub(super) &'a SkBuffContext);

impl Delivered<'_> {
    /// `None` only where the kernel shows less than it has looked at before.
    #[inline(always)]
    pub(super) fn datagram(&self) -> Option<Datagram> {
        let source = match self.ip::<[u8; 1]>()?[0] >> 4 {
            4 => v4_source(&self.ip::<Ipv4>()?),
            _ => v6_source(&self.ip::<Ipv6>()?),
        };
        let (_, datagram) = Datagram::at(self, 0, source)?;
        Some(datagram)
    }

    /// What stands at the beginning of the IP header.
    #[inline(always)]
    fn ip<T: Copy>(&self) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let size = size_of::<T>() as u32;
        // SAFETY: the helper writes `size` bytes, or says that it has not.
        let failed = unsafe {
            bpf_skb_load_bytes_relative(
                self.0.as_ptr().cast(),
                0,
                value.as_mut_ptr().cast(),
                size,
                IP_HEADER,
            )
        };
        // SAFETY: it was written, and `T` is plain data of which every bit pattern is valid.
        (failed == 0).then(|| unsafe { value.assume_init() })
    }
}

impl Frame for Delivered<'_> {
    #[inline(always)]
    fn read<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let size = size_of::<T>() as u32;
        // SAFETY: the helper writes `size` bytes, or says that it has not.
        let failed = unsafe {
            bpf_skb_load_bytes(
                self.0.as_ptr().cast(),
                offset,
                value.as_mut_ptr().cast(),
                size,
            )
        };
        // SAFETY: it was written, and any bits are a `T`.
        (failed == 0).then(|| unsafe { value.assume_init() })
    }
}
