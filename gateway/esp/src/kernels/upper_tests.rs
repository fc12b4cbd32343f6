//! No kernel leaves the upper halves of vector registers in use: every SSE instruction after it, of which SHA-NI has no other
//! kind, would cost hundreds of cycles. The processor tells whether they are in use.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::{AeadJob, Backend, cbc, chacha, gcm, mac, narrow_gcm};
use crate::sa::Auth;

/// Bits 128 to 255 of registers 0 to 15, and their bits 256 to 511, among the components of XSAVE.
const UPPER: u64 = 1 << 2 | 1 << 6;

/// Whether the processor tells which components are in use, by XGETBV with ECX = 1.
fn tells() -> bool {
    is_x86_feature_detected!("xsave")
        && is_x86_feature_detected!("avx")
        && __cpuid_count(0xd, 1).eax >> 2 & 1 == 1
}

/// # Safety
/// [`tells`].
#[target_feature(enable = "xsave")]
unsafe fn is_upper_in_use() -> bool {
    // SAFETY: the caller's promise.
    unsafe { _xgetbv(1) & UPPER != 0 }
}

/// # Safety
/// [`tells`].
#[target_feature(enable = "avx,xsave")]
unsafe fn is_told_of_use() -> bool {
    let used = black_box(_mm256_set1_epi8(black_box(1)));
    // SAFETY: the caller's promise.
    let told = unsafe { _xgetbv(1) & UPPER != 0 };
    black_box(used);
    told
}

#[track_caller]
fn leaves_them_alone(what: &str, backend: Backend, work: impl FnOnce()) {
    work();
    // SAFETY: asked before.
    assert!(!unsafe { is_upper_in_use() }, "{what} on {backend} leaves upper halves in use");
}

fn aead<Key>(key: &Key, kernel: impl Fn(&mut [AeadJob<'_, Key>])) {
    let (mut texts, mut tags) = ([[7; 1416]; 5], [[0; 16]; 5]);
    let jobs = texts.iter_mut().zip(&mut tags).enumerate().map(|(position, (text, tag))| AeadJob {
        position,
        key,
        nonce: [1; 12],
        aad: [0; 16],
        aad_len: 8,
        text: &mut text[..1416 - 9 * position],
        tag,
        authentic: false,
    });
    kernel(&mut jobs.collect::<Vec<_>>());
}

#[test]
fn upper_halves_are_not_in_use_after_a_kernel() {
    // SAFETY: asked just before.
    if !tells() || !unsafe { is_told_of_use() } {
        return;
    }
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
        if let Some(key) = cbc::Key::new(backend, &[1; 16]) {
            let mut texts = [[7; 1424]; 16];
            let mut encrypt = |count: usize| {
                let texts = texts.iter_mut().take(count).enumerate();
                let texts =
                    texts.map(|(n, text)| cbc::Text { key: &key, blocks: &mut text[..1424 - 16 * n] });
                cbc::encrypt(&mut texts.collect::<Vec<_>>());
            };
            leaves_them_alone("AES-CBC", backend, || encrypt(16));
            leaves_them_alone("AES-CBC of few", backend, || encrypt(3));
            leaves_them_alone("AES-CBC decrypting", backend, || cbc::decrypt(&key, &mut [7; 1424]));
        }
        for auth in [Auth::HmacSha1_96, Auth::HmacSha256_128, Auth::HmacSha512_256] {
            let Some(key) = mac::Key::new(backend, auth, &[1; 20]) else { continue };
            let octets = [7; 1424];
            let mut messages: Vec<_> = (0..key.lanes())
                .map(|n| mac::Message { key: &key, octets: &octets[n..], more: None, mac: [0; mac::MAC_LEN] })
                .collect();
            leaves_them_alone("HMAC in lanes", backend, || mac::in_lanes(&mut messages));
            if key.hash().has_instructions() {
                leaves_them_alone("HMAC by instructions", backend, || mac::by_instructions(&mut messages));
            }
        }
        if let Some(key) = narrow_gcm::Key::new(backend, &[1; 16]) {
            leaves_them_alone("AES-GCM sealing", backend, || aead(&*key, narrow_gcm::seal));
            leaves_them_alone("AES-GCM opening", backend, || aead(&*key, narrow_gcm::open));
        }
    }
    if let Some(key) = gcm::Key::new(&[1; 16]) {
        leaves_them_alone("AES-GCM sealing", Backend::Avx512, || aead(&key, gcm::seal));
        leaves_them_alone("AES-GCM opening", Backend::Avx512, || aead(&key, gcm::open));
    }
    if let Some(key) = chacha::Key::new(&[1; 32]) {
        leaves_them_alone("ChaCha20-Poly1305 sealing", Backend::Avx512, || aead(&*key, chacha::seal));
        leaves_them_alone("ChaCha20-Poly1305 opening", Backend::Avx512, || aead(&*key, chacha::open));
    }
}
