//! The MTU of the paths to peers, learned from routers (RFC 4301 section 8.2.1, RFC 1191, RFC 8201).
//!
//! Raw sockets bring ICMP errors that quote ESP or AH. One is believed when it quotes an outbound SA of ours, with both
//! its addresses, its ports and a sequence number that was sent not long ago: who cannot see our packets has to guess
//! more than 40 bits. It shortens a path, never lengthens it, and is forgotten after ten minutes, when the path may have
//! become longer again. The errors are read by the thread that follows routes, few at a time: whoever sends many keeps
//! neither that nor a worker from its work.

use super::{Resolution, Snapshot, Way};
use crate::{
    packet::Quote,
    raw::{Raw, Taken},
    worker::parameters,
};
use adit_esp::Engine;
use adit_maps::{
    address::Address,
    decode::protocol,
    sa::{Mtu, SadConfig, direction, flags},
    user::{Sad, Version},
};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

/// How long a path's MTU is believed (RFC 1191 section 6.3, RFC 8201 section 4).
const BELIEVED: Duration = Duration::from_secs(600);
/// How far behind the last packet of an SA one may lie that a router complains of.
const RECENT: u32 = 1 << 22;
/// Errors that are read at once.
const AT_ONCE: usize = 64;
/// How soon after some errors others are read.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest error that is read, in bytes: they quote no more than fits into 1,280.
const LONGEST: usize = 1536;

/// What is known of the paths to peers.
pub(super) struct Paths {
    sockets: Vec<Raw>,
    sad: Arc<Sad>,
    sas: Sas,
    learned: Learned,
    /// Expands one SA at a time, to ask how much it adds.
    scratch: Engine,
    /// Not before then are errors read again.
    pause: Instant,
    buffer: Box<[u8]>,
}

impl Paths {
    /// Opens the sockets in this network namespace; those over IPv6 where the kernel has it.
    pub(super) fn open(sad: Arc<Sad>, now: Instant) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for (v6, protocol) in [(false, protocol::ICMP), (true, protocol::ICMPV6)] {
            match Raw::open(v6, protocol, &too_big(v6)) {
                Ok(raw) => sockets.push(raw),
                Err(e) if v6 && e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                Err(e) => return Err(e),
            }
        }
        let sas = Sas::new(sad.capacity());
        let (learned, scratch) = (Learned::default(), Engine::new(1));
        Ok(Paths { sockets, sad, sas, learned, scratch, pause: now, buffer: vec![0; LONGEST].into() })
    }

    /// The sockets, when they are to be waited for; else until when they are not.
    pub(super) fn sockets(&self, now: Instant) -> Result<impl Iterator<Item = &Raw>, Instant> {
        if now < self.pause { Err(self.pause) } else { Ok(self.sockets.iter()) }
    }

    /// Reads what routers say; whether a path became shorter by it.
    pub(super) fn hear(&mut self, now: Instant, snapshot: &Snapshot) -> bool {
        if now < self.pause {
            return false;
        }
        let (mut left, mut changed) = (AT_ONCE, false);
        while left > 0
            && let Some(taken) = self.sockets.iter().find_map(|raw| raw.take(&mut self.buffer))
        {
            left -= 1;
            let Taken::Packet(len) = taken else { continue };
            let quote = self.buffer.get(..len).and_then(Quote::read);
            changed |= quote.is_some_and(|quote| self.believe(&quote, now, snapshot));
        }
        if left < AT_ONCE {
            self.pause = now + PAUSE;
        }
        changed
    }

    fn believe(&mut self, quote: &Quote, now: Instant, snapshot: &Snapshot) -> bool {
        let last = |index| self.sad.state(index).map_or(0, |s| s.last_sequence.load(Relaxed));
        if !self.sas.holds(quote, last) {
            // Perhaps it is younger than the last look.
            self.sas.look(&self.sad);
            if !self.sas.holds(quote, last) {
                return false;
            }
        }
        let known = path_mtu(snapshot, &quote.destination).unwrap_or(u16::MAX);
        let is_news = quote.mtu < known && self.learned.shorten(quote.destination, quote.mtu, now);
        if is_news {
            let peer = std::net::IpAddr::from(quote.destination);
            tracing::info!(%peer, mtu = quote.mtu, "a router on the path takes no longer packets");
        }
        is_news
    }

    /// Forgets what is too old; whether there was something.
    pub(super) fn forget(&mut self, now: Instant) -> bool {
        self.learned.forget(now)
    }

    /// What has been learned, by peer.
    pub(super) fn learned(&self) -> HashMap<Address, u16> {
        self.learned.0.iter().map(|(peer, (mtu, _))| (*peer, *mtu)).collect()
    }

    /// Writes into the state of every outbound SA what fits its path.
    pub(super) fn show(&mut self, snapshot: &Snapshot) {
        self.sas.look(&self.sad);
        let Paths { sad, sas, scratch, .. } = self;
        for (index, sealing) in sas.sealing() {
            let limit = if sealing.limit == 0 { u16::MAX } else { sealing.limit };
            let outer = path_mtu(snapshot, &sealing.peer).map_or(0, |mtu| mtu.min(limit));
            if sealing.shown == Some(outer) {
                continue;
            }
            let Some(mut config) = sad.read(index) else { continue };
            let inner = parameters(&config).and_then(|p| {
                scratch.install(0, &p).ok()?;
                Some(scratch.max_inner(0, usize::from(outer)))
            });
            config.wipe();
            scratch.remove(0);
            if let (Some(inner), Some(state)) = (inner, sad.state(index)) {
                state.show_mtu(Mtu { outer, inner: inner as u16 });
                sealing.shown = Some(outer);
            }
        }
    }
}

/// The longest packet that fits the path to a peer, as far as it is known.
fn path_mtu(snapshot: &Snapshot, peer: &Address) -> Option<u16> {
    match snapshot.resolve(Way::Outer, peer, |_| false) {
        Resolution::Hop(hop) => Some(hop.mtu),
        Resolution::Unresolved { mtu, .. } => Some(mtu),
        Resolution::Local | Resolution::None => None,
    }
}

/// Path MTUs by peer, and until when each is believed.
#[derive(Default)]
struct Learned(HashMap<Address, (u16, Instant)>);

impl Learned {
    /// Takes in a shorter path; whether it is.
    fn shorten(&mut self, peer: Address, mtu: u16, now: Instant) -> bool {
        let is_shorter = self.0.get(&peer).is_none_or(|(known, _)| mtu < *known);
        if is_shorter {
            self.0.insert(peer, (mtu, now + BELIEVED));
        }
        is_shorter
    }

    fn forget(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|_, (_, until)| *until > now);
        self.0.len() < before
    }
}

/// An outbound SA, as far as it shows in its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sealing {
    local: Address,
    peer: Address,
    protocol: u8,
    spi: u32,
    udp: Option<(u16, u16)>,
    /// Largest outer packet by configuration; 0 for none.
    limit: u16,
    /// The outer MTU that its state tells of.
    shown: Option<u16>,
}

impl Sealing {
    /// Of an entry; `None` for an inbound SA.
    fn of(config: &SadConfig) -> Option<Self> {
        (config.direction == direction::OUTBOUND).then_some(Sealing {
            local: config.local,
            peer: config.peer,
            protocol: config.protocol,
            spi: config.spi,
            udp: (config.flags & flags::UDP != 0).then_some((config.local_port, config.peer_port)),
            limit: config.mtu,
            shown: None,
        })
    }

    fn key(&self) -> (Address, u8, u32) {
        (self.peer, self.protocol, self.spi)
    }

    /// Whether the quoted packet may be one of this SA, whose last one had the number `last`.
    fn sent(&self, quote: &Quote, last: u64) -> bool {
        let behind = |sequence| (last as u32).wrapping_sub(sequence);
        self.key() == (quote.destination, quote.protocol, quote.spi)
            && self.local == quote.source
            && self.udp == quote.udp
            && last > 0
            && quote.sequence.is_none_or(|sequence| behind(sequence) < RECENT)
    }
}

/// The outbound SAs of SAD_CONFIG as they were at the last look.
struct Sas {
    entries: Box<[(Version, Option<Sealing>)]>,
    by_spi: HashMap<(Address, u8, u32), u32>,
}

impl Sas {
    fn new(capacity: u32) -> Self {
        let entries = vec![(Version::default(), None); capacity as usize];
        Sas { entries: entries.into(), by_spi: HashMap::new() }
    }

    /// Reads every entry that is another than it was.
    fn look(&mut self, sad: &Sad) {
        for (index, (version, sealing)) in (0..).zip(&mut self.entries) {
            let now = sad.version(index);
            if now == *version {
                continue;
            }
            if let Some(gone) = sealing.take()
                && self.by_spi.get(&gone.key()) == Some(&index)
            {
                self.by_spi.remove(&gone.key());
            }
            *version = Version::default();
            let Some(mut config) = sad.read(index) else { continue };
            *version = Version { generation: config.generation, revision: config.revision };
            *sealing = Sealing::of(&config);
            config.wipe();
            if let Some(sealing) = sealing {
                self.by_spi.insert(sealing.key(), index);
            }
        }
    }

    /// Whether one of them may have sent the quoted packet; `last` tells the number of an SA's last packet.
    fn holds(&self, quote: &Quote, last: impl Fn(u32) -> u64) -> bool {
        let index = self.by_spi.get(&(quote.destination, quote.protocol, quote.spi));
        index.is_some_and(|index| {
            let (_, sealing) = &self.entries[*index as usize];
            sealing.is_some_and(|sealing| sealing.sent(quote, last(*index)))
        })
    }

    fn sealing(&mut self) -> impl Iterator<Item = (u32, &mut Sealing)> {
        (0..).zip(&mut self.entries).filter_map(|(index, (_, sealing))| Some((index, sealing.as_mut()?)))
    }
}

/// A classic BPF program that takes "too big" about ESP, AH and UDP. It sees an IPv4 packet from the IP header on, IPv6's
/// from the ICMPv6 header on; the IP header that is quoted follows eight bytes of ICMP.
fn too_big(v6: bool) -> Vec<libc::sock_filter> {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET};
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let is = |jt, jf, k: u32| step(BPF_JMP | BPF_JEQ | BPF_K, jt, jf, k);
    let (mode, kind_and_code, carried) = if v6 { (BPF_ABS, 0x0200, 8 + 6) } else { (BPF_IND, 0x0304, 8 + 9) };
    let mut program = vec![
        step(BPF_LD | BPF_H | mode, 0, 0, 0),
        is(0, 5, kind_and_code),
        step(BPF_LD | BPF_B | mode, 0, 0, carried),
        is(2, 0, protocol::ESP.into()),
        is(1, 0, protocol::AH.into()),
        is(0, 1, protocol::UDP.into()),
        step(BPF_RET | BPF_K, 0, 0, u32::MAX),
        step(BPF_RET | BPF_K, 0, 0, 0),
    ];
    if !v6 {
        // The index register becomes the length of the IPv4 header.
        program.insert(0, step(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0));
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Address = Address::v4([198, 51, 100, 1]);

    fn sealing() -> Sealing {
        Sealing {
            local: Address::v4([192, 0, 2, 1]),
            peer: PEER,
            protocol: protocol::ESP,
            spi: 0xc0ff_ee01,
            udp: None,
            limit: 0,
            shown: None,
        }
    }

    fn quote() -> Quote {
        let Sealing { local, peer, protocol, spi, udp, .. } = sealing();
        Quote { mtu: 1400, source: local, destination: peer, protocol, udp, spi, sequence: Some(1000) }
    }

    #[test]
    fn only_who_saw_a_packet_of_late_is_believed() {
        let sa = sealing();
        assert!(sa.sent(&quote(), 1000) && sa.sent(&quote(), 1000 + u64::from(RECENT) - 1));
        // The upper half of an extended sequence number is not on the wire.
        assert!(sa.sent(&quote(), (7 << 32) + 1001));
        assert!(sa.sent(&Quote { sequence: None, ..quote() }, 1));
        for wrong in [
            Quote { spi: 0xc0ff_ee02, ..quote() },
            Quote { source: PEER, ..quote() },
            Quote { destination: Address::v4([198, 51, 100, 2]), ..quote() },
            Quote { protocol: protocol::AH, ..quote() },
            Quote { udp: Some((4500, 4500)), ..quote() },
            Quote { sequence: Some(1001), ..quote() },
            Quote { sequence: Some(1000u32.wrapping_sub(RECENT)), ..quote() },
        ] {
            assert!(!sa.sent(&wrong, 1000), "{wrong:?}");
        }
        assert!(!sa.sent(&Quote { sequence: None, ..quote() }, 0), "nothing was sent yet");
    }

    #[test]
    fn a_path_becomes_shorter_only_and_is_forgotten_in_time() {
        let (mut learned, now) = (Learned::default(), Instant::now());
        assert!(learned.shorten(PEER, 1400, now));
        assert!(!learned.shorten(PEER, 1400, now + BELIEVED / 2));
        assert!(!learned.shorten(PEER, 1450, now));
        assert!(learned.shorten(PEER, 1300, now + BELIEVED / 2));
        assert!(!learned.forget(now + BELIEVED));
        assert_eq!(learned.0[&PEER].0, 1300);
        assert!(learned.forget(now + BELIEVED / 2 + BELIEVED));
        assert!(learned.0.is_empty());
    }
}
