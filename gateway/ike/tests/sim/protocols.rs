//! AH and ESP for Child SAs.

use adit_ike::*;

use crate::world::*;

fn over(protocols: [Protocol; 2], integrity: Integrity, esn: bool) -> World {
    let mut tunnels = plain_tunnels();
    for (tunnel, protocol) in tunnels.iter_mut().zip(protocols) {
        tunnel.ipsec = IpsecPolicy { protocol, integrity: vec![integrity], esn, ..tunnel.ipsec.clone() };
    }
    let mut world = World::new(1, tunnels);
    world.connect(A);
    world.seconds(1);
    world
}

#[test]
fn ah_comes_up_with_every_integrity_with_and_without_esn() {
    for integrity in Integrity::ALL {
        for esn in [false, true] {
            let world = over([Protocol::Ah; 2], integrity, esn);
            world.assert_up();
            for child in [world.child(A), world.child(B)] {
                assert_eq!((child.protocol, child.encryption), (Protocol::Ah, None));
                assert_eq!((child.integrity, child.esn), (Some(integrity), esn));
                assert!(child.inbound.encryption_key.is_empty() && child.inbound.salt == [0; 4]);
                assert_eq!(child.inbound.integrity_key.len(), integrity.key_len());
            }
        }
    }
}

#[test]
fn a_pair_of_ah_is_deleted_as_such() {
    let mut world = over([Protocol::Ah; 2], Integrity::Sha256, true);
    let (now, spi) = (world.now, world.child(A).inbound.spi);
    world.ends[A].endpoint.close_child(now, TUNNEL, spi);
    world.settle(A);
    world.seconds(1);
    world.assert_down();
}

#[test]
fn ah_against_esp_is_told_apart_from_other_mismatches() {
    for (protocols, words, hint) in [
        ([Protocol::Ah, Protocol::Esp], "we use ESP, the peer offers AH alone", "it may use ESP"),
        ([Protocol::Esp, Protocol::Ah], "we use AH, the peer offers ESP alone", "it may use AH"),
    ] {
        let world = over(protocols, Integrity::Sha256, true);
        world.assert_down();
        assert_eq!(
            world.ends[B].failures,
            [format!("Two IKE_AUTH: packets are protected by different protocols: {words}")]
        );
        // A refusal does not say so.
        let told = &world.ends[A].failures[0];
        assert!(told.contains("NO_PROPOSAL_CHOSEN") && told.ends_with(hint), "{told}");
    }
}
