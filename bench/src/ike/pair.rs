//! Two endpoints in memory: no sockets, no kernel, each end's time taken apart.

use std::collections::VecDeque;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use adit_ike::{
    Encryption, Endpoint, EndpointConfig, Event, Group, Id, IkePolicy, Integrity, IpsecPolicy, Mode, NatT,
    Prf, Psk, TrafficSelector, TunnelConfig, TunnelId, Version,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::Value;

use crate::report::{Report, figure};

/// The responder.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// The initiator, where all tunnels have the same.
const CROWD: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));
const INITIATOR: usize = 0;
const RESPONDER: usize = 1;

/// Handshakes a second by group: IKE_SA_INIT and IKE_AUTH with one Child SA, from the first octet to the keys.
pub(crate) fn handshakes(report: &mut Report, quick: bool) {
    let least = Duration::from_millis(if quick { 100 } else { 1000 });
    let mut rows = Vec::new();
    for (group, additional) in groups() {
        let mut pair = Pair::new(group, additional, 1);
        pair.up(TunnelId(0));
        pair.spent = [Duration::ZERO; 2];
        let mut count = 0u32;
        while pair.spent[INITIATOR] + pair.spent[RESPONDER] < least {
            pair.again(TunnelId(0));
            count += 1;
        }
        let [initiator, responder] = pair.spent.map(|spent| spent.as_secs_f64() / f64::from(count));
        let name = additional.map_or(group.to_string(), |more| format!("{group}+{more}"));
        rows.push(vec![
            ("group", Value::from(name)),
            ("initiator_us", figure(initiator * 1e6)),
            ("responder_us", figure(responder * 1e6)),
            ("initiator_per_second", figure(1.0 / initiator)),
            ("responder_per_second", figure(1.0 / responder)),
        ]);
    }
    report.table("ike", "Handshakes on one core, endpoints in memory", rows);
}

/// Handshakes of IKEv1 with a hundred and with thousands of tunnels between the same two addresses, told apart by
/// identity: what one costs must not grow with them.
pub(crate) fn crowded(report: &mut Report, quick: bool) {
    let mut rows = Vec::new();
    for mode in [Mode::Main, Mode::Aggressive] {
        for tunnels in [100, if quick { 500 } else { 5000 }] {
            let mut pair = Pair::with(tunnels, |side, id| {
                let mut tunnel = tunnel(side, id, Group::X25519, None);
                (tunnel.ike.version, tunnel.ike.mode) = (Version::Ikev1, mode);
                tunnel.ike.encryption = vec![Encryption::Aes256];
                let ends = [CROWD, GATEWAY];
                (tunnel.local, tunnel.peer) = (ends[side], Some(ends[1 - side]));
                tunnel
            });
            (0..tunnels).for_each(|id| pair.up(TunnelId(id)));
            let [initiator, responder] = pair.spent.map(|spent| spent.as_secs_f64() / f64::from(tunnels));
            rows.push(vec![
                ("mode", Value::from(mode.to_string())),
                ("tunnels", Value::from(tunnels)),
                ("initiator_us", figure(initiator * 1e6)),
                ("responder_us", figure(responder * 1e6)),
            ]);
        }
    }
    report.table("ike", "Handshakes of IKEv1 among tunnels between the same addresses", rows);
}

/// What the process grows by when tunnels come up, over both ends.
pub(crate) fn memory(report: &mut Report, quick: bool) {
    let count = if quick { 500 } else { 5000 };
    let mut pair = Pair::new(Group::X25519, None, count);
    let before = resident();
    let begun = Instant::now();
    for id in 0..count {
        pair.up(TunnelId(id));
    }
    let (after, took) = (resident(), begun.elapsed());
    let each = (after.saturating_sub(before)) as f64 / f64::from(count) / 2.0;
    let fields = [
        ("tunnels", Value::from(count)),
        ("kib_per_tunnel_and_end", figure(each / 1024.0)),
        ("seconds_for_both_ends", figure(took.as_secs_f64())),
    ];
    report.table(
        "ike",
        "Memory of an established tunnel (IKE SA and Child SA, resident set)",
        vec![fields.into()],
    );
}

/// A first message as an initiator would send it to the gateways of the bench.
pub(super) fn first_message() -> Vec<u8> {
    let mut pair = Pair::new(Group::X25519, None, 1);
    let end = &mut pair.ends[INITIATOR];
    end.connect(pair.now, TunnelId(0), GATEWAY);
    while let Some(job) = end.poll_job() {
        end.handle_job(pair.now, job.run());
    }
    end.poll_transmit().expect("an initiator sends its first message once its public value is there").payload
}

fn groups() -> Vec<(Group, Option<Group>)> {
    Group::ALL.into_iter().map(|group| (group, None)).collect()
}

/// An initiator and a responder, and how long each has worked.
struct Pair {
    now: Instant,
    ends: [Endpoint; 2],
    spent: [Duration; 2],
    up: [usize; 2],
}

impl Pair {
    fn new(group: Group, additional: Option<Group>, tunnels: u32) -> Self {
        Self::with(tunnels, |side, id| tunnel(side, id, group, additional))
    }

    fn with(tunnels: u32, tunnel: impl Fn(usize, u32) -> TunnelConfig) -> Self {
        let now = Instant::now();
        let ends = [INITIATOR, RESPONDER].map(|side| {
            let rng = Box::new(ChaCha20Rng::seed_from_u64(side as u64));
            let mut endpoint = Endpoint::new(EndpointConfig::default(), rng);
            for id in 0..tunnels {
                endpoint.set_tunnel(now, tunnel(side, id));
            }
            endpoint
        });
        Pair { now, ends, spent: [Duration::ZERO; 2], up: [0; 2] }
    }

    fn up(&mut self, id: TunnelId) {
        let before = self.up;
        self.work(INITIATOR, |end, now| end.connect(now, id, GATEWAY));
        self.settle();
        assert!(
            self.up[0] > before[0] && self.up[1] > before[1],
            "the handshake of tunnel {id} did not succeed"
        );
    }

    /// Closes the tunnel, which is not counted, and brings it up again.
    fn again(&mut self, id: TunnelId) {
        let spent = self.spent;
        self.work(INITIATOR, |end, now| end.close(now, id));
        self.settle();
        // Closed SAs linger; this is when the last of them has gone.
        self.now += Duration::from_secs(60);
        for side in [INITIATOR, RESPONDER] {
            self.work(side, |end, now| end.handle_timeout(now));
        }
        self.settle();
        self.spent = spent;
        self.up(id);
    }

    fn settle(&mut self) {
        let mut wire: VecDeque<(usize, adit_ike::Transmit)> = VecDeque::new();
        loop {
            for side in [INITIATOR, RESPONDER] {
                let begun = Instant::now();
                let end = &mut self.ends[side];
                while let Some(job) = end.poll_job() {
                    end.handle_job(self.now, job.run());
                }
                while let Some(event) = end.poll_event() {
                    self.up[side] += usize::from(matches!(event, Event::ChildUp { .. }));
                }
                while let Some(transmit) = end.poll_transmit() {
                    wire.push_back((1 - side, transmit));
                }
                self.spent[side] += begun.elapsed();
            }
            let Some((to, transmit)) = wire.pop_front() else { return };
            let path = adit_ike::Path { local: transmit.path.remote, remote: transmit.path.local };
            self.work(to, |end, now| end.handle_datagram(now, path, &transmit.payload));
        }
    }

    fn work(&mut self, side: usize, work: impl FnOnce(&mut Endpoint, Instant)) {
        let begun = Instant::now();
        work(&mut self.ends[side], self.now);
        self.spent[side] += begun.elapsed();
    }
}

/// Every tunnel has an address of its own on the initiator's side, as peers have.
fn tunnel(side: usize, id: u32, group: Group, additional: Option<Group>) -> TunnelConfig {
    let peer = IpAddr::V4(Ipv4Addr::from(0xc612_0000 + id));
    let ends = [peer, GATEWAY];
    let inner = |base: u32| TrafficSelector::from_prefix(Ipv4Addr::from(base + (id << 8)).into(), 24);
    let selectors = [inner(0x0a00_0000), inner(0x6440_0000)];
    let algorithms = (vec![Encryption::Aes256Gcm16], vec![Integrity::Sha256]);
    TunnelConfig {
        id: TunnelId(id),
        name: format!("tunnel-{id}"),
        local: ends[side],
        other_local: None,
        peer: Some(ends[1 - side]),
        local_id: Id::from(ends[side]),
        peer_id: Id::from(ends[1 - side]),
        psk: Psk::new("a key that both ends of the bench hold"),
        ike: IkePolicy {
            encryption: algorithms.0.clone(),
            integrity: algorithms.1.clone(),
            prf: vec![Prf::Sha256],
            dh: vec![group],
            additional_ke: additional.into_iter().collect(),
            ..IkePolicy::default()
        },
        ipsec: IpsecPolicy { encryption: algorithms.0, integrity: algorithms.1, ..IpsecPolicy::default() },
        local_ts: vec![selectors[side].clone()],
        remote_ts: vec![selectors[1 - side].clone()],
        nat_t: NatT::Auto,
        dpd: None,
        initiates: side == INITIATOR,
        childless: false,
        ppk: None,
    }
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
