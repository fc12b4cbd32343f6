//! `cargo xtask test`: everything that must hold, summed up in one line.

use std::path::PathBuf;
use std::process::Command;

use adit_tests::roots;
use anyhow::Result;
use clap::ValueEnum;

use crate::shell::{self, Step, Stream};
use crate::tally::Tally;
use crate::{build, first_boot, image, image_test, package, packages, setup};

/// Features that the lints look behind as well. The bench's `peers` is not one: it wants a library of the system.
const LINTED_FEATURES: &str = "adit-esp/fuzzing,adit-ike/fuzzing,adit-maps/fuzzing,adit-maps/user";

/// Random schedules of each of the five kinds in IKE's simulation; `ADIT_SEEDS` asks for another number.
const SEEDS: u32 = 30_000;

/// The scenarios of the soak.
const SOAK: &str = "soak";

/// Tests that Miri runs, by the beginnings of their names.
const UNDER_MIRI: [&str; 7] =
    ["xsk::ring::", "xsk::umem::", "user::sad::", "user::totals::", "decode::", "sa::tests::", "replay::"];
/// Those among them that it would take minutes for: races, which are loom's, and long random sequences.
const LONG_UNDER_MIRI: [&str; 4] =
    ["threads_never_accept", "no_copy_is_half", "agrees_with_the_model", "few_slots_never_accept_twice"];

/// Which tests to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Selection {
    /// Formatting, lints, unit and property tests
    Unit,
    /// The XDP program in the kernel, and two Adits in network namespaces
    Lab,
    /// Adit and real peers: the matrix of docs/interop.md
    Interop,
    /// Minutes of traffic, faults and loss, every packet accounted for
    Soak,
    /// The appliance: its disk is built, and one guest boots from it
    Image,
    /// All of it, with two short soaks: what CI runs
    All,
}

/// Which cases, and where the results go.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Only tests and cases whose names contain this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write the results of the interop matrix, or of `soak`, to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write docs/interop.md when every case of the matrix has passed
    #[arg(long)]
    write_docs: bool,
    /// How long `soak` lasts
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    minutes: f64,
    /// The seed of `soak`, to have the same faults again: IPv6 between the gateways if it is even
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the selected tests and ends with the line `N passed, N failed, N skipped`; exits with 1 when anything failed.
pub(crate) fn test(selection: Selection, options: &Options) {
    let mut tests = Tests::default();
    tests.run(selection, options);
    println!("{}", tests.tally.summary());
    if tests.tally.failed() > 0 {
        std::process::exit(1);
    }
}

#[derive(Default)]
struct Tests {
    tally: Tally,
    /// The soak alone is asked for, which then lasts as long and follows from the seed that the options say.
    soak_alone: bool,
    /// The Debian package, once it is built.
    deb: Option<PathBuf>,
}

impl Tests {
    fn run(&mut self, selection: Selection, options: &Options) {
        let chosen = |what| selection == what || selection == Selection::All;
        self.soak_alone = selection == Selection::Soak;
        if !self.holds("setup", setup) || !self.holds("build", || build::build(true).map(|_| ())) {
            return;
        }
        if chosen(Selection::Unit) {
            self.checks();
            self.harness("run the unit tests", &["--no-fail-fast"], options);
            if options.filter.is_none() {
                self.interleavings();
                self.miri();
            }
        }
        if chosen(Selection::Interop) {
            peers();
            self.package();
        }
        let scenarios = [
            (Selection::Lab, "xdp"),
            (Selection::Lab, "lab"),
            (Selection::Lab, "packets"),
            (Selection::Lab, "restarts"),
            (Selection::Lab, "modes"),
            (Selection::Lab, "load"),
            (Selection::Lab, "fail_closed"),
            (Selection::Lab, "bgp"),
            (Selection::Lab, "groups"),
            (Selection::Lab, "lifetimes"),
            (Selection::Lab, "tunnels"),
            (Selection::Soak, SOAK),
            (Selection::Interop, "quickstart"),
            (Selection::Interop, "peer_config"),
            (Selection::Lab, "diagnose"),
            (Selection::Lab, "logs"),
            (Selection::Lab, "secrets"),
            (Selection::Interop, "prometheus"),
            (Selection::Interop, "alarms"),
            (Selection::Interop, "package"),
            (Selection::Interop, "api"),
            (Selection::Interop, "interop"),
        ];
        for (wanted, scenarios) in scenarios {
            if chosen(wanted) {
                let what = format!("run the scenarios `{scenarios}` of tests/scenarios");
                self.harness(&what, &["--package", "adit-tests", "--test", scenarios], options);
            }
        }
        // Last and alone: without KVM a guest takes every processor there is.
        if chosen(Selection::Image) && options.filter.is_none() {
            self.appliance();
        }
    }

    fn checks(&mut self) {
        self.holds("cargo fmt --check", || {
            let mut command = shell::cargo();
            command.args(["fmt", "--all", "--check"]);
            Step::new("check the formatting", command, "`cargo fmt --all` puts it right").shown()
        });
        self.holds("cargo clippy", || {
            let mut command = shell::cargo();
            command.args([
                "clippy",
                "--workspace",
                "--exclude",
                "adit-ebpf",
                "--all-targets",
                "--features",
                LINTED_FEATURES,
            ]);
            command.args(["--", "-D", "warnings"]);
            Step::new("run the lints", command, "mend what clippy names above").shown()
        });
        self.arm();
    }

    /// The Debian package that the scenarios install.
    fn package(&mut self) {
        if packages::is_debian() {
            let mut deb = None;
            self.holds("package", || {
                let first = package::package()?;
                package::again(&first)?;
                deb = Some(first);
                Ok(())
            });
            self.deb = deb;
        }
    }

    /// The appliance, as far as one guest shows it. What it takes from the network may not be had.
    fn appliance(&mut self) {
        if let Err(error) = image::can_be_made().and_then(|()| image_test::ready()) {
            eprintln!("error: {error:#}");
            let reason = error.to_string();
            return self.tally.skip("the appliance", reason.lines().next().unwrap_or_default());
        }
        // What its list names has to be there: from here on it holds, or fails.
        if !self.holds("the appliance's packages", || image::fetch().or_else(|_| image::fetch())) {
            return;
        }
        if self.deb.is_none() {
            self.package();
        }
        let Some(deb) = self.deb.clone() else { return };
        let mut disk = None;
        self.holds("the appliance's disk, twice the same", || {
            disk = Some(image::proven_disk(&deb)?);
            Ok(())
        });
        let Some(disk) = disk else { return };
        self.holds("the appliance's first boot", || first_boot::of(&disk));
    }

    /// That the kernels' room compiles for a processor that it has no kernels for.
    fn arm(&mut self) {
        const TARGET: &str = "aarch64-unknown-linux-gnu";
        let what = format!("cargo check --target {TARGET}");
        let mut add = Command::new("rustup");
        add.current_dir(shell::root()).args(["target", "add", TARGET]);
        if Step::new(format!("add the library for {TARGET}"), add, "").quiet().is_err() {
            return self.tally.skip(&what, "rustup has no standard library for it here");
        }
        self.holds(&what, || {
            let mut command = shell::cargo();
            command.args(["check", "--package", "adit-esp", "--target", TARGET]);
            command.env("RUSTFLAGS", "-D warnings").env_remove("CARGO_ENCODED_RUSTFLAGS");
            Step::new("compile for ARMv8", command, "mend what rustc names above").shown()
        });
    }

    /// Does something that is not a test, and counts it as a failure when it fails.
    fn holds(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        match work() {
            Ok(()) => true,
            Err(error) => {
                eprintln!("error: {error:#}");
                self.tally.fail(name);
                false
            }
        }
    }

    /// What threads share, in every order that loom finds. Built apart: there the atomics are loom's.
    fn interleavings(&mut self) {
        let mut command = shell::cargo();
        command.args([
            "test",
            "--package",
            "adit-esp",
            "--package",
            "adit-maps",
            "--features",
            "adit-maps/user",
        ]);
        command.args(["--lib", "interleavings"]).arg("--target-dir").arg(shell::target().join("loom"));
        command.env("RUSTFLAGS", "--cfg loom").env_remove("CARGO_ENCODED_RUSTFLAGS");
        self.counted("try every interleaving of threads", command);
    }

    /// What is unsafe but no system call and no vector instruction, and the windows and decoders, under Miri.
    fn miri(&mut self) {
        const WHAT: &str = "Miri over rings, maps, decoder and replay window";
        let mut ask = miri();
        ask.arg("setup");
        let known = Step::new("ask for Miri", ask, "").quiet();
        if known.or_else(|_| install_miri()).is_err() {
            return self.tally.skip(WHAT, "rustup has no nightly toolchain with Miri and rust-src here");
        }
        let mut command = miri();
        command.args([
            "test",
            "--package",
            "adit-esp",
            "--package",
            "adit-maps",
            "--package",
            "adit-dataplane",
        ]);
        command.args(["--features", "adit-maps/user", "--lib"]);
        command.arg("--target-dir").arg(shell::target().join("miri"));
        command.arg("--").args(UNDER_MIRI);
        for skipped in LONG_UNDER_MIRI {
            command.args(["--skip", skipped]);
        }
        // Tree borrows: a box may move while somebody holds a pointer into what it owns.
        command.env("MIRIFLAGS", "-Zmiri-tree-borrows -Zmiri-disable-isolation").env("PROPTEST_CASES", "2");
        self.counted(WHAT, command);
    }

    /// Runs `cargo test` with these arguments, and counts what its harnesses tell.
    fn harness(&mut self, what: &str, arguments: &[&str], options: &Options) {
        let mut command = shell::cargo();
        command.arg("test").args(arguments).env("ADIT_BIN", build::binary_path(true));
        if std::env::var_os("ADIT_SEEDS").is_none() {
            command.env("ADIT_SEEDS", SEEDS.to_string());
        }
        if let Some(deb) = &self.deb {
            command.env("ADIT_DEB", deb);
        }
        if let Some(filter) = &options.filter {
            command.args(["--", filter]);
        }
        let is_soak = arguments.contains(&SOAK);
        if let Some(file) = &options.json
            && is_soak == self.soak_alone
        {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            let variable = if is_soak { "ADIT_SOAK_JSON" } else { "ADIT_INTEROP_JSON" };
            command.env(variable, file);
        }
        if self.soak_alone {
            command.env("ADIT_SOAK_MINUTES", options.minutes.to_string());
            if let Some(seed) = options.seed {
                command.env("ADIT_SOAK_SEED", seed.to_string());
            }
        }
        if options.write_docs {
            command.env("ADIT_INTEROP_DOCS", "1");
        }
        self.counted(what, command);
    }

    /// Runs a command that runs tests, and counts what their harnesses tell.
    fn counted(&mut self, what: &str, command: Command) {
        let before = self.tally.failed();
        let step = Step::new(what, command, "read what failed above");
        let done = step.watched(Stream::Stdout, |line| self.tally.read(line));
        self.tally.harness_ended();
        if let Err(error) = done
            && self.tally.failed() == before
        {
            eprintln!("error: {error:#}");
            self.tally.fail(what);
        }
    }
}

/// Makes the peers that are more than packages. Where one cannot be had, its cases say that they were skipped.
fn peers() {
    if let Err(error) = packages::install(&packages::missing_for_peers()) {
        shell::note(&format!("{error:#}"));
    }
    for reason in roots::ensure(shell::announce) {
        shell::note(&format!("not here: {reason}"));
    }
}

/// Miri's cargo. It wants a nightly compiler, whatever the workspace has.
fn miri() -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(shell::root()).args(["run", "nightly", "cargo", "miri"]);
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR"] {
        command.env_remove(name);
    }
    command
}

fn install_miri() -> Result<String> {
    let mut command = Command::new("rustup");
    command.args(["component", "add", "miri", "rust-src", "--toolchain", "nightly"]);
    Step::new("add Miri to the nightly toolchain", command, "`rustup toolchain install nightly`").quiet()
}
