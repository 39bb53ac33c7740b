//! The socket buffer under a program's hands: the helpers of `bpf-helpers(7)` that the programs need.

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
};
use aya_ebpf::helpers::{
    bpf_csum_diff, bpf_get_socket_cookie, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect,
    bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
};

/// A helper refused: the offset is outside of the packet, or memory was short.
pub(crate) struct Refused;

#[derive(Clone, Copy)]
pub(crate) struct Skb(pub(crate) *mut __sk_buff);

/// How a transport checksum covers what has changed.
#[derive(Clone, Copy)]
pub(crate) enum Covers {
    /// By the pseudo-header: a checksum that the device will finish has only this in it.
    PseudoHeader,
    /// By the pseudo-header, and zero means that there is none (UDP, RFC 768).
    PseudoHeaderIfAny,
    /// As a part of the message itself.
    Message,
}

impl Covers {
    #[inline(always)]
    const fn flags(self) -> u64 {
        match self {
            Self::PseudoHeader => BPF_F_PSEUDO_HDR as u64,
            Self::PseudoHeaderIfAny => (BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) as u64,
            Self::Message => 0,
        }
    }
}

impl Skb {
    /// Bytes of the packet, with what stands before its IP header.
    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        // SAFETY: the kernel gave the context; the verifier checks each access.
        unsafe { (*self.0).len }
    }

    /// The Ethernet type, as it lies in packets.
    #[inline(always)]
    pub(crate) fn protocol(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).protocol }
    }

    /// Packets that this super-packet stands for; 0 where the kernel has not counted them.
    #[inline(always)]
    pub(crate) fn gso_segments(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).gso_segs }
    }

    /// Bytes of payload in each of them; 0 of a packet that is no super-packet.
    #[inline(always)]
    pub(crate) fn gso_size(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).gso_size }
    }

    #[inline(always)]
    pub(crate) fn mark(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).tc_index }
    }

    #[inline(always)]
    pub(crate) fn set_mark(self, mark: u32) {
        // SAFETY: as above; programs of this type may write the field.
        unsafe { (*self.0).tc_index = mark };
    }

    /// Reads a `T` that is made of integers only.
    #[inline(always)]
    pub(crate) fn load<T: Copy>(self, offset: u32) -> Result<T, Refused> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes exactly the given length, or fails; every caller's `T` is integers, for
        // which all bits are valid.
        unsafe {
            if bpf_skb_load_bytes(
                self.0.cast(),
                offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            ) == 0
            {
                Ok(value.assume_init())
            } else {
                Err(Refused)
            }
        }
    }

    /// Reads `length` bytes, of which there are 1 to `N`.
    #[inline(always)]
    pub(crate) fn load_into<const N: usize>(
        self,
        offset: u32,
        buffer: &mut [u32; N],
        length: u32,
    ) -> Result<(), Refused> {
        // SAFETY: `bounded` gives at most the buffer's size.
        let refused = unsafe {
            bpf_skb_load_bytes(
                self.0.cast(),
                offset,
                buffer.as_mut_ptr().cast(),
                bounded::<N>(length),
            )
        };
        if refused == 0 { Ok(()) } else { Err(Refused) }
    }

    /// Writes the first `length` bytes, of which there are 1 to `N`.
    #[inline(always)]
    pub(crate) fn store_from<const N: usize>(
        self,
        offset: u32,
        buffer: &[u32; N],
        length: u32,
    ) -> Result<(), Refused> {
        // SAFETY: `bounded` gives at most the buffer's size.
        let refused = unsafe {
            bpf_skb_store_bytes(
                self.0,
                offset,
                buffer.as_ptr().cast(),
                bounded::<N>(length),
                0,
            )
        };
        if refused == 0 { Ok(()) } else { Err(Refused) }
    }

    #[inline(always)]
    pub(crate) fn store<T: Copy>(self, offset: u32, value: &T) -> Result<(), Refused> {
        self.store_with(offset, value, 0)
    }

    /// As [`Skb::store`], of what only a transport checksum covers: the sum that a network card has made over
    /// the whole packet follows here, and [`Covers::PseudoHeader`] takes it back. (Of IPv4 the header checksum
    /// makes up for the change, of IPv6 nothing does; kernels with BPF_F_IPV6 could be told instead.)
    #[inline(always)]
    pub(crate) fn store_summed<T: Copy>(self, offset: u32, value: &T) -> Result<(), Refused> {
        self.store_with(offset, value, BPF_F_RECOMPUTE_CSUM as u64)
    }

    #[inline(always)]
    fn store_with<T: Copy>(self, offset: u32, value: &T, flags: u64) -> Result<(), Refused> {
        // SAFETY: the pointer and the length are a `T`'s.
        let refused = unsafe {
            bpf_skb_store_bytes(
                self.0,
                offset,
                ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
                flags,
            )
        };
        if refused == 0 { Ok(()) } else { Err(Refused) }
    }

    /// Corrects an IPv4 header checksum for a 32-bit word that changes.
    #[inline(always)]
    pub(crate) fn fix_header_sum(self, offset: u32, old: u32, new: u32) -> Result<(), Refused> {
        // SAFETY: takes no pointers but the context.
        let refused =
            unsafe { bpf_l3_csum_replace(self.0, offset, u64::from(old), u64::from(new), 4) };
        if refused == 0 { Ok(()) } else { Err(Refused) }
    }

    /// Corrects a transport checksum by a difference of sums.
    #[inline(always)]
    pub(crate) fn fix_sum(
        self,
        offset: u32,
        difference: u32,
        covers: Covers,
    ) -> Result<(), Refused> {
        // SAFETY: takes no pointers but the context.
        let refused = unsafe {
            bpf_l4_csum_replace(self.0, offset, 0, u64::from(difference), covers.flags())
        };
        if refused == 0 { Ok(()) } else { Err(Refused) }
    }

    /// Cuts or extends the packet; it is no super-packet afterwards.
    #[inline(always)]
    pub(crate) fn set_len(self, length: u32) -> Result<(), Refused> {
        // SAFETY: takes no pointers but the context.
        let refused = unsafe { bpf_skb_change_tail(self.0, length, 0) };
        if refused == 0 { Ok(()) } else { Err(Refused) }
    }

    /// Puts zeroes before the packet, of which there may be none: a frame for a device that wants one.
    #[inline(always)]
    pub(crate) fn extend_head(self, length: u32) -> Result<(), Refused> {
        // SAFETY: takes no pointers but the context.
        let refused = unsafe { bpf_skb_change_head(self.0, length, 0) };
        if refused == 0 { Ok(()) } else { Err(Refused) }
    }

    /// The index of the device whose hook this is.
    #[inline(always)]
    pub(crate) fn device(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).ifindex }
    }

    /// What tells the socket that sent the packet from all others; 0 where there is none.
    #[inline(always)]
    pub(crate) fn socket(self) -> u64 {
        // SAFETY: takes no pointers but the context.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    /// The verdict that sends the packet into the ingress of the device that it was about to leave by.
    #[inline(always)]
    pub(crate) fn turn_back(self) -> i32 {
        self.receive_at(self.device())
    }

    /// The verdict by which a device receives the packet.
    #[inline(always)]
    pub(crate) fn receive_at(self, device: u32) -> i32 {
        // SAFETY: the helper takes integers.
        unsafe { bpf_redirect(device, BPF_F_INGRESS as u64) as i32 }
    }

    /// The verdict by which the packet leaves by another device. For one without Ethernet the kernel takes that off.
    #[inline(always)]
    pub(crate) fn leave_by(self, device: u32) -> i32 {
        // SAFETY: the helper takes integers.
        unsafe { bpf_redirect(device, 0) as i32 }
    }
}

/// `length`, in a form of which the oldest verifiers, too, see that it is 1 to `N` words' bytes.
#[inline(always)]
fn bounded<const N: usize>(length: u32) -> u32 {
    const { assert!((N * 4).is_power_of_two()) };
    (core::hint::black_box(length.wrapping_sub(1)) & (N as u32 * 4 - 1)) + 1
}

/// The sum (RFC 1071, not folded) of words as they lie in packets, added to `seed`.
#[inline(always)]
pub(crate) fn sum<const N: usize>(words: &[u32; N], seed: u32) -> u32 {
    // SAFETY: the kernel reads N words from the array and nothing from the null pointer, whose length is 0.
    unsafe {
        bpf_csum_diff(
            ptr::null_mut(),
            0,
            words.as_ptr().cast_mut(),
            (N * 4) as u32,
            seed,
        ) as u32
    }
}

/// The sum of `new` minus that of `old`.
#[inline(always)]
pub(crate) fn difference(old: &[u32; 4], new: &[u32; 4]) -> u32 {
    // SAFETY: the kernel reads four words from each.
    unsafe { bpf_csum_diff(old.as_ptr().cast_mut(), 16, new.as_ptr().cast_mut(), 16, 0) as u32 }
}

/// The checksum that a sum makes, as it lies in packets.
#[inline(always)]
pub(crate) fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
