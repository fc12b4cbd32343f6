//! The traffic of a soak: numbered datagrams of every size between every pair of subnets, each of them a packet of its
//! own on the way to the gateway.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::inject::Noise;
use crate::namespace::Namespace;
use crate::sys;

/// Where every datagram goes.
const PORT: u16 = 20_900;
/// Datagrams that are sent together, and how often. Bursts are what fills rings.
const BURST: usize = 20;
const PACE: Duration = Duration::from_millis(10);
/// Flow, number and length of the IP packet, before what fills the datagram.
const HEADER: usize = 4 + 8 + 2;
/// Longest IP packet that fits whole into every tunnel, and the shortest that fits into none.
const FITS: usize = 1400;
const TOO_LONG: usize = 1460;
const LINK: usize = 1500;
const SHORTEST: usize = 64;
/// Of 100 datagrams, how many are as short as can be, and how many fit into no tunnel.
const SHORT: u64 = 30;
const LONG: u64 = 4;

/// From one address of the host that sends to one of the other host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
}

/// What has become of the datagrams of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Sent: each as one packet.
    pub(super) sent: u64,
    /// Those among them that fit into no tunnel: of IPv4, which is cut, and of IPv6, which is refused.
    pub(super) sent_long: [u64; 2],
    /// Arrived whole.
    pub(super) arrived: u64,
    /// Those among them that were cut in two.
    pub(super) arrived_cut: u64,
    /// Arrived again.
    pub(super) repeated: u64,
    /// Arrived with other bytes than were sent.
    pub(super) damaged: u64,
    /// Arrived, and found no room in the socket.
    pub(super) overflowed: u64,
}

/// One direction of the traffic, until it is dropped.
pub(super) struct Direction {
    stop: Arc<AtomicBool>,
    sending: Arc<AtomicBool>,
    sent: Arc<Mutex<Sent>>,
    seen: Arc<Mutex<Seen>>,
    receiver: Arc<UdpSocket>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Sent {
    /// The next number of each flow.
    next: Vec<u64>,
    long: [u64; 2],
    /// Flow and number of what is too long and may not be cut: IPv6.
    refused: HashSet<(usize, u64)>,
}

#[derive(Debug)]
struct Seen {
    /// Of each flow, the numbers that came, a bit each.
    numbers: Vec<Vec<u64>>,
    arrived: u64,
    cut: u64,
    repeated: u64,
    damaged: u64,
}

impl Direction {
    /// Begins to receive in one namespace, and to send in the other.
    pub(super) fn start(from: &Namespace, to: &Namespace, flows: Vec<Flow>, seed: u64) -> Result<Direction> {
        let receiver = to.inside(|| {
            let socket = UdpSocket::bind(("::", PORT)).context("failed to bind the receiving socket")?;
            sys::patient(&socket)?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(Arc::new(socket))
        })?;
        let senders = from.inside(|| flows.iter().map(sender).collect::<Result<Vec<_>>>())?;
        let sent =
            Arc::new(Mutex::new(Sent { next: vec![0; flows.len()], long: [0; 2], refused: HashSet::new() }));
        let seen = Arc::new(Mutex::new(Seen::new(flows.len())));
        let stop = Arc::<AtomicBool>::default();
        let sending = Arc::new(AtomicBool::new(true));
        let receiving = {
            let (socket, seen, stop) = (receiver.clone(), seen.clone(), stop.clone());
            thread::spawn(move || receive(&socket, &seen, &stop))
        };
        let transmitting = {
            let (sent, sending, noise) = (sent.clone(), sending.clone(), Noise::new(seed));
            thread::spawn(move || send(&flows, &senders, &sent, &sending, noise))
        };
        Ok(Direction { stop, sending, sent, seen, receiver, threads: vec![receiving, transmitting] })
    }

    /// Sends nothing more; goes on receiving.
    pub(super) fn silence(&mut self) -> Result<()> {
        self.sending.store(false, Relaxed);
        let sender = self.threads.pop().context("it is silent already")?;
        sender.join().map_err(|_| anyhow!("a sender panicked"))?
    }

    /// The next number of each flow.
    pub(super) fn next(&self) -> Vec<u64> {
        held(&self.sent).next.clone()
    }

    /// How many datagrams that were sent since `marks` have not arrived, of those that some tunnel takes.
    pub(super) fn missing_since(&self, marks: &[u64]) -> u64 {
        let (sent, seen) = (held(&self.sent), held(&self.seen));
        let flows = marks.iter().zip(&sent.next).zip(&seen.numbers).enumerate();
        let missing = flows.map(|(flow, ((from, to), numbers))| {
            let is_missing = |n: &u64| !has(numbers, *n) && !sent.refused.contains(&(flow, *n));
            (*from..*to).filter(is_missing).count() as u64
        });
        missing.sum()
    }

    pub(super) fn count(&self) -> Result<Count> {
        let (sent, seen) = (held(&self.sent), held(&self.seen));
        Ok(Count {
            sent: sent.next.iter().sum(),
            sent_long: sent.long,
            arrived: seen.arrived,
            arrived_cut: seen.cut,
            repeated: seen.repeated,
            damaged: seen.damaged,
            overflowed: sys::overflowed(&self.receiver)?,
        })
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.sending.store(false, Relaxed);
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn new(flows: usize) -> Seen {
        Seen { numbers: vec![Vec::new(); flows], arrived: 0, cut: 0, repeated: 0, damaged: 0 }
    }

    fn note(&mut self, datagram: &[u8]) {
        let Some((flow, number, length)) = read(datagram) else {
            self.damaged += 1;
            return;
        };
        let Some(numbers) = self.numbers.get_mut(flow) else {
            self.damaged += 1;
            return;
        };
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if numbers.len() <= word {
            numbers.resize(word + 1, 0);
        }
        if numbers[word] & bit != 0 {
            self.repeated += 1;
            return;
        }
        numbers[word] |= bit;
        self.arrived += 1;
        self.cut += u64::from(length >= TOO_LONG);
    }
}

fn has(numbers: &[u64], number: u64) -> bool {
    numbers.get((number / 64) as usize).is_some_and(|word| word & 1 << (number % 64) != 0)
}

/// A lock that a thread which panicked held is as good as another: the panic is told when it is joined.
fn held<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sender(flow: &Flow) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((flow.from, 0)).with_context(|| format!("failed to bind {}", flow.from))?;
    sys::ignore_path_mtu(&socket, flow.from.is_ipv4())?;
    Ok(socket)
}

/// The bytes of IP and UDP headers.
fn overhead(flow: &Flow) -> usize {
    if flow.from.is_ipv4() { 28 } else { 48 }
}

fn send(
    flows: &[Flow],
    senders: &[UdpSocket],
    sent: &Mutex<Sent>,
    sending: &AtomicBool,
    mut noise: Noise,
) -> Result<()> {
    let mut datagram = [0u8; LINK];
    let (mut flow, mut next) = (0, Instant::now());
    while sending.load(Relaxed) {
        for _ in 0..BURST {
            // Several packets of a flow in a row, so that one SA has a run of them in a batch.
            if noise.number().is_multiple_of(3) {
                flow = (flow + 1) % flows.len();
            }
            let length = length(&mut noise);
            let number = held(sent).next[flow];
            let payload = &mut datagram[..length - overhead(&flows[flow])];
            write(payload, flow, number, length);
            senders[flow].send_to(payload, (flows[flow].to, PORT)).context("a host could not send")?;
            let mut sent = held(sent);
            sent.next[flow] += 1;
            if length >= TOO_LONG {
                let is_ipv6 = flows[flow].from.is_ipv6();
                sent.long[usize::from(is_ipv6)] += 1;
                if is_ipv6 {
                    sent.refused.insert((flow, number));
                }
            }
        }
        next += PACE;
        match next.checked_duration_since(Instant::now()) {
            Some(early) => thread::sleep(early),
            // What a busy machine made late is not sent all at once.
            None => next = Instant::now(),
        }
    }
    Ok(())
}

/// The length of an IP packet.
fn length(noise: &mut Noise) -> usize {
    let (kind, within) = (noise.number() % 100, noise.number());
    let between = |low: usize, high: usize| low + within as usize % (high - low + 1);
    match kind {
        0..SHORT => SHORTEST,
        99 => LINK,
        kind if kind >= 100 - LONG => between(TOO_LONG, LINK),
        _ => between(SHORTEST, FITS),
    }
}

fn write(datagram: &mut [u8], flow: usize, number: u64, length: usize) {
    let (header, rest) = datagram.split_at_mut(HEADER);
    header[..4].copy_from_slice(&(flow as u32).to_be_bytes());
    header[4..12].copy_from_slice(&number.to_be_bytes());
    header[12..].copy_from_slice(&(length as u16).to_be_bytes());
    rest.fill(number as u8);
}

/// Flow, number and length of a datagram that is as it was written.
fn read(datagram: &[u8]) -> Option<(usize, u64, usize)> {
    let (header, rest) = datagram.split_at_checked(HEADER)?;
    let (flow, number) = (header.first_chunk::<4>()?, header[4..].first_chunk::<8>()?);
    let length = usize::from(u16::from_be_bytes([header[12], header[13]]));
    let (flow, number) = (u32::from_be_bytes(*flow) as usize, u64::from_be_bytes(*number));
    let is_whole = [28, 48].contains(&length.checked_sub(datagram.len())?);
    (is_whole && rest.iter().all(|byte| *byte == number as u8)).then_some((flow, number, length))
}

fn receive(socket: &UdpSocket, seen: &Mutex<Seen>, stop: &AtomicBool) -> Result<()> {
    let mut datagram = [0u8; 2048];
    while !stop.load(Relaxed) {
        match socket.recv_from(&mut datagram) {
            Ok((length, SocketAddr::V4(_) | SocketAddr::V6(_))) => held(seen).note(&datagram[..length]),
            Err(error) => ensure!(
                matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
                "a host could not receive: {error}"
            ),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_read_as_written_and_counted_once() {
        let mut seen = Seen::new(2);
        let mut datagram = [0u8; LINK - 28];
        for (flow, number, length) in [(0, 0, 64), (1, 700, LINK), (0, 1, 64), (0, 1, 64)] {
            let payload = &mut datagram[..length - 28];
            write(payload, flow, number, length);
            seen.note(payload);
        }
        assert_eq!((seen.arrived, seen.cut, seen.repeated, seen.damaged), (3, 1, 1, 0));
        assert!(has(&seen.numbers[1], 700) && !has(&seen.numbers[1], 701) && !has(&seen.numbers[0], 700));
        write(&mut datagram, 1, 2, LINK);
        datagram[900] ^= 1;
        seen.note(&datagram);
        seen.note(&datagram[..5]);
        write(&mut datagram, 2, 0, LINK);
        seen.note(&datagram);
        assert_eq!((seen.arrived, seen.damaged), (3, 3));
    }

    #[test]
    fn lengths_are_those_of_packets_that_fit_every_tunnel_or_none() {
        let mut noise = Noise::new(1);
        let lengths: Vec<usize> = (0..10_000).map(|_| length(&mut noise)).collect();
        assert!(lengths.iter().all(|l| (SHORTEST..=FITS).contains(l) || (TOO_LONG..=LINK).contains(l)));
        for wanted in [SHORTEST, LINK] {
            assert!(lengths.contains(&wanted));
        }
        let long = lengths.iter().filter(|l| **l >= TOO_LONG).count();
        assert!((200..600).contains(&long), "{long}");
    }
}
