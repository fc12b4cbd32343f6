//! Peers that a machine does not have by itself: Debian systems in directories, and a kernel that runs as a program.
//!
//! | what | made of | holds |
//! |---|---|---|
//! | `trixie` | Debian 13's packages, and a plugin that lends strongSwan its OpenSSL's ML-KEM | strongSwan 6: ESP as protocol 50, ML-KEM |
//! | `bookworm` | Debian 12's packages | the userland of the kernel peer, strongSwan 5.9 |
//! | `uml` | Debian 12's `user-mode-linux` | a Linux kernel with IPsec: AH, ESN, ESP of the kernel |
//! | `libreswan` | Debian 12's `libreswan` and its libraries, unpacked | what reads its configuration; its daemon needs a kernel's IPsec, and its package takes the place of strongSwan's |
//! | `prometheus` | Debian 12's `prometheus`, unpacked | what scrapes the metrics, and `promtool`, which checks them |
//! | `schemathesis` | Python packages of PyPI, each of one version | what makes requests of the OpenAPI document, and holds the answers to it |
//!
//! They lie below `target/peers` and are made once: [`ensure`]. Where they cannot be had, the cases that want them are
//! skipped with the reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use crate::namespace::tail;

/// strongSwan and what it needs to be configured and watched, as Debian calls it.
const STRONGSWAN: [&str; 6] = [
    "strongswan-swanctl",
    "charon-systemd",
    "libcharon-extra-plugins",
    "libcharon-extauth-plugins",
    "libstrongswan-extra-plugins",
    "libstrongswan-standard-plugins",
];

/// What the guest of the kernel peer needs besides.
const GUEST: [&str; 2] = ["iproute2", "kmod"];

/// What Debian 13's strongSwan lacks to speak ML-KEM.
const MLKEM: &str = include_str!("mlkem.c");

/// Lets a UML kernel run on processors whose register state is larger than it knows.
const SHIM: &str = include_str!("uml/xstate.c");

/// Where the guest's first program lies in its root.
const INIT_PATH: &str = "adit-init";

/// First program of the guest.
const INIT: &str = include_str!("uml/init.sh");

/// A Debian system in a directory, with strongSwan 6, if it has been made.
pub fn trixie() -> Option<PathBuf> {
    made("trixie", &(recipe("trixie", &["iproute2"]) + MLKEM))
}

/// A Debian 12 in a directory, with strongSwan 5.9, if it has been made.
pub fn bookworm() -> Option<PathBuf> {
    made("bookworm", &recipe("bookworm", &GUEST))
}

/// The parts of the kernel peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uml {
    /// The kernel, a program.
    pub kernel: PathBuf,
    /// What is loaded before it.
    pub shim: PathBuf,
    /// Its root directory.
    pub root: PathBuf,
}

/// The kernel peer, if it has been made.
pub fn uml() -> Option<Uml> {
    let root = bookworm()?;
    let kernel = made("uml", &uml_recipe())?;
    // The last thing that is put into the root.
    let joined = root.join(INIT_PATH).exists();
    joined.then(|| Uml { kernel: kernel.join("linux.uml"), shim: kernel.join("xstate.so"), root })
}

/// What reads Libreswan's configuration, and what it needs to run.
const LIBRESWAN: [&str; 8] = [
    "libreswan",
    "libunbound8",
    "libevent-2.1-7",
    "libnss3",
    "libnspr4",
    "libhogweed6",
    "libnettle8",
    "libgmp10",
];

/// Libreswan's programs, unpacked, if they have been: the root of their files.
pub fn libreswan() -> Option<PathBuf> {
    made("libreswan", &unpacked_recipe(&LIBRESWAN))
}

/// What scrapes `/metrics`. It needs nothing but the C library.
const PROMETHEUS: [&str; 1] = ["prometheus"];

/// Prometheus' programs, unpacked, if they have been: the root of their files.
pub fn prometheus() -> Option<PathBuf> {
    made("prometheus", &unpacked_recipe(&PROMETHEUS))
}

/// What tests the API against its document, and all that it stands on.
const SCHEMATHESIS: [&str; 27] = [
    "anyio==4.16.0",
    "certifi==2026.10.18",
    "charset-normalizer==3.5.2",
    "click==8.5.1",
    "graphql-core==3.3.2",
    "harfile==0.6.0",
    "hypothesis==6.170.15",
    "hypothesis-graphql==0.13.5",
    "idna==3.20",
    "iniconfig==2.3.1",
    "jsonschema_rs==0.60.3",
    "markdown-it-py==4.3.0",
    "MarkupSafe==3.0.4",
    "mdurl==0.1.2",
    "packaging==26.3",
    "pluggy==1.7.0",
    "Pygments==2.21.0",
    "pyrate-limiter==4.5.1",
    "pytest==9.2.0",
    "PyYAML==6.0.3",
    "requests==2.34.2",
    "rich==15.0.0",
    "schemathesis==4.32.5",
    "sortedcontainers==2.4.0",
    "typing_extensions==4.16.0",
    "urllib3==2.8.0",
    "Werkzeug==3.1.9",
];

/// Schemathesis, if it has been installed: what `PYTHONPATH` has to name for `python3 -m schemathesis`.
pub fn schemathesis() -> Option<PathBuf> {
    made("schemathesis", &unpacked_recipe(&SCHEMATHESIS))
}

/// Installs it in a directory of its own: nothing else on the machine sees it.
fn install_schemathesis() -> Result<()> {
    build("schemathesis", &unpacked_recipe(&SCHEMATHESIS), |partial| {
        let mut install = Command::new("python3");
        install.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
        run(install.arg("--target").arg(partial).args(SCHEMATHESIS))
    })
}

/// Makes what is not there yet, and says so through `announce`. What cannot be made is returned with the reason.
pub fn ensure(announce: impl Fn(&str) + Sync) -> Vec<String> {
    let lacking = || -> Result<()> {
        for program in ["mmdebstrap", "apt-get", "dpkg-deb", "cc"] {
            if Command::new(program).arg("--version").output().is_err() {
                bail!("there is no {program}");
            }
        }
        Ok(())
    };
    let mut failures = Vec::new();
    for (what, name, packages) in
        [("Libreswan", "libreswan", &LIBRESWAN[..]), ("Prometheus", "prometheus", &PROMETHEUS)]
    {
        if let Err(error) = unpack(name, packages) {
            failures.push(format!("{what}: {error:#}"));
        }
    }
    if let Err(error) = install_schemathesis() {
        failures.push(format!("schemathesis: {error:#}"));
    }
    if trixie().is_some() && uml().is_some() {
        return failures;
    }
    if let Err(error) = lacking() {
        failures.push(format!("strongSwan 6 and the kernel peer: {error:#}"));
        return failures;
    }
    let works: [(&str, Make); 3] = [
        ("a Debian 13 with strongSwan 6", || debian("trixie", &["iproute2"], MLKEM)),
        ("a Debian 12 for the kernel peer", || debian("bookworm", &GUEST, "")),
        ("the kernel of the kernel peer", kernel),
    ];
    let before = failures.len();
    let one = |(what, make): (&str, Make)| {
        let begun = Instant::now();
        let done = make();
        let seconds = begun.elapsed().as_secs_f64();
        match &done {
            Ok(()) if seconds > 0.5 => announce(&format!("{what}: made in {seconds:.0} s")),
            Ok(()) => {}
            Err(error) => announce(&format!("{what}: cannot be had: {error:#}")),
        }
        done.map_err(|error| format!("{what}: {error:#}"))
    };
    announce(
        "making the peers that come in directories of their own, below target/peers (1 to 2 minutes, once)",
    );
    thread::scope(|scope| {
        let handles: Vec<_> = works.map(|work| scope.spawn(move || one(work))).into_iter().collect();
        for handle in handles {
            match handle.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failures.push(error),
                Err(_) => failures.push("a thread panicked".to_owned()),
            }
        }
    });
    if failures.len() == before
        && uml().is_none()
        && let Err(error) = join_modules()
    {
        failures.push(format!("the kernel peer: {error:#}"));
    }
    failures
}

/// Makes one of the parts.
type Make = fn() -> Result<()>;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers")
}

/// A directory made by this very recipe.
fn made(name: &str, recipe: &str) -> Option<PathBuf> {
    let there = directory().join(name).canonicalize().ok()?;
    let stamp = fs::read_to_string(directory().join(format!("{name}.recipe"))).ok()?;
    (stamp == recipe).then_some(there)
}

fn recipe(suite: &str, more: &[&str]) -> String {
    format!("1 {suite} {} {}", STRONGSWAN.join(" "), more.join(" "))
}

fn uml_recipe() -> String {
    format!("1 user-mode-linux\n{SHIM}{INIT}")
}

fn unpacked_recipe(packages: &[&str]) -> String {
    format!("1 {}", packages.join(" "))
}

/// Unpacks packages side by side: nothing of them is installed.
fn unpack(name: &str, packages: &[&str]) -> Result<()> {
    build(name, &unpacked_recipe(packages), |partial| {
        fs::create_dir_all(partial)?;
        let mut download = Command::new("apt-get");
        download.args(["-q", "download"]).args(packages).current_dir(partial);
        // The unprivileged user that apt downloads as may not write here.
        run(download.args(["-o", "APT::Sandbox::User=root"]))?;
        for package in fs::read_dir(partial)?.flatten().map(|entry| entry.path()) {
            if package.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(partial))?;
                fs::remove_file(package)?;
            }
        }
        Ok(())
    })
}

/// Unpacks a small Debian `suite` with strongSwan, and compiles a plugin for it.
fn debian(suite: &str, more: &[&str], plugin: &str) -> Result<()> {
    let recipe = recipe(suite, more) + plugin;
    build(suite, &recipe, |partial| {
        let packages = [&STRONGSWAN[..], more].concat().join(",");
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=minbase", &format!("--include={packages}")]);
        for useless in ["doc", "man", "locale", "info"] {
            command.arg(format!("--dpkgopt=path-exclude=/usr/share/{useless}/*"));
        }
        command.arg(suite).arg(partial).arg(mirror());
        run(&mut command)?;
        if plugin.is_empty() { Ok(()) } else { compile_plugin(partial, plugin) }
    })
}

/// Compiles `libstrongswan-mlkem.so` against the OpenSSL in `root`, which it finds there when it runs.
fn compile_plugin(root: &Path, source: &str) -> Result<()> {
    let libraries = fs::read_dir(root.join("usr/lib"))?.flatten().map(|entry| entry.path());
    let crypto = libraries.map(|path| path.join("libcrypto.so.3")).find(|path| path.exists());
    let file = root.join("tmp/mlkem.c");
    fs::write(&file, source)?;
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-shared", "-fPIC", "-o"]);
    compile.arg(root.join("usr/lib/ipsec/plugins/libstrongswan-mlkem.so")).arg(&file);
    run(compile.arg(crypto.context("there is no libcrypto.so.3")?))
}

/// Unpacks Debian's kernel that runs as a program, and compiles what it needs on new processors.
fn kernel() -> Result<()> {
    build("uml", &uml_recipe(), |partial| {
        fs::create_dir_all(partial)?;
        let mut download = Command::new("apt-get");
        download.args(["-q", "download", "user-mode-linux"]).current_dir(partial);
        // The unprivileged user that apt downloads as may not write here.
        download.args(["-o", "APT::Sandbox::User=root"]);
        run(&mut download)?;
        let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
        let packages = fs::read_dir(partial)?.flatten().map(|entry| entry.path()).find(is_package);
        let package = packages.context("apt-get left no package")?;
        run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(partial.join("files")))?;
        fs::remove_file(package)?;
        fs::rename(partial.join("files/usr/bin/linux.uml"), partial.join("linux.uml"))?;
        fs::rename(partial.join("files/usr/lib/uml/modules"), partial.join("modules"))?;
        fs::remove_dir_all(partial.join("files"))?;
        let source = partial.join("xstate.c");
        fs::write(&source, SHIM)?;
        let mut compile = Command::new("cc");
        compile.args(["-O2", "-shared", "-fPIC", "-o"]).arg(partial.join("xstate.so")).arg(&source);
        run(&mut compile)
    })
}

/// Gives the guest's root the modules of its kernel, and its first program.
fn join_modules() -> Result<()> {
    let missing = "one of its parts is missing";
    let root = bookworm().context(missing)?;
    let modules = made("uml", &uml_recipe()).context(missing)?.join("modules");
    let version = fs::read_dir(&modules)?.flatten().next().context("the kernel has no modules")?.file_name();
    let to = root.join("lib/modules");
    fs::create_dir_all(&to)?;
    run(Command::new("cp").arg("-alf").arg(modules.join(&version)).arg(&to))?;
    run(Command::new("chroot").arg(&root).arg("/sbin/depmod").arg("-a").arg(&version))?;
    let init = root.join(INIT_PATH);
    fs::write(&init, INIT)?;
    run(Command::new("chmod").arg("755").arg(&init))
}

/// Makes `name` in a directory beside and moves it into place when it is whole.
fn build(name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if made(name, recipe).is_some() {
        return Ok(());
    }
    let (place, partial) = (directory().join(name), directory().join(format!("{name}.partial")));
    fs::create_dir_all(directory())?;
    for old in [&place, &partial] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("failed to remove {}", old.display()))?;
        }
    }
    make(&partial)?;
    fs::rename(&partial, &place)?;
    fs::write(directory().join(format!("{name}.recipe")), recipe)?;
    Ok(())
}

/// The Debian mirror that this machine uses.
fn mirror() -> String {
    let format = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"];
    let listed = Command::new("apt-get").args(format).stdin(Stdio::null()).output();
    let listed =
        listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let main = listed.lines().map(str::trim).find(|uri| !uri.is_empty() && !uri.contains("security"));
    main.unwrap_or("http://deb.debian.org/debian").to_owned()
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8").output();
    let output = output.map_err(|error| anyhow!("{program} could not be started ({error})"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        bail!("{program} ended with {}:\n{}", output.status, tail(&words, 8));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_recipe_makes_it_anew() {
        assert_ne!(recipe("trixie", &[]), recipe("bookworm", &[]));
        assert_ne!(recipe("trixie", &[]), recipe("trixie", &["socat"]));
        assert!(uml_recipe().contains("ptrace"), "the shim belongs to the recipe");
    }
}
