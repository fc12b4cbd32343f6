//! Builds the XDP object, and the binary that carries it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, Step, note};
use crate::toolchain::{self, Toolchain};

/// Where the stripped XDP object lies; `gateway/dataplane` embeds it from here.
pub(crate) fn object_path() -> PathBuf {
    shell::target().join("bpf/adit-xdp.o")
}

/// The `adit` binary of a build with this profile.
pub(crate) fn binary_path(release: bool) -> PathBuf {
    shell::target().join(if release { "release" } else { "debug" }).join("adit")
}

/// Builds the XDP object and the binary; returns the path of the binary.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    build_object(&toolchain::ensure()?)?;
    let mut command = shell::cargo();
    command.args(["build", "--package", "adit"]);
    if release {
        command.arg("--release");
    }
    let profile = if release { "release" } else { "debug" };
    Step::new(format!("build adit ({profile})"), command, "read the compiler's message above").shown()?;
    let binary = binary_path(release);
    note(&format!("{}", binary.display()));
    Ok(binary)
}

/// Compiles `gateway-ebpf` for the BPF target into [`object_path`].
pub(crate) fn build_object(toolchain: &Toolchain) -> Result<()> {
    let out = shell::target().join("bpf-build");
    let mut command = shell::cargo();
    command
        .args(["build", "--package", "adit-ebpf", "--bin", "adit-xdp", "--release"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .env("CARGO_TARGET_DIR", &out)
        .env("RUSTC", &toolchain.rustc.path)
        // Building `core` from source is an unstable feature of a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&toolchain.linker));
    for name in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    let what = format!("build the XDP object with {}", toolchain.rustc.version);
    Step::new(what, command, "read the compiler's message above").shown()?;

    let built = out.join("bpfel-unknown-none/release/adit-xdp");
    let object = stripped(&built)?;
    let path = object_path();
    fs::create_dir_all(shell::target().join("bpf"))?;
    // An unchanged file keeps its time, or the crates that embed it would be built again.
    if fs::read(&path).ok().as_deref() != Some(object.as_slice()) {
        fs::write(&path, &object).with_context(|| format!("failed to write {}", path.display()))?;
    }
    note(&format!("{} ({} bytes)", path.display(), object.len()));
    Ok(())
}

fn rustflags(linker: &Path) -> String {
    let linker = format!("-Clinker={}", linker.display());
    let architecture = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    // BTF is made from debug information; v3 has 32-bit jumps and arithmetic, which keep the program short.
    [&architecture, "-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3", &linker].join("\x1f")
}

/// The object without DWARF but with its BTF; as it is when no program here can do that.
fn stripped(built: &Path) -> Result<Vec<u8>> {
    let whole = fs::read(built).with_context(|| format!("cargo left no {}", built.display()))?;
    if !whole.starts_with(b"\x7fELF") {
        bail!(
            "{} is not an ELF object: the linker in $CARGO_ENCODED_RUSTFLAGS is not bpf-linker",
            built.display()
        );
    }
    let small = built.with_extension("stripped");
    for program in objcopies() {
        let done = Command::new(&program).arg("--strip-debug").arg(built).arg(&small).output();
        if done.is_ok_and(|output| output.status.success()) {
            return Ok(fs::read(&small)?);
        }
    }
    note("no llvm-objcopy here: the object keeps its debug sections (it works the same)");
    Ok(whole)
}

/// Programs that can strip a BPF object: rustup's own, then LLVM's.
fn objcopies() -> Vec<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output();
    let bundled = sysroot.ok().filter(|output| output.status.success()).map(|output| {
        let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let host = format!("lib/rustlib/{}-unknown-linux-gnu/bin/rust-objcopy", std::env::consts::ARCH);
        sysroot.join(host)
    });
    bundled.into_iter().chain(["llvm-objcopy", "llvm-objcopy-22"].map(PathBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_separated_so_that_a_path_may_hold_spaces() {
        let flags = rustflags(Path::new("/a b/bpf-linker"));
        assert_eq!(flags.split('\x1f').next_back(), Some("-Clinker=/a b/bpf-linker"));
        assert_eq!(flags.split('\x1f').count(), 5);
    }
}
