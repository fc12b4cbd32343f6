//! A process ends at any moment, and another one goes on with what it kept: no packet is lost, nothing is negotiated
//! anew, and both ends agree.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use adit_ike::*;
use rand_chacha::rand_core::Rng;

use crate::{
    lifecycle::up,
    schedules::{draw, for_all, rekeys_lose_nothing, seeds},
    v1::v1_tunnels,
    world::*,
};

fn every_version() -> [[TunnelConfig; 2]; 3] {
    [plain_tunnels(), v1_tunnels(Mode::Main), v1_tunnels(Mode::Aggressive)]
}

/// Packets both ways get through.
fn carries(world: &mut World) {
    let before: usize = world.ends.iter().map(|end| end.taken).sum();
    world.send_packet(A);
    world.send_packet(B);
    world.seconds(1);
    let after: usize = world.ends.iter().map(|end| end.taken).sum();
    assert_eq!(after, before + 2, "{}", world.story());
}

#[test]
fn either_side_goes_on_without_a_datagram() {
    for tunnels in every_version() {
        for side in [A, B] {
            let mut world = up(3, tunnels.clone());
            let (sent, ups) = (world.wire.len(), world.ends[side].ups.len());
            let keys = world.child(side).inbound.clone();
            world.resume(side, tunnels[side].clone());
            carries(&mut world);
            world.assert_up();
            assert_eq!((world.wire.len(), world.ends[side].ups.len()), (sent, ups), "{}", world.story());
            assert_eq!(world.child(side).inbound, keys);
            assert_eq!(world.ends.each_ref().map(|end| end.downs.len()), [0, 0]);
        }
    }
}

#[test]
fn afterwards_it_rekeys_answers_and_looks_for_life_as_before() {
    for tunnels in every_version() {
        for side in [A, B] {
            for by in [A, B] {
                let mut world = up(4, tunnels.clone());
                world.resume(side, tunnels[side].clone());
                let old = world.child(by).inbound.clone();
                world.rekey_child(by);
                world.seconds(60);
                world.assert_up();
                assert_ne!(world.child(by).inbound, old, "{}", world.story());
                world.rekey_ike(by);
                world.seconds(60);
                world.assert_up();
                carries(&mut world);
                // It is alive to the peer, and a peer that is not is found out.
                world.seconds(120);
                world.assert_up();
                assert!(world.ends.iter().all(|end| end.failures.is_empty()), "{}", world.story());
                world.faults.loss = 1000;
                world.seconds(120);
                assert_eq!(world.ends[side].downs.last(), Some(&DownReason::PeerDead), "{}", world.story());
            }
        }
    }
}

#[test]
fn lifetimes_go_on() {
    for mut tunnels in every_version() {
        for tunnel in &mut tunnels {
            tunnel.ipsec.lifetime = Duration::from_secs(100);
            tunnel.ike.lifetime = Duration::from_secs(300);
        }
        let mut world = up(5, tunnels.clone());
        let old = world.child(A).inbound.clone();
        for _ in 0..8 {
            world.seconds(10);
            world.resume(A, tunnels[A].clone());
            world.resume(B, tunnels[B].clone());
        }
        world.assert_up();
        assert_eq!(world.child(A).inbound, old, "{}", world.story());
        world.seconds(20);
        world.assert_up();
        assert_ne!(world.child(A).inbound, old, "{}", world.story());
        let ups = world.ends[A].ups.len();
        world.seconds(300);
        assert!(world.ends[A].ups.len() > ups, "{}", world.story());
    }
}

#[test]
fn what_is_gone_is_told_to_the_peer() {
    for tunnels in every_version() {
        let mut world = up(6, tunnels.clone());
        let record = world.ends[A].record.clone().unwrap();
        world.restart(A, tunnels[A].clone());
        let (now, start) = (world.now, world.start);
        world.ends[A].endpoint.dismiss(now, start, &record).unwrap();
        world.settle(A);
        world.seconds(1);
        assert!(world.ends[B].children.is_empty(), "{}", world.story());
        assert_eq!(world.ends[B].downs, [DownReason::ClosedByPeer]);
        world.seconds(60);
        world.assert_no_leak();
        assert!(world.ends[A].endpoint.record(TUNNEL, start).is_none());
    }
}

#[test]
fn a_tunnel_that_is_down_has_no_record() {
    for tunnels in every_version() {
        let mut world = up(7, tunnels);
        assert!(world.ends.iter().all(|end| end.record.is_some()));
        world.close(A);
        world.seconds(60);
        assert!(world.ends.iter().all(|end| end.record.is_none()), "{}", world.story());
    }
}

#[test]
fn a_damaged_record_is_refused_and_changes_nothing() {
    for tunnels in every_version() {
        let mut world = up(8, tunnels.clone());
        world.rekey_child(A);
        world.run(Duration::from_millis(7));
        let record = world.ends[A].record.clone().unwrap();
        let (now, start) = (world.now, world.start);
        world.restart(A, tunnels[A].clone());
        let endpoint = &mut world.ends[A].endpoint;
        let empty = Counts::default();
        for cut in 0..record.len() {
            assert!(endpoint.restore(now, start, TUNNEL, &record[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(endpoint.counts(), empty);
        assert!(endpoint.restore(now, start, TunnelId(99), &record).is_err());
        let mut other = record.clone();
        other[1] += 1;
        assert!(endpoint.restore(now, start, TUNNEL, &other).is_err(), "another format");
        assert!(endpoint.restore(now, start, TUNNEL, &record).is_ok());
        assert!(endpoint.restore(now, start, TUNNEL, &record).is_err(), "it is there already");
    }
}

/// Two IKE SAs with one SPI would be one in the tables and two in what they leave behind.
#[test]
fn a_record_in_which_an_sa_is_twice_is_refused() {
    let tunnels = plain_tunnels();
    let mut world = up(8, tunnels.clone());
    let record = world.ends[A].record.clone().unwrap();
    world.restart(A, tunnels[A].clone());
    let (format, sa) = record.split_at(3);
    let twice = [format, &2u16.to_be_bytes(), &sa[2..], &sa[2..]].concat();
    let (now, start) = (world.now, world.start);
    let endpoint = &mut world.ends[A].endpoint;
    assert!(endpoint.restore(now, start, TUNNEL, &twice).is_err());
    assert!(endpoint.dismiss(now, start, &twice).is_err());
    assert_eq!(endpoint.counts(), Counts::default());
    assert!(endpoint.restore(now, start, TUNNEL, &record).is_ok());
    // Nor does a second tunnel get the ESP SPI of the first: another IKE SPI at the front, and the rest as it is.
    let mut other = record.clone();
    other[5] ^= 1;
    endpoint.set_tunnel(now, TunnelConfig { id: TunnelId(8), ..tunnels[A].clone() });
    assert!(endpoint.restore(now, start, TunnelId(8), &other).is_err());
}

/// Where a build of other layout reads what this one has written, or the other way round, the format has to be another.
/// `ADIT_WRITE_RECORDS=1` writes the records of a new one.
#[test]
fn records_of_this_format_are_read() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/records");
    for (name, tunnels) in ["ikev2", "ikev1-main", "ikev1-aggressive"].into_iter().zip(every_version()) {
        let file = directory.join(name);
        let mut world = up(10, tunnels.clone());
        world.rekey_child(B);
        world.run(Duration::from_millis(3));
        if std::env::var_os("ADIT_WRITE_RECORDS").is_some() {
            std::fs::write(&file, world.ends[A].record.as_ref().unwrap()).unwrap();
        }
        let expected = world.child(A).inbound.spi;
        world.restart(A, tunnels[A].clone());
        let (now, start) = (world.now, world.start);
        let record = std::fs::read(&file).unwrap();
        let restored = world.ends[A].endpoint.restore(now, start, TUNNEL, &record).unwrap();
        let ike = restored.ike.unwrap();
        assert_eq!((ike.path.remote.ip(), ike.initiator), (world.ends[A].peer, true), "{name}");
        assert_eq!(ike.suite, world.ends[A].ups[0].0, "{name}");
        let [RestoredChild { child, usable: true }] = &restored.children[..] else {
            panic!("{name}: {:?}", restored.children)
        };
        assert_eq!(child.inbound.spi, expected, "{name}");
        assert_eq!((&child.local_ts, &child.remote_ts), (&tunnels[A].local_ts, &tunnels[A].remote_ts));
        assert!(child.lifetime > Duration::from_secs(3000) && child.lifetime < Duration::from_secs(3600));
    }
}

/// Whatever octet of a record is another, nothing panics, not even when the endpoint is used afterwards.
#[test]
fn changed_octets_do_no_harm() {
    for (number, tunnels) in every_version().into_iter().enumerate() {
        let mut world = up(9, tunnels.clone());
        world.rekey_child(A);
        world.run(Duration::from_millis(3));
        let record = world.ends[A].record.clone().unwrap();
        for _ in 0..300 {
            let mut world = World::new(number as u64, tunnels.clone());
            let mut record = record.clone();
            for _ in 0..1 + draw(&mut world, 3) {
                let at = draw(&mut world, record.len() as u32) as usize;
                record[at] = world.rng.next_u32() as u8;
            }
            let (now, start) = (world.now, world.start);
            let endpoint = &mut world.ends[A].endpoint;
            if endpoint.restore(now, start, TUNNEL, &record).is_ok() {
                endpoint.rekey_ike(now, TUNNEL);
                for _ in 0..50 {
                    let Some((at, _)) = endpoint.poll_timeout() else { break };
                    endpoint.handle_timeout(at.max(now));
                    while let Some(job) = endpoint.poll_job() {
                        endpoint.handle_job(now, job.run());
                    }
                    while endpoint.poll_event().is_some() || endpoint.poll_transmit().is_some() {}
                    endpoint.record(TUNNEL, start);
                }
            }
        }
    }
}

/// Either end goes on in another process at any moment, while both rekey and packets flow. IKEv1 has no such schedule: it
/// loses packets where rekeys of both sides overlap, also without this.
#[test]
fn no_moment_to_end_at_loses_a_packet() {
    let resumed = AtomicU64::new(0);
    for_all(|seed| {
        rekeys_lose_nothing(seed, plain_tunnels(), (200, 300, 500), |world, tunnels| {
            if draw(world, 15) == 0 {
                let side = draw(world, 2) as usize;
                world.resume(side, tunnels[side].clone());
                resumed.fetch_add(1, Ordering::Relaxed);
            }
        });
        0
    });
    let (resumed, schedules) = (resumed.into_inner(), seeds().count() as u64);
    assert!(schedules < 100 || resumed > schedules * 3, "{resumed} times in {schedules} schedules");
}
