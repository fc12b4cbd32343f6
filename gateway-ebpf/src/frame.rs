//! The frame under the program, as `adit_maps::decode` reads it.

use adit_maps::decode::Frame;
use aya_ebpf::{helpers::bpf_xdp_get_buff_len, programs::XdpContext};

/// Offsets beyond this are refused: headers never lie so far, and the verifier wants a bound.
const MAX_OFFSET: usize = 0x3fff;

/// A frame whose reads the verifier can follow. Of one that lies in several buffers only what is in the first can be read:
/// no header lies beyond.
pub(crate) struct XdpFrame<'a> {
    ctx: &'a XdpContext,
    start: usize,
    end: usize,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        let (start, end) = bounds(ctx);
        XdpFrame { ctx, start, end }
    }
}

/// Where the frame starts and ends.
///
/// Volatile, because LLVM knows more than the verifier: it would load the two in the caller of a function and pass
/// them on as plain numbers, and it would leave out a comparison with the end that follows from one with the length.
#[inline(always)]
fn bounds(ctx: &XdpContext) -> (usize, usize) {
    // SAFETY: the context is valid for as long as the program runs.
    unsafe {
        (
            (&raw const (*ctx.ctx).data).read_volatile() as usize,
            (&raw const (*ctx.ctx).data_end).read_volatile() as usize,
        )
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the helper takes the context this program was called with.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: `at..at + N` lies within the frame, as just compared; a byte array has no alignment.
        Some(unsafe { *(at as *const [u8; N]) })
    }
}
