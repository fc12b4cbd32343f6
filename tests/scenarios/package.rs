//! The Debian package in a Debian 12 of its own: installed, upgraded, removed and purged by dpkg.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use adit_tests::roots;
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use anyhow::{Context, Result, bail, ensure};

/// What `systemd-analyze security` may say of a unit at most, in tenths: 0 is sealed off, 100 is open. 23 and 29 were seen;
/// what is left is what a gateway is: the host's network, its capabilities, and root's identity.
const EXPOSURE: u32 = 30;
/// Where what dpkg writes about its own work lies, and what it takes apart from the package.
const DPKGS_OWN: [&str; 5] =
    ["var/lib/dpkg", "var/log", "var/cache", "proc", "var/lib/systemd/deb-systemd-helper"];

fn main() -> std::process::ExitCode {
    let lacking = match (package(), roots::bookworm()) {
        (None, _) => Some("ADIT_DEB names no package; `cargo xtask test interop` builds one"),
        (_, None) => Some("there is no Debian 12 to install into; `cargo xtask test interop` tells why"),
        _ => None,
    };
    let no_systemd =
        (!Path::new("/usr/bin/systemd-analyze").exists()).then_some("there is no systemd-analyze");
    scenario::main(vec![
        Scenario::new("it_installs_and_upgrades_and_a_purge_leaves_nothing", life).lacking(lacking),
        Scenario::new("its_units_are_right_and_hardened", units).lacking(lacking.or(no_systemd)),
        Scenario::new("it_is_as_debian_wants_it", contents).lacking(lacking),
    ])
}

fn package() -> Option<PathBuf> {
    std::env::var_os("ADIT_DEB").map(PathBuf::from).filter(|path| path.is_file())
}

/// A Debian 12 that can be written to and is gone with the run.
struct Debian {
    root: PathBuf,
    _run: Run,
}

impl Debian {
    fn begin() -> Result<Debian> {
        let run = Run::begin()?;
        let below = roots::bookworm().context("there is no Debian 12")?;
        let layers = run.directory().join("layers");
        let root = run.directory().join("root");
        for directory in [&layers, &root] {
            fs::create_dir_all(directory)?;
        }
        done(Command::new("mount").args(["-t", "tmpfs", "adit", "-o", "mode=0755"]).arg(&layers))?;
        for directory in ["upper", "work"] {
            fs::create_dir(layers.join(directory))?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            below.display(),
            layers.join("upper").display(),
            layers.join("work").display()
        );
        done(Command::new("mount").args(["-t", "overlay", "adit", "-o", &options]).arg(&root))?;
        Ok(Debian { root, _run: run })
    }

    /// Runs a program in it, and returns what it said.
    fn run(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(words);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        done(&mut command)
    }

    fn install(&self, package: &Path) -> Result<String> {
        fs::copy(package, self.root.join("tmp/adit.deb"))?;
        let said = self.run(&["dpkg", "--install", "/tmp/adit.deb"])?;
        fs::remove_file(self.root.join("tmp/adit.deb"))?;
        Ok(said)
    }

    /// Every path in it, but for [`DPKGS_OWN`].
    fn paths(&self) -> Result<BTreeSet<PathBuf>> {
        let mut found = BTreeSet::new();
        let mut left = vec![self.root.clone()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let path = entry.path();
                let name = path.strip_prefix(&self.root)?.to_owned();
                if DPKGS_OWN.iter().any(|own| name.starts_with(own)) {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    left.push(path);
                }
                found.insert(name);
            }
        }
        Ok(found)
    }
}

fn life() -> Result<()> {
    let debian = Debian::begin()?;
    let before = debian.paths()?;
    let package = package().context("no package")?;
    debian.install(&package)?;
    ensure!(debian.run(&["adit", "--version"])?.starts_with("adit "), "it does not run");
    for unit in ["adit-control", "adit-dataplane"] {
        let link = debian.root.join(format!("etc/systemd/system/multi-user.target.wants/{unit}.service"));
        ensure!(link.is_symlink(), "{unit} does not start with the machine");
    }
    let differing = debian.run(&["dpkg", "--verify", "adit"])?;
    // This small Debian takes no documentation of any package.
    let left_out = |line: &&str| line.contains("/usr/share/doc/") || line.contains("/usr/share/man/");
    ensure!(differing.lines().all(|line| left_out(&line)), "files are not as the package says:\n{differing}");
    let mode = fs::metadata(debian.root.join("etc/adit"))?.permissions().mode() & 0o777;
    ensure!(mode == 0o700, "/etc/adit, where keys are, has the mode {mode:o}");

    let settings = debian.root.join("etc/adit/adit.env");
    fs::write(&settings, "ADIT_LOG=warn\n")?;
    fs::create_dir_all(debian.root.join("var/lib/adit"))?;
    fs::write(debian.root.join("var/lib/adit/adit.key"), "kept over an upgrade")?;
    debian.install(&newer(&debian, &package)?)?;
    let version = debian.run(&["dpkg-query", "-W", "-f", "${Version}", "adit"])?;
    ensure!(version.ends_with("+next"), "the upgrade left {version}");
    ensure!(fs::read_to_string(&settings)? == "ADIT_LOG=warn\n", "an upgrade took the settings");
    ensure!(debian.root.join("var/lib/adit/adit.key").exists(), "an upgrade took the database's key");

    debian.run(&["dpkg", "--remove", "adit"])?;
    ensure!(
        settings.exists() && debian.root.join("var/lib/adit/adit.key").exists(),
        "removal took the settings"
    );
    debian.run(&["dpkg", "--purge", "adit"])?;
    let after = debian.paths()?;
    let left: Vec<_> = after.difference(&before).collect();
    let taken: Vec<_> = before.difference(&after).collect();
    ensure!(left.is_empty() && taken.is_empty(), "a purge leaves {left:?} and takes {taken:?}");
    Ok(())
}

/// The same package with a later version.
fn newer(debian: &Debian, package: &Path) -> Result<PathBuf> {
    let apart = debian._run.directory().join("newer");
    done(Command::new("dpkg-deb").arg("-R").arg(package).arg(&apart))?;
    let control = apart.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let version = text.lines().find(|line| line.starts_with("Version: ")).context("it has no version")?;
    fs::write(&control, text.replace(version, &format!("{version}+next")))?;
    let file = debian._run.directory().join("newer.deb");
    done(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "-b"]).arg(&apart).arg(&file))?;
    Ok(file)
}

/// What systemd reads of the units, and how far they let a service reach.
fn units() -> Result<()> {
    let debian = Debian::begin()?;
    debian.install(&package().context("no package")?)?;
    let place = debian.root.join("lib/systemd/system");
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]);
    for unit in ["adit-control.service", "adit-dataplane.service", "run-adit-bpf.mount"] {
        verify.arg(place.join(unit));
    }
    let said = done(&mut verify)?;
    ensure!(!said.contains("adit"), "systemd says:\n{said}");
    for unit in ["adit-control.service", "adit-dataplane.service"] {
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager"]);
        security.arg(format!("--root={}", debian.root.display()));
        security.arg(format!("--threshold={EXPOSURE}")).arg(unit);
        let said = done(&mut security)?;
        println!("{}", said.lines().last().unwrap_or_default());
    }
    Ok(())
}

/// What lintian asks of a binary package, as far as it matters to a gateway.
fn contents() -> Result<()> {
    let run = Run::begin()?;
    let apart = run.directory().join("package");
    let package = package().context("no package")?;
    done(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&apart))?;
    let mut left = vec![apart.clone()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, data) = (entry.path(), entry.metadata()?);
            let shown = path.strip_prefix(&apart)?.display().to_string();
            ensure!((data.uid(), data.gid()) == (0, 0), "{shown} is not root's");
            ensure!(data.mode() & 0o7022 == 0, "{shown} has the mode {:o}", data.mode());
            if data.is_dir() {
                left.push(path);
                continue;
            }
            let program = shown.starts_with("usr/bin/");
            ensure!((data.mode() & 0o111 != 0) == program, "{shown} has the mode {:o}", data.mode());
            let compressed = !shown.starts_with("usr/share/man/") || shown.ends_with(".gz");
            ensure!(compressed, "{shown} is not compressed");
            ensure!(data.len() > 0, "{shown} is empty");
        }
    }
    for needed in ["copyright", "changelog.gz"] {
        ensure!(apart.join("usr/share/doc/adit").join(needed).exists(), "there is no {needed}");
    }
    let pages = fs::read_dir(apart.join("usr/share/man/man1"))?.count();
    ensure!(pages > 20, "the manual has {pages} pages");
    let binary = apart.join("usr/bin/adit");
    let mut check = Command::new(&binary);
    check.arg("check").arg("--config").arg(apart.join("usr/share/adit/adit.toml"));
    done(&mut check).context("the example is not taken")?;
    let sections = done(Command::new("readelf").args(["-SW"]).arg(&binary))?;
    ensure!(!sections.contains(".debug_info"), "the binary is not stripped");
    let linked = done(Command::new("readelf").args(["-dW"]).arg(&binary))?;
    ensure!(linked.contains("BIND_NOW") || linked.contains("NOW"), "the binary is not bound at its start");
    Ok(())
}

/// Runs a program to its end, and returns what it said on both streams.
fn done(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8").output();
    let output = output.with_context(|| format!("{command:?} could not be started"))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !output.status.success() {
        bail!("{command:?} ended with {}:\n{said}", output.status);
    }
    Ok(said)
}
