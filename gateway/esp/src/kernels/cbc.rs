//! AES-CBC (NIST SP 800-38A): encryption of many packets side by side, because the blocks of one follow from each other;
//! decryption of many blocks of one packet side by side.

use std::arch::x86_64::{__m128i, __m256i, __m512i};

use super::{
    Backend,
    aes::RoundKeys,
    blocks::{BLOCK, Blocks, MOST, Width},
    vector::Vector,
};

/// Most packets that are encrypted side by side.
pub(super) const LANES: usize = 16;

/// An expanded key.
pub(crate) struct Key {
    encryption: RoundKeys,
    decryption: RoundKeys,
    width: Width,
}

impl Key {
    /// Expands a key of 16, 24 or 32 octets for a backend; `None` for another length, or where the processor or the
    /// backend has no instructions for it.
    pub(crate) fn new(backend: Backend, key: &[u8]) -> Option<Box<Self>> {
        let width = Width::of(backend)?;
        if !matches!(key.len(), 16 | 24 | 32) {
            return None;
        }
        // SAFETY: every width has AES-NI.
        let encryption = unsafe { RoundKeys::expand(key) };
        // SAFETY: as above.
        let decryption = unsafe { encryption.inverse() };
        Some(Box::new(Self { encryption, decryption, width }))
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

/// Does `$call`, in which `$constant` is the number of rounds.
macro_rules! by_rounds {
    ($rounds:expr, $constant:ident => $call:expr) => {
        match $rounds {
            10 => {
                const $constant: usize = 10;
                $call
            }
            12 => {
                const $constant: usize = 12;
                $call
            }
            _ => {
                const $constant: usize = 14;
                $call
            }
        }
    };
}

/// Encrypts up to sixteen texts in place, whose keys all have the rounds and the backend of the first.
pub(super) fn encrypt(texts: &mut [Text<'_>]) {
    assert!(texts.len() <= LANES, "one lane for each text");
    let Some(first) = texts.first() else { return };
    let (rounds, width) = (first.key.rounds(), first.key.width);
    assert!(texts.iter().all(|text| {
        text.blocks.len().is_multiple_of(BLOCK) && text.key.rounds() == rounds && text.key.width == width
    }));
    // SAFETY: a width is only where its instructions are; number, lengths, rounds and widths were just looked at.
    unsafe {
        match width {
            Width::Bits512 if texts.len() <= 4 => by_rounds!(rounds, R => encrypt_512::<R, 1>(texts)),
            Width::Bits512 => by_rounds!(rounds, R => encrypt_512::<R, 4>(texts)),
            Width::Bits256 => by_rounds!(rounds, R => encrypt_256::<R>(texts)),
            // Sixteen registers hold eight blocks and what goes into them.
            Width::Bits128 => {
                texts.chunks_mut(8).for_each(|few| by_rounds!(rounds, R => encrypt_128::<R>(few)))
            }
        }
    }
}

/// Decrypts the whole blocks of `text` behind its first, the IV.
pub(super) fn decrypt(key: &Key, text: &mut [u8]) {
    assert!(text.len().is_multiple_of(BLOCK) && !text.is_empty(), "an IV and whole blocks");
    let (rounds, keys) = (key.rounds(), &key.decryption);
    // SAFETY: a width is only where its instructions are; the length was just looked at.
    unsafe {
        match key.width {
            Width::Bits512 => by_rounds!(rounds, R => decrypt_512::<R>(keys, text)),
            Width::Bits256 => by_rounds!(rounds, R => decrypt_256::<R>(keys, text)),
            Width::Bits128 => by_rounds!(rounds, R => decrypt_128::<R>(keys, text)),
        }
    }
}

/// # Safety
/// As [`encrypt_lanes`], on a processor with these instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,aes")]
unsafe fn encrypt_512<const ROUNDS: usize, const USED: usize>(texts: &mut [Text<'_>]) {
    // SAFETY: the caller's promise.
    unsafe { encrypt_lanes::<__m512i, ROUNDS, USED>(texts) }
}

/// # Safety
/// As [`encrypt_lanes`], on a processor with these instructions.
#[target_feature(enable = "avx2,vaes,aes")]
unsafe fn encrypt_256<const ROUNDS: usize>(texts: &mut [Text<'_>]) {
    // SAFETY: the caller's promise.
    unsafe { encrypt_lanes::<__m256i, ROUNDS, 8>(texts) }
}

/// # Safety
/// As [`encrypt_lanes`], on a processor with these instructions.
#[target_feature(enable = "ssse3,sse4.1,aes")]
unsafe fn encrypt_128<const ROUNDS: usize>(texts: &mut [Text<'_>]) {
    // SAFETY: the caller's promise.
    unsafe { encrypt_lanes::<__m128i, ROUNDS, 8>(texts) }
}

/// # Safety
/// As [`decrypt_blocks`], on a processor with these instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,vaes,aes")]
unsafe fn decrypt_512<const ROUNDS: usize>(keys: &RoundKeys, text: &mut [u8]) {
    // SAFETY: the caller's promise.
    unsafe { decrypt_blocks::<__m512i, ROUNDS>(keys, text) }
}

/// # Safety
/// As [`decrypt_blocks`], on a processor with these instructions.
#[target_feature(enable = "avx2,vaes,aes")]
unsafe fn decrypt_256<const ROUNDS: usize>(keys: &RoundKeys, text: &mut [u8]) {
    // SAFETY: the caller's promise.
    unsafe { decrypt_blocks::<__m256i, ROUNDS>(keys, text) }
}

/// # Safety
/// As [`decrypt_blocks`], on a processor with these instructions.
#[target_feature(enable = "ssse3,sse4.1,aes")]
unsafe fn decrypt_128<const ROUNDS: usize>(keys: &RoundKeys, text: &mut [u8]) {
    // SAFETY: the caller's promise.
    unsafe { decrypt_blocks::<__m128i, ROUNDS>(keys, text) }
}

/// One block further for every lane, whose blocks are in `text`.
///
/// # Safety
/// The processor has what `V` wants.
#[inline(always)]
unsafe fn step<V: Blocks, const ROUNDS: usize, const USED: usize>(
    chain: &mut [V; USED],
    text: [V; USED],
    round_keys: &[[V; USED]; 15],
) {
    // SAFETY: the caller's promise.
    unsafe {
        for (i, chain) in chain.iter_mut().enumerate() {
            *chain = V::xor3(*chain, text[i], round_keys[0][i]);
        }
        for of in &round_keys[1..ROUNDS] {
            for (chain, round_key) in chain.iter_mut().zip(of) {
                *chain = V::encrypt_round(*chain, *round_key);
            }
        }
        for (chain, round_key) in chain.iter_mut().zip(&round_keys[ROUNDS]) {
            *chain = V::encrypt_last(*chain, *round_key);
        }
    }
}

/// Encrypts texts, one to a lane, in `USED` registers.
///
/// # Safety
/// The processor has what `V` wants; there are 1 to as many texts as `USED` registers have blocks, each text of whole
/// blocks, and all keys have `ROUNDS` rounds.
#[inline(always)]
unsafe fn encrypt_lanes<V: Blocks, const ROUNDS: usize, const USED: usize>(texts: &mut [Text<'_>]) {
    let keys: [&RoundKeys; LANES] =
        std::array::from_fn(|lane| &texts[if lane < texts.len() { lane } else { 0 }].key.encryption);
    let same = keys.iter().all(|key| std::ptr::eq(*key, keys[0]));
    // A lane that has come to its end reads here and writes there, to nobody's harm: what it read where it has just
    // written would hold up the lanes beside it.
    let (source, mut sink) = ([0u8; BLOCK * MOST], [0u8; BLOCK * MOST]);
    let (source, sink) = (source.as_ptr(), sink.as_mut_ptr());
    let mut from = [source; LANES];
    let mut to = [sink; LANES];
    let mut left = [0; LANES];
    for (lane, text) in texts.iter_mut().enumerate() {
        if !text.blocks.is_empty() {
            to[lane] = text.blocks.as_mut_ptr();
            from[lane] = to[lane];
            left[lane] = text.blocks.len() / BLOCK;
        }
    }
    // The four places of a register's blocks; of those that there are not the first, which is not looked at.
    let places = |register: usize| -> [usize; MOST] {
        std::array::from_fn(|i| V::BLOCKS * register + if i < V::BLOCKS { i } else { 0 })
    };
    // SAFETY: the caller's promise. A lane with blocks left is at one of them, and is read and written together with no
    // more of them than are left; the others are at `source` and `sink`, which are as long as is read and written there.
    unsafe {
        let mut round_keys = [[V::zero(); USED]; 15];
        for (round, registers) in round_keys.iter_mut().take(ROUNDS + 1).enumerate() {
            for (register, of) in registers.iter_mut().enumerate() {
                *of = if same {
                    V::broadcast(keys[0].of(round).as_ptr())
                } else {
                    V::gather(places(register).map(|lane| keys[lane].of(round).as_ptr()))
                };
            }
        }
        let mut chain = [V::zero(); USED];
        loop {
            let Some(run) = left.iter().copied().filter(|left| *left != 0).min() else { return };
            let ahead = left.map(|left| if left == 0 { 0 } else { BLOCK });
            for _ in 0..run / V::BLOCKS {
                // So many blocks of every lane as a register has: what was read together lies side by side after a turn.
                let mut squares = [[V::zero(); MOST]; USED];
                for (register, square) in squares.iter_mut().enumerate() {
                    *square = V::turn(places(register).map(|lane| V::load(from[lane])));
                }
                for block in 0..V::BLOCKS {
                    let text = std::array::from_fn(|register| squares[register][block]);
                    step::<V, ROUNDS, USED>(&mut chain, text, &round_keys);
                    for (square, chain) in squares.iter_mut().zip(&chain) {
                        square[block] = *chain;
                    }
                }
                for (register, square) in squares.into_iter().enumerate() {
                    let lanes = places(register).into_iter().zip(V::turn(square));
                    for (lane, blocks) in lanes.take(V::BLOCKS) {
                        V::store(to[lane], blocks);
                    }
                }
                for ((from, to), ahead) in from.iter_mut().zip(&mut to).zip(ahead) {
                    *from = from.wrapping_add(V::BLOCKS * ahead);
                    *to = to.wrapping_add(V::BLOCKS * ahead);
                }
            }
            for _ in 0..run % V::BLOCKS {
                let text = std::array::from_fn(|register| V::gather(places(register).map(|lane| from[lane])));
                step::<V, ROUNDS, USED>(&mut chain, text, &round_keys);
                for (register, chain) in chain.iter().enumerate() {
                    V::scatter(places(register).map(|lane| to[lane]), *chain);
                }
                for ((from, to), ahead) in from.iter_mut().zip(&mut to).zip(ahead) {
                    *from = from.wrapping_add(ahead);
                    *to = to.wrapping_add(ahead);
                }
            }
            for ((left, from), to) in left.iter_mut().zip(&mut from).zip(&mut to) {
                *left = left.saturating_sub(run);
                if *left == 0 {
                    (*from, *to) = (source, sink);
                }
            }
        }
    }
}

/// Decrypts the blocks of `text` behind the first, from the last on: so that what is to be added to a block, the one
/// before it, has not been decrypted yet.
///
/// # Safety
/// The processor has what `V` wants; `text` is of whole blocks, at least one, and the key has `ROUNDS` rounds.
#[inline(always)]
unsafe fn decrypt_blocks<V: Blocks, const ROUNDS: usize>(keys: &RoundKeys, text: &mut [u8]) {
    let first = text.as_mut_ptr();
    let mut left = text.len() - BLOCK;
    // SAFETY: the caller's promise. `left` octets are left behind the first block, as many as a piece takes at least.
    unsafe {
        macro_rules! pieces {
            ($register:ty, $count:literal) => {
                while left >= $count * <$register>::OCTETS {
                    left -= $count * <$register>::OCTETS;
                    decrypt_piece::<$register, ROUNDS, $count>(keys, first.add(left));
                }
            };
        }
        pieces!(V, 8);
        pieces!(V, 4);
        pieces!(V, 2);
        pieces!(V, 1);
        pieces!(__m128i, 1);
    }
}

/// Decrypts `COUNT` registers of blocks, which lie behind the block at `at`.
///
/// # Safety
/// The processor has what `V` wants; that block is there, and so are those.
#[inline(always)]
unsafe fn decrypt_piece<V: Blocks, const ROUNDS: usize, const COUNT: usize>(keys: &RoundKeys, at: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        let whitening = V::broadcast(keys.of(0).as_ptr());
        let mut open: [V; COUNT] =
            std::array::from_fn(|i| V::xor(V::load(at.add(BLOCK + V::OCTETS * i)), whitening));
        for round in 1..ROUNDS {
            let round_key = V::broadcast(keys.of(round).as_ptr());
            for blocks in &mut open {
                *blocks = V::decrypt_round(*blocks, round_key);
            }
        }
        let last = V::broadcast(keys.of(ROUNDS).as_ptr());
        for (i, blocks) in open.into_iter().enumerate().rev() {
            let before = V::load(at.add(V::OCTETS * i));
            V::store(at.add(BLOCK + V::OCTETS * i), V::decrypt_last(blocks, V::xor(last, before)));
        }
    }
}
