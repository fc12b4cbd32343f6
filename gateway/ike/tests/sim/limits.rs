//! What strangers and peers can take of an endpoint: little, and nothing that others need.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use adit_ike::*;

use crate::{v1::v1_tunnels, world::*};

/// Room for few, so that a flood need not be long.
fn small() -> EndpointConfig {
    EndpointConfig { cookie_threshold: 4, half_open_limit: 64, ..EndpointConfig::default() }
}

/// A's first message with these tunnels.
fn first_message(tunnels: [TunnelConfig; 2]) -> Vec<u8> {
    let mut world = World::new(1, tunnels);
    world.connect(A);
    world.wire[0].1.clone()
}

/// First messages to B: like `first`, but each of an attempt of its own, from addresses that are made up.
struct Flood {
    first: Vec<u8>,
    sent: u32,
    /// One address for all of them.
    from: Option<Ipv4Addr>,
}

impl Flood {
    fn new(first: Vec<u8>) -> Self {
        Self { first, sent: 0, from: None }
    }

    fn pour(&mut self, world: &mut World, count: u32) {
        for _ in 0..count {
            self.sent += 1;
            let mut message = self.first.clone();
            message[..8].copy_from_slice(&(u64::from(self.sent) << 8 | 1).to_be_bytes());
            let from = self.from.unwrap_or(Ipv4Addr::from(0x0a40_0000 + self.sent));
            let path = Path {
                local: SocketAddr::new(world.ends[B].address, 500),
                remote: SocketAddr::new(from.into(), 500),
            };
            world.deliver(B, path, &message);
        }
    }
}

/// B takes peers from anywhere, and its table is full when A, which means it, begins.
fn comes_in(tunnels: [TunnelConfig; 2], mut flood: Flood, every: Duration, others: &[TunnelConfig]) -> World {
    let [a, b] = tunnels;
    let mut world = World::with_settings(2, [a, TunnelConfig { peer: None, ..b }], small());
    let now = world.now;
    others.iter().for_each(|tunnel| world.ends[B].endpoint.set_tunnel(now, tunnel.clone()));
    flood.pour(&mut world, 500);
    world.connect(A);
    for _ in 0..(Duration::from_millis(60).as_micros() / every.as_micros()) {
        flood.pour(&mut world, 1);
        world.run(every);
    }
    world.assert_up();
    let counters = world.ends[B].endpoint.counters();
    assert!(counters.overloaded + counters.cookie_demanded > 400, "there was no flood: {counters:?}");
    assert!(world.ends[B].endpoint.counts().half_open <= small().half_open_limit);
    world
}

#[test]
fn a_flood_of_first_messages_of_ikev1_shuts_no_peer_out() {
    for mode in [Mode::Main, Mode::Aggressive] {
        let flood = Flood::new(first_message(v1_tunnels(mode)));
        comes_in(v1_tunnels(mode), flood, Duration::from_micros(250), &[]);
        // All in the name of the peer: fewer of one address have room.
        let from = Some(Ipv4Addr::new(192, 0, 2, 1));
        let flood = Flood { from, ..Flood::new(first_message(v1_tunnels(mode))) };
        comes_in(v1_tunnels(mode), flood, Duration::from_millis(2), &[]);
    }
}

#[test]
fn a_flood_of_ikev1_shuts_no_peer_of_ikev2_out() {
    for from in [None, Some(Ipv4Addr::new(192, 0, 2, 1))] {
        let flood = Flood { from, ..Flood::new(first_message(v1_tunnels(Mode::Main))) };
        let [_, b] = v1_tunnels(Mode::Main);
        let other = TunnelConfig { id: TunnelId(1), peer: None, ..b };
        let world = comes_in(plain_tunnels(), flood, Duration::from_millis(1), &[other]);
        assert!(world.ends[B].endpoint.counters().cookie_demanded > 0);
    }
}

#[test]
fn a_flood_of_first_messages_of_ikev2_shuts_no_peer_out() {
    for from in [None, Some(Ipv4Addr::new(192, 0, 2, 1))] {
        let flood = Flood { from, ..Flood::new(first_message(plain_tunnels())) };
        comes_in(plain_tunnels(), flood, Duration::from_micros(250), &[]);
    }
}

#[test]
fn what_has_gone_on_is_not_given_up_for_a_flood() {
    let [a, b] = v1_tunnels(Mode::Main);
    let mut world = World::with_settings(3, [a, TunnelConfig { peer: None, ..b }], small());
    world.connect(A);
    // The third message has come, and the fourth is on its way.
    world.run(Duration::from_millis(16));
    Flood::new(first_message(v1_tunnels(Mode::Main))).pour(&mut world, 500);
    world.run(Duration::from_millis(100));
    world.assert_up();
}

/// IKE SAs at each end, at most, while `again` makes one in the place of another many times in a row.
fn most(world: &mut World, times: u32, mut again: impl FnMut(&mut World)) -> [usize; 2] {
    let mut most = [0; 2];
    for _ in 0..times {
        again(world);
        for side in [A, B] {
            most[side] = most[side].max(world.ends[side].endpoint.counts().ike_sas);
        }
    }
    most
}

/// That the tunnel is up with nothing left over after some time.
fn settles(world: &mut World) {
    world.seconds(240);
    for _ in 0..20 {
        if world.is_quiet() {
            break;
        }
        world.seconds(3);
    }
    world.assert_up();
    world.assert_no_leak();
}

#[test]
fn a_peer_that_begins_anew_all_the_time_piles_nothing_up() {
    for tunnels in [plain_tunnels(), v1_tunnels(Mode::Main), v1_tunnels(Mode::Aggressive)] {
        let mut world = World::new(4, tunnels);
        world.connect(A);
        world.seconds(1);
        let most = most(&mut world, 80, |world| {
            let (now, peer) = (world.now, world.ends[A].peer);
            world.ends[A].endpoint.reconnect(now, TUNNEL, peer);
            world.settle(A);
            world.run(Duration::from_millis(50));
        });
        assert!(most.iter().all(|most| *most <= 20), "{most:?}");
        settles(&mut world);
    }
}

#[test]
fn a_peer_that_rekeys_and_closes_nothing_piles_nothing_up() {
    let mut world = World::new(5, plain_tunnels());
    world.connect(A);
    world.seconds(1);
    world.hold();
    let most = most(&mut world, 60, |world| {
        world.rekey_ike(A);
        let mut held = world.take_held();
        while !held.is_empty() {
            // What would close the old IKE SA is lost.
            held.retain(|held| held.payload[18] != 37);
            held = world.give(&held);
        }
    });
    assert!(most.iter().all(|most| *most <= 20), "{most:?}");
    assert!(most[B] > 15, "it was not tried: {most:?}");
    world.let_go(Vec::new());
    settles(&mut world);
}
