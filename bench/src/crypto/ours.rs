//! Adit's own engine, whole: headers, padding, replay check and all.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use adit_esp::{
    Backend, Engine, Outcome, Outer, Packet, Protocol, REPLAY_SLOTS, ReplayState, SaParams, SaStates,
};

use super::{AUTH_KEY, Contender, KEY, Load, SALT, Suite};

/// Bytes before a packet in its buffer, and after it.
const ROOM: usize = 128;

/// An SA of the bench: `number` makes its key.
pub(crate) fn parameters(
    suite: Suite,
    number: u64,
    spi: u32,
    (local, peer): (Ipv4Addr, Ipv4Addr),
) -> SaParams {
    let mut key = KEY;
    key[..8].copy_from_slice(&number.to_be_bytes());
    SaParams {
        generation: 1,
        spi,
        protocol: Protocol::Esp,
        cipher: suite.cipher,
        auth: suite.auth,
        key,
        salt: SALT,
        auth_key: AUTH_KEY,
        esn: false,
        replay_window: 1024,
        outer: Outer { local: IpAddr::V4(local), peer: IpAddr::V4(peer), udp: None },
    }
}

/// Replay windows that are never asked the same number twice.
pub(crate) struct Windows(Vec<(AtomicU64, [AtomicU64; REPLAY_SLOTS])>);

impl Windows {
    /// Windows of so many SAs.
    pub(crate) fn new(sas: usize) -> Self {
        let window = || (AtomicU64::new(0), std::array::from_fn(|_| AtomicU64::new(0)));
        Self((0..sas).map(|_| window()).collect())
    }
}

impl SaStates for Windows {
    fn replay(&self, sa: u32) -> Option<ReplayState<'_>> {
        let (top, slots) = self.0.get(sa as usize)?;
        Some(ReplayState { top, slots })
    }
}

/// A sealing and an opening engine, and packets to send through both.
pub(crate) struct Bench {
    backend: Backend,
    sealing: Engine,
    opening: Engine,
    windows: Windows,
    buffers: Vec<(Vec<u8>, usize)>,
    sas: usize,
    batch: usize,
    next: u64,
}

impl Bench {
    pub(crate) fn new(backend: Backend, load: Load<'_>) -> Self {
        let Load { sizes, sas, batch, .. } = load;
        let mut engines = [(); 2].map(|()| Engine::with_backend(sas, backend));
        for engine in &mut engines {
            for sa in 0..sas {
                let outer = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
                let params = parameters(load.suite, sa as u64, 0x1000, outer);
                engine.install(sa as u32, &params).expect("the parameters of the bench make an SA");
            }
        }
        let [sealing, opening] = engines;
        // As many packets as there are in a batch, but at least one for every SA, so that each gets its turn.
        let count = batch.max(sas);
        let buffers = (0..count).map(|n| {
            let size = sizes[n % sizes.len()];
            let mut buffer = vec![0; size + 2 * ROOM];
            let packet = &mut buffer[ROOM..ROOM + size];
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(size as u16).to_be_bytes());
            packet[8] = 64;
            packet[9] = 17;
            packet[12..20].copy_from_slice(&[10, 1, 0, 2, 10, 2, 0, 2]);
            (buffer, size)
        });
        Self {
            backend,
            sealing,
            opening,
            windows: Windows::new(sas),
            buffers: buffers.collect(),
            sas,
            batch,
            next: 1,
        }
    }
}

/// A packet before and after it was sealed.
#[cfg(feature = "peers")]
pub(super) struct Sealed {
    pub(super) inner: Vec<u8>,
    /// From the ESP header to the ICV.
    pub(super) esp: Vec<u8>,
}

/// The packets of `load` as the fastest backend seals them, one for each SA at least.
#[cfg(feature = "peers")]
pub(super) fn sealed(load: Load<'_>) -> Vec<Sealed> {
    /// Octets of the outer IPv4 header.
    const OUTER: usize = 20;
    let mut bench = Bench::new(Backend::detect(), load);
    let inner = bench.buffers.iter().map(|(buffer, size)| buffer[ROOM..ROOM + size].to_vec());
    let inner: Vec<_> = inner.collect();
    let mut packets: Vec<Packet<'_>> = bench
        .buffers
        .iter_mut()
        .enumerate()
        .map(|(n, (buffer, size))| {
            Packet::new(buffer, ROOM, ROOM + *size, (n % load.sas) as u32, 1 + (n / load.sas) as u64)
        })
        .collect();
    bench.sealing.seal(&mut packets);
    inner
        .into_iter()
        .zip(&packets)
        .map(|(inner, packet)| Sealed { inner, esp: packet.bytes()[OUTER..].to_vec() })
        .collect()
}

impl Contender for Bench {
    fn name(&self) -> String {
        format!("adit {}", self.backend)
    }

    fn round(&mut self, least: Duration) -> (f64, f64) {
        let (mut sealing, mut opening, mut packets) = (Duration::ZERO, Duration::ZERO, 0u32);
        while sealing + opening < least {
            let (sas, next) = (self.sas, self.next);
            for (first, chunk) in self.buffers.chunks_mut(self.batch).enumerate() {
                let first = first * self.batch;
                let mut batch: Vec<Packet<'_>> = chunk
                    .iter_mut()
                    .enumerate()
                    .map(|(n, (buffer, size))| {
                        let (sa, turn) = ((first + n) % sas, (first + n) / sas);
                        Packet::new(buffer, ROOM, ROOM + *size, sa as u32, next + turn as u64)
                    })
                    .collect();
                let begun = Instant::now();
                self.sealing.seal(&mut batch);
                sealing += begun.elapsed();
                for packet in &mut batch {
                    assert_eq!(packet.outcome, Outcome::Done);
                    packet.outcome = Outcome::Pending;
                }
                let begun = Instant::now();
                self.opening.open(&mut batch, &self.windows);
                opening += begun.elapsed();
                assert!(batch.iter().all(|packet| packet.outcome == Outcome::Done));
                packets += batch.len() as u32;
            }
            self.next += self.buffers.len().div_ceil(sas) as u64;
        }
        let each = |time: Duration| time.as_nanos() as f64 / f64::from(packets);
        (each(sealing), each(opening))
    }
}
