//! The XDP program of a gateway: it reads a frame's headers, looks them up and says what becomes of the frame.
//!
//! It holds no key and changes no byte of a packet. What is to be sealed or opened goes, with 16 bytes of metadata
//! before it, to the AF_XDP socket of the queue it came in by; what must not pass is dropped, also when nobody
//! listens on that socket: a data plane that died leaks nothing, because this program stays attached without it.
//!
//! [`classify`] turns a frame into a [`Verdict`]; the only `match` from a verdict to what the driver does is in
//! [`adit_xdp`]. The maps and their layout are `adit-maps`'.
#![no_std]
#![no_main]

mod classify;
mod frame;
mod tables;

use adit_maps::{
    meta::Meta,
    port::xsk_index,
    verdict::{Action, Verdict},
};
use aya_ebpf::{
    EbpfContext, bindings::xdp_action, helpers::bpf_xdp_adjust_meta, macros::xdp, programs::XdpContext,
};
use classify::{Decision, classify};

/// The program: attached to every WAN and LAN interface, in driver or generic mode. It takes
/// frames that lie in several buffers.
#[xdp(frags)]
pub(crate) fn adit_xdp(ctx: XdpContext) -> u32 {
    let Some(port) = tables::port(ctx.ingress_ifindex() as u32) else {
        return xdp_action::XDP_PASS;
    };
    let decision = classify(&ctx, &port);
    match decision.verdict.action() {
        Action::Pass => {
            tables::count(port.slot, decision.verdict);
            xdp_action::XDP_PASS
        }
        Action::Drop => {
            tables::count(port.slot, decision.verdict);
            xdp_action::XDP_DROP
        }
        Action::Redirect => match redirect(&ctx, port.slot, &decision) {
            Ok(action) => {
                tables::count(port.slot, decision.verdict);
                action
            }
            Err(verdict) => {
                tables::count(port.slot, verdict);
                xdp_action::XDP_DROP
            }
        },
    }
}

#[inline(always)]
fn redirect(ctx: &XdpContext, slot: u32, decision: &Decision) -> Result<u32, Verdict> {
    // SAFETY: the helper takes the context this program was called with; it checks the size.
    if unsafe { bpf_xdp_adjust_meta(ctx.as_ptr().cast(), -(Meta::SIZE as i32)) } != 0 {
        return Err(Verdict::NoMetadata);
    }
    let meta = ctx.metadata();
    if meta + Meta::SIZE > ctx.metadata_end() {
        return Err(Verdict::NoMetadata);
    }
    // SAFETY: `meta` points at Meta::SIZE writable bytes before the frame, as just compared; the verifier proves it.
    unsafe { (meta as *mut Meta).write_unaligned(decision.meta) };
    let queue = ctx.rx_queue_index();
    tables::XSKS
        .redirect(xsk_index(slot, queue), u64::from(xdp_action::XDP_DROP))
        .map_err(|_| Verdict::NoWorker)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel lends its GPL-only helpers to programs that say so.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
