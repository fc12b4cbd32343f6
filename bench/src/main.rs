//! What is measured, and against whom: `cargo xtask bench [NAME] [--json FILE]`.
//!
//! Figures that belong together are taken in one run, in turns, because machines differ and are busy: compare within
//! a table, not between two.

mod control;
mod crypto;
mod document;
mod gateway;
mod ike;
mod instructions;
mod isolated;
mod report;
mod spd;
mod wire;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use report::Report;

/// What is measured, and against whom.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Which bench; all without a name
    #[arg(value_enum)]
    name: Option<Name>,
    /// Also write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Put the figures into the tables of this document that ask for them
    #[arg(long)]
    document: Option<PathBuf>,
    /// A tenth of the work: to see that it runs, not what the figures are
    #[arg(long)]
    quick: bool,
    /// Only this part of the bench
    #[arg(long, value_enum)]
    only: Option<ike::Part>,
    /// How many tunnels come up, instead of the usual counts; more than once for several
    #[arg(long, value_name = "COUNT")]
    tunnels: Vec<u32>,
    /// Only this, for who counts instructions: suite/way/octets/tunnels/batches
    #[arg(long, hide = true)]
    once: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Sealing and opening ESP in memory
    Crypto,
    /// The whole worker in memory, of one SA to 10,000
    Gateway,
    /// The same without AVX-512, in instructions a packet
    Instructions,
    /// Handshakes a second, memory of an SA, thousands of tunnels, a flood; beside strongSwan
    Ike,
    /// Gateways on virtual Ethernet: packets a second, TCP, latency, overload
    Wire,
    /// Compiling, writing and looking up policies, of one tunnel to 10,000
    Spd,
    /// Applying, listing and scraping one tunnel to 10,000, and how long IKE waits for it
    Control,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(what) = &arguments.once {
        return instructions::once(what);
    }
    let mut report = Report::new();
    println!("{}", report.machine());
    let wanted = |bench| arguments.name.is_none_or(|name| name == bench);
    if wanted(Name::Crypto) {
        crypto::run(&mut report, arguments.quick);
    }
    if wanted(Name::Gateway) {
        gateway::run(&mut report, arguments.quick)?;
    }
    if wanted(Name::Instructions) {
        instructions::run(&mut report, arguments.quick)?;
    }
    if wanted(Name::Control) {
        control::run(&mut report, arguments.quick, &arguments.tunnels)?;
    }
    if wanted(Name::Ike) {
        ike::run(
            &mut report,
            &ike::Extent { quick: arguments.quick, only: arguments.only, tunnels: arguments.tunnels },
        )?;
    }
    if wanted(Name::Spd) {
        spd::run(&mut report, arguments.quick)?;
    }
    if wanted(Name::Wire) {
        wire::run(&mut report, arguments.quick)?;
    }
    if let Some(file) = arguments.document {
        let failed = || format!("failed to fill {}", file.display());
        let text = std::fs::read_to_string(&file).with_context(failed)?;
        let filled = document::fill(&text, &report.machine(), report.rows()).with_context(failed)?;
        std::fs::write(&file, filled).with_context(failed)?;
    }
    if let Some(file) = arguments.json {
        std::fs::write(&file, report.to_json())
            .with_context(|| format!("failed to write {}", file.display()))?;
    }
    Ok(())
}
