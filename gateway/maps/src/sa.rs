//! SAD_CONFIG, SAD_STATE and SPI_INDEX: the security association database (RFC 4301 section 4.4.2).
//!
//! One index names an SA in both arrays. `control` writes SAD_CONFIG, workers write SAD_STATE, the XDP program reads
//! only SPI_INDEX and OUTBOUND, which refer to an SA by [`SaRef`]: index and generation.
//!
//! An entry with generation 0 is free or being written. `control` stores 0, writes the entry and the initial state,
//! then stores the new generation; a reader copies the entry between two reads of the same non-zero generation.
//!
//! Where the peer is may change while an SA lives. That keeps the generation, so that no packet on its way is lost, and
//! the state, so that no sequence number comes twice; what changes is the revision, a sequence lock within the entry.

use crate::address::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// SAs that fit unless the data plane is started with another number; a tunnel takes two, four during a rekey.
pub const DEFAULT_CAPACITY: u32 = 8192;

/// Reference to an SA, as SPI_INDEX and OUTBOUND hold it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SaRef {
    /// Index into SAD_CONFIG and SAD_STATE.
    pub index: u32,
    /// Generation of the entry; 0 means no SA.
    pub generation: u32,
}

/// Key of SPI_INDEX: what RFC 4301 section 4.1 looks an inbound unicast SA up by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SpiKey {
    /// Destination of the outer packet: one of our addresses.
    pub destination: Address,
    /// Security parameter index.
    pub spi: u32,
    /// 50 (ESP) or 51 (AH).
    pub protocol: u32,
}

/// Values of [`SadConfig::direction`].
pub mod direction {
    /// Opens packets of the peer.
    pub const INBOUND: u8 = 1;
    /// Seals packets for the peer.
    pub const OUTBOUND: u8 = 2;
}

/// Values of [`SadConfig::cipher`]; key lengths are part of the name.
pub mod cipher {
    /// AH, which encrypts nothing. ESP takes [`NULL`] for that, so that no entry left blank sends clear text.
    pub const NONE: u8 = 0;
    /// AES-CBC (RFC 3602), 128-bit key.
    pub const AES128_CBC: u8 = 1;
    /// AES-CBC, 192-bit key.
    pub const AES192_CBC: u8 = 2;
    /// AES-CBC, 256-bit key.
    pub const AES256_CBC: u8 = 3;
    /// AES-GCM with a 16-byte ICV (RFC 4106), 128-bit key.
    pub const AES128_GCM16: u8 = 4;
    /// AES-GCM with a 16-byte ICV, 192-bit key.
    pub const AES192_GCM16: u8 = 5;
    /// AES-GCM with a 16-byte ICV, 256-bit key.
    pub const AES256_GCM16: u8 = 6;
    /// NULL (RFC 2410), which takes no key.
    pub const NULL: u8 = 7;
    /// DES-CBC (RFC 2405), 64-bit key with its parity bits.
    pub const DES_CBC: u8 = 8;
    /// 3DES-CBC (RFC 2451), 192-bit key with its parity bits.
    pub const TRIPLE_DES_CBC: u8 = 9;
    /// ChaCha20-Poly1305 (RFC 7634), 256-bit key, and a salt as GCM's.
    pub const CHACHA20_POLY1305: u8 = 10;
}

/// Values of [`SadConfig::auth`].
pub mod auth {
    /// The cipher authenticates.
    pub const NONE: u8 = 0;
    /// HMAC-SHA1-96 (RFC 2404).
    pub const HMAC_SHA1_96: u8 = 1;
    /// HMAC-SHA256-128 (RFC 4868).
    pub const HMAC_SHA256_128: u8 = 2;
    /// HMAC-MD5-96 (RFC 2403).
    pub const HMAC_MD5_96: u8 = 3;
    /// HMAC-SHA384-192 (RFC 4868).
    pub const HMAC_SHA384_192: u8 = 4;
    /// HMAC-SHA512-256 (RFC 4868).
    pub const HMAC_SHA512_256: u8 = 5;
}

/// Bits of [`SadConfig::flags`].
pub mod flags {
    /// Extended sequence numbers (RFC 4303 section 2.2.1).
    pub const ESN: u8 = 1;
    /// UDP encapsulation (RFC 3948) with the entry's ports. Of ESP only: a NAT breaks what AH protects.
    pub const UDP: u8 = 2;
}

/// Entry of SAD_CONFIG.
///
/// Holds keys: no `Debug`. Whoever copies it out of the map wipes the copy.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SadConfig {
    /// 0 while the entry is free or being written.
    pub generation: u32,
    /// The generation this entry last had, kept when it is freed so that the next is another.
    pub last_generation: u32,
    /// Counts up whenever the entry changes while its generation lasts; odd while it is being changed.
    pub revision: u32,
    /// Our identifier of the tunnel, for counters and logs.
    pub tunnel: u32,
    /// Security parameter index.
    pub spi: u32,
    /// OUTBOUND slot of the policy that this SA serves.
    pub policy: u32,
    /// Anti-replay window in packets, 0..=4096; 0 is off. Inbound only.
    pub replay_window: u32,
    /// First entry in SELECTORS; the local ones come first.
    pub selectors: u32,
    /// Number of local selectors.
    pub local_selectors: u16,
    /// Number of remote selectors.
    pub remote_selectors: u16,
    /// One of [`direction`].
    pub direction: u8,
    /// 50 (ESP) or 51 (AH).
    pub protocol: u8,
    /// One of [`cipher`].
    pub cipher: u8,
    /// One of [`auth`].
    pub auth: u8,
    /// Our outer address.
    pub local: Address,
    /// The peer's outer address.
    pub peer: Address,
    /// Our UDP port of the encapsulation.
    pub local_port: u16,
    /// The peer's UDP port of the encapsulation.
    pub peer_port: u16,
    /// Largest TCP segment of inner connections in bytes, set in SYNs that pass; 0 derives it from the path MTU.
    pub mss: u16,
    /// Largest outer IP packet in bytes; 0 takes the interface's MTU.
    pub mtu: u16,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Salt of an AEAD's nonce.
    pub salt: [u8; 4],
    /// Cipher key; as many leading bytes as the cipher takes, then zero.
    pub key: [u8; 32],
    /// Integrity key; as many leading bytes as the algorithm takes, then zero.
    pub auth_key: [u8; 64],
    /// Zero, to the next cache line.
    pub reserved2: [u8; 72],
}

impl SadConfig {
    /// 64-bit words of an entry.
    pub const WORDS: usize = size_of::<SadConfig>() / 8;

    /// A free entry.
    pub fn free() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }

    /// Overwrites the keys in this copy.
    #[cfg(any(test, feature = "user"))]
    pub fn wipe(&mut self) {
        use zeroize::Zeroize;
        self.key.zeroize();
        self.auth_key.zeroize();
        self.salt.zeroize();
    }
}

const _: () = assert!(size_of::<SadConfig>() == 256);

/// Words of an SA's replay window in SAD_STATE: 32 packets each, enough for a window of 4096 and a block in motion.
pub const REPLAY_SLOTS: usize = 136;

/// Counters of packets that an SA dropped, by cause; indices into [`SadState`]'s `drops`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropCause {
    /// Outside the anti-replay window, or seen before (RFC 4303 section 3.4.3).
    Replay = 0,
    /// The ICV did not verify.
    Authentication = 1,
    /// The decrypted packet does not match the SA's selectors (RFC 4301 section 5.2).
    Selector = 2,
    /// The SA was replaced or removed while the packet was on its way.
    NoSa = 3,
    /// Does not fit the path, and the sender forbade fragmentation or cannot be told.
    TooBig = 4,
    /// No route or no neighbour to send it to.
    NoRoute = 5,
    /// The transmit ring or the bounded queue before it was full.
    QueueFull = 6,
    /// ESP or outer headers that contradict themselves.
    Malformed = 7,
    /// Padding that is not 1, 2, 3, … (RFC 4303 section 2.4).
    Padding = 8,
    /// The decrypted packet is not the IP packet its header says.
    BadInner = 9,
    /// A dummy packet (RFC 4303 section 2.6), discarded as it should be.
    Dummy = 10,
    /// No sequence number is left under this key.
    SequenceExhausted = 11,
    /// The inner TTL or hop limit ran out here.
    HopLimit = 12,
}

impl DropCause {
    /// Every cause, in the order of its number.
    pub const ALL: &'static [DropCause] = &[
        DropCause::Replay,
        DropCause::Authentication,
        DropCause::Selector,
        DropCause::NoSa,
        DropCause::TooBig,
        DropCause::NoRoute,
        DropCause::QueueFull,
        DropCause::Malformed,
        DropCause::Padding,
        DropCause::BadInner,
        DropCause::Dummy,
        DropCause::SequenceExhausted,
        DropCause::HopLimit,
    ];

    /// The cause in a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            DropCause::Replay => "replay",
            DropCause::Authentication => "authentication",
            DropCause::Selector => "selector",
            DropCause::NoSa => "no_sa",
            DropCause::TooBig => "too_big",
            DropCause::NoRoute => "no_route",
            DropCause::QueueFull => "queue_full",
            DropCause::Malformed => "malformed",
            DropCause::Padding => "padding",
            DropCause::BadInner => "bad_inner",
            DropCause::Dummy => "dummy",
            DropCause::SequenceExhausted => "sequence_exhausted",
            DropCause::HopLimit => "hop_limit",
        }
    }
}

/// Counters of drops in an entry of SAD_STATE; more than there are causes.
pub const DROP_CAUSES: usize = 17;

const _: () = assert!(DropCause::ALL.len() <= DROP_CAUSES);

/// What fits the path of an outbound SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mtu {
    /// Longest outer packet in bytes; 0 when there is no way to the peer.
    pub outer: u16,
    /// Longest inner packet in bytes.
    pub inner: u16,
}

/// 64-bit words of an entry of SAD_STATE.
pub const STATE_WORDS: usize = 160;

/// An entry of SAD_STATE as the XDP program, which never touches it, sees it.
pub type RawState = [u64; STATE_WORDS];

#[cfg(any(test, feature = "user"))]
mod state {
    use super::*;
    use crate::atomic::AtomicU64;
    use core::sync::atomic::Ordering::Relaxed;

    /// Entry of SAD_STATE: all atomics, because several workers and a reader of counters share it.
    #[repr(C)]
    pub struct SadState {
        /// Last sequence number handed out (outbound); 0 before the first.
        pub last_sequence: AtomicU64,
        /// Highest sequence number accepted (inbound).
        pub top: AtomicU64,
        /// Packets sealed or opened.
        pub packets: AtomicU64,
        /// Bytes of the inner packets.
        pub bytes: AtomicU64,
        /// When a packet was last sealed or opened, in milliseconds of CLOCK_BOOTTIME.
        pub last_seen: AtomicU64,
        /// What fits the path (outbound): 1, then outer and inner MTU, in 16 bits each; 0 until it is known.
        mtu: AtomicU64,
        /// Reserved.
        pub reserved: AtomicU64,
        /// Packets dropped, by [`DropCause`].
        pub drops: [AtomicU64; DROP_CAUSES],
        /// The anti-replay window.
        pub replay: [AtomicU64; REPLAY_SLOTS],
    }

    const _: () = assert!(size_of::<SadState>() == STATE_WORDS * size_of::<AtomicU64>());

    impl SadState {
        /// Reserves `count` consecutive sequence numbers and returns the first; never the same number twice, also
        /// across workers and restarts of the data plane, because the reservation is one atomic add in the map.
        pub fn reserve(&self, count: u64) -> u64 {
            self.last_sequence.fetch_add(count, Relaxed) + 1
        }

        /// What fits the path of this outbound SA; `None` until the data plane has looked.
        pub fn mtu(&self) -> Option<Mtu> {
            let word = self.mtu.load(Relaxed);
            (word != 0).then_some(Mtu { outer: (word >> 16) as u16, inner: word as u16 })
        }

        /// Writes what fits the path.
        pub fn show_mtu(&self, mtu: Mtu) {
            self.mtu.store(1 << 32 | u64::from(mtu.outer) << 16 | u64::from(mtu.inner), Relaxed);
        }

        /// Counts a packet that was dropped.
        pub fn count_drop(&self, cause: DropCause) {
            self.drops[cause as usize].fetch_add(1, Relaxed);
        }
    }
}
#[cfg(any(test, feature = "user"))]
pub use state::SadState;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_in_order_with_distinct_labels() {
        for (i, c) in DropCause::ALL.iter().enumerate() {
            assert_eq!(*c as usize, i);
            assert!(DropCause::ALL[..i].iter().all(|d| d.label() != c.label()));
        }
    }

    #[cfg(not(loom))]
    #[test]
    fn sequence_numbers_start_at_one_and_never_repeat() {
        let words: [core::sync::atomic::AtomicU64; STATE_WORDS] = core::array::from_fn(|_| 0.into());
        // SAFETY: SadState is made of AtomicU64 only, as many as there are words.
        let state: &SadState = unsafe { &*words.as_ptr().cast() };
        assert_eq!((state.reserve(3), state.reserve(1), state.reserve(1)), (1, 4, 5));
        assert_eq!(state.mtu(), None);
        for mtu in [Mtu { outer: 1500, inner: 1446 }, Mtu::default(), Mtu { outer: u16::MAX, inner: 1 }] {
            state.show_mtu(mtu);
            assert_eq!(state.mtu(), Some(mtu));
        }
    }

    #[test]
    fn wiping_leaves_no_key() {
        let mut c = SadConfig::free();
        (c.key, c.auth_key, c.salt) = ([1; 32], [2; 64], [3; 4]);
        c.wipe();
        assert!(c == SadConfig::free());
    }
}
