//! A gateway with many tunnels, the peers at their other ends, and packets between them.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use adit_dataplane::in_memory::{Gateway, Side, Surroundings};
use adit_esp::{Auth, Backend, Cipher, Engine, Outcome, Packet};
use adit_maps::{
    address::{Address, Prefix},
    decode::{ETHERNET, protocol},
    meta::{Meta, task},
    policy::{PortRange, Selector},
    sa::{SaRef, SadConfig, auth, cipher, direction},
    user::{Directory, Sad, Selectors},
};
use anyhow::{Context, Result, ensure};

use crate::crypto::{IMIX, Suite, ours};

/// Packets that come in together.
const BATCH: usize = 256;
/// Octets before and after a packet in a buffer of the peers.
const ROOM: usize = 128;
const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OURS_IN_MAPS: Address = Address::v4(OURS.octets());
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// Hosts of the site.
const HOSTS: u32 = 250;
const IP_HEADER: usize = 20;
const TTL: u8 = 64;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the site to the peers.
    Seal,
    /// From the peers to the site.
    Open,
}

impl Way {
    /// In one word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Seal => "seal",
            Way::Open => "open",
        }
    }
}

/// A gateway, and the peers' sides of its SAs.
pub(crate) struct Tunnels {
    gateway: Gateway,
    /// The SAs of each tunnel: outbound, inbound.
    sas: Vec<[SaRef; 2]>,
    /// Seals for all peers by the number of the tunnel, and opens by that behind all of those.
    peers: Engine,
    /// Where the peers work.
    buffers: Vec<Vec<u8>>,
    /// Number of the next packet, either way.
    next: [usize; 2],
}

impl Tunnels {
    /// A gateway with `count` tunnels, whose maps are in a directory of their own in `parent`.
    ///
    /// # Errors
    /// When it does not start, or does not seal and open as the peers do.
    pub(crate) fn start(parent: &Directory, suite: Suite, count: usize, backend: Backend) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!("bench{}", STARTED.fetch_add(1, Relaxed));
        let dir = Directory::new(parent.path().join(&name));
        let tunnels = 0..count as u32;
        let surroundings = Surroundings {
            address: OURS_IN_MAPS,
            router: Address::v4(ROUTER.octets()),
            lan: Prefix::new(host(0).into(), 16).context("a prefix")?,
            hosts: (0..HOSTS).map(|n| Address::v4(host(n).octets())).collect(),
            remote: tunnels.clone().map(remote_subnet).collect::<Result<_>>()?,
        };
        let max_sas = 2 * count as u32;
        let gateway = Gateway::start(&dir, &name, max_sas, Some(backend), &surroundings)
            .with_context(|| format!("the gateway with {count} tunnels"))?;
        let (sad, selectors) = (Sad::open(&dir)?, Selectors::open(&dir)?);
        let sas = tunnels.map(|n| install(&sad, &selectors, suite, n)).collect::<Result<_>>()?;
        let mut peers = Engine::with_backend(2 * count, backend);
        for n in 0..count as u32 {
            for (index, outbound) in [(n, false), (n + count as u32, true)] {
                let ends = if outbound { (OURS, peer(n)) } else { (peer(n), OURS) };
                let params = ours::parameters(suite, key(n, outbound), spi(n, outbound), ends);
                peers.install(index, &params)?;
            }
        }
        let longest = IMIX.iter().max().copied().unwrap_or_default();
        let buffers = (0..BATCH).map(|_| vec![0; longest + 2 * ROOM]).collect();
        let mut tunnels = Tunnels { gateway, sas, peers, buffers, next: [0; 2] };
        tunnels.check()?;
        // Every SA is expanded when it is first used.
        for _ in 0..count.div_ceil(BATCH) {
            for way in [Way::Seal, Way::Open] {
                tunnels.batch(way, &[64], |_| ())?;
            }
        }
        Ok(tunnels)
    }

    /// How many tunnels there are.
    pub(super) fn count(&self) -> usize {
        self.sas.len()
    }

    /// Nanoseconds that a packet takes to be sealed and to be opened, measured for at least `least`.
    pub(super) fn round(&mut self, sizes: &[usize], least: Duration) -> Result<[f64; 2]> {
        let (mut times, mut packets) = ([Duration::ZERO; 2], 0);
        while times[0] + times[1] < least {
            for (way, time) in [Way::Seal, Way::Open].into_iter().zip(&mut times) {
                *time += self.batch(way, sizes, |_| ())?;
            }
            packets += BATCH;
        }
        Ok(times.map(|time| time.as_nanos() as f64 / packets as f64))
    }

    /// Lets a batch of packets through the gateway; how long that took it.
    ///
    /// # Errors
    /// When not all came out.
    pub(crate) fn batch(
        &mut self,
        way: Way,
        sizes: &[usize],
        mut each: impl FnMut(&[u8]),
    ) -> Result<Duration> {
        let first = self.next[way as usize];
        self.next[way as usize] += BATCH;
        let (from, to) = match way {
            Way::Seal => (Side::Lan, Side::Wan),
            Way::Open => (Side::Wan, Side::Lan),
        };
        let count = self.sas.len();
        let mut frames = Vec::with_capacity(BATCH);
        for (n, buffer) in (first..).zip(&mut self.buffers) {
            let size = sizes[n % sizes.len()];
            write_inner(&mut buffer[ROOM..ROOM + size], way, (n % count) as u32, n as u32);
            let seq = (n / count + 1) as u64;
            frames.push(Packet::new(buffer, ROOM, ROOM + size, (n % count) as u32, seq));
        }
        if way == Way::Open {
            self.peers.seal(&mut frames);
        }
        for (n, packet) in (first..).zip(&mut frames) {
            let task = if way == Way::Seal { task::SEAL } else { task::OPEN };
            let SaRef { index, generation } = self.sas[n % count][way as usize];
            let meta = Meta { sa: index, generation, task, ip: ETHERNET as u8, ..Meta::default() };
            let begin = packet.start - ETHERNET;
            packet.buf[packet.start - 2..packet.start].copy_from_slice(&[8, 0]);
            let given = self.gateway.give(from, &meta, &packet.buf[begin..packet.end]);
            ensure!(given, "the gateway has no room for a packet");
        }
        let (mut found, mut time) = (0, Duration::ZERO);
        while found < BATCH {
            let (packets, taken) = self.gateway.turn();
            ensure!(packets > 0, "the gateway found {found} of {BATCH} packets");
            found += packets;
            time += taken;
        }
        let sent = self.gateway.take(to, |frame| each(frame));
        ensure!(sent == BATCH, "{sent} of {BATCH} packets came out of the gateway");
        Ok(time)
    }

    /// Sees that the peers open what the gateway seals, that it opens what they seal, and that nothing is changed on
    /// the way but the hop limit and its checksum.
    fn check(&mut self) -> Result<()> {
        let count = self.sas.len();
        let windows = ours::Windows::new(2 * count);
        for way in [Way::Seal, Way::Open] {
            let (first, mut out) = (self.next[way as usize], Vec::new());
            self.batch(way, &IMIX, |frame| out.push(frame[ETHERNET..].to_vec()))?;
            for (n, packet) in (first..).zip(&mut out) {
                let (mut inner, end) = (vec![0; IMIX[n % IMIX.len()]], packet.len());
                let range = if way == Way::Seal {
                    let sa = (n % count + count) as u32;
                    let mut batch = [Packet::new(packet, 0, end, sa, 0)];
                    self.peers.open(&mut batch, &windows);
                    ensure!(batch[0].outcome == Outcome::Done, "a peer cannot open: {:?}", batch[0].outcome);
                    batch[0].start..batch[0].end
                } else {
                    0..end
                };
                let got = &packet[range];
                write_inner(&mut inner, way, (n % count) as u32, n as u32);
                inner[8] -= 1;
                inner[10..12].copy_from_slice(&got[10..12]);
                ensure!(got == inner, "packet {n} was changed on its way ({way:?})");
                ensure!(checksum(&got[..IP_HEADER]) == 0, "the checksum of packet {n} is wrong ({way:?})");
            }
        }
        Ok(())
    }
}

/// Both SAs of a tunnel.
fn install(sad: &Sad, selectors: &Selectors, suite: Suite, tunnel: u32) -> Result<[SaRef; 2]> {
    let subnet = remote_subnet(tunnel)?;
    let everything = Prefix::new(host(0).into(), 16).context("a prefix")?;
    for (at, prefix) in (2 * tunnel..).zip([everything, subnet]) {
        let (first, last) = (prefix.address, prefix.last());
        let selector = Selector { first, last, ports: PortRange::ANY, protocol: 0, reserved: [0; 3] };
        selectors.set(at, selector);
    }
    let mut refs = [SaRef::default(); 2];
    for (sa, outbound) in refs.iter_mut().zip([true, false]) {
        let params =
            ours::parameters(suite, key(tunnel, outbound), spi(tunnel, outbound), (OURS, peer(tunnel)));
        let (cipher, auth) = codes(suite)?;
        let config = SadConfig {
            tunnel,
            spi: params.spi,
            policy: tunnel,
            replay_window: params.replay_window,
            selectors: 2 * tunnel,
            local_selectors: 1,
            remote_selectors: 1,
            direction: if outbound { direction::OUTBOUND } else { direction::INBOUND },
            protocol: protocol::ESP,
            cipher,
            auth,
            local: OURS_IN_MAPS,
            peer: Address::v4(peer(tunnel).octets()),
            salt: params.salt,
            key: params.key,
            auth_key: params.auth_key,
            ..SadConfig::free()
        };
        *sa = sad.install(2 * tunnel + u32::from(!outbound), &config).context("the SAD is full")?;
    }
    Ok(refs)
}

/// A suite as the maps have it.
fn codes(suite: Suite) -> Result<(u8, u8)> {
    let cipher = match suite.cipher {
        Cipher::Aes128Gcm16 => cipher::AES128_GCM16,
        Cipher::Aes192Gcm16 => cipher::AES192_GCM16,
        Cipher::Aes256Gcm16 => cipher::AES256_GCM16,
        Cipher::ChaCha20Poly1305 => cipher::CHACHA20_POLY1305,
        Cipher::Aes128Cbc => cipher::AES128_CBC,
        Cipher::Aes256Cbc => cipher::AES256_CBC,
        other => anyhow::bail!("{other:?} is not among the suites of the bench"),
    };
    let auth = match suite.auth {
        Auth::None => auth::NONE,
        Auth::HmacSha1_96 => auth::HMAC_SHA1_96,
        Auth::HmacSha256_128 => auth::HMAC_SHA256_128,
        Auth::HmacSha512_256 => auth::HMAC_SHA512_256,
        other => anyhow::bail!("{other:?} is not among the suites of the bench"),
    };
    Ok((cipher, auth))
}

fn spi(tunnel: u32, outbound: bool) -> u32 {
    if outbound { 0x10_0000 + tunnel } else { 0x20_0000 + tunnel }
}

fn key(tunnel: u32, outbound: bool) -> u64 {
    u64::from(tunnel) << 1 | u64::from(outbound)
}

fn peer(tunnel: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x6440_0001 + tunnel)
}

fn host(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a01_0001 + n % HOSTS)
}

fn remote_subnet(tunnel: u32) -> Result<Prefix> {
    Prefix::new(Ipv4Addr::from_bits(0x0a40_0000 + (tunnel << 8)).into(), 24).context("a prefix")
}

/// A UDP packet between a host of ours and one behind the tunnel.
fn write_inner(packet: &mut [u8], way: Way, tunnel: u32, n: u32) {
    let remote = Ipv4Addr::from_bits(0x0a40_0002 + (tunnel << 8));
    let (source, destination) = if way == Way::Seal { (host(n), remote) } else { (remote, host(n)) };
    let len = packet.len() as u16;
    let (header, payload) = packet.split_at_mut(IP_HEADER);
    header.copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, TTL, protocol::UDP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&destination.octets());
    let check = checksum(header);
    header[10..12].copy_from_slice(&check.to_be_bytes());
    payload.fill(n as u8);
    let udp = len - IP_HEADER as u16;
    payload[..8].copy_from_slice(&[0x30, 0x39, 0, 9, (udp >> 8) as u8, udp as u8, 0, 0]);
}

/// The Internet checksum (RFC 1071) of an even number of octets; 0 over octets that hold theirs.
fn checksum(octets: &[u8]) -> u16 {
    let mut sum: u32 =
        octets.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
