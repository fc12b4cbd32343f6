//! A worker's copy of the SAs it uses.

use super::seal::Route;
use crate::report::Counters;
use adit_esp::{Auth, Backend, Cipher, Engine, Outer, Protocol, ReplayState, SaParams, SaStates, prefetch};
use adit_maps::{
    address::Address,
    decode::protocol,
    policy::{Flow, Selector},
    sa::{DropCause, SaRef, SadConfig, SadState, auth, cipher, direction, flags},
    user::{Sad, Selectors, Version},
};
use std::sync::Arc;

/// What a worker needs to know of an SA beside its keys, which are in the engine.
pub(super) struct Sa {
    pub(super) version: Version,
    pub(super) direction: u8,
    /// Our number of the tunnel.
    pub(super) tunnel: u32,
    pub(super) peer: Address,
    /// Slot of OUTBOUND whose SA seals what goes back.
    pub(super) policy: u32,
    /// Largest outer packet in bytes, `None` for the interface's MTU.
    pub(super) mtu: Option<u16>,
    /// Largest TCP segment in bytes, `None` to derive it.
    pub(super) mss: Option<u16>,
    /// The way of what it seals, and the stamp of the view that it was looked up in.
    pub(super) route: Option<(u64, Route)>,
    local: Vec<Selector>,
    remote: Vec<Selector>,
}

impl Sa {
    /// Whether a packet is one that may be sealed with this SA. The XDP program asks the policy instead; this is for
    /// packets that have waited since.
    pub(super) fn admits_outbound(&self, flow: &Flow) -> bool {
        let (source_port, destination_port) = flow.ports().unzip();
        let admits =
            |side: &[Selector], address, port| side.iter().any(|s| s.admits(address, flow.protocol, port));
        self.direction == direction::OUTBOUND
            && admits(&self.local, &flow.source, source_port)
            && admits(&self.remote, &flow.destination, destination_port)
    }

    /// Fetches the selectors.
    #[inline]
    pub(super) fn prefetch_selectors(&self) {
        prefetch(self.local.as_ptr(), 1);
        prefetch(self.remote.as_ptr(), 1);
    }

    /// Whether an opened packet is what the peer may send through this SA (RFC 4301 section 5.2, step 4).
    pub(super) fn admits_inbound(&self, flow: &Flow) -> bool {
        let (source_port, destination_port) = flow.ports().unzip();
        let admits =
            |side: &[Selector], address, port| side.iter().any(|s| s.admits(address, flow.protocol, port));
        admits(&self.remote, &flow.source, source_port)
            && admits(&self.local, &flow.destination, destination_port)
    }
}

/// The SAs that a worker has expanded, by index.
pub(super) struct Sas {
    pub(super) engine: Engine,
    sad: Arc<Sad>,
    selectors: Arc<Selectors>,
    counters: Arc<Counters>,
    known: Box<[Option<Box<Sa>>]>,
    installed: Vec<u32>,
    /// By index, the generation that could not be installed: said once, not with every packet.
    refused: Box<[u32]>,
}

impl Sas {
    pub(super) fn new(
        sad: Arc<Sad>,
        selectors: Arc<Selectors>,
        counters: Arc<Counters>,
        crypto: Backend,
    ) -> Self {
        let capacity = sad.capacity() as usize;
        Sas {
            engine: Engine::with_backend(capacity, crypto),
            sad,
            selectors,
            counters,
            known: (0..capacity).map(|_| None).collect(),
            installed: Vec::new(),
            refused: vec![0; capacity].into(),
        }
    }

    /// The SA that has this index and generation now, read from the map if it is new; `None` when it is another by now.
    #[inline]
    pub(super) fn current(&mut self, index: u32, generation: u32) -> Option<&Sa> {
        let version = self.sad.version(index);
        if version.generation != generation || generation == 0 {
            return None;
        }
        let known = self.known.get(index as usize)?.as_ref();
        if known.is_none_or(|sa| sa.version != version) && self.refused[index as usize] != generation {
            self.read(index, generation);
        }
        self.get(index).filter(|sa| sa.version.generation == generation)
    }

    /// Fetches what the packets of an SA need of it before they are sealed or opened: with thousands of SAs it is far.
    #[inline]
    pub(super) fn prefetch(&self, index: u32) {
        let Some(places) = self.sad.places(index) else { return };
        for entry in places {
            prefetch(entry, 1);
        }
        if let Some(Some(sa)) = self.known.get(index as usize) {
            prefetch(&raw const **sa, size_of::<Sa>().div_ceil(64));
        }
    }

    /// The SA at an index, as it was read last.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Sa> {
        self.known.get(index as usize)?.as_deref()
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Sa> {
        self.known.get_mut(index as usize)?.as_deref_mut()
    }

    /// State and counters of an SA.
    #[inline]
    pub(super) fn state(&self, index: u32) -> Option<&SadState> {
        self.sad.state(index)
    }

    /// Counts a packet of an SA that was dropped: with the SA, and in all.
    pub(super) fn count_drop(&self, index: u32, cause: DropCause) {
        if let Some(state) = self.state(index) {
            state.count_drop(cause);
        }
        self.counters.dropped(cause);
    }

    /// Reserves sequence numbers under the key of that generation, as [`Sad::reserve`].
    pub(super) fn reserve(&self, index: u32, generation: u32, count: usize) -> Option<u64> {
        self.sad.reserve(SaRef { index, generation }, count as u64)
    }

    /// Wipes what was freed or replaced in the map.
    pub(super) fn sweep(&mut self) {
        let mut at = 0;
        while let Some(&index) = self.installed.get(at) {
            let known = self.known[index as usize].as_ref().map(|sa| sa.version.generation);
            if known == Some(self.sad.generation(index)) {
                at += 1;
            } else {
                self.forget(index);
                self.installed.swap_remove(at);
            }
        }
    }

    /// The anti-replay windows in the map, beside the engine that uses them.
    pub(super) fn engine_and_states(&mut self) -> (&mut Engine, States<'_>) {
        (&mut self.engine, States(&self.sad))
    }

    fn forget(&mut self, index: u32) {
        self.engine.remove(index);
        self.known[index as usize] = None;
    }

    fn read(&mut self, index: u32, generation: u32) {
        // While it changes there is nothing to read: what is known of this generation serves until the next packet
        // tries again.
        let Some(mut config) = self.sad.read(index) else { return };
        if config.generation == generation {
            let installed = parameters(&config)
                .ok_or("it has algorithms that this build does not know".to_owned())
                .and_then(|p| self.engine.install(index, &p).map_err(|e| e.to_string()));
            match installed {
                Ok(()) => {
                    self.known[index as usize] = Some(Box::new(self.describe(&config)));
                    if !self.installed.contains(&index) {
                        self.installed.push(index);
                    }
                }
                Err(reason) => {
                    tracing::error!(index, tunnel = config.tunnel, reason, "an SA that cannot be used");
                    self.refused[index as usize] = generation;
                    self.forget(index);
                }
            }
        }
        config.wipe();
    }

    fn describe(&self, config: &SadConfig) -> Sa {
        let first = config.selectors;
        let middle = first.saturating_add(u32::from(config.local_selectors));
        let end = middle.saturating_add(u32::from(config.remote_selectors));
        let read = |range: std::ops::Range<u32>| range.filter_map(|i| self.selectors.get(i)).collect();
        Sa {
            version: Version { generation: config.generation, revision: config.revision },
            direction: config.direction,
            tunnel: config.tunnel,
            peer: config.peer,
            policy: config.policy,
            mtu: (config.mtu != 0).then_some(config.mtu),
            mss: (config.mss != 0).then_some(config.mss),
            route: None,
            local: read(first..middle),
            remote: read(middle..end),
        }
    }
}

/// An SA as `esp` wants it; `None` for algorithms it does not have.
pub(crate) fn parameters(config: &SadConfig) -> Option<SaParams> {
    let (protocol, cipher) = match (config.protocol, config.cipher) {
        (protocol::AH, cipher::NONE) => (Protocol::Ah, Cipher::Null),
        (protocol::ESP, cipher) => (Protocol::Esp, esp_cipher(cipher)?),
        _ => return None,
    };
    let auth = match config.auth {
        auth::NONE => Auth::None,
        auth::HMAC_MD5_96 => Auth::HmacMd5_96,
        auth::HMAC_SHA1_96 => Auth::HmacSha1_96,
        auth::HMAC_SHA256_128 => Auth::HmacSha256_128,
        auth::HMAC_SHA384_192 => Auth::HmacSha384_192,
        auth::HMAC_SHA512_256 => Auth::HmacSha512_256,
        _ => return None,
    };
    let udp = config.flags & flags::UDP != 0;
    Some(SaParams {
        generation: config.generation,
        spi: config.spi,
        protocol,
        cipher,
        auth,
        key: config.key,
        salt: config.salt,
        auth_key: config.auth_key,
        esn: config.flags & flags::ESN != 0,
        replay_window: if config.direction == direction::INBOUND { config.replay_window } else { 0 },
        outer: Outer {
            local: config.local.into(),
            peer: config.peer.into(),
            udp: udp.then_some((config.local_port, config.peer_port)),
        },
    })
}

fn esp_cipher(cipher: u8) -> Option<Cipher> {
    Some(match cipher {
        cipher::NULL => Cipher::Null,
        cipher::DES_CBC => Cipher::DesCbc,
        cipher::TRIPLE_DES_CBC => Cipher::TripleDesCbc,
        cipher::AES128_CBC => Cipher::Aes128Cbc,
        cipher::AES192_CBC => Cipher::Aes192Cbc,
        cipher::AES256_CBC => Cipher::Aes256Cbc,
        cipher::AES128_GCM16 => Cipher::Aes128Gcm16,
        cipher::AES192_GCM16 => Cipher::Aes192Gcm16,
        cipher::AES256_GCM16 => Cipher::Aes256Gcm16,
        cipher::CHACHA20_POLY1305 => Cipher::ChaCha20Poly1305,
        _ => return None,
    })
}

/// The anti-replay windows in SAD_STATE.
pub(super) struct States<'a>(&'a Sad);

impl SaStates for States<'_> {
    fn replay(&self, sa: u32) -> Option<ReplayState<'_>> {
        self.0.state(sa).map(|s| ReplayState { top: &s.top, slots: &s.replay })
    }
}
