//! Libraries of others: Intel's ipsec-mb by its burst interface, and aws-lc-rs.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use adit_esp::{Auth, Backend, Cipher};
use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};

use super::ours::{self, Sealed};
use super::{AUTH_KEY, Contender, KEY, Load, SALT, SUITES};

/// Octets of the ESP header.
const HEADER: usize = 8;

/// Everybody of these who can do `load`, each having sealed and opened its packets as Adit does. ipsec-mb uses what `backend`
/// does.
pub(super) fn contenders(load: Load<'_>, backend: Backend) -> Vec<Box<dyn Contender>> {
    let sealed = ours::sealed(load);
    let ipsec_mb =
        IpsecMb::new(load, backend).map(|it| Box::new(Bench::new(it, load, &sealed)) as Box<dyn Contender>);
    let aws_lc = AwsLc::new(load).map(|it| Box::new(Bench::new(it, load, &sealed)) as Box<dyn Contender>);
    ipsec_mb.into_iter().chain(aws_lc).collect()
}

/// The cryptography of ESP over buffers that hold ESP header, IV, payload and room for the ICV.
trait Library {
    const NAME: &'static str;

    /// Seals or opens all packets. Those that fail are an error of the bench.
    fn run(&mut self, open: bool, packets: &mut [RawPacket]);
}

/// One packet, as the C side has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawPacket {
    /// Its ESP header, in a buffer that outlives the call.
    esp: *mut u8,
    /// Octets between IV and ICV.
    payload: u32,
    sa: u32,
}

/// Buffers, and who works on them.
struct Bench<L> {
    library: L,
    /// Each with the octets of its payload.
    buffers: Vec<(Vec<u8>, u32)>,
    sas: usize,
    batch: usize,
}

impl<L: Library> Bench<L> {
    /// A bench on Adit's packets.
    ///
    /// # Panics
    /// When the library opens or seals them to anything else than Adit: its figures would be of other work.
    fn new(library: L, load: Load<'_>, sealed: &[Sealed]) -> Self {
        let auth = load.suite.auth;
        let (iv, icv) = if auth == Auth::None { (8, 16) } else { (16, auth.icv_len()) };
        let buffers = sealed.iter().map(|Sealed { esp, .. }| {
            let payload = esp.len() - HEADER - iv - icv;
            let mut buffer = esp.clone();
            buffer.resize(HEADER + iv + payload + 32, 0);
            (buffer, payload as u32)
        });
        let mut bench = Self { library, buffers: buffers.collect(), sas: load.sas, batch: load.batch };
        let name = format!("{} by {}", load.suite.name, L::NAME);
        bench.each_batch(|library, batch| library.run(true, batch));
        for ((buffer, _), Sealed { inner, .. }) in bench.buffers.iter().zip(sealed) {
            assert!(buffer[HEADER + iv..].starts_with(inner), "{name}: not opened as by Adit");
        }
        bench.each_batch(|library, batch| library.run(false, batch));
        for ((buffer, _), Sealed { esp, .. }) in bench.buffers.iter().zip(sealed) {
            assert!(buffer.starts_with(esp), "{name}: not sealed as by Adit");
        }
        bench
    }

    fn each_batch(&mut self, mut work: impl FnMut(&mut L, &mut [RawPacket])) {
        for (number, chunk) in self.buffers.chunks_mut(self.batch).enumerate() {
            let first = number * self.batch;
            let packets = chunk.iter_mut().enumerate().map(|(n, (buffer, payload))| RawPacket {
                esp: buffer.as_mut_ptr(),
                payload: *payload,
                sa: ((first + n) % self.sas) as u32,
            });
            work(&mut self.library, &mut packets.collect::<Vec<_>>());
        }
    }
}

impl<L: Library> Contender for Bench<L> {
    fn name(&self) -> String {
        L::NAME.to_owned()
    }

    fn round(&mut self, least: Duration) -> (f64, f64) {
        let (mut sealing, mut opening, mut packets) = (Duration::ZERO, Duration::ZERO, 0u32);
        while sealing + opening < least {
            self.each_batch(|library, batch| {
                let begun = Instant::now();
                library.run(false, batch);
                sealing += begun.elapsed();
                let begun = Instant::now();
                library.run(true, batch);
                opening += begun.elapsed();
                packets += batch.len() as u32;
            });
        }
        let each = |time: Duration| time.as_nanos() as f64 / f64::from(packets);
        (each(sealing), each(opening))
    }
}

/// Intel's library, with the widest registers that it may use.
struct IpsecMb(NonNull<c_void>);

unsafe extern "C" {
    fn ipsec_mb_new(
        suite: c_int,
        bits: c_int,
        count: u32,
        key: *const u8,
        salt: *const u8,
        auth_key: *const u8,
        auth_key_length: usize,
    ) -> *mut c_void;
    fn ipsec_mb_run(state: *mut c_void, open: c_int, packets: *const RawPacket, count: u32) -> u32;
    fn ipsec_mb_free(state: *mut c_void);
}

impl IpsecMb {
    fn new(load: Load<'_>, backend: Backend) -> Option<Self> {
        let bits = match backend {
            Backend::AesNi => 128,
            Backend::Avx2 => 256,
            Backend::Avx512 | Backend::Portable => 512,
        };
        // The numbers of suites on the C side are their positions.
        let suite = SUITES.iter().position(|suite| *suite == load.suite)? as c_int;
        let auth_key = &AUTH_KEY[..load.suite.auth.key_len()];
        // SAFETY: the pointers are to arrays as long as the other side reads: 32 octets, 4, and the length given.
        let state = unsafe {
            ipsec_mb_new(
                suite,
                bits,
                load.sas as u32,
                KEY.as_ptr(),
                SALT.as_ptr(),
                auth_key.as_ptr(),
                auth_key.len(),
            )
        };
        NonNull::new(state).map(Self)
    }
}

impl Library for IpsecMb {
    const NAME: &'static str = "ipsec-mb";

    fn run(&mut self, open: bool, packets: &mut [RawPacket]) {
        let count = packets.len() as u32;
        // SAFETY: the state is live until drop; each packet's buffer holds header, IV, payload and 32 octets more, and
        // nobody else uses it during the call; SA numbers are below the count given to `ipsec_mb_new`.
        let done = unsafe { ipsec_mb_run(self.0.as_ptr(), c_int::from(open), packets.as_ptr(), count) };
        assert_eq!(done, count, "ipsec-mb did not do all packets");
    }
}

impl Drop for IpsecMb {
    fn drop(&mut self) {
        // SAFETY: from `ipsec_mb_new`, and not used afterwards.
        unsafe { ipsec_mb_free(self.0.as_ptr()) }
    }
}

/// What AWS made of BoringSSL, packet by packet: it has no interface for more. AEADs only.
struct AwsLc {
    keys: Vec<LessSafeKey>,
}

impl AwsLc {
    fn new(load: Load<'_>) -> Option<Self> {
        let (algorithm, key_len) = match load.suite.cipher {
            Cipher::Aes128Gcm16 => (&AES_128_GCM, 16),
            Cipher::Aes192Gcm16 => (&AES_192_GCM, 24),
            Cipher::Aes256Gcm16 => (&AES_256_GCM, 32),
            Cipher::ChaCha20Poly1305 => (&CHACHA20_POLY1305, 32),
            _ => return None,
        };
        let keys = (0..load.sas as u64).map(|sa| {
            let mut key = KEY;
            key[..8].copy_from_slice(&sa.to_be_bytes());
            UnboundKey::new(algorithm, &key[..key_len]).map(LessSafeKey::new).ok()
        });
        Some(Self { keys: keys.collect::<Option<_>>()? })
    }
}

impl Library for AwsLc {
    const NAME: &'static str = "aws-lc-rs";

    fn run(&mut self, open: bool, packets: &mut [RawPacket]) {
        for packet in packets {
            let payload = packet.payload as usize;
            // SAFETY: the buffer holds header, IV, payload and 32 octets more, and nobody else uses it now.
            let buffer = unsafe { std::slice::from_raw_parts_mut(packet.esp, HEADER + 8 + payload + 16) };
            let (header, rest) = buffer.split_at_mut(HEADER);
            let (iv, rest) = rest.split_at_mut(8);
            let mut nonce = [0; 12];
            nonce[..4].copy_from_slice(&SALT);
            nonce[4..].copy_from_slice(iv);
            let nonce = Nonce::assume_unique_for_key(nonce);
            let key = &self.keys[packet.sa as usize];
            if open {
                key.open_in_place(nonce, Aad::from(&*header), rest).expect("what was sealed here opens");
            } else {
                let (payload, icv) = rest.split_at_mut(payload);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload);
                icv.copy_from_slice(tag.expect("the packet is not too long").as_ref());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{IMIX, SUITES};

    #[test]
    fn libraries_seal_and_open_as_adit_does() {
        for suite in SUITES {
            for (sizes, sas, batch) in [(&IMIX[..], 1, 256), (&[64, 1400, 61], 5, 17), (&[64], 300, 128)] {
                let load = Load { suite, sizes, sas, batch };
                let is_aead = suite.auth == Auth::None;
                let mut contenders = contenders(load, Backend::detect());
                assert_eq!(contenders.len(), if is_aead { 2 } else { 1 });
                for contender in &mut contenders {
                    let (seal, open) = contender.round(Duration::from_micros(1));
                    assert!(seal > 0.0 && open > 0.0, "{} {}", suite.name, contender.name());
                }
            }
        }
    }
}
