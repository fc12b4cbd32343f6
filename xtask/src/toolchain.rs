//! The eBPF toolchain: a rustc with the library source that belongs to it, and a bpf-linker whose LLVM reads what
//! that rustc writes.
//!
//! `core` is built for the BPF target from source, and rustc accepts only the source of its own version. rustup has
//! it as the component `rust-src`; Debian has it as `rust-web-src`, beside its own rustc. Whichever is here is used;
//! when none is, the component is tried first and Debian's pair second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::packages;
use crate::shell::{self, Step, announce, note};

/// The linker that the recipe was proved with.
const LINKER_VERSION: &str = "0.13.0";
/// LLVM releases that this bpf-linker can be built against, the one that Debian has first.
const LINKER_LLVM: [u32; 3] = [22, 23, 21];
/// Oldest rustc that compiles the workspace, as `major.minor`.
const OLDEST_RUSTC: &str = env!("CARGO_PKG_RUST_VERSION");
/// Debian's rustc and its library source.
const DEBIAN_PAIR: [&str; 2] = ["rustc-web", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A rustc that can build `core` for the BPF target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rustc {
    /// The compiler itself, not rustup's proxy.
    pub(crate) path: PathBuf,
    /// First line of `rustc -vV`.
    pub(crate) version: String,
    /// Major version of the LLVM that its bitcode is of.
    pub(crate) llvm: u32,
}

/// Everything that building for the BPF target takes.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) rustc: Rustc,
    /// The linker.
    pub(crate) linker: PathBuf,
}

/// Finds the toolchain, and installs what is missing of it.
pub(crate) fn ensure() -> Result<Toolchain> {
    let rustc = match find_rustc()? {
        Some(rustc) => rustc,
        None => install_rustc()?,
    };
    match ensure_linker(&rustc) {
        Ok(linker) => Ok(Toolchain { rustc, linker }),
        Err(error) if rustc.path != Path::new(DEBIAN_RUSTC) && packages::is_debian() => {
            note(&format!("{error}\n    trying Debian's own rustc instead"));
            packages::install(&packages::not_installed(DEBIAN_PAIR.map(str::to_owned).to_vec())?)?;
            let rustc = inspect(Path::new(DEBIAN_RUSTC))?;
            let linker = ensure_linker(&rustc)?;
            Ok(Toolchain { rustc, linker })
        }
        Err(error) => Err(error),
    }
}

/// The first of `$BPF_RUSTC`, rustup's nightly, rustup's stable and `/usr/bin/rustc` that has its library source.
fn find_rustc() -> Result<Option<Rustc>> {
    if let Some(path) = std::env::var_os("BPF_RUSTC") {
        return inspect(Path::new(&path)).map(Some);
    }
    let rustup = ["nightly", "stable"].into_iter().filter_map(rustup_rustc);
    let candidates = rustup.chain(Path::new(DEBIAN_RUSTC).exists().then(|| PathBuf::from(DEBIAN_RUSTC)));
    Ok(candidates.filter_map(|path| inspect(&path).ok()).next())
}

fn rustup_rustc(toolchain: &str) -> Option<PathBuf> {
    let output = Command::new("rustup")
        .args(["which", "--toolchain", toolchain, "rustc"])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

/// What `path` is, if it can build for the BPF target; else why it cannot.
fn inspect(path: &Path) -> Result<Rustc> {
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(path);
        // An outer `cargo run` puts its own toolchain's libraries first.
        command.args(arguments).env_remove("LD_LIBRARY_PATH").env_remove("RUSTUP_TOOLCHAIN");
        Step::new(
            format!("ask {} about itself", path.display()),
            command,
            "name another compiler in $BPF_RUSTC",
        )
        .quiet()
    };
    let Some((version, release, llvm)) = parse_version(&ask(&["-vV"])?) else {
        bail!("{} does not tell its version as rustc does", path.display());
    };
    if !at_least(&release, OLDEST_RUSTC) {
        bail!(too_old(&version, path));
    }
    let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
        bail!("{version} ({}) lacks the source of its library (rust-src)", path.display());
    }
    Ok(Rustc { path: path.to_owned(), version, llvm })
}

/// What is said of a rustc that does not compile the workspace.
fn too_old(version: &str, path: &Path) -> String {
    let [rustc, source] = DEBIAN_PAIR;
    let remedy = if path == Path::new(DEBIAN_RUSTC) {
        format!(
            "enable bookworm-security in apt's sources, then `apt-get update` and `apt-get install {rustc} {source}`; \
             or install Rust by rustup"
        )
    } else {
        "`rustup update`, or name another rustc in $BPF_RUSTC".to_owned()
    };
    format!(
        "{version} ({}) is older than {OLDEST_RUSTC}, which this workspace needs.\n  what to do: {remedy}",
        path.display()
    )
}

fn install_rustc() -> Result<Rustc> {
    announce("no rustc here has the source of its library: fetching it");
    for toolchain in ["nightly", "stable"] {
        let Some(path) = rustup_rustc(toolchain) else { continue };
        let mut command = Command::new("rustup");
        command.args(["component", "add", "rust-src", "--toolchain", toolchain]);
        match Step::new(format!("add rust-src to rustup's {toolchain}"), command, "check the network").quiet()
        {
            Ok(_) => return inspect(&path),
            Err(_) => note(&format!("rustup cannot fetch rust-src for {toolchain}")),
        }
    }
    if !packages::is_debian() {
        bail!(
            "no rustc with the source of its library is on this machine, and rustup could not fetch it.\n  what to \
             do: `rustup component add rust-src`, or name a rustc that has it in $BPF_RUSTC"
        );
    }
    packages::install(&packages::not_installed(DEBIAN_PAIR.map(str::to_owned).to_vec())?)?;
    inspect(Path::new(DEBIAN_RUSTC))
}

fn ensure_linker(rustc: &Rustc) -> Result<PathBuf> {
    let tools = shell::target().join("tools");
    let linker = tools.join("bin/bpf-linker");
    if installed_llvm(&tools).is_some_and(|llvm| llvm >= rustc.llvm) && answers(&linker) {
        return Ok(linker);
    }
    let (llvm, library) = match find_llvm(rustc.llvm) {
        Some(found) => found,
        None => {
            let package = format!("libllvm{}", LINKER_LLVM[0]);
            if rustc.llvm > LINKER_LLVM[0] || !packages::is_debian() {
                bail!(
                    "bpf-linker needs LLVM {} or later as a shared library (libLLVM.so), to read what {} writes.\n  \
                     what to do: install that LLVM, or name a rustc with an older LLVM in $BPF_RUSTC",
                    rustc.llvm,
                    rustc.version
                );
            }
            packages::install(&[package])?;
            match find_llvm(rustc.llvm) {
                Some(found) => found,
                None => bail!(
                    "Debian's libllvm{} is installed, and holds no libLLVM.so that is known here",
                    LINKER_LLVM[0]
                ),
            }
        }
    };
    install_linker(&tools, llvm, &library)?;
    Ok(linker)
}

fn install_linker(tools: &Path, llvm: u32, library: &Path) -> Result<()> {
    let prefix = tools.join("llvm");
    fs::create_dir_all(prefix.join("lib"))?;
    let link = prefix.join("lib/libLLVM.so");
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink(library, &link)?;
    let build = shell::target().join("bpf-linker-build");
    let mut command = shell::cargo();
    command
        .args(["install", "bpf-linker", "--version", &format!("={LINKER_VERSION}"), "--locked", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"])
        .arg(tools)
        .env("CARGO_TARGET_DIR", &build)
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("LLVM_PREFIX", &prefix);
    let remedy = "check the network and, if cargo names a linker error, that gcc and libc6-dev are installed";
    Step::new(
        format!("build bpf-linker {LINKER_VERSION} with LLVM {llvm} (about a minute)"),
        command,
        remedy,
    )
    .shown()?;
    // 300 MB that nothing reads again.
    fs::remove_dir_all(&build)?;
    Ok(())
}

/// The LLVM that bpf-linker under `tools` was built against, if it is the version wanted.
fn installed_llvm(tools: &Path) -> Option<u32> {
    let record: serde_json::Value =
        serde_json::from_slice(&fs::read(tools.join(".crates2.json")).ok()?).ok()?;
    let wanted = format!("bpf-linker {LINKER_VERSION} ");
    let installs = record.get("installs")?.as_object()?;
    let (_, install) = installs.iter().find(|(name, _)| name.starts_with(&wanted))?;
    let features = install.get("features")?.as_array()?;
    features.iter().find_map(|feature| feature.as_str()?.strip_prefix("llvm-")?.parse().ok())
}

fn answers(linker: &Path) -> bool {
    Command::new(linker).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// A libLLVM that reads bitcode of LLVM `at_least`, and that bpf-linker can be built against.
fn find_llvm(at_least: u32) -> Option<(u32, PathBuf)> {
    let directories = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    LINKER_LLVM.into_iter().filter(|llvm| *llvm >= at_least).find_map(|llvm| {
        let own = format!("/usr/lib/llvm-{llvm}/lib");
        let names = [format!("libLLVM.so.{llvm}.1"), format!("libLLVM-{llvm}.so")];
        let places = directories.iter().copied().chain([own.as_str()]);
        places
            .flat_map(|place| names.iter().map(move |name| Path::new(place).join(name)))
            .find(|path| path.exists())
            .map(|path| (llvm, path))
    })
}

/// First line, release and LLVM major of `rustc -vV`.
fn parse_version(text: &str) -> Option<(String, String, u32)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
    Some((text.lines().next()?.to_owned(), field("release:")?.to_owned(), llvm))
}

fn at_least(release: &str, oldest: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        let plain = text.split('-').next().unwrap_or_default();
        plain.split('.').take(2).map(|part| part.parse().unwrap_or(0)).collect()
    };
    numbers(release) >= numbers(oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
                          host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn the_version_of_a_rustc_is_read() {
        let (version, release, llvm) = parse_version(DEBIAN).unwrap();
        assert!(version.starts_with("rustc 1.96.0"));
        assert_eq!((release.as_str(), llvm), ("1.96.0", 22));
        assert_eq!(parse_version("gcc (Debian 12.2.0-14) 12.2.0"), None);
    }

    #[test]
    fn an_old_rustc_comes_with_what_to_do_about_it() {
        let said = |path: &str| too_old("rustc 1.63.0", Path::new(path));
        let debian = said(DEBIAN_RUSTC);
        for part in ["1.63.0", DEBIAN_RUSTC, OLDEST_RUSTC, "bookworm-security", "apt-get update", "rustc-web"]
        {
            assert!(debian.contains(part), "{part} is missing in {debian}");
        }
        let rustup = said("/root/.rustup/toolchains/stable/bin/rustc");
        assert!(rustup.contains("rustup update") && !rustup.contains("apt-get"), "{rustup}");
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        assert!(at_least("1.96.0", "1.95"));
        assert!(at_least("1.97.0-nightly", "1.95"));
        assert!(at_least("1.100.0", "1.95"));
        assert!(!at_least("1.63.0", "1.95"));
    }
}
