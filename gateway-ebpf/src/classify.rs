//! From a frame to a verdict: RFC 4301 section 5, without the cryptography.

use crate::{frame::XdpFrame, tables};
use adit_maps::{
    decode::{self, Fragment, Frame, Headers, Undecoded, protocol},
    event::{Event, kind},
    meta::{Meta, task},
    policy::{Flow, Rule, action},
    port::{Port, role},
    sa::{SaRef, SpiKey},
    verdict::Verdict,
};
use aya_ebpf::programs::XdpContext;

/// Port of IKE (RFC 7296 section 2).
const IKE: u16 = 500;
/// Port of IKE and ESP behind NAT (RFC 3948).
const NAT_T: u16 = 4500;
/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;
/// Where the SPI lies in an Authentication Header (RFC 4302 section 2).
const AH_SPI: usize = 4;

/// A verdict, and the metadata to go with a frame that is redirected.
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    pub(crate) meta: Meta,
}

impl From<Verdict> for Decision {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Decision { verdict, meta: Meta { sa: 0, generation: 0, task: 0, ip: 0, reserved: [0; 6] } }
    }
}

/// Decides about a frame that came in by `port`.
#[inline(always)]
pub(crate) fn classify(ctx: &XdpContext, port: &Port) -> Decision {
    let mut headers = Headers::EMPTY;
    match decode(ctx, &mut headers) {
        DECODED => {}
        NOT_IP => return Verdict::NotIp.into(),
        _ => return Verdict::Malformed.into(),
    }
    let mut flow = Flow::EMPTY;
    if !find_flow(ctx, &headers, &mut flow) {
        return Verdict::Malformed.into();
    }
    let local = tables::is_local(&flow.destination);
    // What is for another MAC address the kernel drops, or hands to whoever shares the interface.
    let ours = is_ours(ctx, port);
    if local
        && ours
        && let Some(decision) = ipsec(&XdpFrame::new(ctx), &headers, &flow)
    {
        return decision;
    }
    let mut rule = Rule::NONE;
    // On the WAN side a packet of a protected flow should have been ESP or AH (RFC 4301 section 5.2, step 3). Asked first, so
    // that nobody there can have a clear packet sealed for the next site.
    if port.roles & role::WAN != 0
        && tables::policy(&flow.reversed(), &mut rule)
        && rule.action != action::BYPASS
    {
        return Verdict::ClearOnWan.into();
    }
    if local {
        return Verdict::Local.into();
    }
    if tables::policy(&flow, &mut rule) {
        if !ours && rule.action != action::BYPASS {
            return Verdict::ForeignMac.into();
        }
        if port.roles & role::LAN != 0 {
            return outbound(&headers, &flow, &rule);
        }
        // The kernel would forward it into the tunnel as if it had come from the LAN.
        if rule.action != action::BYPASS {
            return Verdict::ClearOnWan.into();
        }
    }
    Verdict::Unprotected.into()
}

// A BPF program has 512 bytes of stack. As functions of their own, these give theirs back when they return.
// Their signatures carry plain types only, for the reason that `Flow` gives.

const DECODED: u32 = 0;
const NOT_IP: u32 = 1;
const MALFORMED: u32 = 2;

#[inline(never)]
fn decode(ctx: &XdpContext, headers: &mut Headers) -> u32 {
    match decode::ethernet(&XdpFrame::new(ctx)) {
        Ok(found) => {
            *headers = found;
            DECODED
        }
        Err(Undecoded::NotIp) => NOT_IP,
        Err(Undecoded::Malformed) => MALFORMED,
    }
}

#[inline(always)]
fn is_ours(ctx: &XdpContext, port: &Port) -> bool {
    match XdpFrame::new(ctx).bytes::<6>(0) {
        Some(destination) => port.takes(destination),
        None => false,
    }
}

#[inline(never)]
fn find_flow(ctx: &XdpContext, headers: &Headers, flow: &mut Flow) -> bool {
    match decode::flow(&XdpFrame::new(ctx), headers) {
        Ok(found) => {
            *flow = found;
            true
        }
        Err(_) => false,
    }
}

#[inline(never)]
fn tell(kind: u32, subject: u32, flow: &Flow) {
    let (source_port, destination_port) = flow.ports().unwrap_or((0, 0));
    tables::tell(Event {
        kind,
        subject,
        source: flow.source,
        destination: flow.destination,
        protocol: flow.protocol,
        reserved: [0; 3],
        source_port,
        destination_port,
    });
}

/// ESP, AH and IKE for one of our addresses; `None` for anything else.
#[inline(always)]
fn ipsec(frame: &XdpFrame, headers: &Headers, flow: &Flow) -> Option<Decision> {
    let (spi, protocol) = match (headers.protocol, flow.ports()) {
        (protocol::ESP, _) => (headers.payload, protocol::ESP),
        (protocol::AH, _) => (headers.payload + AH_SPI, protocol::AH),
        (protocol::UDP, Some((_, IKE))) => return Some(Verdict::Ike.into()),
        (protocol::UDP, Some((_, NAT_T))) => {
            let esp = headers.payload + UDP_HEADER;
            // RFC 3948 section 2: four zero bytes mark IKE; a single byte is a keepalive. Both are `control`'s, and
            // so is what is too short to be either.
            match frame.bytes::<4>(esp) {
                Some([0, 0, 0, 0]) | None => return Some(Verdict::Ike.into()),
                Some(_) if esp + 4 > headers.end => return Some(Verdict::Ike.into()),
                Some(_) => (esp, protocol::ESP),
            }
        }
        _ => return None,
    };
    if headers.fragment != Fragment::Whole {
        return Some(Verdict::EspFragment.into());
    }
    let Some(spi) = frame.bytes::<4>(spi) else { return Some(Verdict::Malformed.into()) };
    let spi = u32::from_be_bytes(spi);
    let key = SpiKey { destination: flow.destination, spi, protocol: u32::from(protocol) };
    Some(match tables::inbound(&key) {
        Some(sa) => redirected(Verdict::Open, task::OPEN, sa, headers),
        None => {
            if tables::unknown_spi_due() {
                tell(kind::UNKNOWN_SPI, spi, flow);
            }
            Verdict::UnknownSpi.into()
        }
    })
}

/// A flow that an outbound policy covers.
#[inline(always)]
fn outbound(headers: &Headers, flow: &Flow, rule: &Rule) -> Decision {
    match rule.action {
        action::BYPASS => Verdict::Bypass.into(),
        action::PROTECT => {
            let slot = rule.slot(flow, headers.fragment == Fragment::Whole);
            match tables::outbound(slot) {
                Ok(sa) => redirected(Verdict::Seal, task::SEAL, sa, headers),
                // Who asks is held: as often as `control` is told, and no oftener.
                Err(true) => {
                    tell(kind::ACQUIRE, slot, flow);
                    redirected(Verdict::Hold, task::HOLD, SaRef { index: slot, generation: 0 }, headers)
                }
                Err(false) => Verdict::NoSa.into(),
            }
        }
        _ => Verdict::Discard.into(),
    }
}

#[inline(always)]
fn redirected(verdict: Verdict, task: u8, sa: SaRef, headers: &Headers) -> Decision {
    let meta = Meta { sa: sa.index, generation: sa.generation, task, ip: headers.ip as u8, reserved: [0; 6] };
    Decision { verdict, meta }
}
