//! Typed handles to the pinned maps.
//!
//! All maps of a gateway are pinned in one directory of a bpffs ([`Directory`]). The data plane creates them by
//! loading the XDP program; everybody else opens them. Every handle is opened through the directory, which first
//! compares the layout's version with this build's.

mod mapped;
mod sad;
mod spd;
mod tables;
mod totals;

pub use mapped::Mapped;
pub use sad::{Sad, Version};
pub use spd::SpdTables;
pub use tables::{Events, Locals, Outbounds, Ports, Selectors, SpiIndex, Verdicts, Xsks};
pub use totals::TotalsMap;

use crate::{LAYOUT_VERSION, MAGIC, Stamp};
use aya::maps::{Array, Map, MapData, MapError};
use std::{io, path::Path, path::PathBuf};

/// Names of the maps: in the XDP object and as file names of the pins.
pub mod name {
    /// [`crate::Stamp`].
    pub const LAYOUT: &str = "LAYOUT";
    /// [`crate::sa::SadConfig`] by SA index.
    pub const SAD_CONFIG: &str = "SAD_CONFIG";
    /// `SadState` by SA index.
    pub const SAD_STATE: &str = "SAD_STATE";
    /// [`crate::sa::SaRef`] by [`crate::sa::SpiKey`].
    pub const SPI_INDEX: &str = "SPI_INDEX";
    /// [`crate::classes`] of addresses.
    pub const SPD_CLASSES: &str = "SPD_CLASSES";
    /// [`crate::policy::PairRules`] by [`crate::policy::ClassPair`].
    pub const SPD_RULES: &str = "SPD_RULES";
    /// [`crate::policy::Outbound`] by policy.
    pub const OUTBOUND: &str = "OUTBOUND";
    /// [`crate::policy::Selector`] by position.
    pub const SELECTORS: &str = "SELECTORS";
    /// [`crate::port::Port`] by interface index.
    pub const PORTS: &str = "PORTS";
    /// The gateway's own addresses.
    pub const LOCALS: &str = "LOCALS";
    /// AF_XDP sockets by [`crate::port::xsk_index`].
    pub const XSKS: &str = "XSKS";
    /// Ring buffer of [`crate::event::Event`].
    pub const EVENTS: &str = "EVENTS";
    /// Packets by [`crate::verdict::counter_index`].
    pub const VERDICTS: &str = "VERDICTS";
    /// [`crate::totals::Totals`], one entry.
    pub const TOTALS: &str = "TOTALS";

    /// Every map.
    pub const ALL: &[&str] = &[
        LAYOUT,
        SAD_CONFIG,
        SAD_STATE,
        SPI_INDEX,
        SPD_CLASSES,
        SPD_RULES,
        OUTBOUND,
        SELECTORS,
        PORTS,
        LOCALS,
        XSKS,
        EVENTS,
        VERDICTS,
        TOTALS,
    ];
}

/// Why a map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody has created the maps.
    #[error("no maps are pinned in {0}: is `adit dataplane` (or `adit run`) running with this --bpf-dir?")]
    Absent(PathBuf),
    /// The maps were created by a build with another layout.
    #[error(
        "the maps pinned in {dir} have layout version {found}, this build of Adit has {LAYOUT_VERSION}: unload the \
         other build first (`adit unload --bpf-dir {dir}`; protected traffic stops until this one is running)"
    )]
    OtherVersion {
        /// The directory.
        dir: PathBuf,
        /// What its stamp says.
        found: u32,
    },
    /// The directory holds a map called LAYOUT that is not Adit's.
    #[error("{0} holds maps that are not Adit's: give another --bpf-dir")]
    NotOurs(PathBuf),
    /// One map could not be opened or has another shape.
    #[error("map {name} in {dir}: {source}")]
    Map {
        /// Which.
        name: &'static str,
        /// Where.
        dir: PathBuf,
        /// What aya says.
        source: MapError,
    },
    /// An array could not be mapped into memory.
    #[error("cannot map {name} into memory: {source}")]
    Mmap {
        /// Which.
        name: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// What is in a map is not what Adit writes there.
    #[error(
        "map {0} does not hold what this build of Adit writes: another program has written to it; unload it (`adit \
         unload`; protected traffic stops until Adit is running again)"
    )]
    Damaged(&'static str),
    /// A lookup or an update failed.
    #[error("{operation} in map {name}: {source}")]
    Access {
        /// Which map.
        name: &'static str,
        /// What was tried.
        operation: &'static str,
        /// What aya says.
        source: MapError,
    },
}

/// The directory in a bpffs where a gateway's maps are pinned.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Names a directory; nothing is touched.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Directory(path.into())
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the map of this name is pinned.
    pub fn pin(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Compares the pinned layout's version with this build's.
    ///
    /// # Errors
    /// [`Error::Absent`] when nothing is pinned, [`Error::OtherVersion`] or [`Error::NotOurs`] when something else is.
    pub fn check(&self) -> Result<(), Error> {
        let stamp = self.stamp()?.get(&0, 0).map_err(|e| self.failed(name::LAYOUT, e))?;
        match stamp {
            s if s == Stamp::CURRENT => Ok(()),
            Stamp { magic: MAGIC, version } => {
                Err(Error::OtherVersion { dir: self.0.clone(), found: version })
            }
            // The creator died between pinning the maps and stamping them: nothing can be in use yet.
            Stamp { magic: 0, version: 0 } => Err(Error::Absent(self.0.clone())),
            _ => Err(Error::NotOurs(self.0.clone())),
        }
    }

    /// Writes this build's version into freshly created maps, or checks it in maps that were there before.
    ///
    /// # Errors
    /// As [`Directory::check`].
    pub fn stamp_or_check(&self) -> Result<(), Error> {
        match self.check() {
            Err(Error::Absent(_)) => {
                self.stamp()?.set(0, Stamp::CURRENT, 0).map_err(|e| self.failed(name::LAYOUT, e))
            }
            other => other,
        }
    }

    fn stamp(&self) -> Result<Array<MapData, Stamp>, Error> {
        Array::try_from(self.open(name::LAYOUT)?).map_err(|e| self.failed(name::LAYOUT, e))
    }

    fn data(&self, name: &'static str) -> Result<MapData, Error> {
        let path = self.pin(name);
        if !path.exists() {
            return Err(Error::Absent(self.0.clone()));
        }
        MapData::from_pin(path).map_err(|e| self.failed(name, e))
    }

    fn open(&self, name: &'static str) -> Result<Map, Error> {
        Map::from_map_data(self.data(name)?).map_err(|e| self.failed(name, e))
    }

    fn failed(&self, name: &'static str, source: MapError) -> Error {
        Error::Map { name, dir: self.0.clone(), source }
    }
}

macro_rules! pod {
    ($($t:ty),+ $(,)?) => {$(
        // SAFETY: `repr(C)`, made of integers and byte arrays without padding: every bit pattern is a value.
        unsafe impl aya::Pod for $t {}
    )+};
}
pod!(
    Stamp,
    crate::address::Address,
    crate::sa::SaRef,
    crate::sa::SpiKey,
    crate::policy::ClassPair,
    crate::policy::PairRules,
    crate::port::Port,
);
