//! strongSwan's ipsec.conf and ipsec.secrets, which the starter reads.

use super::{
    PeerConfigError,
    choice::resolve,
    script::{PSK, Script},
    strongswan::{self, esp_proposals, ike_proposals, list},
};
use crate::config::{PeerAddress, Start};
use adit_ike::{Mode, NatT, Protocol, Version};

/// ipsec.conf and ipsec.secrets.
///
/// # Errors
/// Of the tunnel's fields that strongSwan cannot express.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", strongswan::quote);
    let (ike, ipsec) = resolve(script, &strongswan::DIALECT)?;
    strongswan::say(script, (&ike, &ipsec));
    let tunnel = script.view.tunnel;
    if tunnel.ppk.as_ref().is_some_and(|ppk| ppk.required) {
        return Err(script.inexpressible("ike.ppk", "has post-quantum pre-shared keys in swanctl.conf only"));
    }
    if script.view.is_by_route() {
        return Err(script.inexpressible(
            "routing_mode",
            "binds no interface to a tunnel in ipsec.conf: everything would go through it; use swanctl.conf",
        ));
    }
    let name = script.view.slug(32);
    let local_id = strongswan::id(script, "ike.peer_id", script.view.local_id)?;
    let remote_id = strongswan::id(script, "ike.local_id", script.view.remote_id)?;
    let ikev1 = tunnel.ike.version == Version::Ikev1;
    let pairs = script.view.pairs();
    let several = ikev1 && pairs.len() > 1;

    script.file("ipsec.conf");
    script.line(format_args!("conn {name}"));
    let mut field = |name: &str, value: &dyn std::fmt::Display| script.line(format_args!("  {name}={value}"));
    field("keyexchange", &if ikev1 { "ikev1" } else { "ikev2" });
    if ikev1 && tunnel.ike.mode == Mode::Aggressive {
        field("aggressive", &"yes");
    }
    field("type", &"tunnel");
    field("authby", &"secret");
    // The sign at the end leaves the built-in proposals out.
    field("ike", &format_args!("{}!", ike_proposals(&ike)));
    let what = if tunnel.ipsec.protocol == Protocol::Ah { "ah" } else { "esp" };
    field(what, &format_args!("{}!", esp_proposals(&ipsec, tunnel.ipsec.esn)));
    let local = match script.view.local {
        PeerAddress::Any => "%defaultroute".to_owned(),
        local => local.to_string(),
    };
    let remote = script.view.remote;
    let subnets = [list(script.view.local_subnets, ","), list(script.view.remote_subnets, ",")];
    let start = script.view.start;
    let mut field = |name: &str, value: &dyn std::fmt::Display| script.line(format_args!("  {name}={value}"));
    field("left", &local);
    field("leftid", &format_args!("\"{local_id}\""));
    field("right", &remote);
    field("rightid", &format_args!("\"{remote_id}\""));
    if !several {
        field("leftsubnet", &subnets[0]);
        field("rightsubnet", &subnets[1]);
    }
    field("ikelifetime", &format_args!("{}s", ike.lifetime));
    field("lifetime", &format_args!("{}s", ipsec.lifetime));
    field("margintime", &format_args!("{}s", ike.lifetime.min(ipsec.lifetime) / 10));
    // Without it, the margin may double.
    field("rekeyfuzz", &"0%");
    field("replay_window", &tunnel.replay_window);
    let (auto, after) = match start {
        Start::Immediate => ("start", "restart"),
        Start::OnDemand => ("route", "hold"),
        Start::Respond => ("add", "clear"),
    };
    if let Some(dpd) = tunnel.dpd {
        field("dpdaction", &after);
        field("dpddelay", &format_args!("{}s", dpd.delay.as_secs()));
        field("dpdtimeout", &format_args!("{}s", (dpd.delay + dpd.timeout).as_secs()));
    }
    if tunnel.nat_t == NatT::Force {
        field("forceencaps", &"yes");
    }
    if !ikev1 {
        field("mobike", &"no");
    }
    if !several {
        field("auto", &auto);
    }
    for (i, (local, remote)) in pairs.iter().enumerate().filter(|_| several) {
        script.line("");
        script.line(format_args!("conn {name}-{}", i + 1));
        script.line(format_args!("  also={name}"));
        script.line(format_args!("  leftsubnet={local}"));
        script.line(format_args!("  rightsubnet={remote}"));
        script.line(format_args!("  auto={auto}"));
    }
    script.file("ipsec.secrets");
    script.line(format_args!("{local_id} {remote_id} : PSK {PSK}"));
    Ok(())
}
