//! AES-CBC (NIST SP 800-38A): encryption of sixteen packets side by side, because the blocks of one follow from each
//! other; decryption of sixteen blocks of one packet side by side.

use std::arch::x86_64::*;

use super::{aes::RoundKeys, gcm};

/// Packets that are encrypted side by side.
pub(super) const LANES: usize = 16;
/// Octets of a block.
const BLOCK: usize = 16;
/// Registers that are worked on at a time, each with the blocks of four packets.
const REGISTERS: usize = 4;

/// An expanded key.
pub(crate) struct Key {
    encryption: RoundKeys,
    decryption: RoundKeys,
}

impl Key {
    /// Expands a key of 16, 24 or 32 octets; `None` for another length, or where the processor cannot use it.
    pub(crate) fn new(key: &[u8]) -> Option<Box<Self>> {
        if !matches!(key.len(), 16 | 24 | 32) || !gcm::is_available() {
            return None;
        }
        // SAFETY: the instructions are there, as was just asked.
        let encryption = unsafe { RoundKeys::expand(key) };
        // SAFETY: as above.
        let decryption = unsafe { encryption.inverse() };
        Some(Box::new(Self { encryption, decryption }))
    }

    /// How often a block goes through the cipher's round: 10, 12 or 14.
    pub(crate) fn rounds(&self) -> usize {
        self.encryption.rounds()
    }
}

/// A text that is to be encrypted, of whole blocks: the first is encrypted to the IV (NIST SP 800-38A appendix C).
pub(super) struct Text<'a> {
    pub(super) key: &'a Key,
    pub(super) blocks: &'a mut [u8],
}

/// Encrypts up to sixteen texts in place, whose keys all have the rounds of the first.
pub(super) fn encrypt(texts: &mut [Text<'_>]) {
    assert!(texts.len() <= LANES, "one lane for each text");
    let Some(first) = texts.first() else { return };
    let rounds = first.key.rounds();
    assert!(texts.iter().all(|text| text.blocks.len().is_multiple_of(BLOCK) && text.key.rounds() == rounds));
    let few = texts.len() <= LANES / REGISTERS;
    // SAFETY: a key exists only where the instructions do; number, lengths and rounds were just looked at.
    unsafe {
        match rounds {
            10 if few => encrypt_lanes::<10, 1>(texts),
            12 if few => encrypt_lanes::<12, 1>(texts),
            _ if few => encrypt_lanes::<14, 1>(texts),
            10 => encrypt_lanes::<10, REGISTERS>(texts),
            12 => encrypt_lanes::<12, REGISTERS>(texts),
            _ => encrypt_lanes::<14, REGISTERS>(texts),
        }
    }
}

/// Decrypts the whole blocks of `text` behind its first, the IV.
pub(super) fn decrypt(key: &Key, text: &mut [u8]) {
    assert!(text.len().is_multiple_of(BLOCK) && !text.is_empty(), "an IV and whole blocks");
    // SAFETY: a key exists only where the instructions do; the length was just looked at.
    unsafe {
        match key.rounds() {
            10 => decrypt_blocks::<10>(&key.decryption, text),
            12 => decrypt_blocks::<12>(&key.decryption, text),
            _ => decrypt_blocks::<14>(&key.decryption, text),
        }
    }
}

/// The blocks at four places.
///
/// # Safety
/// 16 octets may be read at each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,aes")]
unsafe fn gather(at: [*const u8; 4]) -> __m512i {
    // SAFETY: the caller's promise.
    let [a, b, c, d] = at.map(|at| unsafe { _mm_loadu_si128(at.cast()) });
    let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
    _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, c), d)
}

/// # Safety
/// The processor has the instructions; there are 1 to 4 texts for each of `USED` registers, which are 1 to 4, each text
/// of whole blocks, and all keys have `ROUNDS` rounds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,aes")]
unsafe fn encrypt_lanes<const ROUNDS: usize, const USED: usize>(texts: &mut [Text<'_>]) {
    let keys: [&RoundKeys; LANES] =
        std::array::from_fn(|lane| &texts[if lane < texts.len() { lane } else { 0 }].key.encryption);
    let same = keys.iter().all(|key| std::ptr::eq(*key, keys[0]));
    let mut round_keys = [[_mm512_setzero_si512(); USED]; 15];
    for (round, registers) in round_keys.iter_mut().take(ROUNDS + 1).enumerate() {
        for (register, of) in registers.iter_mut().enumerate() {
            let lanes =
                std::array::from_fn(|i| keys[if same { 0 } else { 4 * register + i }].of(round).as_ptr());
            // SAFETY: round keys have 16 octets.
            *of = unsafe { gather(lanes) };
        }
    }
    // A lane that has come to its end goes on in here, to nobody's harm.
    let mut idle = [0u8; BLOCK];
    let idle = idle.as_mut_ptr();
    let mut at = [idle; LANES];
    let mut left = [0usize; LANES];
    for (lane, text) in texts.iter_mut().enumerate() {
        if !text.blocks.is_empty() {
            at[lane] = text.blocks.as_mut_ptr();
            left[lane] = text.blocks.len() / BLOCK;
        }
    }
    let mut chain = [_mm512_setzero_si512(); USED];
    loop {
        let Some(run) = left.iter().copied().filter(|left| *left != 0).min() else { return };
        let ahead = left.map(|left| if left == 0 { 0 } else { BLOCK });
        for _ in 0..run {
            for (register, chain) in chain.iter_mut().enumerate() {
                let places = std::array::from_fn(|i| at[4 * register + i].cast_const());
                // SAFETY: a lane with blocks left is at one of them, the others are at `idle`.
                let text = unsafe { gather(places) };
                *chain = _mm512_ternarylogic_epi64::<0x96>(*chain, text, round_keys[0][register]);
            }
            for of in &round_keys[1..ROUNDS] {
                for (chain, round_key) in chain.iter_mut().zip(of) {
                    *chain = _mm512_aesenc_epi128(*chain, *round_key);
                }
            }
            for (register, chain) in chain.iter_mut().enumerate() {
                *chain = _mm512_aesenclast_epi128(*chain, round_keys[ROUNDS][register]);
                let places = &at[4 * register..4 * register + 4];
                // SAFETY: as above, for writing.
                unsafe {
                    _mm_storeu_si128(places[0].cast(), _mm512_castsi512_si128(*chain));
                    _mm_storeu_si128(places[1].cast(), _mm512_extracti32x4_epi32::<1>(*chain));
                    _mm_storeu_si128(places[2].cast(), _mm512_extracti32x4_epi32::<2>(*chain));
                    _mm_storeu_si128(places[3].cast(), _mm512_extracti32x4_epi32::<3>(*chain));
                }
            }
            for (at, ahead) in at.iter_mut().zip(ahead) {
                // SAFETY: at most one past the end of the lane's text.
                *at = unsafe { at.add(ahead) };
            }
        }
        for (left, at) in left.iter_mut().zip(&mut at) {
            *left = left.saturating_sub(run);
            if *left == 0 {
                *at = idle;
            }
        }
    }
}

/// # Safety
/// The processor has the instructions; `text` is of whole blocks, at least one, and the key has `ROUNDS` rounds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,aes,bmi2")]
unsafe fn decrypt_blocks<const ROUNDS: usize>(key: &RoundKeys, text: &mut [u8]) {
    // SAFETY: round keys have 16 octets.
    let round_key = |round: usize| unsafe { gather([key.of(round).as_ptr(); 4]) };
    let (iv, blocks) = text.split_at_mut(BLOCK);
    // SAFETY: the IV has 16 octets. Only the highest lane is looked at.
    let mut before = unsafe { gather([iv.as_ptr(); 4]) };
    for chunk in blocks.chunks_mut(64 * REGISTERS) {
        let masks: [u64; REGISTERS] = std::array::from_fn(|i| {
            let here = chunk.len().saturating_sub(64 * i).min(64);
            _bzhi_u64(!0, here as u32)
        });
        let mut sealed = [_mm512_setzero_si512(); REGISTERS];
        for (i, sealed) in sealed.iter_mut().enumerate().take(chunk.len().div_ceil(64)) {
            // SAFETY: the mask leaves out what is beyond the chunk.
            *sealed = unsafe { _mm512_maskz_loadu_epi8(masks[i], chunk.as_ptr().add(64 * i).cast()) };
        }
        let first = round_key(0);
        let mut open = sealed.map(|blocks| _mm512_xor_si512(blocks, first));
        for round in 1..ROUNDS {
            let round_key = round_key(round);
            for blocks in &mut open {
                *blocks = _mm512_aesdec_epi128(*blocks, round_key);
            }
        }
        let last = round_key(ROUNDS);
        for (i, (open, sealed)) in open.into_iter().zip(sealed).enumerate().take(chunk.len().div_ceil(64)) {
            let chain = _mm512_alignr_epi64::<6>(sealed, before);
            let clear = _mm512_aesdeclast_epi128(open, _mm512_xor_si512(last, chain));
            before = sealed;
            // SAFETY: as above, for writing.
            unsafe { _mm512_mask_storeu_epi8(chunk.as_mut_ptr().add(64 * i).cast(), masks[i], clear) };
        }
    }
}
