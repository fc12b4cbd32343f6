//! An end is lost without a word, and begins anew: the other finds out, by INITIAL_CONTACT or because nobody answers,
//! and both agree in the end. Either may also go on in another process with what it kept.

use std::time::Duration;

use adit_ike::*;

use crate::{
    schedules::{draw, for_some, worsen},
    v1::{nothing_left, v1_tunnels},
    world::*,
};

/// Of how many seeds one is run: a quarter is enough beside the general schedules.
const ONE_OF: u64 = 4;

/// One schedule: which end is lost when, and whether it comes back by itself, is drawn from the seed.
fn schedule(seed: u64, mode: Mode) -> World {
    let mut tunnels = v1_tunnels(mode);
    let mut world = World::new(seed, tunnels.clone());
    let pfs = if draw(&mut world, 4) == 0 { vec![Group::X25519] } else { vec![] };
    let lifetime = [30, 3600, 3600][draw(&mut world, 3) as usize];
    for tunnel in &mut tunnels {
        tunnel.ipsec.pfs = pfs.clone();
        tunnel.ipsec.lifetime = Duration::from_secs(lifetime);
    }
    let mut world = World::new(seed, tunnels.clone());
    worsen(&mut world, 300, 500, 800);
    // Whether a lost end connects by itself, or waits for the other to see that it is gone.
    let tries = [[true, true], [true, false], [false, true]][draw(&mut world, 3) as usize];
    world.ends.iter_mut().zip(tries).for_each(|(end, tries)| end.keeps_trying = tries);
    let connects = if tries[A] { A } else { B };
    world.connect(connects);
    for _ in 0..draw(&mut world, 6) + 1 {
        // Between two messages of a negotiation, or long after it.
        let wait = [100, 1000, 20_000][draw(&mut world, 3) as usize];
        let wait = draw(&mut world, wait);
        world.run(Duration::from_millis(wait.into()));
        let side = draw(&mut world, 2) as usize;
        match draw(&mut world, 8) {
            lost @ 0..=4 => {
                match lost {
                    0 => world.resume(side, tunnels[side].clone()),
                    _ => world.restart(side, tunnels[side].clone()),
                }
                let wait = draw(&mut world, 3000);
                world.retry(side, Duration::from_millis(wait.into()));
            }
            5 => world.rekey_child(side),
            6 => world.rekey_ike(side),
            _ => world.connect(connects),
        }
        world.send_packet(side);
    }
    world
}

#[test]
fn ikev1_agrees_again_after_an_end_was_lost() {
    for_some(ONE_OF, |seed| {
        let mode = [Mode::Main, Mode::Aggressive][(seed / 5 % 2) as usize];
        let mut world = schedule(seed, mode);
        world.faults = PERFECT;
        world.seconds(100);
        // One end may be at the moment between an old pair and a new one.
        for _ in 0..40 {
            if world.ends.iter().all(|end| end.children.len() == 1) {
                break;
            }
            world.seconds(1);
        }
        world.assert_up();
        for side in [A, B] {
            world.close(side);
        }
        world.seconds(120);
        nothing_left(&world);
    });
}
