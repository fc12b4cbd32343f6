//! Two endpoints and the network between them, driven by a script.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::jobs;
use crate::{
    Dpd, Encryption, Endpoint, EndpointConfig, Event, Group, IkePolicy, Integrity, IpsecPolicy, Mode, NatT,
    Path, Ppk, Prf, Psk, TrafficSelector, TunnelConfig, TunnelId, Version,
    sa::Role,
    v1::{forge::Hash, wire::Chain},
    wire::{ExchangeType, Header, payload::decode_chain},
};

const ADDRESSES: [[u8; 4]; 2] = [[192, 0, 2, 1], [198, 51, 100, 1]];
const TUNNEL: TunnelId = TunnelId(1);
/// Datagrams on their way at a time, and remembered to be sent again.
const MAX_DATAGRAMS: usize = 64;
/// Steps of one script.
const MAX_STEPS: usize = 200;
/// Far more than two ends need for one tunnel, however often they try: it only tells growth without bound.
const MAX_SAS: usize = 128;
const WAITS: [u64; 8] = [0, 1, 500, 2_000, 9_000, 31_000, 70_000, 3_700_000];

/// A datagram on its way.
#[derive(Clone)]
struct Datagram {
    to: usize,
    path: Path,
    octets: Vec<u8>,
}

pub(super) struct World<'a> {
    script: Script<'a>,
    version: Version,
    now: Instant,
    ends: [Endpoint; 2],
    children: [Vec<u32>; 2],
    up: usize,
    flight: VecDeque<Datagram>,
    history: Vec<Datagram>,
}

/// The octets that say what happens; nothing happens any more when they end.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<usize> {
        Some(usize::from(self.u8()?) << 8 | usize::from(self.u8()?))
    }

    fn octets(&mut self, length: usize) -> &'a [u8] {
        let (octets, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        octets
    }
}

/// One for the whole process: what a script does depends on the time that passes in it alone.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    #[allow(clippy::disallowed_methods, reason = "std offers no other origin; all time after it is virtual")]
    *ORIGIN.get_or_init(Instant::now)
}

/// One end's view of the tunnel, with what the first octet of the script chooses.
fn tunnel(own: usize, choice: u8) -> TunnelConfig {
    let chosen = |bit: u8| choice >> bit & 1 == 1;
    let address = |side: usize| IpAddr::from(ADDRESSES[side]);
    let subnet = |side: usize| TrafficSelector::from_prefix([10, side as u8 + 1, 0, 0].into(), 16);
    let version = if chosen(0) { Version::Ikev1 } else { Version::Ikev2 };
    let cbc = version == Version::Ikev1 || chosen(2);
    let encryption = if cbc { Encryption::Aes128 } else { Encryption::Aes128Gcm16 };
    let dh = vec![Group::X25519];
    TunnelConfig {
        id: TUNNEL,
        name: String::new(),
        local: address(own),
        other_local: None,
        peer: Some(address(1 - own)),
        local_id: address(own).into(),
        peer_id: address(1 - own).into(),
        psk: Psk::new("a key that both ends have"),
        ike: IkePolicy {
            version,
            mode: if chosen(1) { Mode::Aggressive } else { Mode::Main },
            encryption: vec![encryption],
            integrity: vec![Integrity::Sha1, Integrity::Sha256],
            prf: vec![Prf::Sha256],
            dh: dh.clone(),
            reauthenticate: chosen(5),
            ..IkePolicy::default()
        },
        ipsec: IpsecPolicy {
            encryption: vec![encryption],
            integrity: vec![Integrity::Sha1],
            pfs: if chosen(3) { dh } else { Vec::new() },
            ..IpsecPolicy::default()
        },
        local_ts: vec![subnet(own)],
        remote_ts: vec![subnet(1 - own)],
        nat_t: if chosen(4) { NatT::Force } else { NatT::Auto },
        dpd: Some(Dpd { delay: Duration::from_secs(8), timeout: Duration::from_secs(13) }),
        initiates: true,
        childless: version == Version::Ikev2 && chosen(1),
        ppk: (version == Version::Ikev2 && chosen(5)).then(|| Ppk {
            id: b"ppk".to_vec(),
            key: Psk::new("another"),
            required: own == 1,
        }),
    }
}

impl<'a> World<'a> {
    pub(super) fn new(script: &'a [u8]) -> Self {
        let mut script = Script(script);
        let choice = script.u8().unwrap_or(0);
        let now = origin();
        let ends = std::array::from_fn(|own| {
            let mut config = EndpointConfig::default();
            if choice >> 6 & 1 == 1 {
                config.cookie_threshold = 0;
            }
            if choice >> 7 == 1 {
                config.fragment_size = 300;
            }
            let mut endpoint = Endpoint::new(config, Box::new(ChaCha20Rng::seed_from_u64(own as u64)));
            endpoint.set_tunnel(now, tunnel(own, choice));
            endpoint
        });
        let (flight, history) = (VecDeque::new(), Vec::new());
        Self {
            script,
            version: tunnel(0, choice).ike.version,
            now,
            ends,
            children: Default::default(),
            up: 0,
            flight,
            history,
        }
    }

    /// Runs the script to its end; how many pairs of Child SAs it brought up, both ends' views counted.
    pub(super) fn run(mut self) -> usize {
        for _ in 0..MAX_STEPS {
            if self.step().is_none() {
                break;
            }
            self.settle();
        }
        for end in &self.ends {
            let sas = end.sas.len() + end.v1.sas();
            assert!(sas <= MAX_SAS, "{sas} IKE SAs");
        }
        self.up
    }

    /// Runs the jobs of both ends, and takes what they tell and send.
    fn settle(&mut self) {
        for (side, end) in self.ends.iter_mut().enumerate() {
            while let Some(job) = end.poll_job() {
                end.handle_job(self.now, jobs::run(job));
            }
            while let Some(event) = end.poll_event() {
                match event {
                    Event::ChildUp { child, .. } => {
                        self.up += 1;
                        self.children[side].push(child.inbound.spi);
                    }
                    Event::ChildDown { inbound_spi, .. } => {
                        self.children[side].retain(|spi| *spi != inbound_spi);
                    }
                    Event::Failed { cause, .. } => drop(cause.to_string()),
                    _ => {}
                }
            }
            while let Some(transmit) = end.poll_transmit() {
                let Path { local, remote } = transmit.path;
                let path = Path { local: remote, remote: local };
                let datagram = Datagram { to: 1 - side, path, octets: transmit.payload };
                if self.flight.len() < MAX_DATAGRAMS {
                    self.flight.push_back(datagram.clone());
                }
                if self.history.len() < MAX_DATAGRAMS {
                    self.history.push(datagram);
                }
            }
        }
    }

    fn deliver(&mut self, Datagram { to, path, octets }: &Datagram) {
        self.ends[*to].handle_datagram(self.now, *path, octets);
    }

    fn step(&mut self) -> Option<()> {
        match self.script.u8()? % 14 {
            0 => self.command()?,
            1 | 2 => {
                if let Some(datagram) = self.flight.pop_front() {
                    self.deliver(&datagram);
                }
            }
            3 => {
                let (at, change) = (self.script.u16()?, self.script.u8()?);
                if let Some(mut datagram) = self.flight.pop_front() {
                    let length = datagram.octets.len().max(1);
                    if let Some(octet) = datagram.octets.get_mut(at % length) {
                        *octet ^= change;
                    }
                    self.deliver(&datagram);
                }
            }
            4 => {
                let length = self.script.u16()?;
                if let Some(mut datagram) = self.flight.pop_front() {
                    datagram.octets.truncate(length);
                    self.deliver(&datagram);
                }
            }
            5 => {
                if let Some(datagram) = self.flight.front().cloned() {
                    self.deliver(&datagram);
                }
            }
            6 => drop(self.flight.pop_front()),
            7 => self.flight.rotate_left(usize::from(self.flight.len() > 1)),
            8 => {
                let (to, port, length) = (self.script.u8()?, self.script.u8()?, self.script.u8()?);
                let octets = self.script.octets(length.into()).to_vec();
                let side = usize::from(to & 1);
                let port = if port & 1 == 0 { 500 } else { 4500 };
                let [local, remote] = [side, 1 - side].map(|side| SocketAddr::from((ADDRESSES[side], port)));
                self.deliver(&Datagram { to: side, path: Path { local, remote }, octets });
            }
            9 => {
                let wait = WAITS[usize::from(self.script.u8()?) % WAITS.len()];
                self.now += Duration::from_millis(wait);
                self.timeouts();
            }
            10 => {
                let next = self.ends.iter().filter_map(|end| end.poll_timeout()).map(|(at, _)| at).min();
                self.now = next.map_or(self.now, |at| at.max(self.now));
                self.timeouts();
            }
            11 => {
                let at = usize::from(self.script.u8()?);
                if let Some(datagram) = self.history.get(at % self.history.len().max(1)).cloned() {
                    self.deliver(&datagram);
                }
            }
            12 => self.forge()?,
            _ => {
                for _ in 0..16 {
                    let Some(datagram) = self.flight.pop_front() else { break };
                    self.deliver(&datagram);
                    self.settle();
                }
            }
        }
        Some(())
    }

    fn timeouts(&mut self) {
        self.ends.iter_mut().for_each(|end| end.handle_timeout(self.now));
    }

    fn command(&mut self) -> Option<()> {
        let choice = self.script.u8()?;
        let side = usize::from(choice & 1);
        let (now, end, peer) = (self.now, &mut self.ends[side], IpAddr::from(ADDRESSES[1 - side]));
        let child = self.children[side].last().copied().unwrap_or(1);
        match choice >> 1 & 7 {
            0 | 1 => end.connect(now, TUNNEL, peer),
            2 => end.reconnect(now, TUNNEL, peer),
            3 => end.rekey_ike(now, TUNNEL),
            4 => end.rekey_child(now, TUNNEL, child),
            5 => end.close_child(now, TUNNEL, child),
            6 => end.close(now, TUNNEL),
            _ => {
                let flow = [side, 1 - side]
                    .map(|s| TrafficSelector::from_prefix([10, s as u8 + 1, 0, choice].into(), 32));
                let [own, other] = flow;
                end.traffic_seen(now, TUNNEL, child);
                end.acquire(now, TUNNEL, peer, Some((own, other)));
            }
        }
        Some(())
    }

    /// A message under an end's own keys, with payloads as the script has them.
    fn forge(&mut self) -> Option<()> {
        let (choice, id, length) = (self.script.u8()?, self.script.u8()?, self.script.u8()?);
        let octets = self.script.octets(length.into());
        let (first, chain) = octets.split_first()?;
        if self.version == Version::Ikev1 {
            return self.forge_v1(choice, id, *first, chain);
        }
        let Ok(payloads) = decode_chain(*first, chain) else { return Some(()) };
        let side = usize::from(choice & 1);
        let kinds: Vec<_> = ExchangeType::of(Version::Ikev2).collect();
        let exchange = kinds[usize::from(choice >> 2) % kinds.len()];
        let end = &mut self.ends[side];
        let Some(sa) = end.sas.values_mut().next() else { return Some(()) };
        let response = choice >> 1 & 1 == 1;
        let message_id = if response { sa.window.expected } else { sa.window.next };
        let header = Header {
            initiator_spi: sa.initiator_spi(),
            responder_spi: sa.responder_spi(),
            exchange,
            from_initiator: sa.role == Role::Initiator,
            response,
            message_id: message_id.wrapping_add(u32::from(id & 3)).wrapping_sub(1),
        };
        let path = Path { local: sa.path.remote, remote: sa.path.local };
        let Some(channel) = sa.channel() else { return Some(()) };
        let longest = if id < 128 { usize::MAX } else { 130 };
        let messages = channel.outgoing.seal_within(longest, header, &payloads, &mut *end.rng);
        let marker: &[u8] = if path.local.port() == 4500 { &[0; 4] } else { &[] };
        for message in messages {
            self.deliver(&Datagram { to: 1 - side, path, octets: [marker, &message].concat() });
        }
        Some(())
    }

    fn forge_v1(&mut self, choice: u8, place: u8, first: u8, chain: &[u8]) -> Option<()> {
        let Ok(chain) = Chain::decode(first, chain) else { return Some(()) };
        let side = usize::from(choice & 1);
        let quick = choice >> 1 & 1 == 1;
        let hash = [Hash::None, Hash::First, Hash::First, Hash::Next][usize::from(choice >> 2 & 3)];
        let table = &mut self.ends[side].v1;
        let Some((path, message)) = table.forge(quick, hash, place, chain.payloads) else {
            return Some(());
        };
        let path = Path { local: path.remote, remote: path.local };
        let marker: &[u8] = if path.local.port() == 4500 { &[0; 4] } else { &[] };
        self.deliver(&Datagram { to: 1 - side, path, octets: [marker, &message].concat() });
        Some(())
    }
}
