//! Random schedules over a bad network: whatever happens, both ends agree in the end.
//!
//! `ADIT_SEEDS=N` runs N of each kind rather than [`SEEDS`], `ADIT_SEED=N` only that one. A schedule that fails says
//! its seed.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use adit_ike::*;
use rand_chacha::rand_core::Rng;

use crate::world::*;

/// Schedules of a kind where nothing else is asked for.
const SEEDS: u64 = 2000;

pub(crate) fn seeds() -> Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("ADIT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ADIT_SEEDS").unwrap_or(SEEDS),
    }
}

/// Runs a schedule for one of so many seeds.
pub(crate) fn for_some(one_of: u64, schedule: impl Fn(u64) + Sync) {
    let seeds = seeds();
    let alone = seeds.end - seeds.start == 1;
    for_all(|seed| {
        if alone || seed % one_of == 0 {
            schedule(seed);
        }
        0
    });
}

/// Runs a schedule for every seed on all processors, and says the seed of one that fails. The sum of what they give.
pub(crate) fn for_all(schedule: impl Fn(u64) -> u64 + Sync) -> u64 {
    let seeds = seeds();
    let (next, sum) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let said = Seed(seed);
                    sum.fetch_add(schedule(seed), Ordering::Relaxed);
                    drop(said);
                }
            });
        }
    });
    sum.into_inner()
}

/// Says itself when its schedule panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {0}; again with ADIT_SEED={0}", self.0);
        }
    }
}

pub(crate) fn draw(world: &mut World, below: u32) -> u32 {
    world.rng.next_u32() % below
}

/// Has the network lose and duplicate up to as many datagrams in a thousand, and delay them by up to as many
/// milliseconds; and computations take their time in every other schedule.
pub(crate) fn worsen(world: &mut World, loss: u32, duplication: u32, delay: u32) {
    world.faults = Faults {
        loss: draw(world, loss),
        duplication: draw(world, duplication),
        delay: (Duration::from_millis(1), Duration::from_millis(u64::from(draw(world, delay)) + 1)),
    };
    world.job_delay = Duration::from_millis(u64::from(draw(world, 2) * draw(world, 200)));
}

/// Something that a caller may do at any time.
fn act(world: &mut World, tunnels: &[TunnelConfig; 2]) {
    let side = draw(world, 2) as usize;
    let (now, peer, spi) = (world.now, world.ends[side].peer, world.ends[side].newest_spi());
    match draw(world, 16) {
        0..=2 => world.connect(side),
        3 => {
            world.ends[side].endpoint.reconnect(now, TUNNEL, peer);
            world.settle(side);
        }
        4 => {
            world.ends[side].endpoint.close(now, TUNNEL);
            world.settle(side);
            world.retry(side, Duration::from_secs(2));
        }
        5..=7 => world.rekey_child(side),
        8..=10 => world.rekey_ike(side),
        11 => {
            if let Some(spi) = spi {
                world.ends[side].endpoint.close_child(now, TUNNEL, spi);
                world.settle(side);
                world.retry(side, Duration::from_secs(2));
            }
        }
        12 => {
            if let Some(spi) = spi {
                world.ends[side].endpoint.expire_child(now, TUNNEL, spi);
                world.settle(side);
                world.retry(side, Duration::from_secs(2));
            }
        }
        13 => {
            let [a, b] = [tunnels[side].local_ts[0].clone(), tunnels[side].remote_ts[0].clone()];
            world.ends[side].endpoint.acquire(now, TUNNEL, peer, Some((a, b)));
            world.settle(side);
        }
        14 => {
            world.restart(side, tunnels[side].clone());
            world.retry(side, Duration::from_secs(2));
        }
        _ => {
            let other = (side, draw(world, 2));
            world.rekey_child(other.0);
            world.rekey_ike(1 - other.0);
        }
    }
}

/// One schedule: who does what and when, over which network, is drawn from the seed.
fn schedule(seed: u64) -> World {
    let mut tunnels = plain_tunnels();
    let mut world = World::new(seed, tunnels.clone());
    if draw(&mut world, 16) == 0 {
        tunnels[B].ike.dh = vec![Group::P256, Group::X25519];
        tunnels[A].ike.dh = vec![Group::X25519, Group::P256];
    }
    let [child, ike] = [0; 2].map(|_| [20, 60, 3600, 3600][draw(&mut world, 4) as usize]);
    let anew = draw(&mut world, 4) == 0;
    let (pfs, childless) = (draw(&mut world, 4) == 0, draw(&mut world, 8) == 0);
    for tunnel in &mut tunnels {
        tunnel.ipsec.lifetime = Duration::from_secs(child);
        tunnel.ike.lifetime = Duration::from_secs(ike);
        tunnel.ike.reauthenticate = anew;
        tunnel.childless = childless;
        if pfs {
            tunnel.ipsec.pfs = vec![Group::X25519];
        }
    }
    let threshold = if draw(&mut world, 4) == 0 { 0 } else { 64 };
    let settings = EndpointConfig { cookie_threshold: threshold, ..EndpointConfig::default() };
    let mut world = World::with_settings(seed, tunnels.clone(), settings);
    worsen(&mut world, 400, 500, 1500);
    let persistent = draw(&mut world, 3) != 0;
    world.ends.iter_mut().for_each(|end| end.keeps_trying = persistent);
    world.connect(A);
    for _ in 0..draw(&mut world, 10) {
        let wait = u64::from(draw(&mut world, 4000));
        world.run(Duration::from_millis(wait));
        act(&mut world, &tunnels);
        let side = draw(&mut world, 2) as usize;
        world.send_packet(side);
    }
    world.seconds(40);
    world
}

#[test]
fn both_ends_agree_in_the_end() {
    let up = for_all(|seed| {
        let mut world = schedule(seed);
        world.faults = PERFECT;
        world.seconds(100);
        // Between the first SA of a renewal and the last DELETE there are two for a moment.
        for _ in 0..40 {
            if world.is_quiet() {
                break;
            }
            world.seconds(1);
        }
        let up = world.check();
        let persistent = world.ends[A].keeps_trying;
        assert!(!persistent || up, "ends without a tunnel\n{}", world.story());
        if !up {
            // What was closed is remembered for a while.
            world.seconds(100);
        }
        if !world.check() {
            world.assert_no_leak();
        }
        u64::from(up)
    });
    let (schedules, least) = (seeds().count() as u64, 50);
    assert!(schedules < 100 || up * 100 > schedules * least, "only {up} of {schedules} ended with a tunnel");
}

/// Rekeys from both ends while packets flow both ways, and `beside` after each packet: not one is lost, whatever IKE's
/// datagrams suffer, and both ends agree.
pub(crate) fn rekeys_lose_nothing(
    seed: u64,
    mut tunnels: [TunnelConfig; 2],
    (loss, duplication, delay): (u32, u32, u32),
    mut beside: impl FnMut(&mut World, &[TunnelConfig; 2]),
) -> World {
    let mut world = World::new(seed, tunnels.clone());
    if draw(&mut world, 4) == 0 {
        tunnels.iter_mut().for_each(|tunnel| tunnel.ipsec.pfs = vec![Group::X25519]);
    }
    // As many attempts as it takes: a dead peer is another story.
    tunnels.iter_mut().for_each(|tunnel| tunnel.dpd = None);
    let retransmission = Retransmission { attempts: 20, ..Retransmission::default() };
    let settings = EndpointConfig { retransmission, ..EndpointConfig::default() };
    let mut world = World::with_settings(seed, tunnels.clone(), settings);
    // The third message is there after two delays.
    world.installs_last = (tunnels[A].ike.version == Version::Ikev1).then_some(Duration::from_secs(3));
    world.connect(A);
    world.seconds(1);
    world.assert_up();
    worsen(&mut world, loss, duplication, delay);
    for _ in 0..draw(&mut world, 6) + 1 {
        let side = draw(&mut world, 2) as usize;
        if draw(&mut world, 3) == 0 {
            world.rekey_ike(side)
        } else {
            world.rekey_child(side)
        }
        for _ in 0..draw(&mut world, 60) {
            let (side, wait) = (draw(&mut world, 2) as usize, draw(&mut world, 200));
            world.send_packet(side);
            world.run(Duration::from_millis(wait.into()));
            beside(&mut world, &tunnels);
        }
    }
    world.seconds(30);
    world.faults = PERFECT;
    for _ in 0..200 {
        world.send_packet(A);
        world.send_packet(B);
        world.seconds(1);
        if world.is_quiet() {
            break;
        }
    }
    world.assert_up();
    assert!(world.ends.iter().all(|end| end.drops == 0), "{}", world.story());
    assert!(world.ends.iter().all(|end| end.failures.is_empty()), "{}", world.story());
    world.seconds(300);
    world.assert_no_leak();
    world
}

#[test]
fn rekeys_from_both_ends_lose_no_packet() {
    let rekeys = for_all(|seed| {
        let world = rekeys_lose_nothing(seed, plain_tunnels(), (300, 300, 1000), |_, _| ());
        world.ends[A].log.iter().filter(|line| line.contains(" up ")).count() as u64 - 2
    });
    let schedules = seeds().count() as u64;
    assert!(schedules < 100 || rekeys > schedules, "{rekeys} rekeys in {schedules} schedules");
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
