//! `bench ike`: what IKE costs.
//!
//! - handshakes a second on one core, by group, for the initiator and the responder alone: two endpoints in memory,
//!   each end's time taken apart, Diffie-Hellman included;
//! - memory of an established tunnel;
//! - two gateways in namespaces that bring up a thousand tunnels and more, beside two charons that do the same;
//! - a flood of first messages from invented addresses, and how long a peer that means it then waits.

mod charon;
mod flood;
mod gateways;
mod pair;

use anyhow::Result;

use crate::report::Report;

/// Takes all figures.
pub(crate) fn run(report: &mut Report, quick: bool) -> Result<()> {
    pair::handshakes(report, quick);
    pair::memory(report, quick);
    gateways::tunnels(report, quick)?;
    flood::flood(report, quick)
}
