//! Numbered datagrams both ways, a few at once or a stream at a steady pace: what is lost is counted exactly. (ping
//! waits for the last answers only twice as long as for the first ones, which is no time on a busy machine.)

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::namespace::Namespace;

/// The ports of the next exchange or stream, the same at both ends. Never the same twice in a row: a program that is just
/// being started holds copies of our sockets for a moment.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000
}
/// How long the last datagrams may take.
const GRACE: Duration = Duration::from_millis(700);

/// Datagrams of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Sent.
    pub sent: u64,
    /// Received, each counted once.
    pub received: u64,
    /// Received again.
    pub repeated: u64,
}

/// Datagrams of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// From the first host to the second.
    pub forth: Way,
    /// From the second host to the first.
    pub back: Way,
}

impl Count {
    /// Datagrams that never arrived.
    pub fn lost(&self) -> u64 {
        [self.forth, self.back].iter().map(|way| way.sent.saturating_sub(way.received)).sum()
    }

    /// Datagrams sent.
    pub fn sent(&self) -> u64 {
        self.forth.sent + self.back.sent
    }

    /// # Errors
    /// A datagram is missing or came twice, or none was sent.
    pub fn expect_all(&self) -> Result<()> {
        for (name, way) in [("forth", self.forth), ("back", self.back)] {
            if way.sent == 0 || way.received != way.sent || way.repeated != 0 {
                bail!("{} of {} datagrams {name} arrived, {} twice", way.received, way.sent, way.repeated);
            }
        }
        Ok(())
    }
}

/// Sends `count` datagrams of `size` bytes each way at once, and waits up to `limit` for the last.
///
/// # Errors
/// A namespace cannot be entered, the port is taken, or a host cannot send.
pub fn exchange(
    one: (&Namespace, IpAddr),
    other: (&Namespace, IpAddr),
    count: u64,
    size: usize,
    limit: Duration,
) -> Result<Count> {
    let port = next_port();
    let sockets = [open(one, port)?, open(other, port)?];
    let mut seen = [Seen::default(), Seen::default()];
    let mut datagram = vec![0; size.max(8)];
    for number in 0..count {
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        for (socket, to) in [(&sockets[0], other.1), (&sockets[1], one.1)] {
            socket.send_to(&datagram, SocketAddr::new(to, port)).context("a datagram could not be sent")?;
        }
    }
    let until = Instant::now() + limit;
    let complete = |seen: &[Seen; 2]| seen.iter().all(|seen| seen.of(count).received == count);
    while !complete(&seen) && Instant::now() < until {
        for ((socket, seen), from) in sockets.iter().zip(&mut seen).zip([other.1, one.1]) {
            socket.set_read_timeout(Some(Duration::from_millis(5)))?;
            while seen.of(count).received < count
                && let Some(number) = receive(socket, SocketAddr::new(from, port))
            {
                seen.note(number);
            }
        }
    }
    let [back, forth] = seen.map(|seen| seen.of(count));
    Ok(Count { forth, back })
}

fn open((namespace, address): (&Namespace, IpAddr), port: u16) -> Result<UdpSocket> {
    namespace.inside(|| Ok(UdpSocket::bind(SocketAddr::new(address, port))?))
}

/// The number of the next datagram, if one comes from there in the socket's time.
fn receive(socket: &UdpSocket, from: SocketAddr) -> Option<u64> {
    let mut datagram = [0u8; 2000];
    let (length, source) = socket.recv_from(&mut datagram).ok()?;
    let number = datagram[..length].first_chunk::<8>()?;
    (source == from).then(|| u64::from_be_bytes(*number))
}

/// A stream between two hosts, both ways, until it is ended.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    ends: Vec<JoinHandle<Result<(u64, Seen)>>>,
}

impl Stream {
    /// Begins to send a datagram every `pace` each way.
    ///
    /// # Errors
    /// A namespace cannot be entered, or the port is taken.
    pub fn start(one: (&Namespace, IpAddr), other: (&Namespace, IpAddr), pace: Duration) -> Result<Stream> {
        let stop = Arc::new(AtomicBool::new(false));
        // Both sockets are there before the first datagram goes.
        let port = next_port();
        let sockets = [(open(one, port)?, other.1), (open(other, port)?, one.1)];
        let run = |(socket, to): (UdpSocket, IpAddr)| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || end(&socket, SocketAddr::new(to, port), pace, &stop))
        };
        let ends = sockets.into_iter().map(run).collect();
        Ok(Stream { stop, ends })
    }

    /// Ends it and counts.
    ///
    /// # Errors
    /// A socket failed.
    pub fn finish(mut self) -> Result<Count> {
        self.stop.store(true, Ordering::Relaxed);
        let mut results = Vec::new();
        for end in self.ends.drain(..) {
            results.push(end.join().map_err(|_| anyhow!("a stream's thread panicked"))??);
        }
        let [(sent_forth, seen_back), (sent_back, seen_forth)] =
            <[_; 2]>::try_from(results).map_err(|_| anyhow!("a stream has two ends"))?;
        Ok(Count { forth: seen_forth.of(sent_forth), back: seen_back.of(sent_back) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Which numbers came.
#[derive(Debug, Default)]
struct Seen {
    numbers: Vec<bool>,
    repeated: u64,
}

impl Seen {
    fn note(&mut self, number: u64) {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        // An hour of the fastest stream; a larger number is none of ours.
        if at > 10_000_000 {
            return;
        }
        if self.numbers.len() <= at {
            self.numbers.resize(at + 1, false);
        }
        self.repeated += u64::from(std::mem::replace(&mut self.numbers[at], true));
    }

    fn of(&self, sent: u64) -> Way {
        let received = self.numbers.iter().filter(|seen| **seen).count() as u64;
        Way { sent, received, repeated: self.repeated }
    }
}

/// Sends at the pace and receives what comes in between; goes on receiving for [`GRACE`] after the last.
fn end(socket: &UdpSocket, to: SocketAddr, pace: Duration, stop: &AtomicBool) -> Result<(u64, Seen)> {
    let (mut sent, mut seen) = (0u64, Seen::default());
    let mut next = Instant::now();
    let mut last = None;
    loop {
        let now = Instant::now();
        if last.is_none() && stop.load(Ordering::Relaxed) {
            last = Some(now + GRACE);
        }
        let until = match last {
            Some(last) if now >= last => return Ok((sent, seen)),
            Some(last) => last,
            None if now >= next => {
                let mut datagram = [0u8; 200];
                datagram[..8].copy_from_slice(&sent.to_be_bytes());
                socket.send_to(&datagram, to).context("a stream could not send")?;
                sent += 1;
                next += pace;
                continue;
            }
            None => next,
        };
        socket.set_read_timeout(Some((until - now).max(Duration::from_micros(100))))?;
        if let Some(number) = receive(socket, to) {
            seen.note(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_and_what_comes_twice_is_counted() {
        let mut seen = Seen::default();
        for number in [0, 1, 3, 3, 5, u64::MAX] {
            seen.note(number);
        }
        let way = seen.of(6);
        assert_eq!(way, Way { sent: 6, received: 4, repeated: 1 });
        let count = Count { forth: way, back: Way { sent: 2, received: 2, repeated: 0 } };
        assert_eq!((count.lost(), count.sent()), (2, 8));
        assert!(count.expect_all().unwrap_err().to_string().contains("4 of 6"));
    }

    #[test]
    fn an_empty_stream_shows_nothing() {
        assert!(Count::default().expect_all().is_err());
    }
}
