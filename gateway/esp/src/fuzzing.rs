//! What is fuzzed: one function a target, each of which takes any octets and must not panic.
//!
//! `gateway/esp/fuzz` gives these functions to libFuzzer (`cargo xtask fuzz`); the tests here run them over the
//! committed corpus and over changed copies of it.

#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicU64;

use crate::{
    AUTH_KEY_LEN, Auth, Backend, Cipher, Drop, Engine, KEY_LEN, Outcome, Outer, Packet, Protocol,
    REPLAY_SLOTS, ReplayState, SaParams, SaStates,
};

/// A function that is fuzzed.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 3] =
    [("esp_open", esp_open), ("esp_payload", esp_payload), ("esp_seal", esp_seal)];

/// Room in front of and behind a packet.
const ROOM: usize = 128;
const SPI: u32 = 0x1000;

/// One SA of each kind: what its packets are made of differs, and which code reads them.
const SUITES: [(Protocol, Cipher, Auth); 6] = [
    (Protocol::Esp, Cipher::Aes128Gcm16, Auth::None),
    (Protocol::Esp, Cipher::Aes256Cbc, Auth::HmacSha256_128),
    (Protocol::Esp, Cipher::Null, Auth::HmacSha1_96),
    (Protocol::Esp, Cipher::TripleDesCbc, Auth::HmacMd5_96),
    (Protocol::Esp, Cipher::ChaCha20Poly1305, Auth::None),
    (Protocol::Ah, Cipher::Null, Auth::HmacSha512_256),
];

struct State {
    top: AtomicU64,
    slots: [AtomicU64; REPLAY_SLOTS],
}

impl State {
    fn new(top: u64) -> Self {
        Self { top: AtomicU64::new(top), slots: [const { AtomicU64::new(0) }; REPLAY_SLOTS] }
    }
}

impl SaStates for State {
    fn replay(&self, _: u32) -> Option<ReplayState<'_>> {
        Some(ReplayState { top: &self.top, slots: &self.slots })
    }
}

/// The SA that an octet chooses: suite, extended sequence numbers, encapsulation.
fn sa(choice: u8) -> SaParams {
    let (protocol, cipher, auth) = SUITES[usize::from(choice & 7) % SUITES.len()];
    let addresses = if choice & 8 != 0 { ["2001:db8::1", "2001:db8::2"] } else { ["192.0.2.1", "192.0.2.2"] };
    let [local, peer] = addresses.map(|address| address.parse().expect("an address"));
    SaParams {
        generation: 1,
        spi: SPI,
        protocol,
        cipher,
        auth,
        key: [7; KEY_LEN],
        salt: [8; 4],
        auth_key: [9; AUTH_KEY_LEN],
        esn: choice & 16 != 0,
        replay_window: if choice & 32 != 0 { 64 } else { 0 },
        outer: Outer {
            local,
            peer,
            udp: (choice & 64 != 0 && protocol == Protocol::Esp).then_some((4500, 4500)),
        },
    }
}

fn engine(params: &SaParams, backend: Backend) -> Engine {
    let mut engine = Engine::with_backend(1, backend);
    engine.install(0, params).expect("a possible SA");
    engine
}

/// `packet` with room around it, and where it lies.
fn framed(packet: &[u8]) -> (Vec<u8>, usize, usize) {
    ([&[0; ROOM], packet, &[0; ROOM]].concat(), ROOM, ROOM + packet.len())
}

/// Opens a packet, and gives what came of it.
fn opened(params: &SaParams, backend: Backend, packet: &[u8], top: u64) -> (Outcome, Vec<u8>) {
    let (mut buf, start, end) = framed(packet);
    let mut batch = [Packet::new(&mut buf, start, end, 0, 0)];
    engine(params, backend).open(&mut batch, &State::new(top));
    let inner = if batch[0].outcome == Outcome::Done { batch[0].bytes().to_vec() } else { Vec::new() };
    (batch[0].outcome, inner)
}

/// A frame as it comes from the network. The backends agree about it, and nobody has made it with our keys.
pub fn esp_open(octets: &[u8]) {
    let Some((choice, frame)) = octets.split_first() else { return };
    let params = sa(*choice);
    let first = opened(&params, Backend::Portable, frame, 0);
    for backend in Backend::ALL {
        assert_eq!(opened(&params, backend, frame, 0), first);
    }
    assert_ne!(first.0, Outcome::Pending);
}

/// What a peer that has the keys puts into a packet: padding, trailer and inner packet as it likes. All that comes out
/// is a whole IP packet of the version that the next header tells.
pub fn esp_payload(octets: &[u8]) {
    let Some(([choice, traffic_class], text)) = octets.split_first_chunk::<2>() else { return };
    let mut params = sa(choice & !7);
    // NULL: what is sealed can be told without another implementation of a cipher.
    (params.cipher, params.auth) = (Cipher::Null, Auth::HmacSha1_96);
    let mut text = text.to_vec();
    text.truncate(text.len() & !3);
    let key = crate::hmac::Hmac::new(params.auth, &params.auth_key[..params.auth.key_len()]).expect("a key");
    let mut esp = [&SPI.to_be_bytes()[..], &1u32.to_be_bytes(), &text].concat();
    let mut icv = vec![0; key.icv_len()];
    key.sign(&[&esp], params.esn.then_some(0), &mut icv);
    esp.extend(&icv);
    let template = crate::outer::Template::new(
        Protocol::Esp,
        &Outer { local: params.outer.peer, peer: params.outer.local, udp: params.outer.udp },
    );
    let template = template.expect("addresses of one family");
    let mut packet = [vec![0; template.len()], esp].concat();
    template.write(&mut packet, *traffic_class);
    let (outcome, inner) = opened(&params, Backend::detect(), &packet, 0);
    match outcome {
        Outcome::Done => {
            let next_header = text.last().copied().unwrap_or_default();
            assert_eq!(inner[0] >> 4, if next_header == 4 { 4 } else { 6 });
            assert!(inner.len() <= text.len() - 2);
        }
        Outcome::Dropped(drop) => {
            let is_short = text.is_empty() && drop == Drop::Malformed;
            assert!(is_short || matches!(drop, Drop::BadPadding | Drop::Dummy | Drop::BadInner), "{drop:?}");
        }
        Outcome::Pending => panic!("not worked on"),
    }
}

/// A packet that is to be sealed: it comes back as it was, or is dropped and left as it was.
pub fn esp_seal(octets: &[u8]) {
    let Some(([choice, seq @ ..], inner)) = octets.split_first_chunk::<5>() else { return };
    let params = sa(*choice);
    let seq = u64::from(u32::from_be_bytes(*seq));
    let (before, start, end) = framed(inner);
    let mut made = Vec::new();
    for backend in Backend::ALL {
        let mut buf = before.clone();
        let mut batch = [Packet::new(&mut buf, start, end, 0, seq)];
        engine(&params, backend).seal(&mut batch);
        let (outcome, range) = (batch[0].outcome, batch[0].start..batch[0].end);
        if outcome != Outcome::Done {
            assert!(buf == before && range == (start..end), "a packet that is dropped stays as it was");
            return;
        }
        made.push(buf[range].to_vec());
    }
    assert!(made.iter().all(|packet| *packet == made[0]), "the backends differ");
    let (outcome, again) = opened(&params, Backend::detect(), &made[0], seq - 1);
    assert_eq!(outcome, Outcome::Done);
    // What follows the packet by its own length is not sent.
    assert!(inner.starts_with(&again));
}
