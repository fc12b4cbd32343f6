//! IKEv1 with peers whose address is not known beforehand, and with peers that have ways of their own.

use adit_ike::*;

use crate::{v1::v1_tunnels, world::*};

/// B takes A, and another peer, from anywhere; each with its key.
fn from_anywhere(mode: Mode, keys: [&str; 2]) -> World {
    let [mut a, mut b] = v1_tunnels(mode);
    (a.psk, b.psk) = (Psk::new(keys[0]), Psk::new(keys[0]));
    b.peer = None;
    let another = TunnelConfig {
        id: TunnelId(8),
        peer_id: Id::Fqdn("c.example".into()),
        psk: Psk::new(keys[1]),
        remote_ts: vec![subnet("10.3.0.0/16")],
        ..b.clone()
    };
    let mut world = World::new(1, [a, b]);
    world.ends[B].endpoint.set_tunnel(world.now, another);
    world
}

#[test]
fn main_mode_from_anywhere_is_refused_in_words_where_keys_differ() {
    let mut world = from_anywhere(Mode::Main, ["the key of a", "the key of c"]);
    world.connect(A);
    world.seconds(30);
    world.assert_down();
    assert_eq!(
        world.ends[B].failures,
        [
            "no tunnel One Main Mode: 192.0.2.1 begins main mode, and 2 tunnels with different pre-shared keys take a peer \
             from anywhere: main mode needs the key before the peer has said who it is. Use aggressive mode or IKEv2, give \
             the tunnel the peer's address, or give these tunnels one pre-shared key"
        ]
    );
    let [told] = &world.ends[A].failures[..] else { panic!("{}", world.story()) };
    assert!(
        told.contains("we offer IKEv1 in main mode with aes128-sha1-x25519; the peer refused it"),
        "{told}"
    );
}

#[test]
fn what_the_words_recommend_works() {
    // Aggressive mode.
    let mut world = from_anywhere(Mode::Aggressive, ["the key of a", "the key of c"]);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    // One key.
    let mut world = from_anywhere(Mode::Main, ["the key of all", "the key of all"]);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    // The peer's address.
    let mut world = from_anywhere(Mode::Main, ["the key of a", "the key of c"]);
    let b = TunnelConfig { psk: Psk::new("the key of a"), ..v1_tunnels(Mode::Main)[B].clone() };
    world.ends[B].endpoint.set_tunnel(world.now, b);
    world.connect(A);
    world.seconds(1);
    world.assert_up();
}

#[test]
fn the_commit_bit_is_passed_over_in_every_message() {
    for mode in [Mode::Main, Mode::Aggressive] {
        for side in [A, B] {
            for pfs in [vec![], vec![Group::X25519]] {
                let mut tunnels = v1_tunnels(mode);
                tunnels.iter_mut().for_each(|t| t.ipsec.pfs = pfs.clone());
                let mut world = World::new(2, tunnels);
                world.hold();
                world.connect(side);
                let mut held = world.take_held();
                let mut quick = 0;
                while !held.is_empty() {
                    for message in &mut held {
                        message.payload[19] |= 2;
                        quick += usize::from(message.payload[18] == 32);
                    }
                    held = world.give(&held);
                }
                assert_eq!(quick, 3);
                world.assert_up();
                assert!(world.child(A).switch_outbound && world.child(B).switch_outbound);
            }
        }
    }
}
