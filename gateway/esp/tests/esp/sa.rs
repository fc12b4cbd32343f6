//! Installing, replacing and removing SAs.

use crate::setup::{SUITES, States, engine, inner, open, outer, params, seal};
use adit_esp::{Auth, Cipher, Drop, Engine, InvalidSa, Outcome, Protocol, SaParams};

#[test]
fn an_engine_can_move_to_its_worker() {
    fn assert_send<T: Send>() {}
    assert_send::<Engine>();
}

#[test]
fn a_generation_replaces_the_one_before() {
    let old = params(SUITES[0]);
    let new = SaParams { generation: 2, spi: old.spi + 1, key: [7; 32], ..params(SUITES[3]) };
    let mut engine = engine([&old]);
    let sealed = seal(&mut engine, 0, 1, &inner(false, 40, 0));
    assert_eq!(engine.generation(0), Some(1));
    engine.install(0, &new).unwrap();
    assert_eq!(engine.generation(0), Some(2));
    assert_eq!(open(&mut engine, &States::new(1), 0, &sealed).0, Outcome::Dropped(Drop::NoSa));
    engine.remove(0);
    engine.remove(0);
    engine.remove(u32::MAX);
    assert_eq!(engine.generation(0), None);
    assert_eq!((engine.overhead(0, 100), engine.max_inner(0, 1500)), (0, 0));
}

#[test]
fn sas_that_cannot_be_are_refused_and_change_nothing() {
    let good = || params(SUITES[0]);
    let (v4, v6) = (outer(false, None), outer(true, None));
    let (local, peer) = (v4.local, v6.peer);
    let mixed = adit_esp::Outer { local, peer, udp: None };
    let combination = |protocol, cipher, auth| {
        (params((protocol, cipher, auth)), InvalidSa::Combination { protocol, cipher, auth })
    };
    let ah = (Protocol::Ah, Cipher::Null, Auth::HmacSha1_96);
    let encapsulated = outer(false, Some((4500, 4500)));
    let mut engine = engine([&good()]);
    for (bad, error) in [
        (SaParams { spi: 255, ..good() }, InvalidSa::Spi(255)),
        (SaParams { spi: 0, ..good() }, InvalidSa::Spi(0)),
        (SaParams { replay_window: 4097, ..good() }, InvalidSa::ReplayWindow(4097)),
        (SaParams { outer: mixed, ..good() }, InvalidSa::Family { local, peer }),
        (SaParams { outer: encapsulated, ..params(ah) }, InvalidSa::EncapsulatedAh),
        combination(Protocol::Esp, Cipher::Aes128Gcm16, Auth::HmacSha1_96),
        combination(Protocol::Esp, Cipher::ChaCha20Poly1305, Auth::HmacSha256_128),
        combination(Protocol::Esp, Cipher::Aes256Cbc, Auth::None),
        combination(Protocol::Esp, Cipher::DesCbc, Auth::None),
        combination(Protocol::Esp, Cipher::Null, Auth::None),
        combination(Protocol::Ah, Cipher::Null, Auth::None),
        combination(Protocol::Ah, Cipher::Aes128Cbc, Auth::HmacSha1_96),
        combination(Protocol::Ah, Cipher::Aes128Gcm16, Auth::None),
    ] {
        let bad = SaParams { generation: 9, ..bad };
        assert_eq!(engine.install(0, &bad), Err(error));
        assert_eq!(engine.generation(0), Some(1));
    }
    assert_eq!(engine.install(256, &good()), Err(InvalidSa::Index { index: 256, capacity: 256 }));
}

#[test]
fn nothing_secret_is_printed() {
    let mut params = params(SUITES[3]);
    (params.key, params.salt, params.auth_key) = ([222; 32], [223; 4], [224; 64]);
    let printed = format!("{params:?} {:?}", engine([&params]));
    for secret in ["222", "223", "224", "de", "df", "e0"] {
        assert!(
            !printed.contains(&format!(", {secret}")) && !printed.contains(&format!("[{secret}")),
            "{printed}"
        );
    }
}

#[test]
fn every_algorithm_is_told_its_lengths() {
    let lens = Cipher::ALL.map(|cipher| (cipher.key_len(), cipher.is_aead()));
    let (cbc, aead) = (|len| (len, false), |len| (len, true));
    assert_eq!(
        lens,
        [cbc(0), cbc(8), cbc(24), cbc(16), cbc(24), cbc(32), aead(16), aead(24), aead(32), aead(32)]
    );
    assert_eq!(
        Auth::ALL.map(|auth| (auth.key_len(), auth.icv_len())),
        [(0, 0), (16, 12), (20, 12), (32, 16), (48, 24), (64, 32)]
    );
}

/// Figures that a path MTU of 1500 leaves, worked out by hand from RFC 4303 figure 2 and RFC 4302 figure 1.
#[test]
fn inner_sizes_within_1500_bytes() {
    for (suite, v6, udp, expected) in [
        // 1500 - 20 IP - 8 ESP - 8 IV - 16 ICV = 1448, a multiple of 4, less 2.
        (0, false, false, 1446),
        (0, false, true, 1438),
        (0, true, true, 1418),
        // 1500 - 20 - 8 - 16 IV - 12 ICV = 1444, of which 1440 are blocks, less 2.
        (3, false, false, 1438),
        (3, false, true, 1422),
        (6, true, false, 1406),
        (9, false, false, 1446),
        // 1500 - 20 - 8 - 8 IV - 12 ICV = 1452, of which 1448 are blocks of eight, less 2.
        (13, false, false, 1446),
        // 1500 - 40 - 8 - 8 - 8 - 12 = 1424, all of it blocks, less 2.
        (15, true, true, 1422),
        // 1500 - 20 - 8 - 16 ICV = 1456, less 2.
        (17, false, false, 1454),
        // 1500 - 20 - 12 - 12; 1500 - 40 - 12 - 12; 1500 - 20 - 12 - 16; 1500 - 40 - 12 - 16 - 4 of padding.
        (18, false, false, 1456),
        (19, true, false, 1436),
        (20, false, false, 1452),
        (20, true, false, 1428),
    ] {
        let params = SaParams { outer: outer(v6, udp.then_some((4500, 4500))), ..params(SUITES[suite]) };
        assert_eq!(engine([&params]).max_inner(0, 1500), expected, "{params:?}");
    }
}
