//! Random schedules over a bad network: whatever happens, both ends agree in the end.

use std::time::Duration;

use adit_ike::*;
use rand_chacha::rand_core::Rng;

use crate::world::*;

/// One schedule: who connects and closes when, over which network, is drawn from the seed.
fn schedule(seed: u64) -> World {
    let mut tunnels = plain_tunnels();
    let mut world = World::new(seed, tunnels.clone());
    let draw = |world: &mut World, below: u32| world.rng.next_u32() % below;
    if draw(&mut world, 4) == 0 {
        tunnels[B].ike.dh = vec![Group::P256, Group::X25519];
        tunnels[A].ike.dh = vec![Group::X25519, Group::P256];
    }
    let lifetime = [20, 60, 3600][draw(&mut world, 3) as usize];
    tunnels.iter_mut().for_each(|t| t.ipsec.lifetime = Duration::from_secs(lifetime));
    let threshold = if draw(&mut world, 4) == 0 { 0 } else { 64 };
    let settings = EndpointConfig { cookie_threshold: threshold, ..EndpointConfig::default() };
    let mut world = World::with_settings(seed, tunnels.clone(), settings);
    world.faults = Faults {
        loss: draw(&mut world, 400),
        duplication: draw(&mut world, 500),
        delay: (Duration::from_millis(1), Duration::from_millis(u64::from(draw(&mut world, 1500)) + 1)),
    };
    let persistent = draw(&mut world, 3) != 0;
    world.ends.iter_mut().for_each(|end| end.keeps_trying = persistent);
    world.connect(A);
    for _ in 0..draw(&mut world, 6) {
        let wait = u64::from(draw(&mut world, 4000));
        world.run(Duration::from_millis(wait));
        let side = draw(&mut world, 2) as usize;
        match draw(&mut world, 8) {
            0..=3 => world.connect(side),
            4 => {
                let (now, peer) = (world.now, world.ends[side].peer);
                world.ends[side].endpoint.reconnect(now, TUNNEL, peer);
                world.settle(side);
            }
            5 => {
                let now = world.now;
                world.ends[side].endpoint.close(now, TUNNEL);
                world.settle(side);
                world.retry(side, Duration::from_secs(2));
            }
            _ => world.connect(1 - side),
        }
    }
    world.seconds(40);
    world
}

/// `ADIT_SEEDS` sets another number of schedules.
#[test]
fn both_ends_agree_in_the_end() {
    let mut up = 0;
    let seeds = std::env::var("ADIT_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1000);
    for seed in 0..seeds {
        let mut world = schedule(seed);
        world.faults = PERFECT;
        world.seconds(100);
        // Between the first SA of a renewal and the last DELETE there are two for a moment.
        for _ in 0..10 {
            if world.ends.iter().all(|end| end.children.len() < 2) {
                break;
            }
            world.seconds(3);
        }
        up += usize::from(world.check());
        let persistent = world.ends[A].keeps_trying;
        assert!(!persistent || world.check(), "seed {seed} ends without a tunnel\n{}", world.story());
    }
    assert!(up > 500, "only {up} of 1000 schedules ended with a tunnel");
}

#[test]
fn simultaneous_initiations_end_in_one_over_any_delay() {
    for seed in 0..300 {
        let mut world = World::new(seed, plain_tunnels());
        world.faults.delay = (Duration::from_millis(1), Duration::from_millis(400));
        world.faults.duplication = 200;
        world.connect(A);
        let wait = u64::from(world.rng.next_u32() % 500);
        world.run(Duration::from_millis(wait));
        world.connect(B);
        world.seconds(60);
        world.assert_up();
        assert!(world.ends.iter().all(|end| end.failures.is_empty()), "{}", world.story());
    }
}

#[test]
fn simultaneous_renewals_end_in_one() {
    for seed in 0..100 {
        let mut world = World::new(seed, plain_tunnels());
        world.connect(A);
        world.seconds(5);
        world.faults.delay = (Duration::from_millis(1), Duration::from_millis(300));
        for side in [A, B] {
            let (now, peer) = (world.now, world.ends[side].peer);
            world.ends[side].endpoint.reconnect(now, TUNNEL, peer);
            world.settle(side);
            let wait = u64::from(world.rng.next_u32() % 300);
            world.run(Duration::from_millis(wait));
        }
        for _ in 0..60 {
            world.seconds(1);
            assert!(world.ends.iter().all(|end| !end.children.is_empty()), "{}", world.story());
        }
        world.assert_up();
    }
}
