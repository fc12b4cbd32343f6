//! `cargo xtask package`: the Debian package, put together from `images/package`, the release binary, and what that writes
//! of itself (manual, completions).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, Step, announce, note};
use crate::{build, packages};

/// A file of the package: where it comes from, below `images/package`, and where it goes.
const FILES: [(&str, &str); 8] = [
    ("adit-control.service", "lib/systemd/system/adit-control.service"),
    ("adit-dataplane.service", "lib/systemd/system/adit-dataplane.service"),
    ("run-adit-bpf.mount", "lib/systemd/system/run-adit-bpf.mount"),
    ("sysctl.conf", "usr/lib/sysctl.d/60-adit.conf"),
    ("modules-load.conf", "usr/lib/modules-load.d/adit.conf"),
    ("adit.env", "etc/adit/adit.env"),
    ("adit.toml", "usr/share/adit/adit.toml"),
    // What Adit has within it, to copy.
    ("../../gateway/control/src/alarm/usual.toml", "usr/share/adit/alarms.toml"),
];

/// What dpkg runs, below `images/package`.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Files that an upgrade leaves as their owner has made them.
const CONFFILES: &str = "/etc/adit/adit.env\n";

/// Shells whose completion is put where they look for it.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/adit"),
    ("zsh", "usr/share/zsh/vendor-completions/_adit"),
    ("fish", "usr/share/fish/vendor_completions.d/adit.fish"),
];

/// Builds the package; returns its path. The same inputs give the same octets.
///
/// # Errors
/// A program that it takes is missing, the build failed, or dpkg-deb did.
pub(crate) fn package() -> Result<PathBuf> {
    if !packages::is_debian() {
        bail!(
            "a Debian package is made with Debian's dpkg-deb, which is not on this machine.\n  what to do: run \
             this on Debian 12, or take `cargo xtask build --release` and the units in images/package"
        );
    }
    packages::install(&packages::not_installed(vec!["binutils".to_owned()])?)?;
    let at = shell::target().join("package");
    let file = put_together(&at)?;
    // What is of another version is no part of what is built now, and images/Containerfile takes the only one.
    for entry in fs::read_dir(&at)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("adit_") && name.ends_with(".deb") && entry.path() != file {
            fs::remove_file(entry.path())?;
        }
    }
    let size = fs::metadata(&file)?.len();
    note(&format!("{} ({:.1} MB)", file.display(), size as f64 / 1e6));
    note(&format!("SHA-256 {}", sha256(&file)?));
    Ok(file)
}

/// Puts the package together once more, in a directory of its own: it has to be the same.
///
/// # Errors
/// As [`package`], or the two differ.
pub(crate) fn again(first: &Path) -> Result<()> {
    let at = shell::target().join("package/again");
    let second = put_together(&at)?;
    let (one, two) = (sha256(first)?, sha256(&second)?);
    if one != two {
        bail!("two packages of the same differ: {one} and {two}; the second is {}", second.display());
    }
    note("the second package is the same, octet by octet");
    fs::remove_dir_all(at)?;
    Ok(())
}

/// Makes the package in the directory `at`, with its files below `root` there.
fn put_together(at: &Path) -> Result<PathBuf> {
    let binary = std::env::var_os("ADIT_BIN").map_or_else(|| build::build(true), |path| Ok(path.into()))?;
    announce("put the Debian package together");
    let epoch = epoch()?;
    let root = at.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("failed to remove {}", root.display()))?;
    }
    fill(&root, &binary, epoch)?;
    let text = control(&root)?;
    let version = field(&text, "Version")?;
    let architecture = field(&text, "Architecture")?;
    write(&root.join("DEBIAN/control"), &text, 0o644)?;
    let file = at.join(format!("adit_{version}_{architecture}.deb"));
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Zxz", "--build"]).arg(&root).arg(&file);
    command.env("SOURCE_DATE_EPOCH", epoch.to_string());
    Step::new("build the package", command, "read dpkg-deb's message above").quiet()?;
    Ok(file)
}

/// The time that everything made carries: `$SOURCE_DATE_EPOCH`, else the last commit's, else that of `Cargo.lock`.
pub(crate) fn epoch() -> Result<u64> {
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        return text.parse().with_context(|| format!("$SOURCE_DATE_EPOCH is {text:?}, which is no time"));
    }
    let mut command = Command::new("git");
    command.current_dir(shell::root()).args(["log", "-1", "--format=%ct"]);
    if let Ok(text) = Step::new("ask for the commit's time", command, "").quiet() {
        return Ok(text.trim().parse()?);
    }
    let changed = fs::metadata(shell::root().join("Cargo.lock"))?.modified()?;
    Ok(changed.duration_since(std::time::UNIX_EPOCH)?.as_secs())
}

/// A file's digest, in hexadecimal digits.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let mut command = Command::new("sha256sum");
    command.arg(file);
    let line = Step::new("digest the file", command, "install coreutils").quiet()?;
    Ok(line.split(' ').next().unwrap_or_default().to_owned())
}

/// Everything but `DEBIAN/control`.
fn fill(root: &Path, binary: &Path, epoch: u64) -> Result<()> {
    let from = shell::root().join("images/package");
    let at = root.join("usr/bin/adit");
    fs::create_dir_all(root.join("usr/bin"))?;
    let mut strip = Command::new("strip");
    strip.args(["--remove-section=.comment", "--remove-section=.note", "-o"]).arg(&at).arg(binary);
    Step::new("strip the binary", strip, "install binutils").quiet()?;
    for (name, place) in FILES {
        // What is configured may hold keys.
        let mode = if place.starts_with("etc/") { 0o640 } else { 0o644 };
        write(&root.join(place), &fs::read_to_string(from.join(name))?, mode)?;
    }
    fs::set_permissions(root.join("etc/adit"), fs::Permissions::from_mode(0o700))?;
    for (shell, place) in COMPLETIONS {
        let mut command = Command::new(&at);
        command.args(["completion", shell]);
        write(&root.join(place), &Step::new("write a completion", command, "").quiet()?, 0o644)?;
    }
    let manual = root.join("usr/share/man/man1");
    let mut command = Command::new(&at);
    command.arg("man").arg(&manual);
    Step::new("write the manual", command, "read adit's message above").quiet()?;
    let documentation = root.join("usr/share/doc/adit");
    write(&documentation.join("copyright"), &copyright(&from)?, 0o644)?;
    write(&documentation.join("changelog"), &changelog(epoch)?, 0o644)?;
    let mut pages: Vec<PathBuf> = fs::read_dir(&manual)?.flatten().map(|entry| entry.path()).collect();
    pages.push(documentation.join("changelog"));
    let mut gzip = Command::new("gzip");
    gzip.args(["-9", "-n", "-f"]).args(pages);
    Step::new("compress the manual", gzip, "install gzip").quiet()?;
    write(&root.join("DEBIAN/conffiles"), CONFFILES, 0o644)?;
    for script in SCRIPTS {
        write(&root.join("DEBIAN").join(script), &fs::read_to_string(from.join(script))?, 0o755)?;
    }
    let mut sums = Command::new("sh");
    sums.current_dir(root);
    sums.args([
        "-c",
        "find usr lib etc -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums",
    ]);
    Step::new("digest the package's files", sums, "install findutils and coreutils").quiet()?;
    // A umask of the caller's says nothing about the package.
    let mut modes = Command::new("chmod");
    modes.args(["-R", "u+rwX,go+rX,go-w"]).arg(root.join("usr")).arg(root.join("lib"));
    Step::new("set the modes", modes, "").quiet()?;
    fs::set_permissions(&at, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(root.join("DEBIAN/md5sums"), fs::Permissions::from_mode(0o644))?;
    for directory in ["", "DEBIAN", "etc"] {
        fs::set_permissions(root.join(directory), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// `images/package/control.in` with what is known now.
fn control(root: &Path) -> Result<String> {
    let template = fs::read_to_string(shell::root().join("images/package/control.in"))?;
    let mut du = Command::new("du");
    du.args(["-k", "--apparent-size", "-s"]).arg(root);
    let size = Step::new("measure the package", du, "install coreutils").quiet()?;
    let mut dpkg = Command::new("dpkg");
    dpkg.arg("--print-architecture");
    let architecture = Step::new("ask for the architecture", dpkg, "install dpkg").quiet()?;
    let glibc =
        glibc(&fs::read(root.join("usr/bin/adit"))?).context("the binary names no version of glibc")?;
    Ok(template
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@ARCHITECTURE@", architecture.trim())
        .replace("@SIZE@", size.split_whitespace().next().unwrap_or_default())
        .replace("@GLIBC@", &glibc))
}

/// The highest version of the C library whose symbols a binary uses, as `2.34`.
fn glibc(binary: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"GLIBC_2.";
    let minors = binary.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    let minors = minors.filter_map(|(at, _)| {
        let digits = binary[at + MARK.len()..].iter().take_while(|octet| octet.is_ascii_digit());
        let digits: Vec<u8> = digits.copied().collect();
        std::str::from_utf8(&digits).ok()?.parse::<u32>().ok()
    });
    minors.max().map(|minor| format!("2.{minor}"))
}

/// The value of a field of `DEBIAN/control`.
fn field(text: &str, name: &str) -> Result<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    Ok(value.with_context(|| format!("control.in has no {name}"))?.to_owned())
}

/// The licences as Debian writes them down: the MIT's own text indented, a dot for an empty line.
fn copyright(from: &Path) -> Result<String> {
    let licence = fs::read_to_string(shell::root().join("LICENSE-MIT"))?;
    let indent = |line: &str| if line.trim().is_empty() { " .".to_owned() } else { format!(" {line}") };
    let text: Vec<String> = licence.trim_end().lines().map(indent).collect();
    Ok(fs::read_to_string(from.join("copyright"))?.replace("@MIT@", &text.join("\n")))
}

/// Debian wants one; what has changed is told where the source is.
fn changelog(epoch: u64) -> Result<String> {
    let mut command = Command::new("date");
    command.args(["--utc", "--rfc-email", &format!("--date=@{epoch}")]).env("LC_ALL", "C");
    let date = Step::new("write the date", command, "install coreutils").quiet()?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(format!(
        "adit ({version}) unstable; urgency=medium\n\n  * Built from the source tree.\n\n -- The Adit developers \
         <adit@localhost>  {date}"
    ))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let failed = || format!("failed to write {}", path.display());
    fs::create_dir_all(path.parent().with_context(failed)?).with_context(failed)?;
    fs::write(path, text).with_context(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_that_is_named_is_what_the_package_depends_on() {
        assert_eq!(glibc(b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.17\0GLIBC_PRIVATE").as_deref(), Some("2.34"));
        assert_eq!(glibc(b"static"), None);
    }

    #[test]
    fn every_file_that_the_table_names_is_there_and_fills_a_place_of_its_own() {
        let from = shell::root().join("images/package");
        for name in FILES.iter().map(|(name, _)| name).chain(&SCRIPTS) {
            assert!(from.join(name).is_file(), "{name}");
        }
        let mut places: Vec<&str> = FILES.iter().chain(&COMPLETIONS).map(|(_, place)| *place).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), FILES.len() + COMPLETIONS.len());
        for file in CONFFILES.lines() {
            assert!(places.contains(&file.trim_start_matches('/')), "{file}");
        }
    }

    #[test]
    fn the_licence_is_written_as_debian_wants_it() {
        let text = copyright(&shell::root().join("images/package")).unwrap();
        assert!(
            text.contains("License: MIT\n ") && !text.contains('@') && !text.contains("\n\n\n"),
            "{text}"
        );
    }
}
