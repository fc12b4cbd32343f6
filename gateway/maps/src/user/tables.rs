//! The maps that are looked up by key, the small arrays, and the ring buffer.

use super::{Directory, Error, Mapped, name};
use crate::{
    address::Address,
    event::Event,
    policy::{Outbound, Selector},
    port::{self, Port},
    sa::{SaRef, SpiKey},
    verdict::{Verdict, counter_index},
};
use aya::{
    Pod,
    maps::{HashMap, MapData, MapError, PerCpuArray, RingBuf, XskMap},
};
use std::{
    os::fd::{AsRawFd, RawFd},
    sync::atomic::Ordering::{Relaxed, Release},
};
use zerocopy::{FromBytes, transmute};

fn access(name: &'static str, operation: &'static str) -> impl FnOnce(MapError) -> Error {
    move |source| Error::Access { name, operation, source }
}

/// A hash map with its name, so that every failure says where.
pub(super) struct Hash<K: Pod, V: Pod> {
    map: HashMap<MapData, K, V>,
    name: &'static str,
}

impl<K: Pod, V: Pod> Hash<K, V> {
    pub(super) fn open(dir: &Directory, name: &'static str) -> Result<Self, Error> {
        dir.check()?;
        let map = HashMap::try_from(dir.open(name)?).map_err(|e| dir.failed(name, e))?;
        Ok(Hash { map, name })
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Result<(), Error> {
        self.map.insert(key, value, 0).map_err(access(self.name, "insert"))
    }

    pub(super) fn remove(&mut self, key: &K) -> Result<(), Error> {
        match self.map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(e) => Err(access(self.name, "remove")(e)),
        }
    }

    pub(super) fn get(&self, key: &K) -> Result<Option<V>, Error> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(access(self.name, "look up")(e)),
        }
    }

    pub(super) fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        self.map.iter().collect::<Result<_, _>>().map_err(access(self.name, "list"))
    }
}

macro_rules! hash_handle {
    ($(#[doc = $doc:literal])+ $handle:ident, $map:expr, $key:ty => $value:ty) => {
        $(#[doc = $doc])+
        pub struct $handle(Hash<$key, $value>);

        impl $handle {
            /// Opens the map.
            ///
            /// # Errors
            /// As [`Directory::check`], or when the map has another shape.
            pub fn open(dir: &Directory) -> Result<Self, Error> {
                Ok($handle(Hash::open(dir, $map)?))
            }

            /// Adds or replaces an entry.
            ///
            /// # Errors
            /// When the map is full.
            pub fn insert(&mut self, key: $key, value: $value) -> Result<(), Error> {
                self.0.insert(key, value)
            }

            /// Removes an entry; one that is not there is no error.
            ///
            /// # Errors
            /// When the kernel refuses.
            pub fn remove(&mut self, key: &$key) -> Result<(), Error> {
                self.0.remove(key)
            }

            /// The value of an entry, `None` when there is none.
            ///
            /// # Errors
            /// When the kernel refuses.
            pub fn get(&self, key: &$key) -> Result<Option<$value>, Error> {
                self.0.get(key)
            }

            /// Every entry.
            ///
            /// # Errors
            /// When the kernel refuses.
            pub fn entries(&self) -> Result<Vec<($key, $value)>, Error> {
                self.0.entries()
            }
        }
    };
}

hash_handle!(
    /// SPI_INDEX: the inbound SA of a packet.
    SpiIndex, name::SPI_INDEX, SpiKey => SaRef);
hash_handle!(
    /// PORTS: the interfaces that carry the program, by interface index.
    Ports, name::PORTS, u32 => Port);
hash_handle!(
    /// LOCALS: the gateway's own addresses. The value says nothing.
    Locals, name::LOCALS, Address => u32);

/// OUTBOUND: which SA seals for a policy.
pub struct Outbounds(Mapped<{ size_of::<Outbound>() / 8 }>);

impl Outbounds {
    /// Maps the array.
    ///
    /// # Errors
    /// As [`Directory::check`] and [`Mapped::open`].
    pub fn open(dir: &Directory) -> Result<Self, Error> {
        dir.check()?;
        Mapped::open(dir, name::OUTBOUND).map(Outbounds)
    }

    /// Slots there are.
    pub fn capacity(&self) -> u32 {
        self.0.len()
    }

    /// Lets `policy` seal with `sa` from now on: one store, seen by the next packet. A generation of 0 means none.
    pub fn set(&self, policy: u32, sa: SaRef) {
        if let Some(slot) = self.0.get(policy) {
            slot[0].store(transmute!(sa), Release);
        }
    }

    /// The SA that seals for `policy`, `None` when there is none.
    pub fn get(&self, policy: u32) -> Option<SaRef> {
        let sa: SaRef = transmute!(self.0.get(policy)?[0].load(Relaxed));
        (sa.generation != 0).then_some(sa)
    }
}

/// SELECTORS: what inner packets an SA admits.
pub struct Selectors(Mapped<{ size_of::<Selector>() / 8 }>);

impl Selectors {
    /// Maps the array.
    ///
    /// # Errors
    /// As [`Directory::check`] and [`Mapped::open`].
    pub fn open(dir: &Directory) -> Result<Self, Error> {
        dir.check()?;
        Mapped::open(dir, name::SELECTORS).map(Selectors)
    }

    /// Entries there are.
    pub fn capacity(&self) -> u32 {
        self.0.len()
    }

    /// Writes an entry that no published SA refers to.
    pub fn set(&self, index: u32, selector: Selector) {
        let Some(words) = self.0.get(index) else { return };
        let copy: [u64; size_of::<Selector>() / 8] = transmute!(selector);
        for (to, from) in words.iter().zip(copy) {
            to.store(from, Relaxed);
        }
    }

    /// Reads an entry.
    pub fn get(&self, index: u32) -> Option<Selector> {
        let mut copy = [0u64; size_of::<Selector>() / 8];
        for (to, from) in copy.iter_mut().zip(self.0.get(index)?) {
            *to = from.load(Relaxed);
        }
        Some(transmute!(copy))
    }
}

/// VERDICTS: what the XDP program decided, per port.
pub struct Verdicts(PerCpuArray<MapData, u64>);

impl Verdicts {
    /// Opens the map.
    ///
    /// # Errors
    /// As [`Directory::check`], or when the map has another shape.
    pub fn open(dir: &Directory) -> Result<Self, Error> {
        dir.check()?;
        PerCpuArray::try_from(dir.open(name::VERDICTS)?)
            .map(Verdicts)
            .map_err(|e| dir.failed(name::VERDICTS, e))
    }

    /// Packets of the port in `slot` that got this verdict.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn read(&self, slot: u32, verdict: Verdict) -> Result<u64, Error> {
        let per_cpu = self.0.get(&counter_index(slot, verdict), 0).map_err(access(name::VERDICTS, "read"))?;
        Ok(per_cpu.iter().sum())
    }
}

/// XSKS: where the XDP program sends frames for workers.
pub struct Xsks(XskMap<MapData>);

impl Xsks {
    /// Opens the map.
    ///
    /// # Errors
    /// As [`Directory::check`], or when the map has another shape.
    pub fn open(dir: &Directory) -> Result<Self, Error> {
        dir.check()?;
        XskMap::try_from(dir.open(name::XSKS)?).map(Xsks).map_err(|e| dir.failed(name::XSKS, e))
    }

    /// Sends the frames of a queue of a port to `socket`. The kernel takes it out again when the socket closes.
    ///
    /// # Errors
    /// When `socket` is no AF_XDP socket. One that is bound elsewhere is taken, and gets no frame.
    pub fn set(&mut self, slot: u32, queue: u32, socket: &impl AsRawFd) -> Result<(), Error> {
        self.0.set(port::xsk_index(slot, queue), socket.as_raw_fd(), 0).map_err(access(name::XSKS, "insert"))
    }
}

/// EVENTS: what the XDP program tells `control`. One reader.
pub struct Events(RingBuf<MapData>);

impl Events {
    /// Opens the ring.
    ///
    /// # Errors
    /// As [`Directory::check`], or when the map has another shape.
    pub fn open(dir: &Directory) -> Result<Self, Error> {
        dir.check()?;
        RingBuf::try_from(dir.open(name::EVENTS)?).map(Events).map_err(|e| dir.failed(name::EVENTS, e))
    }

    /// The next event, `None` when there is none.
    pub fn next_event(&mut self) -> Option<Event> {
        let item = self.0.next()?;
        Event::read_from_bytes(&item).ok()
    }
}

impl AsRawFd for Events {
    /// Readable when there are events.
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
