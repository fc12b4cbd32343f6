//! Finds the compiled XDP program and puts it where `load.rs` embeds it from.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=ADIT_XDP_OBJECT");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let object = env::var_os("ADIT_XDP_OBJECT")
        .map_or_else(|| manifest.join("../../target/bpf/adit-xdp.o"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    // Without the program the crate still compiles, and `Dataplane::start` says how to get it.
    let bytes = fs::read(&object).unwrap_or_default();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("adit-xdp.o");
    fs::write(&out, bytes).expect("OUT_DIR is writable");
}
