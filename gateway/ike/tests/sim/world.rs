//! The simulated world.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use adit_ike::{
    ChildSa, Counts, DirectionKeys, DownReason, Dpd, Encryption, Endpoint, EndpointConfig, Event, Group, Id,
    IkePolicy, Integrity, IpsecPolicy, Job, NatT, Path, Prf, Psk, RestoredChild, TrafficSelector,
    TunnelConfig, TunnelId,
};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng},
};

pub(crate) const TUNNEL: TunnelId = TunnelId(7);
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// What the network does to datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Per mille that are lost.
    pub(crate) loss: u32,
    /// Per mille that arrive twice.
    pub(crate) duplication: u32,
    /// The least and the greatest delay; a spread reorders.
    pub(crate) delay: (Duration, Duration),
}

pub(crate) const PERFECT: Faults =
    Faults { loss: 0, duplication: 0, delay: (Duration::from_millis(5), Duration::from_millis(5)) };

/// Randomness whose 32-octet draws, nonces among them, can be made to begin with a chosen octet.
struct Biased {
    rng: ChaCha20Rng,
    bias: Arc<AtomicU16>,
}

const UNBIASED: u16 = 256;

impl TryRng for Biased {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.rng.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.rng.next_u64())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.rng.fill_bytes(out);
        let bias = self.bias.load(Ordering::Relaxed);
        if let (32, Ok(first)) = (out.len(), u8::try_from(bias)) {
            out[0] = first;
        }
        Ok(())
    }
}

impl TryCryptoRng for Biased {}

/// Rewrites the addresses of one end.
#[derive(Clone, Debug)]
pub(crate) struct NatBox {
    inner: IpAddr,
    public: IpAddr,
    /// Ports 500 and 4500 are forwarded as they are, as for a server; else each gets a port of its own.
    forward: bool,
    mappings: BTreeMap<u16, u16>,
}

/// One end: its endpoint, and what a caller would keep.
pub(crate) struct End {
    pub(crate) endpoint: Endpoint,
    pub(crate) address: IpAddr,
    /// The peer's address as seen from here.
    pub(crate) peer: IpAddr,
    pub(crate) children: BTreeMap<(u32, u32), ChildSa>,
    /// Inbound SPIs of what is installed, oldest first.
    pub(crate) order: Vec<u32>,
    /// When what has these inbound SPIs was installed.
    since: BTreeMap<u32, Instant>,
    pub(crate) log: Vec<String>,
    pub(crate) failures: Vec<String>,
    pub(crate) downs: Vec<DownReason>,
    pub(crate) ups: Vec<(String, Path)>,
    /// How long the peer took to give the signs of life that it was asked for.
    pub(crate) round_trips: Vec<Duration>,
    /// Whether a tunnel that is down is connected again after a while.
    pub(crate) keeps_trying: bool,
    retry_at: Option<Instant>,
    /// The pair that is sent with, by its inbound SPI.
    pub(crate) sending: Option<u32>,
    /// Packets that came with an SA which is not there, or with other keys.
    pub(crate) drops: usize,
    pub(crate) taken: usize,
    /// What another process would need to go on with [`TUNNEL`].
    pub(crate) record: Option<Vec<u8>>,
    /// And with others.
    pub(crate) records: BTreeMap<TunnelId, Vec<u8>>,
    /// Tunnels that have an IKE SA, by what was said of it.
    pub(crate) ikes: BTreeSet<TunnelId>,
    /// Whose each pair is, by its inbound SPI.
    pub(crate) owners: BTreeMap<u32, TunnelId>,
    bias: Arc<AtomicU16>,
}

/// What is on its way.
enum Cargo {
    Ike(Path, Vec<u8>),
    /// A packet of ESP, with the sender's outbound SA.
    Esp(DirectionKeys),
    /// Not on any way: a computation under way at this end.
    Job(Job),
}

/// A datagram that is held back: who gets it, from where, and what it says.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) to: usize,
    pub(crate) path: Path,
    pub(crate) payload: Vec<u8>,
}

pub(crate) struct World {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) ends: [End; 2],
    pub(crate) faults: Faults,
    pub(crate) nat: Option<NatBox>,
    /// Every datagram as it was sent, with the end that sent it.
    pub(crate) wire: Vec<(usize, Vec<u8>)>,
    /// While this is here, datagrams are put into it rather than sent.
    pub(crate) held: Option<Vec<Held>>,
    /// Whether the ends take packets with a pair that the peer began only from the last message on, as some peers do:
    /// that is when it is sent with, or after this time.
    pub(crate) installs_last: Option<Duration>,
    /// The greatest time that a computation takes.
    pub(crate) job_delay: Duration,
    settings: EndpointConfig,
    in_flight: BTreeMap<(Instant, u64), (usize, Cargo)>,
    sequence: u64,
    /// The first answer to each request that an end has got.
    answers: HashMap<(usize, SocketAddr, Vec<u8>), Vec<u8>>,
}

/// The policy most tests start from.
pub(crate) fn ike_policy(encryption: Encryption, integrity: Integrity, prf: Prf, dh: Group) -> IkePolicy {
    IkePolicy {
        encryption: vec![encryption],
        integrity: vec![integrity],
        prf: vec![prf],
        dh: vec![dh],
        ..IkePolicy::default()
    }
}

pub(crate) fn subnet(text: &str) -> TrafficSelector {
    let (address, length) = text.split_once('/').unwrap();
    TrafficSelector::from_prefix(address.parse().unwrap(), length.parse().unwrap())
}

/// The two ends' view of one tunnel.
pub(crate) fn tunnels(addresses: [&str; 2], peers: [&str; 2]) -> [TunnelConfig; 2] {
    let ids = ["a.example", "b.example"];
    let subnets = ["10.1.0.0/16", "10.2.0.0/16"];
    std::array::from_fn(|own| {
        let other = 1 - own;
        TunnelConfig {
            id: TUNNEL,
            name: format!("to-{other}"),
            local: addresses[own].parse().unwrap(),
            other_local: None,
            peer: Some(peers[own].parse().unwrap()),
            local_id: ids[own].parse::<Id>().unwrap(),
            peer_id: ids[other].parse::<Id>().unwrap(),
            psk: Psk::new("correct horse battery staple"),
            ike: ike_policy(Encryption::Aes256Gcm16, Integrity::Sha256, Prf::Sha256, Group::X25519),
            ipsec: IpsecPolicy {
                encryption: vec![Encryption::Aes256Gcm16],
                integrity: vec![Integrity::Sha256],
                esn: true,
                ..IpsecPolicy::default()
            },
            local_ts: vec![subnet(subnets[own])],
            remote_ts: vec![subnet(subnets[other])],
            nat_t: NatT::Auto,
            dpd: Some(Dpd { delay: Duration::from_secs(8), timeout: Duration::from_secs(13) }),
            initiates: true,
            childless: false,
            ppk: None,
        }
    })
}

pub(crate) fn plain_tunnels() -> [TunnelConfig; 2] {
    tunnels(["192.0.2.1", "198.51.100.1"], ["198.51.100.1", "192.0.2.1"])
}

impl World {
    pub(crate) fn new(seed: u64, tunnels: [TunnelConfig; 2]) -> Self {
        Self::with_settings(seed, tunnels, EndpointConfig::default())
    }

    pub(crate) fn with_settings(seed: u64, tunnels: [TunnelConfig; 2], settings: EndpointConfig) -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "std offers no other origin; all time after it is virtual"
        )]
        let start = Instant::now();
        let peers = [tunnels[B].local, tunnels[A].local];
        let mut side = 0;
        let ends = tunnels.map(|tunnel| {
            side += 1;
            let bias = Arc::new(AtomicU16::new(UNBIASED));
            let rng = ChaCha20Rng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(side));
            let rng = Biased { rng, bias: bias.clone() };
            let mut endpoint = Endpoint::new(settings.clone(), Box::new(rng));
            let address = tunnel.local;
            endpoint.set_tunnel(start, tunnel);
            End {
                endpoint,
                address,
                peer: peers[side as usize - 1],
                children: BTreeMap::new(),
                order: Vec::new(),
                since: BTreeMap::new(),
                log: Vec::new(),
                failures: Vec::new(),
                downs: Vec::new(),
                ups: Vec::new(),
                round_trips: Vec::new(),
                keeps_trying: false,
                retry_at: None,
                sending: None,
                drops: 0,
                taken: 0,
                record: None,
                records: BTreeMap::new(),
                ikes: BTreeSet::new(),
                owners: BTreeMap::new(),
                bias,
            }
        });
        Self {
            start,
            now: start,
            rng: ChaCha20Rng::seed_from_u64(seed),
            ends,
            faults: PERFECT,
            nat: None,
            wire: Vec::new(),
            held: None,
            installs_last: None,
            job_delay: Duration::ZERO,
            settings,
            in_flight: BTreeMap::new(),
            sequence: 0,
            answers: HashMap::new(),
        }
    }

    /// Puts `side` behind a NAT with this public address.
    pub(crate) fn behind_nat(mut self, side: usize, public: &str, forward: bool) -> Self {
        let public: IpAddr = public.parse().unwrap();
        self.nat =
            Some(NatBox { inner: self.ends[side].address, public, forward, mappings: BTreeMap::new() });
        self.ends[1 - side].peer = public;
        self
    }

    /// Gives every mapping of the NAT another port, as after its restart.
    pub(crate) fn remap(&mut self) {
        if let Some(nat) = &mut self.nat {
            nat.mappings.values_mut().for_each(|port| *port += 1000);
        }
    }

    pub(crate) fn connect(&mut self, side: usize) {
        let end = &mut self.ends[side];
        end.endpoint.connect(self.now, TUNNEL, end.peer);
        self.settle(side);
    }

    pub(crate) fn close(&mut self, side: usize) {
        self.ends[side].keeps_trying = false;
        self.ends[side].endpoint.close(self.now, TUNNEL);
        self.settle(side);
    }

    /// Rekeys the newest pair of Child SAs of an end.
    pub(crate) fn rekey_child(&mut self, side: usize) {
        if let Some(spi) = self.ends[side].newest_spi() {
            self.ends[side].endpoint.rekey_child(self.now, TUNNEL, spi);
            self.settle(side);
        }
    }

    pub(crate) fn rekey_ike(&mut self, side: usize) {
        self.ends[side].endpoint.rekey_ike(self.now, TUNNEL);
        self.settle(side);
    }

    /// Has an end that keeps trying connect again after a while.
    pub(crate) fn retry(&mut self, side: usize, after: Duration) {
        let end = &mut self.ends[side];
        end.retry_at = end.keeps_trying.then_some(self.now + after);
    }

    /// Forgets everything an end knows, without a word to the peer.
    pub(crate) fn restart(&mut self, side: usize, tunnel: TunnelConfig) {
        let rng = ChaCha20Rng::seed_from_u64(self.rng.next_u64());
        let end = &mut self.ends[side];
        let rng = Biased { rng, bias: end.bias.clone() };
        end.endpoint = Endpoint::new(self.settings.clone(), Box::new(rng));
        end.endpoint.set_tunnel(self.now, tunnel);
        end.children.clear();
        end.order.clear();
        end.sending = None;
        end.record = None;
        end.records.clear();
        end.ikes.clear();
        end.owners.clear();
        self.answers.retain(|(answering, ..), _| *answering != side);
        // What was computed for the old self is of no use to the new one.
        self.in_flight.retain(|_, (to, cargo)| *to != side || !matches!(cargo, Cargo::Job(_)));
        let end = &mut self.ends[side];
        end.log.push("restarted".to_owned());
    }

    /// Goes on in another process with what the last one kept: what it was computing is lost, and a pair of Child SAs
    /// that no record tells of is removed.
    pub(crate) fn resume(&mut self, side: usize, tunnel: TunnelConfig) {
        self.resume_all(side, vec![tunnel]);
    }

    /// The same with several tunnels, the first of which is [`TUNNEL`]. They go on in the order that is given; what is kept
    /// of others is dismissed.
    pub(crate) fn resume_all(&mut self, side: usize, tunnels: Vec<TunnelConfig>) {
        let end = &mut self.ends[side];
        let mut records = std::mem::take(&mut end.records);
        records.extend(end.record.clone().map(|record| (TUNNEL, record)));
        if records.is_empty() {
            self.restart(side, tunnels[0].clone());
            return tunnels.into_iter().for_each(|t| self.ends[side].endpoint.set_tunnel(self.now, t));
        }
        let installed = std::mem::take(&mut self.ends[side].children);
        let (order, sending) = (self.ends[side].order.clone(), self.ends[side].sending);
        // Only what is established gets the same answers as before.
        let kept = |request: &[u8]| request[18] == 36 || request[18] == 37;
        let answers = std::mem::take(&mut self.answers);
        let (now, start) = (self.now, self.start);
        self.restart(side, tunnels[0].clone());
        self.answers = answers;
        self.answers.retain(|(answering, _, request), _| *answering != side || kept(request));
        let end = &mut self.ends[side];
        let mut restored = Vec::new();
        for tunnel in tunnels {
            let id = tunnel.id;
            end.endpoint.set_tunnel(now, tunnel);
            let Some(record) = records.remove(&id) else { continue };
            let again = end.endpoint.restore(now, start, id, &record).expect("the record is whole");
            match id {
                TUNNEL => end.record = Some(record),
                _ => drop(end.records.insert(id, record)),
            }
            end.ikes.extend(again.ike.map(|_| id));
            for RestoredChild { child, .. } in again.children {
                end.owners.insert(child.inbound.spi, id);
                restored.push((child.inbound.spi, child.outbound.spi));
            }
        }
        for record in records.values() {
            end.endpoint.dismiss(now, start, record).expect("the record is whole");
        }
        end.log.push(format!("resumed with {restored:x?}"));
        for spis in &restored {
            assert!(installed.contains_key(spis), "{spis:x?} was never installed");
        }
        end.children = installed.into_iter().filter(|(spis, _)| restored.contains(spis)).collect();
        end.order = order;
        end.order.retain(|spi| restored.iter().any(|(inbound, _)| inbound == spi));
        end.sending = sending.filter(|spi| end.order.contains(spi));
        self.settle(side);
    }

    /// Runs jobs, takes events, sends what is to be sent: as the contract has it, in this order.
    pub(crate) fn settle(&mut self, side: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        loop {
            let end = &mut self.ends[side];
            while let Some(job) = end.endpoint.poll_job() {
                if self.job_delay.is_zero() {
                    end.endpoint.handle_job(self.now, job.run());
                    continue;
                }
                let delay = self.job_delay.as_micros() as u64;
                let at = self.now + Duration::from_micros(self.rng.next_u64() % (delay + 1));
                self.sequence += 1;
                self.in_flight.insert((at, self.sequence), (side, Cargo::Job(job)));
            }
            while let Some(event) = end.endpoint.poll_event() {
                end.take(event, self.now, self.start);
            }
            while let Some(id) = end.endpoint.poll_changed() {
                let record = end.endpoint.record(id, self.start).map(|record| record.to_vec());
                match (id, record) {
                    (TUNNEL, record) => end.record = record,
                    (id, Some(record)) => drop(end.records.insert(id, record)),
                    (id, None) => drop(end.records.remove(&id)),
                }
            }
            let Some(transmit) = end.endpoint.poll_transmit() else { break };
            self.wire.push((side, transmit.payload.clone()));
            sent.push(transmit.payload.clone());
            self.send(transmit.path, transmit.payload);
        }
        sent
    }

    fn send(&mut self, path: Path, payload: Vec<u8>) {
        if self.held.is_some() {
            let Some((to, path)) = self.route(path) else { return };
            return self
                .held
                .iter_mut()
                .for_each(|held| held.push(Held { to, path, payload: payload.clone() }));
        }
        let copies = 1 + usize::from(self.rng.next_u32() % 1000 < self.faults.duplication);
        for _ in 0..copies {
            if self.rng.next_u32() % 1000 < self.faults.loss {
                continue;
            }
            let spread = (self.faults.delay.1 - self.faults.delay.0).as_micros() as u64;
            let delay = self.faults.delay.0 + Duration::from_micros(self.rng.next_u64() % (spread + 1));
            let Some((to, seen)) = self.route(path) else { continue };
            self.sequence += 1;
            self.in_flight.insert((self.now + delay, self.sequence), (to, Cargo::Ike(seen, payload.clone())));
        }
    }

    /// From now on datagrams are held back, and given on by hand.
    pub(crate) fn hold(&mut self) {
        self.held = Some(Vec::new());
    }

    /// The datagrams held back since the last call.
    pub(crate) fn take_held(&mut self) -> Vec<Held> {
        self.held.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Gives on what was held back, and takes what comes of it.
    pub(crate) fn give(&mut self, held: &[Held]) -> Vec<Held> {
        for Held { to, path, payload } in held {
            self.deliver(*to, *path, payload);
        }
        self.take_held()
    }

    /// Lets everything through again, what is held back now included.
    pub(crate) fn let_go(&mut self, held: Vec<Held>) {
        let more = self.held.take().unwrap_or_default();
        for Held { to, path, payload } in held.into_iter().chain(more) {
            self.sequence += 1;
            let at = self.now + self.faults.delay.0;
            self.in_flight.insert((at, self.sequence), (to, Cargo::Ike(path, payload)));
        }
    }

    /// From now on the nonces of an end begin with this octet.
    pub(crate) fn bias(&self, side: usize, first: u8) {
        self.ends[side].bias.store(first.into(), Ordering::Relaxed);
    }

    /// Sends a packet with the SA that an end sends with, if any. ESP is delayed and reordered, but not lost: what does
    /// not arrive is the ends' own doing.
    pub(crate) fn send_packet(&mut self, side: usize) {
        let end = &self.ends[side];
        let child = end.children.values().find(|child| Some(child.inbound.spi) == end.sending);
        let Some(outbound) = child.map(|child| child.outbound.clone()) else { return };
        let spread = (self.faults.delay.1 - self.faults.delay.0).as_micros() as u64;
        let delay = self.faults.delay.0 + Duration::from_micros(self.rng.next_u64() % (spread + 1));
        self.sequence += 1;
        self.in_flight.insert((self.now + delay, self.sequence), (1 - side, Cargo::Esp(outbound)));
    }

    /// A packet arrives.
    fn packet(&mut self, to: usize, keys: &DirectionKeys) {
        let end = &mut self.ends[to];
        let spi = keys.spi;
        let since = end.since.get(&spi).map_or(Duration::ZERO, |since| self.now.duration_since(*since));
        let late = self.installs_last.is_some_and(|time| since < time);
        let installed = |child: &ChildSa| child.initiator || child.switch_outbound || !late;
        if !end.children.values().any(|child| child.inbound == *keys && installed(child)) {
            end.drops += 1;
            let at = self.now.duration_since(self.start).as_secs_f64();
            return end.log.push(format!("{at:9.3} packet dropped: no SA with SPI {spi:x}"));
        }
        end.taken += 1;
        end.endpoint.traffic_seen(self.now, TUNNEL, spi);
        self.settle(to);
    }

    /// Who gets a datagram, and the path as it sees it.
    fn route(&mut self, path: Path) -> Option<(usize, Path)> {
        let (mut source, mut destination) = (path.local, path.remote);
        if let Some(nat) = &mut self.nat {
            if source.ip() == nat.inner {
                let next = 40_000 + nat.mappings.len() as u16;
                let forwarded = nat.forward.then_some(source.port());
                let port = *nat.mappings.entry(source.port()).or_insert(forwarded.unwrap_or(next));
                source = SocketAddr::new(nat.public, port);
            } else if destination.ip() == nat.public {
                let mapped =
                    nat.mappings.iter().find(|(_, public)| **public == destination.port()).map(|(p, _)| *p);
                let port = mapped.or(nat.forward.then_some(destination.port()))?;
                destination = SocketAddr::new(nat.inner, port);
            } else if destination.ip() == nat.inner {
                return None;
            }
        }
        let to = self.ends.iter().position(|end| end.address == destination.ip())?;
        Some((to, Path { local: destination, remote: source }))
    }

    /// Gives a datagram to an end at once, and checks that a request gets the answer it got before.
    pub(crate) fn deliver(&mut self, to: usize, path: Path, payload: &[u8]) -> Vec<Vec<u8>> {
        self.ends[to].endpoint.handle_datagram(self.now, path, payload);
        let sent = self.settle(to);
        let ike = |payload: &[u8]| payload.strip_prefix(&[0; 4][..]).unwrap_or(payload).to_vec();
        let request = ike(payload);
        if request.len() >= 28 && request[19] & 0x20 == 0 {
            let is_answer = |message: &Vec<u8>| {
                message.len() >= 28
                    && message[19] & 0x20 != 0
                    && message[..8] == request[..8]
                    // Refusals of a first message keep no state, so a later copy may fare better.
                    && message[8..16] != [0; 8]
                    && message[20..24] == request[20..24]
            };
            if let Some(answer) = sent.iter().map(|message| ike(message)).find(is_answer) {
                let first = self.answers.entry((to, path.remote, request)).or_insert_with(|| answer.clone());
                assert_eq!(*first, answer, "a replayed request got another answer");
            }
        }
        sent
    }

    /// Lets virtual time go by.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let arrival = self.in_flight.first_key_value().map(|((at, _), _)| *at);
            let timeouts = self.ends.iter().filter_map(|e| e.endpoint.poll_timeout().map(|(at, _)| at));
            let retries = self.ends.iter().filter_map(|e| e.retry_at);
            let Some(next) =
                arrival.into_iter().chain(timeouts).chain(retries).min().filter(|at| *at <= until)
            else {
                break;
            };
            self.now = self.now.max(next);
            if arrival.is_some_and(|at| at <= self.now) {
                let (_, (to, cargo)) = self.in_flight.pop_first().unwrap();
                match cargo {
                    Cargo::Ike(path, payload) => drop(self.deliver(to, path, &payload)),
                    Cargo::Esp(keys) => self.packet(to, &keys),
                    Cargo::Job(job) => {
                        self.ends[to].endpoint.handle_job(self.now, job.run());
                        self.settle(to);
                    }
                }
                continue;
            }
            for side in [A, B] {
                self.ends[side].endpoint.handle_timeout(self.now);
                self.settle(side);
                if self.ends[side].retry_at.is_some_and(|at| at <= self.now) {
                    self.ends[side].retry_at = None;
                    self.connect(side);
                }
            }
        }
        self.now = until;
    }

    pub(crate) fn seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// Asserts that both ends have exactly one pair of Child SAs, the same one, with the same keys; or that
    /// neither has any. Whether they have.
    pub(crate) fn check(&self) -> bool {
        let [a, b] = &self.ends;
        let counts = (a.children.len(), b.children.len());
        if counts == (0, 0) {
            return false;
        }
        assert_eq!(counts, (1, 1), "{}", self.story());
        let (a, b) = (a.children.values().next().unwrap(), b.children.values().next().unwrap());
        assert!(a.inbound == b.outbound && a.outbound == b.inbound, "keys differ\n{}", self.story());
        assert_eq!((&a.local_ts, &a.remote_ts), (&b.remote_ts, &b.local_ts));
        assert_eq!((a.encryption, a.integrity, a.esn), (b.encryption, b.integrity, b.esn));
        assert_ne!(a.initiator, b.initiator);
        assert_eq!(a.encapsulation.is_some(), b.encapsulation.is_some());
        true
    }

    /// Whether nothing is being made or replaced: at each end there is one IKE SA in use, with one pair of Child SAs,
    /// or nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        self.ends.iter().all(|end| {
            let counts = end.endpoint.counts();
            let pairs = end.children.len();
            pairs < 2 && (counts.established, counts.child_sas) == (pairs, pairs)
        })
    }

    #[track_caller]
    pub(crate) fn assert_up(&self) {
        assert!(self.check(), "not up\n{}", self.story());
    }

    #[track_caller]
    pub(crate) fn assert_down(&self) {
        assert!(!self.check(), "still up\n{}", self.story());
    }

    /// Asserts that the tables of both ends hold what one tunnel with one pair of Child SAs needs, or nothing.
    #[track_caller]
    pub(crate) fn assert_no_leak(&self) {
        for end in &self.ends {
            let counts = end.endpoint.counts();
            let up = end.children.len();
            let expected = Counts {
                ike_sas: up,
                established: up,
                child_sas: up,
                half_open: 0,
                spis: up,
                of_tunnels: up,
                first_messages: counts.first_messages.min(up),
                deadlines: if up == 0 { 0 } else { counts.deadlines },
            };
            assert!(up <= 1 && counts == expected, "{counts:?}\n{}", self.story());
        }
    }

    pub(crate) fn child(&self, side: usize) -> &ChildSa {
        self.ends[side].children.values().next().unwrap()
    }

    pub(crate) fn story(&self) -> String {
        let log = |end: &End| end.log.join("\n  ");
        format!("A:\n  {}\nB:\n  {}", log(&self.ends[A]), log(&self.ends[B]))
    }
}

impl End {
    /// The pair that was installed last.
    pub(crate) fn newest(&self) -> &ChildSa {
        self.newest_spi().and_then(|spi| self.children.values().find(|c| c.inbound.spi == spi)).unwrap()
    }

    pub(crate) fn newest_spi(&self) -> Option<u32> {
        self.order.last().copied()
    }

    fn take(&mut self, event: Event, now: Instant, start: Instant) {
        let at = now.duration_since(start).as_secs_f64();
        match event {
            Event::IkeUp { tunnel, suite, path, initiator, .. } => {
                self.log.push(format!("{at:9.3} {tunnel} IKE up {suite} {path} initiator {initiator}"));
                self.ikes.insert(tunnel);
                self.ups.push((suite, path));
            }
            Event::ChildUp { tunnel, child } => {
                let spis = (child.inbound.spi, child.outbound.spi);
                self.log.push(format!("{at:9.3} {tunnel} Child up {spis:x?}"));
                self.owners.insert(spis.0, tunnel);
                self.order.push(spis.0);
                self.since.insert(spis.0, now);
                if child.switch_outbound {
                    self.sending = Some(spis.0);
                }
                assert!(self.children.insert(spis, *child).is_none(), "installed twice");
            }
            Event::SwitchOutbound { inbound_spi, .. } => {
                let child = self.children.values_mut().find(|c| c.inbound.spi == inbound_spi);
                child.expect("only what is installed is switched to").switch_outbound = true;
                self.sending = Some(inbound_spi);
            }
            Event::ChildMoved { inbound_spi, outbound_spi, peer, encapsulation, .. } => {
                let child = self
                    .children
                    .get_mut(&(inbound_spi, outbound_spi))
                    .expect("only what is installed moves");
                child.peer = peer;
                child.encapsulation = encapsulation;
            }
            Event::Alive { round_trip, .. } => self.round_trips.push(round_trip),
            Event::ChildDown { tunnel, inbound_spi, outbound_spi, reason } => {
                let spis = (inbound_spi, outbound_spi);
                self.log.push(format!("{at:9.3} {tunnel} Child down {spis:x?} {reason}"));
                assert_eq!(self.owners.remove(&inbound_spi), Some(tunnel));
                self.order.retain(|spi| *spi != spis.0);
                assert!(self.children.remove(&spis).is_some(), "removed what was not installed");
                if self.sending == Some(inbound_spi) {
                    let ready = |spi: &&u32| {
                        self.children.values().any(|c| c.inbound.spi == **spi && c.switch_outbound)
                    };
                    self.sending = self.order.iter().rev().find(ready).copied();
                }
            }
            Event::IkeDown { tunnel, reason } => {
                self.log.push(format!("{at:9.3} {tunnel} IKE down {reason}"));
                self.downs.push(reason);
                if reason != DownReason::Replaced {
                    self.ikes.remove(&tunnel);
                }
                if self.keeps_trying && reason != DownReason::Replaced {
                    self.retry_at = Some(now + Duration::from_secs(1));
                }
            }
            Event::Failed { tunnel, phase, exchange, cause, .. } => {
                let whose = if tunnel.is_none() { "no tunnel " } else { "" };
                let text = format!("{whose}{phase:?} {exchange}: {cause}");
                self.log.push(format!("{at:9.3} failed {text}"));
                self.failures.push(text);
                if self.keeps_trying {
                    self.retry_at = Some(now + Duration::from_secs(3));
                }
            }
        }
    }
}
