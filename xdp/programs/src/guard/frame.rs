//! Reading a frame, as the kernel allows.

use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_xdp_load_bytes;
use aya_ebpf::programs::XdpContext;

/// A frame that can be read.
pub(super) trait Frame {
    /// What stands there, if it can be seen. `T` is plain data of which every bit pattern is valid.
    fn read<T: Copy>(&self, offset: u32) -> Option<T>;
}

/// By a helper, wherever in the frame's pieces it is. Linux 5.18.
pub(super) struct Pieces<'a>(pub(super) &'a XdpContext);

impl Frame for Pieces<'_> {
    #[inline(always)]
    fn read<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let size = size_of::<T>() as u32;
        // SAFETY: the helper writes `size` bytes, or says that it has not.
        let failed = unsafe {
            bpf_xdp_load_bytes(
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

/// By pointers into the one piece that a frame is. To add a number that is not known before to such a pointer, a
/// process needs CAP_PERFMON.
pub(super) struct Piece {
    start: usize,
    end: usize,
}

impl Piece {
    #[inline(always)]
    pub(super) fn of(ctx: &XdpContext) -> Self {
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
        }
    }
}

impl Frame for Piece {
    #[inline(always)]
    fn read<T: Copy>(&self, offset: u32) -> Option<T> {
        let place = self.start + offset as usize;
        if place + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: it ends before the frame does; and the verifier checks the same.
        Some(unsafe { (place as *const T).read_unaligned() })
    }
}
