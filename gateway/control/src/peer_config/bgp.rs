//! BGP as the peer has to be told of it, in what several vendors share.

use super::script::Script;
use std::net::Ipv4Addr;

/// The session of a tunnel with local and remote swapped.
#[derive(Clone, Copy)]
pub(super) struct Session {
    /// The peer's autonomous system.
    pub(super) local_asn: u32,
    /// This gateway's.
    pub(super) remote_asn: u32,
    /// The peer's end.
    pub(super) local_ip: Ipv4Addr,
    /// This gateway's end.
    pub(super) remote_ip: Ipv4Addr,
    /// Seconds.
    pub(super) hold_time: u64,
}

impl Session {
    /// How often a sign of life is sent: a third of the hold time (RFC 4271 section 10).
    pub(super) fn keepalive(&self) -> u64 {
        (self.hold_time / 3).max(1)
    }
}

/// The session of the script's tunnel, if it has BGP.
pub(super) fn session(script: &Script<'_>) -> Option<Session> {
    let bgp = script.view.tunnel.bgp.as_deref()?;
    Some(Session {
        local_asn: bgp.peer_asn,
        remote_asn: bgp.local_asn,
        local_ip: bgp.peer_ip(),
        remote_ip: bgp.local_ip,
        hold_time: bgp.hold_time.as_secs(),
    })
}

/// Says how the session is, where the vendor's own words for it are not written.
pub(super) fn note(script: &mut Script<'_>) {
    if let Some(bgp) = session(script) {
        script.note(format!(
            "bgp is not written here: {}/30 on the tunnel's interface, AS {}; its neighbour is {}, AS {}, hold time {} s",
            bgp.local_ip, bgp.local_asn, bgp.remote_ip, bgp.remote_asn, bgp.hold_time
        ));
    }
}

/// A BIRD 2 for a Linux, in comments.
pub(super) fn remark_bird(script: &mut Script<'_>, interface: &str) {
    let Some(bgp) = session(script) else { return };
    let name = format!("adit_{}", script.view.slug(32).replace('-', "_"));
    script.remark(format_args!("`ip address add {}/30 dev {interface}`, and for BIRD 2:", bgp.local_ip));
    for line in [
        format!("protocol bgp {name} {{"),
        format!("  local {} as {};", bgp.local_ip, bgp.local_asn),
        format!("  neighbor {} as {};", bgp.remote_ip, bgp.remote_asn),
        format!("  hold time {};", bgp.hold_time),
        "  ipv4 { import all; export where source = RTS_DEVICE; next hop self; };".to_owned(),
        "}".to_owned(),
        "protocol direct { ipv4; interface \"lan\"; }  # the interface whose network is announced".to_owned(),
        "protocol kernel { ipv4 { export where source = RTS_BGP; }; }".to_owned(),
    ] {
        script.remark(line);
    }
}
