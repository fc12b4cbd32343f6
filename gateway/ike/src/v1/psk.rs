//! Which pre-shared key a phase 1 is made with. Main mode needs it before the peer has said who it is (RFC 2409
//! section 5.4), so there it goes by addresses.

use std::{net::IpAddr, sync::Arc};

use crate::{
    config::{Mode, TunnelConfig},
    error::Cause,
};

/// Tunnels that share a PSK, for each PSK.
pub(super) fn by_key(tunnels: &[Arc<TunnelConfig>]) -> Vec<Vec<Arc<TunnelConfig>>> {
    let mut groups: Vec<Vec<Arc<TunnelConfig>>> = Vec::new();
    for tunnel in tunnels {
        match groups.iter_mut().find(|group| group[0].psk == tunnel.psk) {
            Some(group) => group.push(tunnel.clone()),
            None => groups.push(vec![tunnel.clone()]),
        }
    }
    groups
}

/// The tunnels that an initiator of main mode may be, of those between its address and ours: those of its address,
/// each of whose keys is tried on its identity; else those of any address, which must share one.
pub(super) fn for_main_mode(
    candidates: &[Arc<TunnelConfig>],
    remote: IpAddr,
) -> Result<Vec<Arc<TunnelConfig>>, Cause> {
    let main: Vec<_> = candidates.iter().filter(|t| t.ike.mode == Mode::Main).cloned().collect();
    let (of_address, of_any): (Vec<_>, Vec<_>) = main.into_iter().partition(|t| t.peer.is_some());
    if !of_address.is_empty() {
        return Ok(of_address);
    }
    if by_key(&of_any).len() > 1 {
        return Err(Cause::UnknownAddress { remote, tunnels: of_any.len() });
    }
    Ok(of_any)
}
