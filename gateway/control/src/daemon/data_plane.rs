//! Meeting the data plane: its maps, its events, and the SPD in them. Policies of thousands of tunnels take long to compile
//! and to write: that is done on threads that IKE does not wait for.

use super::ControlError;
use crate::{
    maps::{Pinned, SpdMaps},
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
    collections::{BTreeSet, HashMap, HashSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Longer than any lookup in the XDP program takes.
const GRACE: Duration = Duration::from_millis(20);

/// What the SPD is to say.
pub(super) struct Policies {
    /// All of it.
    pub(super) all: Vec<Policy>,
    /// The same without what BGP teaches, where it teaches something: what peers say must not keep the rest out of the maps.
    pub(super) configured: Option<Vec<Policy>>,
}

impl Policies {
    /// What has to fit.
    pub(super) fn least(&self) -> &[Policy] {
        self.configured.as_ref().unwrap_or(&self.all)
    }
}

/// The maps, and what is known of their contents.
pub(super) struct DataPlane {
    pub(super) maps: Pinned,
    pub(super) sadb: Sadb,
    events: AsyncFd<Events>,
    spd: Arc<Mutex<Spd>>,
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
        let spd = match Spd::open(&dir) {
            Err(Error::Absent(_)) => return Ok(None),
            opened => Arc::new(Mutex::new(opened?)),
        };
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
        self.spd().lock().holds.slot_of(local, remote)
    }

    /// Every slot that policies in the maps name.
    pub(super) fn slots(&self) -> BTreeSet<u32> {
        self.spd().lock().holds.slots().collect()
    }

    /// Takes the maps over from an earlier `control`, after [`DataPlane::adopt`]: first no policy has another SA any more, so
    /// that nothing is sealed for the wrong tunnel; then the policies are replaced, by way of such that discard everything
    /// where the maps have no room for both; then the other SAs are forgotten. The inbound SPIs of those.
    ///
    /// # Errors
    /// When a map refuses.
    pub(super) async fn take_over(&mut self, policies: Policies) -> Result<Vec<u32>, ControlError> {
        let sealing = std::mem::take(&mut self.sealing);
        let owned = self.sadb.owned();
        self.maps.withdraw_outbound(|slot, sa| sealing.contains(&(slot, sa)));
        let spd = self.spd();
        let protect = move || match spd.protect(&policies) {
            // The configuration is another than that of the maps, and both together are too large.
            Err(ControlError::Spd(why)) => {
                tracing::warn!("everything is discarded until the policies are written: {why}");
                spd.discard_everything()?;
                spd.protect(&policies)
            }
            done => done,
        };
        tokio::task::spawn_blocking(protect).await.map_err(super::panicked)??;
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

    /// The SPD, for a thread that may wait.
    pub(super) fn spd(&self) -> SharedSpd {
        SharedSpd(self.spd.clone())
    }

    /// Whether the data plane still works with these maps: `adit unload` takes them away, and whoever starts a data
    /// plane then makes others.
    pub(super) fn is_current(&self) -> bool {
        let (pin, met) = &self.pinned;
        identity(pin) == Some(*met)
    }
}

/// The maps of the SPD, and what they hold.
struct Spd {
    maps: SpdMaps,
    holds: Tables,
}

impl Spd {
    fn open(dir: &Directory) -> Result<Self, Error> {
        let maps = SpdMaps::open(dir)?;
        let holds = maps.tables()?;
        Ok(Spd { maps, holds })
    }

    fn change(&mut self, way: &Transition) -> Result<(), Error> {
        self.maps.publish(way)?;
        thread::sleep(GRACE);
        self.maps.retire(way)
    }
}

/// The SPD of one data plane, for threads that may wait: one at a time works with it.
#[derive(Clone)]
pub(super) struct SharedSpd(Arc<Mutex<Spd>>);

impl SharedSpd {
    /// Makes the SPD say `policies`. Whatever both the old ones and the new ones protect is protected throughout. Where they do
    /// not fit, it says what is configured, by way of which there may be room for the rest.
    ///
    /// # Errors
    /// When what is configured does not fit, before anything is written; or when a map refuses.
    pub(super) fn protect(&self, policies: &Policies) -> Result<(), ControlError> {
        match (self.say(&policies.all), &policies.configured) {
            (Err(ControlError::Spd(_)), Some(configured)) => {
                self.say(configured)?;
                match self.say(&policies.all) {
                    Err(ControlError::Spd(why)) => {
                        tracing::error!("nothing that BGP teaches is sent: with it, {why}");
                        Ok(())
                    }
                    done => done,
                }
            }
            (done, _) => done,
        }
    }

    fn discard_everything(&self) -> Result<(), ControlError> {
        self.say(&spd::discard_everything())
    }

    fn say(&self, policies: &[Policy]) -> Result<(), ControlError> {
        let mut spd = self.lock();
        let (next, way) = spd::plan(policies, &spd.holds)?;
        if way.is_empty() {
            return Ok(());
        }
        let changed = spd.change(&way);
        // Where a map refused in the middle, the next change has to begin with what is there.
        spd.holds = if changed.is_ok() { next } else { spd.maps.tables()? };
        Ok(changed?)
    }

    /// Whether `policies` could be said, at least those that are configured.
    ///
    /// # Errors
    /// When they, or what lies on the way, do not fit.
    pub(super) fn plan(&self, policies: &Policies) -> Result<(), CompileError> {
        let holds = &self.lock().holds;
        match (spd::plan(&policies.all, holds), &policies.configured) {
            (Err(_), Some(configured)) => spd::plan(configured, holds).map(drop),
            (planned, _) => planned.map(drop),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Spd> {
        // Whoever panicked has left what the maps hold as it was known before: as after a process that was killed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a pin from another of the same name: device and inode of its file.
fn identity(pin: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(pin).ok().map(|m| (m.dev(), m.ino()))
}
