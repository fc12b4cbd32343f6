//! The packets of a burst that wait for a kernel, put together so that its lanes are full.
//!
//! [`Fours`] is for AES-GCM, whose kernel wants four packets and does not care for their lengths: they go through while
//! they are still in the nearest cache. [`Queue`] is for kernels that want the whole burst, sorted by length.

use arrayvec::ArrayVec;
use subtle::ConstantTimeEq;

use super::{TAG_LEN, cbc, chacha, gcm, mac};
use crate::transform::{HEADER_LEN, Transform};

/// Packets that a queue takes.
pub(crate) const BURST: usize = 256;
/// Packets that any kernel works on side by side.
const WIDEST: usize = 16;

/// A packet for an AEAD: its text, in place, and what goes with it.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only kernels read all of it"))]
pub(crate) struct AeadJob<'a, Key> {
    /// Which packet of the burst it is.
    pub(crate) position: usize,
    /// The key.
    pub(crate) key: &'a Key,
    /// Salt and IV.
    pub(crate) nonce: [u8; 12],
    /// Associated data, zeros behind it.
    pub(crate) aad: [u8; 16],
    /// Octets of it, 1 to 16.
    pub(crate) aad_len: u8,
    /// What is encrypted or decrypted.
    pub(crate) text: &'a mut [u8],
    /// The tag: written when sealing, compared when opening.
    pub(crate) tag: &'a mut [u8; TAG_LEN],
    /// Whether the tag that came is right.
    pub(crate) authentic: bool,
}

/// A packet for AES-GCM.
pub(crate) type GcmJob<'a> = AeadJob<'a, gcm::Key>;
/// A packet for ChaCha20-Poly1305.
pub(crate) type ChaChaJob<'a> = AeadJob<'a, chacha::Key>;

/// A packet for HMAC, and for AES-CBC unless its SA does not encrypt.
pub(crate) struct LanesJob<'a> {
    /// Which packet of the burst it is.
    pub(crate) position: usize,
    /// The keys of the kernels.
    pub(crate) cbc: Option<&'a cbc::Key>,
    /// The keys of the kernels.
    pub(crate) mac: &'a mac::Key,
    /// The same SA for when there are too few packets to fill the lanes.
    pub(crate) alone: &'a Transform,
    /// From the SPI to the end of the ICV.
    pub(crate) esp: &'a mut [u8],
    /// The sequence number, for the IV of a packet that is sealed.
    pub(crate) seq: u64,
    /// Its high half, when extended.
    pub(crate) seq_high: Option<u32>,
    /// Whether the ICV that came is right.
    pub(crate) authentic: bool,
}

impl LanesJob<'_> {
    /// What may go through the kernels together, and of that the longest first: lanes that end together are not idle.
    fn order(&self) -> (mac::Hash, usize, std::cmp::Reverse<usize>) {
        (self.mac.hash(), self.cbc.map_or(0, cbc::Key::rounds), std::cmp::Reverse(self.esp.len()))
    }

    /// Where the ICV begins.
    fn icv(&self) -> usize {
        self.esp.len() - self.alone.icv_len()
    }
}

/// Packets for AES-GCM, which wait until there are four of a key length.
#[derive(Default)]
pub(crate) struct Fours<'a> {
    /// By the rounds of the key, 10, 12 and 14, and whether the text is short.
    waiting: [ArrayVec<GcmJob<'a>, { gcm::WIDTH }>; 6],
    /// A bit for the position of each packet that was authentic.
    authentic: u64,
}

impl<'a> Fours<'a> {
    /// Takes one more to encrypt.
    #[inline(always)]
    pub(crate) fn seal(&mut self, job: GcmJob<'a>) {
        let waiting = &mut self.waiting[place(&job)];
        waiting.push(job);
        if waiting.is_full() {
            gcm::seal(waiting);
            waiting.clear();
        }
    }

    /// Encrypts what is left.
    pub(crate) fn seal_rest(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| gcm::seal(waiting));
    }

    /// Takes one more to decrypt, of a position below 64.
    #[inline(always)]
    pub(crate) fn open(&mut self, job: GcmJob<'a>) {
        let waiting = &mut self.waiting[place(&job)];
        waiting.push(job);
        if waiting.is_full() {
            self.authentic |= opened(waiting);
            waiting.clear();
        }
    }

    /// Decrypts what is left, and tells the positions of those that were authentic as bits; of the others no text is left.
    pub(crate) fn open_rest(&mut self) -> u64 {
        self.waiting.iter_mut().fold(self.authentic, |authentic, waiting| authentic | opened(waiting))
    }
}

/// Where a packet waits for others that go through with it.
#[inline]
fn place(job: &GcmJob<'_>) -> usize {
    let by_rounds = match job.key.rounds() {
        10 => 0,
        12 => 2,
        _ => 4,
    };
    by_rounds + usize::from(job.text.len() > gcm::SHORT)
}

fn opened(waiting: &mut [GcmJob<'_>]) -> u64 {
    gcm::open(waiting);
    waiting.iter().fold(0, |bits, job| bits | u64::from(job.authentic) << job.position)
}

/// The packets of a burst that wait.
#[derive(Default)]
pub(crate) struct Queue<'a> {
    chacha: ArrayVec<ChaChaJob<'a>, BURST>,
    lanes: ArrayVec<LanesJob<'a>, BURST>,
    /// Packets at the end of `lanes` that are of one kind and length.
    alike: usize,
    /// A bit for the position of each packet that was authentic.
    authentic: [u64; BURST / 64],
}

impl<'a> Queue<'a> {
    /// Takes one more; there are never more than a burst has packets.
    pub(crate) fn push_chacha(&mut self, job: ChaChaJob<'a>) {
        self.chacha.push(job);
    }

    /// As [`Queue::push_chacha`], to seal it. Packets of one length that fill the lanes are sealed at once, while they are
    /// near; those that come in all lengths wait to be sorted.
    pub(crate) fn seal_in_lanes(&mut self, job: LanesJob<'a>) {
        let from = self.push_lanes(job);
        if self.alike == WIDEST {
            seal_lanes(&mut self.lanes[from..]);
            self.lanes.truncate(from);
            self.alike = 0;
        }
    }

    /// As [`Queue::seal_in_lanes`], to open it.
    pub(crate) fn open_in_lanes(&mut self, job: LanesJob<'a>) {
        let from = self.push_lanes(job);
        if self.alike == WIDEST {
            open_lanes(&mut self.lanes[from..]);
            self.note(from);
            self.lanes.truncate(from);
            self.alike = 0;
        }
    }

    /// Takes one more, and gives where the ones that are like it begin.
    fn push_lanes(&mut self, job: LanesJob<'a>) -> usize {
        let is_like = |last: &LanesJob<'_>| last.order() == job.order();
        self.alike = if self.lanes.last().is_some_and(is_like) { self.alike + 1 } else { 1 };
        self.lanes.push(job);
        self.lanes.len() - self.alike
    }

    /// Notes which are authentic of the packets for lanes from `from` on.
    fn note(&mut self, from: usize) {
        for job in &self.lanes[from..] {
            self.authentic[job.position / 64] |= u64::from(job.authentic) << (job.position % 64);
        }
    }

    /// Encrypts all texts that are left and writes their tags and ICVs.
    pub(crate) fn seal(&mut self) {
        self.sort();
        chacha::seal(&mut self.chacha);
        each_group(&mut self.lanes, seal_lanes, |job| job.alone.seal(job.esp, job.seq, job.seq_high));
    }

    /// Decrypts the texts that are left and authentic, and tells the positions of all authentic packets; what is not leaves
    /// no text.
    pub(crate) fn open(&mut self, mut authentic: impl FnMut(usize)) {
        self.sort();
        chacha::open(&mut self.chacha);
        each_group(&mut self.lanes, open_lanes, |job| {
            job.authentic = job.alone.open(job.esp, job.seq_high);
        });
        self.chacha.iter().filter(|job| job.authentic).for_each(|job| authentic(job.position));
        self.note(0);
        for position in 0..BURST {
            if self.authentic[position / 64] >> (position % 64) & 1 == 1 {
                authentic(position);
            }
        }
    }

    fn sort(&mut self) {
        // The longest first: lanes that end together are not idle.
        let length = |job: &ChaChaJob<'_>| std::cmp::Reverse(job.text.len());
        if !self.chacha.is_sorted_by_key(length) {
            self.chacha.sort_unstable_by_key(length);
        }
        if !self.lanes.is_sorted_by_key(LanesJob::order) {
            self.lanes.sort_unstable_by_key(LanesJob::order);
        }
    }
}

/// Gives groups to `together`, and what has a group of its own to `alone`: RustCrypto is faster there than lanes of which one
/// is in use.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(unused_variables, reason = "without kernels there are no jobs")
)]
fn each_group<'a>(
    jobs: &mut [LanesJob<'a>],
    together: impl Fn(&mut [LanesJob<'a>]),
    mut alone: impl FnMut(&mut LanesJob<'a>),
) {
    for same in jobs.chunk_by_mut(|a, b| (a.order().0, a.order().1) == (b.order().0, b.order().1)) {
        for group in same.chunks_mut(WIDEST) {
            match group {
                [lone] => alone(lone),
                _ => together(group),
            }
        }
    }
}

fn seal_lanes(group: &mut [LanesJob<'_>]) {
    let texts = group.iter_mut().filter_map(|job| {
        let (icv, key) = (job.icv(), job.cbc?);
        let blocks = &mut job.esp[HEADER_LEN..icv];
        // The IV is the sequence number, encrypted.
        blocks[..8].fill(0);
        blocks[8..16].copy_from_slice(&job.seq.to_be_bytes());
        Some(cbc::Text { key, blocks })
    });
    cbc::encrypt(&mut texts.collect::<ArrayVec<_, WIDEST>>());
    each_part(group, |icv, mac| {
        for (octets, mac) in icv.as_chunks_mut::<4>().0.iter_mut().zip(mac.as_chunks().0) {
            *octets = *mac;
        }
    });
}

fn open_lanes(group: &mut [LanesJob<'_>]) {
    let mut right = ArrayVec::<bool, WIDEST>::new();
    each_part(group, |icv, mac| {
        // By words: octet by octet, a comparison in constant time takes as long as a block of a hash.
        let words = icv.as_chunks::<4>().0.iter().zip(mac.as_chunks().0);
        let differ =
            words.fold(0, |differ, (a, b)| differ | (u32::from_ne_bytes(*a) ^ u32::from_ne_bytes(*b)));
        right.push(differ.ct_eq(&0).into());
    });
    for (job, right) in group.iter_mut().zip(right) {
        job.authentic = right;
        let icv = job.icv();
        if let (true, Some(key)) = (right, job.cbc) {
            cbc::decrypt(key, &mut job.esp[HEADER_LEN..icv]);
        }
    }
}

/// Authenticates packets, and gives the ICV of each, whose length is a multiple of four octets, and its whole MAC to `with`.
fn each_part(group: &mut [LanesJob<'_>], mut with: impl FnMut(&mut [u8], &[u8; mac::MAC_LEN])) {
    for part in group.chunks_mut(lanes(group)) {
        let (mut messages, mut icvs) = (ArrayVec::<_, WIDEST>::new(), ArrayVec::<_, WIDEST>::new());
        for job in part {
            let (octets, icv) = job.esp.split_at_mut(job.esp.len() - job.alone.icv_len());
            let more = job.seq_high.map(u32::to_be_bytes);
            messages.push(mac::Message { key: job.mac, octets, more, mac: [0; mac::MAC_LEN] });
            icvs.push(icv);
        }
        mac::authenticate(&mut messages);
        for (message, icv) in messages.iter().zip(&mut icvs) {
            assert!(icv.len().is_multiple_of(4), "every octet of an ICV is in a word");
            with(icv, &message.mac);
        }
    }
}

fn lanes(group: &[LanesJob<'_>]) -> usize {
    group.first().map_or(1, |job| job.mac.lanes())
}
