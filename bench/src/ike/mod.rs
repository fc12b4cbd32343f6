//! `bench ike`: what IKE costs.
//!
//! - handshakes a second on one core, by group, for the initiator and the responder alone: two endpoints in memory,
//!   each end's time taken apart, Diffie-Hellman included;
//! - handshakes of IKEv1 where the responder has many tunnels between the same addresses;
//! - memory of an established tunnel;
//! - two gateways in namespaces that bring up a thousand tunnels and more, beside two charons that do the same;
//! - a flood of first messages from invented addresses, and how long a peer that means it then waits.

mod charon;
mod flood;
pub(crate) mod gateways;
mod pair;

use anyhow::Result;
use clap::ValueEnum;

use crate::report::Report;

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Handshakes a second, by group
    Handshakes,
    /// Memory of an established tunnel
    Memory,
    /// Two gateways that bring up thousands of tunnels
    Tunnels,
    /// A flood of first messages
    Flood,
}

/// How much is measured.
pub(crate) struct Extent {
    /// A tenth of the work.
    pub(crate) quick: bool,
    /// One part instead of all.
    pub(crate) only: Option<Part>,
    /// How many tunnels come up, instead of the usual counts.
    pub(crate) tunnels: Vec<u32>,
}

/// Takes all figures, or those of one part.
pub(crate) fn run(report: &mut Report, extent: &Extent) -> Result<()> {
    let wanted = |part| extent.only.is_none_or(|only| only == part);
    if wanted(Part::Handshakes) {
        pair::handshakes(report, extent.quick);
        pair::crowded(report, extent.quick);
    }
    if wanted(Part::Memory) {
        pair::memory(report, extent.quick);
    }
    if wanted(Part::Tunnels) {
        gateways::tunnels(report, extent)?;
    }
    if wanted(Part::Flood) {
        flood::flood(report, extent.quick)?;
    }
    Ok(())
}
