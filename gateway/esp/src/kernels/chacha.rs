//! ChaCha20-Poly1305 (RFC 8439) with AVX-512.
//!
//! Up to [`WIDTH`] packets go through together. The key stream is made for sixteen blocks at a time, each in a lane of
//! its own with its own key, nonce and counter: blocks of one long packet, of many short ones or of both, so that only
//! the last lanes of a whole group stay idle. Block 0 of a packet is its one-time key for [`poly1305`].

use std::arch::x86_64::*;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::poly1305::{self, Message};
use super::{ChaChaJob, TAG_LEN};

/// Packets that are worked on together.
pub(crate) const WIDTH: usize = poly1305::WIDTH;
/// Blocks of key stream that are made at once.
const LANES: usize = 16;
/// Octets of a block.
const BLOCK: usize = 64;
/// "expand 32-byte k" in four little-endian words (RFC 8439 section 2.3).
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Whether this processor has the instructions.
pub(crate) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("bmi2")
}

/// The state of a key, whose counter and nonce are zero. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(64))]
pub(crate) struct Key {
    state: [u32; 16],
}

impl Key {
    /// Takes a key of 32 octets; `None` for another length, or where the processor cannot use it.
    pub(crate) fn new(key: &[u8]) -> Option<Box<Self>> {
        if key.len() != 32 || !is_available() {
            return None;
        }
        let mut expanded = Box::new(Self { state: [0; 16] });
        expanded.state[..4].copy_from_slice(&CONSTANTS);
        for (word, octets) in expanded.state[4..12].iter_mut().zip(key.chunks_exact(4)) {
            *word = octets.iter().rev().fold(0, |word, octet| word << 8 | u32::from(*octet));
        }
        Some(expanded)
    }
}

/// Encrypts the texts and writes the tags.
pub(crate) fn seal(jobs: &mut [ChaChaJob<'_>]) {
    for group in jobs.chunks_mut(WIDTH) {
        let mut one_time = OneTime::default();
        let blocks = group.iter().map(blocks).collect::<arrayvec::ArrayVec<_, WIDTH>>();
        let all =
            blocks.iter().enumerate().flat_map(|(job, blocks)| (0..=*blocks).map(move |block| (job, block)));
        // SAFETY: a key exists only where the instructions do.
        let tags = unsafe {
            apply(group, &mut one_time, all);
            authenticate(group, &one_time)
        };
        for (job, tag) in group.iter_mut().zip(tags) {
            *job.tag = tag;
        }
    }
}

/// Decrypts the texts whose tags are right, and says which are; the others stay as they are.
pub(crate) fn open(jobs: &mut [ChaChaJob<'_>]) {
    for group in jobs.chunks_mut(WIDTH) {
        let mut one_time = OneTime::default();
        let firsts = (0..group.len()).map(|job| (job, 0));
        // SAFETY: as in `seal`.
        let tags = unsafe {
            apply(group, &mut one_time, firsts);
            authenticate(group, &one_time)
        };
        for (job, tag) in group.iter_mut().zip(tags) {
            job.authentic = job.tag.ct_eq(&tag).into();
        }
        let blocks = group.iter().map(|job| if job.authentic { blocks(job) } else { 0 });
        let blocks = blocks.collect::<arrayvec::ArrayVec<_, WIDTH>>();
        let rest =
            blocks.iter().enumerate().flat_map(|(job, blocks)| (1..=*blocks).map(move |block| (job, block)));
        // SAFETY: as in `seal`.
        unsafe { apply(group, &mut one_time, rest) };
    }
}

/// Blocks of a packet's text.
fn blocks(job: &ChaChaJob<'_>) -> usize {
    job.text.len().div_ceil(BLOCK)
}

/// The one-time keys of a group. Wiped when dropped.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
struct OneTime([[u8; poly1305::KEY_LEN]; WIDTH]);

/// Goes through `blocks`, pairs of job and block: keeps a packet's block 0 as its one-time key, and adds a later one to
/// the text.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,bmi2")]
fn apply(
    jobs: &mut [ChaChaJob<'_>],
    one_time: &mut OneTime,
    mut blocks: impl Iterator<Item = (usize, usize)>,
) {
    let mut lanes = arrayvec::ArrayVec::<_, LANES>::new();
    loop {
        lanes.clear();
        let mut states = [_mm512_setzero_si512(); LANES];
        for (state, (job, block)) in states.iter_mut().zip(&mut blocks) {
            *state = initial(&jobs[job], block as u32);
            lanes.push((job, block));
        }
        if lanes.is_empty() {
            return;
        }
        for (stream, (job, block)) in key_stream(&states).into_iter().zip(&lanes) {
            match block.checked_sub(1) {
                None => {
                    let key: &mut [u8; poly1305::KEY_LEN] = &mut one_time.0[*job];
                    // SAFETY: 32 octets are written to an array of 32.
                    unsafe { _mm256_storeu_si256(key.as_mut_ptr().cast(), _mm512_castsi512_si256(stream)) };
                }
                Some(block) => add(&mut jobs[*job].text[BLOCK * block..], stream),
            }
        }
        if lanes.len() < LANES {
            return;
        }
    }
}

/// Adds key stream to at most a block of text.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,bmi2")]
fn add(text: &mut [u8], stream: __m512i) {
    let mask = _bzhi_u64(!0, text.len().min(BLOCK) as u32);
    // SAFETY: a masked load and a masked store touch only the octets in the mask, which the text has.
    unsafe {
        let before = _mm512_maskz_loadu_epi8(mask, text.as_ptr().cast());
        _mm512_mask_storeu_epi8(text.as_mut_ptr().cast(), mask, _mm512_xor_si512(before, stream));
    }
}

/// The state that a block begins with.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,bmi2")]
fn initial(job: &ChaChaJob<'_>, block: u32) -> __m512i {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = job.nonce;
    let word = |octets| i32::from_le_bytes(octets);
    let nonce = _mm_set_epi32(word([i, j, k, l]), word([e, f, g, h]), word([a, b, c, d]), block as i32);
    // SAFETY: 64 octets are read from an array of 64.
    let key = unsafe { _mm512_loadu_si512(job.key.state.as_ptr().cast()) };
    _mm512_inserti32x4::<3>(key, nonce)
}

/// Four quarter rounds side by side, one in each column of a state of four rows (RFC 8439 section 2.1).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,bmi2")]
fn round([mut a, mut b, mut c, mut d]: [[__m512i; 4]; 4]) -> [[__m512i; 4]; 4] {
    macro_rules! step {
        ($to:ident, $from:ident, $turned:ident, $by:literal) => {
            for i in 0..4 {
                $to[i] = _mm512_add_epi32($to[i], $from[i]);
            }
            for i in 0..4 {
                $turned[i] = _mm512_rol_epi32::<$by>(_mm512_xor_si512($turned[i], $to[i]));
            }
        };
    }
    step!(a, b, d, 16);
    step!(c, d, b, 12);
    step!(a, b, d, 8);
    step!(c, d, b, 7);
    [a, b, c, d]
}

/// The key stream of sixteen states, a block in each register (RFC 8439 section 2.3).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,bmi2")]
fn key_stream(states: &[__m512i; LANES]) -> [__m512i; LANES] {
    let [v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, va, vb, vc, vd, ve, vf] = transposed(*states);
    let mut rows = [[v0, v1, v2, v3], [v4, v5, v6, v7], [v8, v9, va, vb], [vc, vd, ve, vf]];
    for _ in 0..10 {
        // Columns; then diagonals, which are columns once the rows are turned.
        let [a, [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]] = round(rows);
        let turned = [a, [b1, b2, b3, b0], [c2, c3, c0, c1], [d3, d0, d1, d2]];
        let [a, [b1, b2, b3, b0], [c2, c3, c0, c1], [d3, d0, d1, d2]] = round(turned);
        rows = [a, [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]];
    }
    let [[v0, v1, v2, v3], [v4, v5, v6, v7], [v8, v9, va, vb], [vc, vd, ve, vf]] = rows;
    let mut stream = transposed([v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, va, vb, vc, vd, ve, vf]);
    for (block, state) in stream.iter_mut().zip(states) {
        *block = _mm512_add_epi32(*block, *state);
    }
    stream
}

/// Word `j` of register `i` becomes word `i` of register `j`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,bmi2")]
fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let zero = _mm512_setzero_si512();
    let (mut pairs, mut fours) = ([zero; LANES], [zero; LANES]);
    for i in (0..LANES).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // Of each four rows: word k of their lanes of 128 bits.
    for i in (0..LANES).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    let mut columns = [zero; LANES];
    for k in 0..4 {
        let (a, b, c, d) = (fours[k], fours[4 + k], fours[8 + k], fours[12 + k]);
        let (even_ab, odd_ab) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let (even_cd, odd_cd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
        columns[k] = _mm512_shuffle_i32x4::<0x88>(even_ab, even_cd);
        columns[4 + k] = _mm512_shuffle_i32x4::<0x88>(odd_ab, odd_cd);
        columns[8 + k] = _mm512_shuffle_i32x4::<0xdd>(even_ab, even_cd);
        columns[12 + k] = _mm512_shuffle_i32x4::<0xdd>(odd_ab, odd_cd);
    }
    columns
}

/// The tags of a group's texts as they are now.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,bmi2")]
fn authenticate(jobs: &[ChaChaJob<'_>], one_time: &OneTime) -> [[u8; TAG_LEN]; WIDTH] {
    let messages = jobs.iter().map(|job| Message { aad: &job.aad, aad_len: job.aad_len, text: job.text });
    poly1305::tags(&messages.collect::<arrayvec::ArrayVec<_, WIDTH>>(), &one_time.0)
}
