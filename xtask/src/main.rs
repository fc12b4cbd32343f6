//! Every developer command of Adit: `cargo xtask --help` lists them. Each says what it does, installs what it lacks,
//! and is safe to repeat.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[cfg(test)]
mod appliance_tests;
mod bench;
mod build;
mod disk;
mod first_boot;
mod fuzz;
mod guests;
mod image;
mod image_test;
mod lab;
mod load;
mod package;
mod packages;
mod shell;
mod tally;
mod test;
mod toolchain;

/// Every developer command of Adit.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing: system packages and the eBPF toolchain
    Setup,
    /// Build the XDP object and the `adit` binary that carries it
    Build {
        /// With optimisation
        #[arg(long)]
        release: bool,
    },
    /// Build, load and attach the XDP program to interfaces of this machine
    Load {
        /// An interface: the first is the WAN, the others are LANs
        #[arg(long = "iface", required = true)]
        interfaces: Vec<String>,
        /// Where the maps, the program and its links are pinned
        #[arg(long, default_value = "/run/adit/bpf")]
        bpf_dir: PathBuf,
    },
    /// Detach the XDP program and remove its maps
    Unload {
        /// Where they are pinned
        #[arg(long, default_value = "/run/adit/bpf")]
        bpf_dir: PathBuf,
    },
    /// Show the main job: two sites, a tunnel, traffic through it, counters scraped; leave nothing behind
    Demo {
        /// One JSON object on the last line of stdout
        #[arg(long)]
        json: bool,
    },
    /// The test topologies, to play in
    #[command(subcommand)]
    Lab(Lab),
    /// Run the tests; the last line is `N passed, N failed, N skipped`
    Test {
        /// Which
        #[arg(value_enum, default_value = "all")]
        selection: test::Selection,
        #[command(flatten)]
        options: test::Options,
    },
    /// Fuzz what reads the network's octets, guided by coverage
    Fuzz {
        /// Which target, as `ike1_message`; all without a name
        target: Option<String>,
        /// How long each is fuzzed
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// End earlier when a target has run so often
        #[arg(long)]
        runs: Option<u64>,
    },
    /// Build the Debian package, with units, manual and completions
    Package,
    /// Build the appliance: a disk image that boots into a gateway
    Image {
        /// Build it twice, Debian's packages fetched anew for the second time, and see that both are the same
        #[arg(long)]
        check: bool,
    },
    /// Boot two appliances in qemu, with a tunnel between them, and see that everything works
    ImageTest {
        /// This image, a qcow2, rather than one that is built now
        #[arg(long, value_name = "FILE")]
        image: Option<PathBuf>,
        /// Only one, with nothing configured: what `cargo xtask test` boots
        #[arg(long)]
        one: bool,
    },
    /// Measure, side by side with others
    Bench {
        /// Which bench, as `ike`; all without a name
        name: Option<String>,
        /// Also write the figures to this file
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        #[command(flatten)]
        extent: bench::Extent,
    },
}

#[derive(Subcommand)]
enum Lab {
    /// Make a topology and leave it up
    Up {
        /// `two-sites` or `nat`
        name: String,
    },
    /// Remove topologies that are up, and what killed runs left behind
    Down {
        /// Only this one
        name: Option<String>,
    },
    /// A shell on a host of the topology that is up
    Shell {
        /// `ha`, `ga`, `rt`, `gb` or `hb`
        host: String,
    },
}

fn main() {
    let arguments = Arguments::parse();
    if let Err(error) = run(arguments.command) {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup => setup(),
        Verb::Build { release } => build::build(release).map(|_| ()),
        Verb::Load { interfaces, bpf_dir } => load::load(&interfaces, &bpf_dir),
        Verb::Unload { bpf_dir } => load::unload(&bpf_dir),
        Verb::Image { check } => image::image(check).map(|_| ()),
        Verb::ImageTest { image, one: false } => image_test::image_test(image.as_deref()),
        Verb::ImageTest { image, one: true } => first_boot::first_boot(image.as_deref()),
        Verb::Package => package::package().map(|_| ()),
        Verb::Demo { json } => lab::demo(json),
        Verb::Lab(Lab::Up { name }) => lab::up(&name),
        Verb::Lab(Lab::Down { name }) => lab::down(name.as_deref()),
        Verb::Lab(Lab::Shell { host }) => lab::shell(&host),
        Verb::Fuzz { target, seconds, runs } => fuzz::fuzz(target.as_deref(), fuzz::Extent { seconds, runs }),
        Verb::Bench { name, json, extent } => bench::bench(name.as_deref(), json.as_deref(), &extent),
        Verb::Test { selection, options } => {
            test::test(selection, &options);
            Ok(())
        }
    }
}

/// Installs what is missing.
fn setup() -> Result<()> {
    packages::install(&packages::missing()?)?;
    let toolchain = toolchain::ensure()?;
    shell::announce("everything is here");
    shell::note(&format!("rustc for BPF: {} ({})", toolchain.rustc.path.display(), toolchain.rustc.version));
    shell::note(&format!("linker: {}", toolchain.linker.display()));
    Ok(())
}
