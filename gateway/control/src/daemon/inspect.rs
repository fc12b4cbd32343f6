//! What a diagnosis wants to know of a tunnel.

use super::run::Daemon;
use crate::diagnose::{Drops, Inspected};

impl Daemon {
    /// What is known of a tunnel beside its status; `None` when there is none of that name.
    pub(super) fn inspect(&self, name: &str) -> Option<Inspected> {
        let tunnel = self.tunnels.named(name).and_then(|id| self.tunnels.get(id))?;
        let data_plane = self.data_plane.as_ref();
        let totals = data_plane.map(|d| d.sadb.totals_of(&d.maps)(tunnel.id())).unwrap_or_default();
        let missing = data_plane.map(|d| d.sadb.missing(&d.maps, tunnel.id())).unwrap_or_default();
        Some(Inspected {
            config: tunnel.config().clone(),
            wan: self.options.config.gateway.wan.clone(),
            drops: [Drops::of(&totals.inbound), Drops::of(&totals.outbound)],
            missing: missing.into_iter().map(|spi| format!("{spi:#010x}")).collect(),
            losses: tunnel.losses(),
        })
    }
}
