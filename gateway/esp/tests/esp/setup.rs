//! SAs, inner packets and replay memory for the tests.

use adit_esp::{AUTH_KEY_LEN, Auth, Cipher, Engine, Outcome, Outer, Packet, REPLAY_SLOTS};
use adit_esp::{KEY_LEN, Protocol, ReplayState, SaParams, SaStates};
use std::sync::atomic::AtomicU64;

/// Protocol and algorithms of an SA.
pub(crate) type Suite = (Protocol, Cipher, Auth);

const ESP: Protocol = Protocol::Esp;
const AH: Protocol = Protocol::Ah;

/// Every protocol and cipher with two integrity algorithms at least, and every integrity algorithm.
pub(crate) const SUITES: [Suite; 23] = [
    (ESP, Cipher::Aes128Gcm16, Auth::None),
    (ESP, Cipher::Aes192Gcm16, Auth::None),
    (ESP, Cipher::Aes256Gcm16, Auth::None),
    (ESP, Cipher::Aes128Cbc, Auth::HmacSha1_96),
    (ESP, Cipher::Aes192Cbc, Auth::HmacSha1_96),
    (ESP, Cipher::Aes256Cbc, Auth::HmacSha1_96),
    (ESP, Cipher::Aes128Cbc, Auth::HmacSha256_128),
    (ESP, Cipher::Aes192Cbc, Auth::HmacSha256_128),
    (ESP, Cipher::Aes256Cbc, Auth::HmacSha256_128),
    (ESP, Cipher::ChaCha20Poly1305, Auth::None),
    (ESP, Cipher::Aes128Cbc, Auth::HmacMd5_96),
    (ESP, Cipher::Aes192Cbc, Auth::HmacSha384_192),
    (ESP, Cipher::Aes256Cbc, Auth::HmacSha512_256),
    (ESP, Cipher::DesCbc, Auth::HmacMd5_96),
    (ESP, Cipher::DesCbc, Auth::HmacSha1_96),
    (ESP, Cipher::TripleDesCbc, Auth::HmacSha1_96),
    (ESP, Cipher::TripleDesCbc, Auth::HmacSha256_128),
    (ESP, Cipher::Null, Auth::HmacSha256_128),
    (AH, Cipher::Null, Auth::HmacMd5_96),
    (AH, Cipher::Null, Auth::HmacSha1_96),
    (AH, Cipher::Null, Auth::HmacSha256_128),
    (AH, Cipher::Null, Auth::HmacSha384_192),
    (AH, Cipher::Null, Auth::HmacSha512_256),
];

/// Whether the packets of an SA show what they carry.
pub(crate) fn is_clear(cipher: Cipher) -> bool {
    cipher == Cipher::Null
}

/// Room in front of and behind the packets that the tests make.
pub(crate) const ROOM: usize = 96;

/// The replay memory of some SAs.
pub(crate) struct States(Vec<(AtomicU64, [AtomicU64; REPLAY_SLOTS])>);

impl States {
    /// Memory of `count` SAs, all zero.
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).map(|_| (AtomicU64::new(0), [const { AtomicU64::new(0) }; REPLAY_SLOTS])).collect())
    }

    /// The highest sequence number accepted on an SA.
    pub(crate) fn top(&self, sa: u32) -> &AtomicU64 {
        &self.0[sa as usize].0
    }
}

impl SaStates for States {
    fn replay(&self, sa: u32) -> Option<ReplayState<'_>> {
        self.0.get(sa as usize).map(|(top, slots)| ReplayState { top, slots })
    }
}

/// The outer header of a tunnel over IPv4 or IPv6.
pub(crate) fn outer(v6: bool, udp: Option<(u16, u16)>) -> Outer {
    let (local, peer) = if v6 { ("2001:db8::1", "2001:db8:ffff::2") } else { ("192.0.2.1", "198.51.100.2") };
    Outer { local: local.parse().unwrap(), peer: peer.parse().unwrap(), udp }
}

/// An SA with some keys.
pub(crate) fn params((protocol, cipher, auth): Suite) -> SaParams {
    SaParams {
        generation: 1,
        spi: 0xc0ff_ee00,
        protocol,
        cipher,
        auth,
        key: std::array::from_fn::<u8, KEY_LEN, _>(|i| i as u8 ^ 0x5a),
        salt: [1, 2, 3, 4],
        auth_key: std::array::from_fn::<u8, AUTH_KEY_LEN, _>(|i| i as u8 ^ 0xa5),
        esn: true,
        replay_window: 1024,
        outer: outer(false, None),
    }
}

/// An engine with these SAs, by position.
pub(crate) fn engine<'a>(sas: impl IntoIterator<Item = &'a SaParams>) -> Engine {
    let mut engine = Engine::new(256);
    for (index, params) in (0..).zip(sas) {
        engine.install(index, params).unwrap();
    }
    engine
}

/// An inner packet of `len` bytes with a recognisable payload.
pub(crate) fn inner(v6: bool, len: usize, traffic_class: u8) -> Vec<u8> {
    let mut packet = vec![0; len.max(if v6 { 40 } else { 20 })];
    let len = packet.len();
    let header = if v6 {
        packet[0] = 0x60 | traffic_class >> 4;
        packet[1] = traffic_class << 4;
        packet[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
        (packet[6], packet[7]) = (17, 63);
        40
    } else {
        (packet[0], packet[1]) = (0x45, traffic_class);
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        (packet[8], packet[9]) = (63, 17);
        let checksum = etherparse::Ipv4Header::from_slice(&packet).unwrap().0.calc_header_checksum();
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        20
    };
    for (i, byte) in packet[header..].iter_mut().enumerate() {
        *byte = SECRET[i % SECRET.len()];
    }
    packet
}

/// What inner payloads repeat, to be looked for where it must not be.
pub(crate) const SECRET: &[u8] = b"no-eye-may-see-this";

/// Whether a buffer holds the inner payload in clear.
pub(crate) fn leaks(buf: &[u8]) -> bool {
    buf.windows(SECRET.len()).any(|window| window == SECRET)
}

/// A buffer with `packet` in the middle, and where.
pub(crate) fn framed(packet: &[u8]) -> (Vec<u8>, usize, usize) {
    (([&[0xee; ROOM], packet, &[0xee; ROOM]]).concat(), ROOM, ROOM + packet.len())
}

/// Seals one packet; panics when it is dropped.
pub(crate) fn seal(engine: &mut Engine, sa: u32, seq: u64, packet: &[u8]) -> Vec<u8> {
    let (mut buf, start, end) = framed(packet);
    let mut batch = [Packet::new(&mut buf, start, end, sa, seq)];
    engine.seal(&mut batch);
    assert_eq!(batch[0].outcome, Outcome::Done);
    batch[0].bytes().to_vec()
}

/// Opens one packet: its outcome, the inner packet when done, and the whole buffer.
pub(crate) fn open(
    engine: &mut Engine,
    states: &States,
    sa: u32,
    packet: &[u8],
) -> (Outcome, Vec<u8>, Vec<u8>) {
    let (mut buf, start, end) = framed(packet);
    let mut batch = [Packet::new(&mut buf, start, end, sa, 0)];
    engine.open(&mut batch, states);
    let outcome = batch[0].outcome;
    let inner = if outcome == Outcome::Done { batch[0].bytes().to_vec() } else { Vec::new() };
    (outcome, inner, buf)
}
