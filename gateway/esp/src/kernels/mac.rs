//! HMAC (RFC 2104) over many messages side by side, from states that both hashes start from: one message to a lane, or
//! where most lanes would be idle two by two with the instructions that the processor has for the hash.

use std::arch::x86_64::*;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    gcm,
    sha::{
        Lanes, MAX_BLOCK, MAX_LANES, MAX_WORDS, Sha1, Sha256, Sha512, State, Words, transposed_u32,
        transposed_u64,
    },
    sha_ni::{self, Instructions},
};
use crate::sa::Auth;

/// Octets of the longest MAC.
pub(super) const MAC_LEN: usize = 64;
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

/// The hash functions that have lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// Messages side by side.
    pub(super) fn lanes(self) -> usize {
        match self {
            Hash::Sha1 | Hash::Sha256 => Sha1::LANES,
            Hash::Sha384 | Hash::Sha512 => Sha512::LANES,
        }
    }

    /// Whether the processor has instructions for it.
    pub(super) fn has_instructions(self) -> bool {
        matches!(self, Hash::Sha1 | Hash::Sha256) && sha_ni::is_available()
    }

    /// So many messages of one length take as long by the processor's instructions as any number does in lanes.
    fn break_even(self) -> usize {
        match self {
            Hash::Sha1 => 5,
            Hash::Sha256 => 8,
            Hash::Sha384 | Hash::Sha512 => 0,
        }
    }

    /// Octets of a block.
    pub(super) fn block_len(self) -> usize {
        match self {
            Hash::Sha1 | Hash::Sha256 => Sha1::BLOCK,
            Hash::Sha384 | Hash::Sha512 => Sha512::BLOCK,
        }
    }
}

/// A key, as the states after its first blocks. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Key {
    #[zeroize(skip)]
    hash: Hash,
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
    fn blocks(&self, block_len: usize) -> usize {
        (self.len() + 1 + block_len / 8).div_ceil(block_len)
    }
}

impl Key {
    /// Absorbs a key of the algorithm's length; `None` for an algorithm without lanes, or where the processor cannot.
    pub(crate) fn new(auth: Auth, key: &[u8]) -> Option<Box<Self>> {
        let hash = match auth {
            Auth::HmacSha1_96 => Hash::Sha1,
            Auth::HmacSha256_128 => Hash::Sha256,
            Auth::HmacSha384_192 => Hash::Sha384,
            Auth::HmacSha512_256 => Hash::Sha512,
            Auth::None | Auth::HmacMd5_96 => return None,
        };
        if key.len() > hash.block_len() || !gcm::is_available() {
            return None;
        }
        let absorbed = |pad: u8| {
            let mut block = [pad; MAX_BLOCK];
            block.iter_mut().zip(key).for_each(|(octet, key)| *octet ^= key);
            // SAFETY: the instructions are there, as was just asked.
            let state = unsafe {
                match hash {
                    Hash::Sha1 => absorb::<Sha1>(Sha1::INITIAL, &block),
                    Hash::Sha256 => absorb::<Sha256>(Sha256::INITIAL, &block),
                    Hash::Sha384 => absorb::<Sha512>(SHA384, &block),
                    Hash::Sha512 => absorb::<Sha512>(Sha512::INITIAL, &block),
                }
            };
            block.zeroize();
            state
        };
        Some(Box::new(Self { hash, inner: absorbed(0x36), outer: absorbed(0x5c) }))
    }

    pub(super) fn hash(&self) -> Hash {
        self.hash
    }
}

/// Writes the MACs of messages, as many as the hash has lanes at most, whose keys all are for one hash.
pub(super) fn authenticate(messages: &mut [Message<'_>]) {
    let Some(first) = messages.first() else { return };
    let hash = first.key.hash;
    // Lanes take as long as the longest message, instructions as all together.
    let blocks = messages.iter().map(|message| message.blocks(hash.block_len()));
    let (longest, all) = blocks.fold((0, 0), |(longest, all), blocks| (blocks.max(longest), all + blocks));
    if hash.has_instructions() && all <= longest * hash.break_even() {
        by_instructions(messages);
    } else {
        in_lanes(messages);
    }
}

/// As [`authenticate`], one message to a lane.
pub(super) fn in_lanes(messages: &mut [Message<'_>]) {
    let Some(first) = messages.first() else { return };
    let hash = first.key.hash;
    assert!(messages.len() <= hash.lanes() && messages.iter().all(|message| message.key.hash == hash));
    // SAFETY: a key exists only where the instructions do; number and hashes were just looked at.
    unsafe {
        match hash {
            Hash::Sha1 => run::<Sha1>(messages),
            Hash::Sha256 => run::<Sha256>(messages),
            Hash::Sha384 | Hash::Sha512 => run::<Sha512>(messages),
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

/// A word of every lane, from the lanes' states.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn spread<H: Lanes>(word: impl Fn(usize) -> u64) -> __m512i {
    // SAFETY: 64 octets are read from arrays of 64.
    unsafe {
        if H::WORD == 4 {
            let words: [u32; 16] = std::array::from_fn(|lane| word(lane) as u32);
            _mm512_loadu_si512(words.as_ptr().cast())
        } else {
            let words: [u64; 8] = std::array::from_fn(word);
            _mm512_loadu_si512(words.as_ptr().cast())
        }
    }
}

/// The state after one block, from `initial`.
///
/// # Safety
/// The processor has the instructions.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn absorb<H: Lanes>(initial: [u64; MAX_WORDS], block: &[u8; MAX_BLOCK]) -> [u64; MAX_WORDS] {
    let mut state: State = std::array::from_fn(|word| spread::<H>(|_| initial[word]));
    // SAFETY: the block has MAX_BLOCK octets.
    unsafe { H::compress(&mut state, H::load(&[block.as_ptr(); MAX_LANES])) };
    state.map(|word| {
        let low = _mm_cvtsi128_si64(_mm512_castsi512_si128(word)) as u64;
        if H::WORD == 4 { low & 0xffff_ffff } else { low }
    })
}

/// The end of a message: what is left of it after its whole blocks, and the padding.
#[repr(align(64))]
struct Tail([u8; 2 * MAX_BLOCK]);

impl Tail {
    const EMPTY: Self = Self([0; 2 * MAX_BLOCK]);

    /// Writes the end of `message`, for blocks of `block_len` octets, over an empty one. Gives the blocks before it, and
    /// those with it.
    #[inline]
    fn write(&mut self, message: &Message<'_>, block_len: usize) -> (usize, usize) {
        let tail = &mut self.0;
        let whole = message.octets.len() / block_len;
        let rest = &message.octets[whole * block_len..];
        tail[..rest.len()].copy_from_slice(rest);
        let mut end = rest.len();
        if let Some(more) = message.more {
            tail[end..end + more.len()].copy_from_slice(&more);
            end += more.len();
        }
        tail[end] = 0x80;
        let blocks = message.blocks(block_len);
        let last = (blocks - whole) * block_len;
        let bits = 8 * (block_len + message.len()) as u64;
        tail[last - 8..last].copy_from_slice(&bits.to_be_bytes());
        (whole, blocks)
    }
}

/// # Safety
/// The processor has the instructions, and there are 1 to `H::LANES` messages for this hash.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn run<H: Lanes>(messages: &mut [Message<'_>]) {
    let mut tails = [const { Tail::EMPTY }; MAX_LANES];
    let mut whole = [0usize; MAX_LANES];
    let mut blocks = [0usize; MAX_LANES];
    for (lane, message) in messages.iter().enumerate() {
        (whole[lane], blocks[lane]) = tails[lane].write(message, H::BLOCK);
    }

    let of = |lane: usize| messages[if lane < messages.len() { lane } else { 0 }].key;
    let mut state: State = std::array::from_fn(|word| spread::<H>(|lane| of(lane).inner[word]));
    let longest = blocks.iter().copied().max().unwrap_or(0);
    for block in 0..longest {
        let at: [*const u8; MAX_LANES] = std::array::from_fn(|lane| {
            if block < whole[lane] {
                messages[lane].octets[block * H::BLOCK..][..H::BLOCK].as_ptr()
            } else if block < blocks[lane] {
                tails[lane].0[(block - whole[lane]) * H::BLOCK..][..H::BLOCK].as_ptr()
            } else {
                tails[lane].0.as_ptr()
            }
        });
        let before = state;
        // SAFETY: at each place there is a block, of the message or of its tail.
        unsafe { H::compress(&mut state, H::load(&at)) };
        let ended = blocks.iter().take(H::LANES).enumerate();
        let ended = ended.fold(0u16, |mask, (lane, end)| mask | u16::from(block >= *end) << lane);
        if ended != 0 {
            for (state, before) in state.iter_mut().zip(before) {
                *state = if H::WORD == 4 {
                    _mm512_mask_mov_epi32(*state, ended, before)
                } else {
                    _mm512_mask_mov_epi64(*state, ended as u8, before)
                };
            }
        }
    }

    // The outer hash is over the inner one alone, whose words are where they are wanted already.
    let mut words: Words = [_mm512_setzero_si512(); 16];
    let inner_words = if of(0).hash == Hash::Sha384 { 6 } else { H::WORDS };
    words[..inner_words].copy_from_slice(&state[..inner_words]);
    words[inner_words] = spread::<H>(|_| if H::WORD == 4 { 0x8000_0000 } else { 1 << 63 });
    words[15] = spread::<H>(|_| 8 * (H::BLOCK + inner_words * H::WORD) as u64);
    let mut state: State = std::array::from_fn(|word| spread::<H>(|lane| of(lane).outer[word]));
    // SAFETY: the caller's promise.
    unsafe { H::compress(&mut state, words) };

    let rows: [__m512i; 16] = if H::WORD == 4 {
        let mut columns = [_mm512_setzero_si512(); 16];
        columns[..MAX_WORDS].copy_from_slice(&state);
        transposed_u32(columns)
    } else {
        let mut rows = [_mm512_setzero_si512(); 16];
        rows[..MAX_WORDS].copy_from_slice(&transposed_u64(state));
        rows
    };
    for (message, row) in messages.iter_mut().zip(rows) {
        let mut octets = [0u8; MAC_LEN];
        // SAFETY: 64 octets are written to an array of 64.
        unsafe { _mm512_storeu_si512(octets.as_mut_ptr().cast(), row) };
        for (mac, word) in message.mac.chunks_exact_mut(H::WORD).zip(octets.chunks_exact(H::WORD)) {
            mac.iter_mut().zip(word.iter().rev()).for_each(|(mac, octet)| *mac = *octet);
        }
    }
}

/// # Safety
/// The processor has the instructions, and the messages are for this hash.
#[target_feature(enable = "avx,sha,ssse3,sse4.1")]
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
#[target_feature(enable = "avx,sha,ssse3,sse4.1")]
unsafe fn macs<H: Instructions, const N: usize>(messages: [&mut Message<'_>; N]) {
    let mut tails = [const { Tail::EMPTY }; N];
    let mut whole = [0; N];
    let mut blocks = [0; N];
    for (i, message) in messages.iter().enumerate() {
        (whole[i], blocks[i]) = tails[i].write(message, sha_ni::BLOCK);
    }
    let block = |i: usize, number: usize| -> &[u8; sha_ni::BLOCK] {
        let (octets, number) = if number < whole[i] {
            (messages[i].octets, number)
        } else {
            (&tails[i].0[..], number - whole[i])
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
#[target_feature(enable = "avx,sha,ssse3,sse4.1")]
unsafe fn octets_of<H: Instructions>(state: H::State, to: &mut [u8; 64]) {
    // SAFETY: the caller's promise.
    let words = unsafe { H::words(state) };
    for (octets, word) in to.as_chunks_mut().0.iter_mut().zip(&words[..H::WORDS]) {
        *octets = word.to_be_bytes();
    }
}
