//! What a reader of an entry sees while it is written, moved and freed.

use super::*;
use crate::sa::cipher;
use std::sync::atomic::AtomicBool;

fn sad() -> Sad {
    Sad { config: Mapped::anonymous(4), state: Mapped::anonymous(4) }
}

fn config(peer: [u8; 4]) -> SadConfig {
    SadConfig {
        tunnel: 7,
        spi: 0x100,
        cipher: cipher::AES128_CBC,
        flags: flags::ESN,
        local: Address::v4([192, 0, 2, 1]),
        peer: Address::v4(peer),
        key: [9; 32],
        ..SadConfig::free()
    }
}

#[test]
fn a_move_keeps_generation_keys_and_state_and_shows() {
    let sad = sad();
    let sa = sad.install(2, &config([198, 51, 100, 1])).unwrap();
    let before = sad.version(2);
    assert_eq!((before.generation, before.revision), (sa.generation, 0));
    assert_eq!(sad.state(2).unwrap().reserve(10), 1);

    let (local, peer) = (Address::v4([192, 0, 2, 9]), Address::v4([203, 0, 113, 9]));
    assert!(sad.relocate(sa, local, peer, Some((4500, 1024))));
    assert_eq!(sad.version(2), Version { revision: 2, ..before });
    let now = sad.read(2).unwrap();
    let expected = SadConfig {
        generation: sa.generation,
        last_generation: sa.generation,
        revision: 2,
        local,
        peer,
        local_port: 4500,
        peer_port: 1024,
        flags: flags::ESN | flags::UDP,
        ..config([198, 51, 100, 1])
    };
    assert!(now == expected);
    assert_eq!(sad.state(2).unwrap().reserve(1), 11);

    assert!(sad.relocate(sa, local, peer, None));
    let now = sad.read(2).unwrap();
    assert_eq!((now.flags, now.local_port, now.peer_port, now.revision), (flags::ESN, 0, 0, 4));
}

#[test]
fn an_sa_that_went_is_not_moved() {
    let sad = sad();
    let old = sad.install(0, &config([198, 51, 100, 1])).unwrap();
    sad.free(0);
    let peer = Address::v4([203, 0, 113, 9]);
    assert!(!sad.relocate(old, peer, peer, None));
    assert!(sad.read(0).is_none());
    let new = sad.install(0, &config([198, 51, 100, 2])).unwrap();
    assert_ne!(new.generation, old.generation);
    assert!(!sad.relocate(old, peer, peer, None));
    assert!(!sad.relocate(SaRef { index: 1, generation: 0 }, peer, peer, None));
    assert!(!sad.relocate(SaRef { index: 99, generation: 1 }, peer, peer, None));
    assert_eq!(sad.read(0).unwrap().peer, Address::v4([198, 51, 100, 2]));
}

#[test]
fn a_move_that_was_cut_short_is_read_by_nobody_until_the_next() {
    let sad = sad();
    let sa = sad.install(0, &config([198, 51, 100, 1])).unwrap();
    sad.config.get(0).unwrap()[1].store(transmute!([5u32, 7u32]), Relaxed);
    assert!(sad.read(0).is_none());
    let peer = Address::v4([203, 0, 113, 9]);
    assert!(sad.relocate(sa, peer, peer, None));
    let now = sad.read(0).unwrap();
    assert_eq!((now.peer, now.revision, now.tunnel), (peer, 6, 7));
}

#[test]
fn no_copy_is_half_of_one_place_and_half_of_another() {
    let sad = sad();
    let sa = sad.install(0, &config([1; 4])).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut seen, mut is_last) = (0, false);
            while !is_last {
                is_last = done.load(Acquire);
                let Some(copy) = sad.read(0) else { continue };
                let n = copy.peer.0[15];
                assert!(copy.peer == Address::v4([n; 4]));
                assert!(copy.revision == 0 || copy.local == copy.peer);
                assert!(copy.revision == 0 || copy.peer_port == u16::from(n));
                seen += 1;
            }
            seen
        });
        for n in (0..=u8::MAX).cycle().take(20_000) {
            let at = Address::v4([n; 4]);
            assert!(sad.relocate(sa, at, at, Some((4500, n.into()))));
        }
        done.store(true, Release);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(sad.version(0).revision, 40_000);
}
