//! Which pre-shared key a phase 1 is made with. Main mode needs it before the peer has said who it is (RFC 2409
//! section 5.4), so there it goes by addresses.

use std::{net::IpAddr, sync::Arc};

use crate::{
    config::{Id, TunnelConfig},
    error::Cause,
    event::Path,
    tunnels::{Dialect, MainMode, Tunnels},
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

/// Whether an initiator of main mode can be given a key: each key of the tunnels of its address is tried on its identity;
/// those of any address must share one.
pub(super) fn is_known(main: &MainMode, remote: IpAddr) -> Result<(), Cause> {
    if !main.of_address && main.keys.len() > 1 {
        return Err(Cause::UnknownAddress { remote, tunnels: main.count });
    }
    Ok(())
}

/// The tunnels of main mode whose peer has this identity and whose PSK is that of `keyed`, one of the same place.
pub(super) fn with_key(
    tunnels: &Tunnels,
    path: Path,
    keyed: &TunnelConfig,
    id: Option<Id>,
) -> Vec<Arc<TunnelConfig>> {
    let mut named = id.map_or_else(Vec::new, |id| tunnels.of_peer(path, Dialect::MainMode, &id));
    named.retain(|tunnel| tunnel.peer.is_some() == keyed.peer.is_some() && tunnel.psk == keyed.psk);
    named
}
