//! Meeting the data plane: its maps, its events, and the SPD in them.

use super::ControlError;
use crate::{
    maps::Pinned,
    sadb::{Sadb, Totals},
    spd::{self, CompileError, Policy, Tables, Transition},
};
use adit_ike::TunnelId;
use adit_maps::{
    address::Prefix,
    event::Event,
    sa::SaRef,
    user::{Directory, Error, Events, name},
};
use std::{
    collections::{HashMap, HashSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Longer than any lookup in the XDP program takes.
const GRACE: Duration = Duration::from_millis(20);

/// The maps, and what is known of their contents.
pub(super) struct DataPlane {
    pub(super) maps: Pinned,
    pub(super) sadb: Sadb,
    events: AsyncFd<Events>,
    spd: Tables,
    /// What slots may seal with of what an earlier `control` left.
    sealing: HashSet<(u32, SaRef)>,
    /// Where the maps are pinned, and which they are.
    pinned: (PathBuf, (u64, u64)),
}

impl DataPlane {
    /// Opens the maps, and changes nothing in them yet. `None` as long as they are not all there.
    ///
    /// # Errors
    /// When they are there, and cannot be used.
    pub(super) fn open(
        bpf_dir: &Path,
        totals: HashMap<TunnelId, Totals>,
    ) -> Result<Option<Self>, ControlError> {
        let dir = Directory::new(bpf_dir);
        let pin = dir.pin(name::LAYOUT);
        // Before they are opened: what is pinned there later is then found to be another.
        let Some(identity) = identity(&pin) else { return Ok(None) };
        let opened = Pinned::open(&dir).and_then(|maps| Events::open(&dir).map(|events| (maps, events)));
        let (maps, events) = match opened {
            Ok(opened) => opened,
            Err(Error::Absent(_)) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let spd = maps.spd()?;
        let sadb = Sadb::new(&maps, totals);
        // SAFETY: `Events` owns its ring buffer and returns that one descriptor for as long as it lives.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
        let events = events.map_err(|e| ControlError::Events(e.into()))?;
        Ok(Some(DataPlane { maps, sadb, events, spd, sealing: HashSet::new(), pinned: (pin, identity) }))
    }

    /// Has the slots of OUTBOUND of the SAs that are adopted seal with them. What groups seal with follows from it.
    pub(super) fn adopt(&mut self) {
        self.sealing = self.sadb.adopted(&mut self.maps);
    }

    /// The slot that policies in the maps name for everything between two prefixes.
    pub(super) fn slot_of(&self, local: &Prefix, remote: &Prefix) -> Option<u32> {
        self.spd.slot_of(local, remote)
    }

    /// Takes the maps over from an earlier `control`, after [`DataPlane::adopt`]: first no policy has another SA any more, so that nothing is sealed for the wrong tunnel; then the policies are replaced; then the other SAs are
    /// forgotten. The inbound SPIs of those.
    ///
    /// # Errors
    /// When a map refuses.
    pub(super) async fn take_over(&mut self, policies: &[Policy]) -> Result<Vec<u32>, ControlError> {
        let sealing = std::mem::take(&mut self.sealing);
        let owned = self.sadb.owned();
        self.maps.withdraw_outbound(|slot, sa| sealing.contains(&(slot, sa)));
        self.protect(policies).await?;
        let (spis, count) = self.maps.forget_sas(|sa| owned.contains(&sa))?;
        if count > 0 {
            tracing::info!("{count} SAs of an earlier run are forgotten");
        }
        Ok(spis)
    }

    /// What the XDP program has told; waits until it tells something.
    pub(super) async fn next_events(&mut self) -> Vec<Event> {
        let Ok(mut ready) = self.events.readable_mut().await else {
            // Only while the runtime shuts down.
            return std::future::pending().await;
        };
        let mut events = Vec::new();
        while let Some(event) = ready.get_inner_mut().next_event() {
            events.push(event);
        }
        ready.clear_ready();
        events
    }

    /// Makes the SPD say `policies`. Whatever both the old ones and the new ones protect is protected throughout.
    ///
    /// # Errors
    /// When the tables do not fit, before anything is written; or when a map refuses.
    pub(super) async fn protect(&mut self, policies: &[Policy]) -> Result<(), ControlError> {
        let (next, way) = self.plan(policies)?;
        if way.is_empty() {
            return Ok(());
        }
        let changed = self.change(&way).await;
        // Where a map refused in the middle, the next change has to begin with what is there.
        self.spd = if changed.is_ok() { next } else { self.maps.spd()? };
        Ok(changed?)
    }

    /// The tables for `policies`, and the way to them.
    ///
    /// # Errors
    /// When they, or what lies on the way, do not fit.
    pub(super) fn plan(&self, policies: &[Policy]) -> Result<(Tables, Transition), CompileError> {
        spd::plan(policies, &self.spd)
    }

    async fn change(&mut self, way: &Transition) -> Result<(), Error> {
        self.maps.publish_spd(way)?;
        tokio::time::sleep(GRACE).await;
        self.maps.retire_spd(way)
    }

    /// Whether the data plane still works with these maps: `adit unload` takes them away, and whoever starts a data
    /// plane then makes others.
    pub(super) fn is_current(&self) -> bool {
        let (pin, met) = &self.pinned;
        identity(pin) == Some(*met)
    }
}

/// Tells a pin from another of the same name: device and inode of its file.
fn identity(pin: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(pin).ok().map(|m| (m.dev(), m.ino()))
}
