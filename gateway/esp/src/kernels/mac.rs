//! HMAC (RFC 2104) over many messages side by side, from states that both hashes start from: one message to a lane, or
//! where most lanes would be idle two by two with the instructions that the processor has for the hash.

use std::arch::x86_64::{__m128i, __m256i, __m512i};

use sha1::block_api::compress as compress_sha1;
use sha2::block_api::{compress256, compress512};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    Backend,
    sha::{Lanes, MAX_BLOCK, MAX_LANES, MAX_WORDS, Sha1, Sha256, Sha512},
    sha_ni::{self, Instructions},
    vector::Vector,
};
use crate::sa::Auth;

/// Octets of the longest MAC.
pub(super) const MAC_LEN: usize = 64;
/// FIPS 180-4 section 5.3.3.
const SHA1: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
/// FIPS 180-4 section 5.3.5, whose upper halves are those of SHA-256.
const SHA512: [u64; MAX_WORDS] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];
/// FIPS 180-4 section 5.3.4: SHA-384 is SHA-512 from another state, cut.
const SHA384: [u64; MAX_WORDS] = [
    0xcbbb_9d5d_c105_9ed8,
    0x629a_292a_367c_d507,
    0x9159_015a_3070_dd17,
    0x152f_ecd8_f70e_5939,
    0x6733_2667_ffc0_0b31,
    0x8eb4_4a87_6858_1511,
    0xdb0c_2e0d_64f9_8fa7,
    0x47b5_481d_befa_4fa4,
];

/// Octets of the widest register.
const MAX_ROW: usize = __m512i::OCTETS;

/// The hash functions that have lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// Whether the processor has instructions for it.
    pub(super) fn has_instructions(self) -> bool {
        matches!(self, Hash::Sha1 | Hash::Sha256) && sha_ni::is_available()
    }

    /// Octets of a block.
    fn block_len(self) -> usize {
        match self {
            Hash::Sha1 | Hash::Sha256 => Sha1::BLOCK,
            Hash::Sha384 | Hash::Sha512 => Sha512::BLOCK,
        }
    }

    /// Octets of a word.
    fn word_len(self) -> usize {
        match self {
            Hash::Sha1 | Hash::Sha256 => Sha1::WORD,
            Hash::Sha384 | Hash::Sha512 => Sha512::WORD,
        }
    }

    /// The state before the first block.
    fn initial(self) -> [u64; MAX_WORDS] {
        match self {
            Hash::Sha1 => std::array::from_fn(|word| SHA1.get(word).copied().map_or(0, u64::from)),
            Hash::Sha256 => SHA512.map(|word| word >> 32),
            Hash::Sha384 => SHA384,
            Hash::Sha512 => SHA512,
        }
    }

    /// The state after one block, the first octets of `block`.
    fn absorb(self, block: &[u8; MAX_BLOCK]) -> [u64; MAX_WORDS] {
        let mut state = self.initial();
        match self {
            Hash::Sha1 => {
                let mut narrow = std::array::from_fn(|word| state[word] as u32);
                compress_sha1(&mut narrow, &block.as_chunks().0[..1]);
                state.iter_mut().zip(narrow).for_each(|(word, new)| *word = u64::from(new));
            }
            Hash::Sha256 => {
                let mut narrow = state.map(|word| word as u32);
                compress256(&mut narrow, &block.as_chunks().0[..1]);
                state = narrow.map(u64::from);
            }
            Hash::Sha384 | Hash::Sha512 => compress512(&mut state, &[*block]),
        }
        state
    }
}

/// A key, as the states after its first blocks. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Key {
    #[zeroize(skip)]
    hash: Hash,
    #[zeroize(skip)]
    backend: Backend,
    inner: [u64; MAX_WORDS],
    outer: [u64; MAX_WORDS],
}

/// One message, and where its MAC goes.
pub(super) struct Message<'a> {
    pub(super) key: &'a Key,
    /// What is authenticated, but for the octets of `more`.
    pub(super) octets: &'a [u8],
    /// The high half of an extended sequence number.
    pub(super) more: Option<[u8; 4]>,
    /// The whole MAC, of which its algorithm takes the first octets.
    pub(super) mac: [u8; MAC_LEN],
}

impl Message<'_> {
    fn len(&self) -> usize {
        self.octets.len() + self.more.map_or(0, |more| more.len())
    }

    /// Blocks of `block_len` octets that the inner hash takes after the key's: with the padding, which is one octet and
    /// the length, an eighth of a block (FIPS 180-4 section 5.1).
    #[inline(always)]
    fn blocks(&self, block_len: usize) -> usize {
        (self.len() + 1 + block_len / 8).div_ceil(block_len)
    }
}

impl Key {
    /// Absorbs a key of the algorithm's length for the lanes of `backend`; `None` for an algorithm without lanes there, or
    /// where the processor has no such backend.
    pub(crate) fn new(backend: Backend, auth: Auth, key: &[u8]) -> Option<Box<Self>> {
        let hash = match auth {
            Auth::HmacSha1_96 => Hash::Sha1,
            Auth::HmacSha256_128 => Hash::Sha256,
            Auth::HmacSha384_192 => Hash::Sha384,
            Auth::HmacSha512_256 => Hash::Sha512,
            Auth::None | Auth::HmacMd5_96 => return None,
        };
        // Two lanes are no faster than one message in general registers.
        let has_lanes = match backend {
            Backend::Avx512 | Backend::Avx2 => true,
            Backend::AesNi => hash.word_len() == Sha1::WORD,
            Backend::Portable => false,
        };
        if key.len() > hash.block_len() || !has_lanes || !backend.is_available() {
            return None;
        }
        let absorbed = |pad: u8| {
            let mut block = [pad; MAX_BLOCK];
            block.iter_mut().zip(key).for_each(|(octet, key)| *octet ^= key);
            let state = hash.absorb(&block);
            block.zeroize();
            state
        };
        Some(Box::new(Self { hash, backend, inner: absorbed(0x36), outer: absorbed(0x5c) }))
    }

    pub(super) fn hash(&self) -> Hash {
        self.hash
    }

    /// Messages side by side.
    pub(super) fn lanes(&self) -> usize {
        let octets = match self.backend {
            Backend::Avx512 => __m512i::OCTETS,
            Backend::Avx2 => __m256i::OCTETS,
            Backend::AesNi | Backend::Portable => __m128i::OCTETS,
        };
        octets / self.hash.word_len()
    }

    /// So many messages of one length take as long by the processor's instructions as any number does in lanes.
    fn break_even(&self) -> usize {
        match (self.hash, self.backend) {
            (Hash::Sha1, Backend::Avx512) => 5,
            (Hash::Sha1, Backend::Avx2) => 6,
            (Hash::Sha256, Backend::Avx512) => 8,
            _ => MAX_LANES,
        }
    }
}

/// Writes the MACs of messages, as many as their keys have lanes at most, which all are for one hash and backend.
pub(super) fn authenticate(messages: &mut [Message<'_>]) {
    let Some(Message { key, .. }) = messages.first() else { return };
    let hash = key.hash;
    // Lanes take as long as the longest message, instructions as all together.
    let are_few = || {
        let blocks = messages.iter().map(|message| message.blocks(Sha1::BLOCK));
        let (longest, all) =
            blocks.fold((0, 0), |(longest, all), blocks| (blocks.max(longest), all + blocks));
        all <= longest * key.break_even()
    };
    if hash.has_instructions() && are_few() {
        by_instructions(messages);
    } else {
        in_lanes(messages);
    }
}

/// As [`authenticate`], one message to a lane.
pub(super) fn in_lanes(messages: &mut [Message<'_>]) {
    let Some(Message { key, .. }) = messages.first() else { return };
    let (hash, backend) = (key.hash, key.backend);
    assert!(messages.len() <= key.lanes(), "one lane for each message");
    assert!(messages.iter().all(|message| message.key.hash == hash && message.key.backend == backend));
    // SAFETY: a key exists only where its backend does; number, hashes and backends were just looked at.
    unsafe {
        match (hash, backend) {
            (Hash::Sha1, Backend::Avx512) => run_512::<Sha1>(messages),
            (Hash::Sha1, Backend::Avx2) => run_256::<Sha1>(messages),
            (Hash::Sha1, _) => run_128::<Sha1>(messages),
            (Hash::Sha256, Backend::Avx512) => run_512::<Sha256>(messages),
            (Hash::Sha256, Backend::Avx2) => run_256::<Sha256>(messages),
            (Hash::Sha256, _) => run_128::<Sha256>(messages),
            (_, Backend::Avx512) => run_512::<Sha512>(messages),
            (_, _) => run_256::<Sha512>(messages),
        }
    }
}

/// As [`authenticate`], two by two, with the instructions that the processor has for SHA-1 and SHA-256.
pub(super) fn by_instructions(messages: &mut [Message<'_>]) {
    let Some(first) = messages.first() else { return };
    let hash = first.key.hash;
    assert!(hash.has_instructions() && messages.iter().all(|message| message.key.hash == hash));
    // SAFETY: the instructions are there, as was just asked.
    unsafe {
        match hash {
            Hash::Sha1 => alternate::<sha_ni::Sha1>(messages),
            _ => alternate::<sha_ni::Sha256>(messages),
        }
    }
}

/// # Safety
/// As [`run`], on a processor with these instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn run_512<H: Lanes>(messages: &mut [Message<'_>]) {
    // SAFETY: the caller's promise.
    unsafe { run::<H, __m512i>(messages) }
}

/// # Safety
/// As [`run`], on a processor with these instructions.
#[target_feature(enable = "avx2")]
unsafe fn run_256<H: Lanes>(messages: &mut [Message<'_>]) {
    // SAFETY: the caller's promise.
    unsafe { run::<H, __m256i>(messages) }
}

/// # Safety
/// As [`run`], on a processor with these instructions.
#[target_feature(enable = "ssse3,sse4.1")]
unsafe fn run_128<H: Lanes>(messages: &mut [Message<'_>]) {
    // SAFETY: the caller's promise.
    unsafe { run::<H, __m128i>(messages) }
}

/// Writes the end of `message`, what is left of it after its whole blocks, and the padding, into `tail`: zeros, three
/// blocks of `block_len` octets, of which the first is not the end's. Gives the blocks before it, and those with it.
#[inline(always)]
fn write_tail(tail: &mut [u8], message: &Message<'_>, block_len: usize) -> (usize, usize) {
    let octets = message.octets;
    let (whole, rest) = (octets.len() / block_len, octets.len() % block_len);
    match octets.len().checked_sub(block_len) {
        // A whole block is copied in a few instructions: what belongs before the end goes into the first one.
        Some(from) => tail[rest..rest + block_len].copy_from_slice(&octets[from..from + block_len]),
        None => tail[block_len..block_len + rest].copy_from_slice(octets),
    }
    let mut end = block_len + rest;
    if let Some(more) = message.more {
        tail[end..end + more.len()].copy_from_slice(&more);
        end += more.len();
    }
    tail[end] = 0x80;
    let blocks = message.blocks(block_len);
    let last = (1 + blocks - whole) * block_len;
    let bits = 8 * (block_len + message.len()) as u64;
    tail[last - 8..last].copy_from_slice(&bits.to_be_bytes());
    (whole, blocks)
}

/// A state of every lane, each from its key.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn states<H: Lanes, V: Vector>(
    keys: &[&Key; MAX_LANES],
    of: impl Fn(&Key) -> &[u64; MAX_WORDS],
) -> [V; MAX_WORDS] {
    // SAFETY: the caller's promise.
    unsafe {
        if keys.iter().all(|key| std::ptr::eq(*key, keys[0])) {
            of(keys[0]).map(|word| H::splat(word))
        } else {
            std::array::from_fn(|word| H::spread(keys.map(|key| of(key)[word])))
        }
    }
}

/// Writes the MACs of messages, one to a lane.
///
/// # Safety
/// The processor has what `V` wants, there is at least one message and no more than lanes, and all are for this hash.
#[inline(always)]
unsafe fn run<H: Lanes, V: Vector>(messages: &mut [Message<'_>]) {
    let mut tails = [const { H::TAIL }; MAX_LANES];
    let mut whole = [0; MAX_LANES];
    let mut blocks = [0; MAX_LANES];
    for (lane, message) in messages.iter().enumerate() {
        (whole[lane], blocks[lane]) = write_tail(tails[lane].as_mut(), message, H::BLOCK);
    }
    let longest = blocks.iter().copied().max().unwrap_or(0);
    let keys = std::array::from_fn(|lane| messages[if lane < messages.len() { lane } else { 0 }].key);

    // SAFETY: the caller's promise. Where a block is loaded there is one, of the message or of its tail.
    unsafe {
        let mut state: [V; MAX_WORDS] = states::<H, V>(&keys, |key| &key.inner);
        let mut at: [*const u8; MAX_LANES] = std::array::from_fn(|lane| tails[lane].as_ref().as_ptr());
        let mut ahead = [0; MAX_LANES];
        let mut ended = 0;
        let mut change = 0;
        for block in 0..=longest {
            let words = if block < longest {
                if block == change {
                    // A lane goes over from its message to the tail, or has come to its end.
                    change = longest;
                    for (lane, message) in messages.iter().enumerate() {
                        let tail = tails[lane].as_ref();
                        let until = if block < whole[lane] {
                            at[lane] = message.octets[block * H::BLOCK..].as_ptr();
                            whole[lane]
                        } else if block < blocks[lane] {
                            at[lane] = tail[(1 + block - whole[lane]) * H::BLOCK..].as_ptr();
                            blocks[lane]
                        } else {
                            at[lane] = tail.as_ptr();
                            ended |= 1 << lane;
                            longest
                        };
                        ahead[lane] = if ended >> lane & 1 == 0 { H::BLOCK } else { 0 };
                        change = change.min(until);
                    }
                }
                let words = H::load::<V>(&at);
                for (at, ahead) in at.iter_mut().zip(&ahead) {
                    *at = at.wrapping_add(*ahead);
                }
                words
            } else {
                // The outer hash is over the inner one alone, whose words are where they are wanted already.
                let inner_words = if keys[0].hash == Hash::Sha384 { 6 } else { H::WORDS };
                let mut words = [V::zero(); 16];
                words[..inner_words].copy_from_slice(&state[..inner_words]);
                words[inner_words] = H::splat(1 << (8 * H::WORD - 1));
                words[15] = H::splat(8 * (H::BLOCK + inner_words * H::WORD) as u64);
                state = states::<H, V>(&keys, |key| &key.outer);
                ended = 0;
                words
            };
            let before = state;
            H::compress(&mut state, words);
            if ended != 0 {
                for (state, before) in state.iter_mut().zip(before) {
                    *state = H::select(ended, before, *state);
                }
            }
        }

        let mut rows = [[0; MAX_ROW]; MAX_WORDS];
        for (row, words) in rows.iter_mut().zip(state) {
            V::store(row.as_mut_ptr(), words);
        }
        for (lane, message) in messages.iter_mut().enumerate() {
            for (word, row) in rows[..H::WORDS].iter().enumerate() {
                if H::WORD == 4 {
                    let octets = u32::from_le_bytes(row.as_chunks().0[lane]).to_be_bytes();
                    message.mac.as_chunks_mut().0[word] = octets;
                } else {
                    let octets = u64::from_le_bytes(row.as_chunks().0[lane]).to_be_bytes();
                    message.mac.as_chunks_mut().0[word] = octets;
                }
            }
        }
    }
}

/// # Safety
/// The processor has the instructions, and the messages are for this hash.
#[target_feature(enable = "sha,ssse3,sse4.1")]
unsafe fn alternate<H: Instructions>(messages: &mut [Message<'_>]) {
    sha_ni::clear_upper();
    for few in messages.chunks_mut(sha_ni::MOST) {
        // SAFETY: the caller's promise.
        unsafe {
            match few {
                [one, two] => macs::<H, 2>([one, two]),
                few => few.iter_mut().for_each(|one| macs::<H, 1>([one])),
            }
        }
    }
}

/// # Safety
/// The processor has the instructions, and the messages are for this hash.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
unsafe fn macs<H: Instructions, const N: usize>(messages: [&mut Message<'_>; N]) {
    let mut tails = [Sha1::TAIL; N];
    let mut whole = [0; N];
    let mut blocks = [0; N];
    for (i, message) in messages.iter().enumerate() {
        (whole[i], blocks[i]) = write_tail(&mut tails[i], message, sha_ni::BLOCK);
    }
    let block = |i: usize, number: usize| -> &[u8; sha_ni::BLOCK] {
        let (octets, number) = if number < whole[i] {
            (messages[i].octets, number)
        } else {
            (&tails[i][..], 1 + number - whole[i])
        };
        &octets.as_chunks().0[number]
    };
    let shortest = blocks.iter().copied().min().unwrap_or(0);
    // SAFETY: the caller's promise.
    unsafe {
        let mut states: [H::State; N] = std::array::from_fn(|i| H::state(&messages[i].key.inner));
        // In a place of its own, which is never indexed by a variable, the state stays in registers.
        let mut running = states;
        for number in 0..shortest {
            H::compress(&mut running, std::array::from_fn(|i| block(i, number)));
        }
        states = running;
        for (i, state) in states.iter_mut().enumerate() {
            let mut alone = [*state];
            for number in shortest..blocks[i] {
                H::compress(&mut alone, [block(i, number)]);
            }
            [*state] = alone;
        }

        // The outer hash is over the inner one alone.
        let digests = states.map(|state| {
            let mut block = [0; sha_ni::BLOCK];
            octets_of::<H>(state, &mut block);
            block[4 * H::WORDS] = 0x80;
            let bits = 8 * (sha_ni::BLOCK + 4 * H::WORDS) as u64;
            block[sha_ni::BLOCK - 8..].copy_from_slice(&bits.to_be_bytes());
            block
        });
        let mut states: [H::State; N] = std::array::from_fn(|i| H::state(&messages[i].key.outer));
        H::compress(&mut states, digests.each_ref());
        for (message, state) in messages.into_iter().zip(states) {
            octets_of::<H>(state, &mut message.mac);
        }
    }
}

/// Writes what a hash with this state is.
///
/// # Safety
/// The processor has the instructions.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
unsafe fn octets_of<H: Instructions>(state: H::State, to: &mut [u8; 64]) {
    // SAFETY: the caller's promise.
    let words = unsafe { H::words(state) };
    for (octets, word) in to.as_chunks_mut().0.iter_mut().zip(&words[..H::WORDS]) {
        *octets = word.to_be_bytes();
    }
}
