//! Compiles the C side of the bench of Intel's library, where the libraries of others are asked for.

fn main() {
    println!("cargo::rerun-if-changed=src/crypto/ipsec_mb.c");
    #[cfg(feature = "peers")]
    {
        cc::Build::new().file("src/crypto/ipsec_mb.c").opt_level(3).compile("adit_bench_ipsec_mb");
        println!("cargo::rustc-link-lib=IPSec_MB");
    }
}
