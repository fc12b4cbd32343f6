//! Networks with both gateways running. Making one takes a second or more, so a case hands it on to the next: both ends
//! load other configurations, as they would in the field. One in which a case failed is thrown away.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::adit::Adit;
use crate::interop::case::{self, Case, Network, Peer, TUNNEL};
use crate::roots;
use crate::run::{Run, leftovers_of};
use crate::strongswan::{Guest, Place, StrongSwan};
use crate::topology::{LAN, LAN_B, Topology, router_of};
use crate::wire;

/// Which cases a station can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    peer: Peer,
    network: Network,
    settings: &'static str,
    gateway: &'static str,
}

impl Kind {
    /// What a case needs.
    pub fn of(case: &Case) -> Kind {
        Kind { peer: case.peer, network: case.network, settings: case.settings, gateway: case.gateway }
    }

    /// Why it cannot be had on this machine, if it cannot.
    pub fn unavailable(self) -> Option<&'static str> {
        match self.peer {
            Peer::Swan6 if roots::trixie().is_none() => {
                Some("strongSwan 6 is not here; `cargo xtask test interop` tells why")
            }
            Peer::Kernel if roots::uml().is_none() => {
                Some("the kernel peer is not here; `cargo xtask test interop` tells why")
            }
            _ => None,
        }
    }
}

/// A network with Adit as gateway A and strongSwan as gateway B, neither with a tunnel.
#[derive(Debug)]
pub struct Station {
    /// Gateway A.
    pub adit: Adit,
    /// Gateway B.
    pub swan: StrongSwan,
    /// The network.
    pub topology: Topology,
}

impl Station {
    /// Makes one.
    ///
    /// # Errors
    /// A part of it could not be made or started.
    pub fn make(kind: Kind) -> Result<Station> {
        let run = Run::begin()?;
        let topology = match kind.network {
            Network::Direct => Topology::two_sites(run)?,
            Network::NatAdit => Topology::forwarded(run, true, false)?,
            Network::NatPeer => Topology::forwarded(run, false, true)?,
            Network::NatBoth => Topology::forwarded(run, true, true)?,
        };
        let Topology { gateway_a, gateway_b, host_a, host_b, router, .. } = &topology;
        for more in [1, 2] {
            gateway_a.ip(&["address", "add", &format!("10.1.{more}.1/24"), "dev", LAN])?;
            host_a.ip(&["address", "add", &format!("10.1.{more}.2/24"), "dev", "eth0"])?;
            gateway_b.ip(&["address", "add", &format!("10.2.{more}.1/24"), "dev", LAN])?;
            host_b.ip(&["address", "add", &format!("10.2.{more}.2/24"), "dev", "eth0"])?;
        }
        if kind.peer == Peer::Kernel {
            // The guest reads frames from a packet socket, which does not tell it of checksums still to be made.
            for (namespace, interface) in [(gateway_a, "wan"), (router, "to-a"), (router, "to-b")] {
                namespace.run("ethtool", &["-K", interface, "tx", "off"])?;
            }
        }
        wire::watch(router)?;
        let (place, control) = match kind.peer {
            Peer::Swan5 => (Place::Namespace, gateway_b),
            Peer::Swan6 => (Place::Trixie(roots::trixie().context("strongSwan 6 is not here")?), gateway_b),
            Peer::Kernel => {
                let guest = Guest {
                    wan: format!("{}/24", topology.address_b),
                    lan: LAN_B,
                    router: router_of(topology.address_b),
                };
                (Place::Uml(roots::uml().context("the kernel peer is not here")?, guest), host_b)
            }
        };
        let swan = StrongSwan::start(gateway_b, control, place, kind.settings)?;
        let adit = Adit::start_with(gateway_a, TUNNEL, |directory| {
            case::gateway(&topology, directory, kind.gateway)
        })?;
        Ok(Station { adit, swan, topology })
    }

    /// Removes it.
    ///
    /// # Errors
    /// Something of it is left.
    pub fn end(self) -> Result<()> {
        let Station { adit, swan, topology } = self;
        drop((adit, swan));
        topology.end()
    }
}

/// Stations that wait for their next case.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    idle: Arc<Mutex<Vec<(Kind, Station)>>>,
}

impl Pool {
    /// So many wait at most.
    const LARGEST: usize = 6;

    /// A station of this kind: one that waits, or a new one.
    ///
    /// # Errors
    /// As [`Station::make`].
    pub fn take(&self, kind: Kind) -> Result<Station> {
        let waiting = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let at = idle.iter().position(|(there, _)| *there == kind);
            at.map(|at| idle.remove(at).1)
        };
        waiting.map_or_else(|| Station::make(kind).context("the station could not be made"), Ok)
    }

    /// Lets it wait for the next case; the one that has waited longest makes room.
    ///
    /// # Errors
    /// Something is left of the one that made room.
    pub fn give(&self, kind: Kind, station: Station) -> Result<()> {
        let out = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((kind, station));
            (idle.len() > Pool::LARGEST).then(|| idle.remove(0).1)
        };
        out.map_or(Ok(()), Station::end)
    }

    /// Removes all that wait.
    ///
    /// # Errors
    /// Something is left of one.
    pub fn end(&self) -> Result<()> {
        let all = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, station) in all {
            let name = station.topology.run().name().to_owned();
            station.end().with_context(|| format!("of {name}: {:?}", leftovers_of(&name)))?;
        }
        Ok(())
    }
}
