//! The tunnel's part of another Adit's file: a peer and a tunnel, to stand below the `[gateway]` that it has.

use super::{
    PeerConfigError,
    script::{PPK, PSK, Script},
};
use crate::{
    config::{DpdAction, Start},
    toml::{list, quoted},
};
use adit_ike::{Mode, NatT, Protocol, Version};
use std::fmt::Display;
use zeroize::Zeroizing;

/// The peer and the tunnel.
///
/// # Errors
/// None: an Adit knows what an Adit knows.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.style("#", |key| Ok(Zeroizing::new(quoted(key))));
    script.note(
        "these lines belong below [gateway] in the other gateway's file; its gateway.address has to be:",
    );
    script.note(format!("  {}", script.view.local));
    let tunnel = script.view.tunnel;
    let networks = match tunnel.routes {
        None => Vec::new(),
        Some(_) => {
            script.note(
                "routes: the networks behind this gateway, which a tunnel by destination does not know",
            );
            vec!["PUT-THE-NETWORKS-BEHIND-THE-OTHER-SIDE-HERE"]
        }
    };
    let (ike, ipsec) = (&tunnel.ike, &tunnel.ipsec);
    let ikev1 = ike.version == Version::Ikev1;
    let (gateway, remote) = (script.view.gateway.to_owned(), script.view.remote);
    let start = script.view.start;
    let (local, remotes) = (script.view.local_subnets.to_vec(), script.view.remote_subnets.to_vec());
    let ids = (script.view.local_id.to_string(), script.view.remote_id.to_string());
    script.file("adit.toml");
    let mut field = |name: &str, value: &dyn Display| script.line(format_args!("{name} = {value}"));

    field("[[peer]]\nname", &quoted(&gateway));
    field("address", &quoted(&remote.to_string()));
    tunnel.bgp.iter().for_each(|bgp| field("asn", &bgp.local_asn));
    field("\n[[tunnel]]\nname", &quoted(&tunnel.name));
    field("peer", &quoted(&gateway));
    if tunnel.routes.is_some() {
        field("routing_mode", &quoted("route"));
        field("routes", &list(&networks));
    } else {
        field("local_subnets", &list(&local));
        field("remote_subnets", &list(&remotes));
    }
    field("psk", &PSK);
    let start = match start {
        Start::Immediate => "immediate",
        Start::OnDemand => "on-demand",
        Start::Respond => "respond",
    };
    field("start", &quoted(start));
    match tunnel.nat_t {
        NatT::Auto => {}
        NatT::Force => field("nat_t", &quoted("force")),
        NatT::Off => field("nat_t", &quoted("off")),
    }
    tunnel.mss_clamp.iter().for_each(|mss| field("mss_clamp", mss));

    field("\n[tunnel.ike]\nversion", &quoted(if ikev1 { "ikev1" } else { "ikev2" }));
    if ikev1 {
        field("mode", &quoted(if ike.mode == Mode::Aggressive { "aggressive" } else { "main" }));
    }
    field("encryption", &list(&ike.encryption));
    if !ike.encryption.iter().all(|e| e.is_aead()) {
        field("integrity", &list(&ike.integrity));
    }
    if !ikev1 {
        field("prf", &list(ike.prf.iter().map(|p| p.hash_name())));
    }
    field("dh", &numbers(ike.dh.iter().map(|g| g.number())));
    if !ike.additional_ke.is_empty() {
        field("additional_ke", &list(&ike.additional_ke));
    }
    field("lifetime", &ike.lifetime.as_secs());
    if tunnel.childless {
        field("childless", &true);
    }
    if let Some(ppk) = &tunnel.ppk {
        let id = quoted(&String::from_utf8_lossy(&ppk.id));
        field("ppk", &format_args!("{{ id = {id}, key = \"{PPK}\", required = {} }}", ppk.required));
    }
    field("local_id", &quoted(&ids.0));
    field("peer_id", &quoted(&ids.1));

    let ah = ipsec.protocol == Protocol::Ah;
    field("\n[tunnel.ipsec]\nprotocol", &quoted(if ah { "ah" } else { "esp" }));
    if !ah {
        field("encryption", &list(&ipsec.encryption));
    }
    if ah || !ipsec.encryption.iter().all(|e| e.is_aead()) {
        field("integrity", &list(&ipsec.integrity));
    }
    match ipsec.pfs.is_empty() {
        true => field("pfs", &quoted("disabled")),
        false => field("pfs", &numbers(ipsec.pfs.iter().map(|g| g.number()))),
    }
    field("lifetime", &ipsec.lifetime.as_secs());
    if !ikev1 {
        field("esn", &ipsec.esn);
    }
    field("replay_window", &tunnel.replay_window);

    field("\n[tunnel.dpd]\nenabled", &tunnel.dpd.is_some());
    if let Some(dpd) = tunnel.dpd {
        field("delay", &dpd.delay.as_secs());
        field("timeout", &dpd.timeout.as_secs());
    }
    let action = match tunnel.dpd_action {
        DpdAction::Restart => "restart",
        DpdAction::Clear => "clear",
        DpdAction::Hold => "hold",
    };
    field("action", &quoted(action));
    if let Some(bgp) = &tunnel.bgp {
        field("\n[tunnel.bgp]\nlocal_asn", &bgp.peer_asn);
        field("inside_cidr", &quoted(&bgp.inside_cidr.to_string()));
        field("local_ip", &quoted(&bgp.peer_ip().to_string()));
        field("hold_time", &bgp.hold_time.as_secs());
    }
    Ok(())
}

fn numbers(list: impl Iterator<Item = u16>) -> String {
    format!("[{}]", list.map(|n| n.to_string()).collect::<Vec<_>>().join(", "))
}
