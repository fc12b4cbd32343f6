//! What crossed a link: a tcpdump on it, and what each packet was.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket};
use pcap_file::pcap::PcapReader;

use crate::namespace::{Namespace, Process, wait_for};

/// What a packet on the WAN was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// IKE on port 500, or on 4500 behind the non-ESP marker; NAT keepalives.
    Ike,
    /// ESP as IP protocol 50.
    Esp,
    /// ESP in UDP on port 4500.
    EspInUdp,
    /// ARP, and IPv6's neighbour, router and multicast listener discovery: the link's own business.
    Neighbour,
    /// Anything else.
    Plaintext,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Ike => "IKE",
            Kind::Esp => "ESP",
            Kind::EspInUdp => "ESP in UDP",
            Kind::Neighbour => "ARP/ND",
            Kind::Plaintext => "plaintext",
        })
    }
}

/// Says what an Ethernet frame was. The frame may be cut off behind its first 64 bytes.
pub fn classify(frame: &[u8]) -> Kind {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { return Kind::Plaintext };
    let payload = match &packet.net {
        Some(LaxNetSlice::Arp(_)) => return Kind::Neighbour,
        Some(net) => match net.ip_payload_ref() {
            Some(payload) => payload,
            None => return Kind::Plaintext,
        },
        None if frame.get(12..14) == Some(&[0x08, 0x06]) => return Kind::Neighbour,
        None => return Kind::Plaintext,
    };
    match payload.ip_number {
        IpNumber::ENCAPSULATING_SECURITY_PAYLOAD => Kind::Esp,
        // Multicast listener discovery (130 to 132, 143) and neighbour discovery (133 to 137).
        IpNumber::IPV6_ICMP if matches!(payload.payload.first(), Some(130..=137 | 143)) => Kind::Neighbour,
        IpNumber::UDP => classify_udp(payload.payload),
        _ => Kind::Plaintext,
    }
}

/// A datagram, beginning with its UDP header.
fn classify_udp(datagram: &[u8]) -> Kind {
    let port = |at: usize| datagram.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let ports = [port(0), port(2)];
    let data = datagram.get(8..).unwrap_or_default();
    if ports.contains(&Some(500)) {
        return Kind::Ike;
    }
    if !ports.contains(&Some(4500)) {
        return Kind::Plaintext;
    }
    match data {
        [0xff] | [0, 0, 0, 0, ..] => Kind::Ike,
        [_, _, _, _, ..] => Kind::EspInUdp,
        _ => Kind::Plaintext,
    }
}

/// How many packets of each kind crossed, and what the plaintext among them looked like.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: BTreeMap<Kind, u64>,
    examples: Vec<String>,
}

impl Tally {
    /// Packets of this kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// ESP packets, with or without UDP around them.
    pub fn esp(&self) -> u64 {
        self.count(Kind::Esp) + self.count(Kind::EspInUdp)
    }

    /// Everything that was neither ESP nor IKE nor neighbour discovery.
    pub fn plaintext(&self) -> u64 {
        self.count(Kind::Plaintext)
    }

    /// # Errors
    /// Something crossed in clear: the first such packets are shown.
    pub fn expect_no_plaintext(&self, place: &str) -> Result<()> {
        if self.plaintext() == 0 {
            return Ok(());
        }
        bail!(
            "{} packets crossed {place} in clear, among them:\n    {}",
            self.plaintext(),
            self.examples.join("\n    ")
        )
    }

    fn add(&mut self, frame: &[u8]) {
        let kind = classify(frame);
        *self.counts.entry(kind).or_default() += 1;
        if kind == Kind::Plaintext && self.examples.len() < 5 {
            self.examples.push(describe(frame));
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        f.write_str(if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }.as_str())
    }
}

/// A tcpdump on one interface.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Begins to capture the first 128 bytes of each packet; returns when tcpdump listens.
    ///
    /// # Errors
    /// tcpdump cannot be started.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Capture> {
        Capture::with(namespace, interface, 128, "")
    }

    /// Like [`Capture::start`], for whole packets that pass a filter in tcpdump's language.
    ///
    /// # Errors
    /// tcpdump cannot be started.
    pub fn whole(namespace: &Namespace, interface: &str, filter: &str) -> Result<Capture> {
        Capture::with(namespace, interface, 65535, filter)
    }

    fn with(namespace: &Namespace, interface: &str, bytes: u32, filter: &str) -> Result<Capture> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tcpdump-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let file = namespace.logs().join(format!("{name}.pcap"));
        let mut command = namespace.command("tcpdump");
        // 64 MiB of kernel buffer carry a TCP stream through moments in which tcpdump has no core.
        command.args(["-n", "-i", interface, "-s", &bytes.to_string(), "-B", "65536", "--immediate-mode"]);
        command.args(["-Z", "root", "-U", "-w"]).arg(&file).args(filter.split_whitespace());
        let mut process = namespace.spawn(&name, &mut command)?;
        let listens = || {
            if let Some(status) = process.ended() {
                bail!("tcpdump ended at once ({status}):\n{}", process.log_tail(5));
            }
            Ok(process.log().contains("listening on"))
        };
        wait_for("tcpdump to listen", Duration::from_secs(10), listens)?;
        Ok(Capture { process, file })
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// tcpdump did not end, or its file is unreadable.
    pub fn finish(mut self) -> Result<Captured> {
        // What is on its way through the kernel now belongs to the capture.
        thread::sleep(Duration::from_millis(300));
        self.process.signal(libc::SIGINT)?;
        self.process.wait(Duration::from_secs(20))?;
        let log = self.process.log();
        let missed =
            log.lines().find_map(|line| line.strip_suffix(" packets dropped by kernel")?.parse().ok());
        Ok(Captured { file: self.file.clone(), missed: missed.unwrap_or(0) })
    }
}

/// A finished capture.
#[derive(Clone, Debug)]
pub struct Captured {
    file: PathBuf,
    /// Packets that tcpdump was too slow for.
    pub missed: u64,
}

impl Captured {
    /// Counts the packets by kind.
    ///
    /// # Errors
    /// The file is unreadable.
    pub fn tally(&self) -> Result<Tally> {
        let mut tally = Tally::default();
        self.each(|frame| tally.add(frame))?;
        Ok(tally)
    }

    /// The frames of one kind.
    ///
    /// # Errors
    /// The file is unreadable.
    pub fn frames(&self, kind: Kind) -> Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        self.each(|frame| {
            if classify(frame) == kind {
                frames.push(frame.to_vec());
            }
        })?;
        Ok(frames)
    }

    fn each(&self, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let file =
            File::open(&self.file).with_context(|| format!("failed to open {}", self.file.display()))?;
        let mut reader = PcapReader::new(BufReader::new(file))?;
        while let Some(packet) = reader.next_packet() {
            visit(packet.context("tcpdump's file is damaged")?.data());
        }
        Ok(())
    }
}

/// One line about a frame, for people.
fn describe(frame: &[u8]) -> String {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { return format!("{} bytes", frame.len()) };
    let (source, destination, protocol) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            (header.source_addr().to_string(), header.destination_addr().to_string(), ip.payload_ip_number())
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (header.source_addr().to_string(), header.destination_addr().to_string(), ip.payload().ip_number)
        }
        _ => return format!("Ethernet type {:02x?}, {} bytes", frame.get(12..14), frame.len()),
    };
    let protocol = protocol.keyword_str().unwrap_or("unknown protocol");
    format!("{source} > {destination} {protocol}, {} bytes", frame.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
    }

    fn udp(ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = ethernet().ipv4([192, 0, 2, 1], [198, 51, 100, 1], 64).udp(ports.0, ports.1);
        builder.write(&mut frame, data).unwrap();
        frame
    }

    fn ip(protocol: IpNumber, data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = ethernet().ipv4([192, 0, 2, 1], [198, 51, 100, 1], 64);
        builder.write(&mut frame, protocol, data).unwrap();
        frame
    }

    #[test]
    fn ports_and_marker_tell_ike_from_esp() {
        assert_eq!(classify(&udp((500, 500), &[7; 28])), Kind::Ike);
        assert_eq!(classify(&udp((41000, 4500), &[0, 0, 0, 0, 9, 9])), Kind::Ike);
        assert_eq!(classify(&udp((4500, 4500), &[0xff])), Kind::Ike);
        assert_eq!(classify(&udp((4500, 41000), &[0xc0, 0, 0, 1, 0, 0, 0, 1])), Kind::EspInUdp);
        assert_eq!(classify(&udp((4500, 4500), &[1, 2])), Kind::Plaintext);
        assert_eq!(classify(&udp((53, 4501), &[0; 20])), Kind::Plaintext);
    }

    #[test]
    fn protocols_tell_the_rest() {
        assert_eq!(classify(&ip(IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, &[1; 40])), Kind::Esp);
        assert_eq!(classify(&ip(IpNumber::ICMP, &[8, 0, 0, 0, 0, 0, 0, 0])), Kind::Plaintext);
        assert_eq!(classify(&ip(IpNumber::TCP, &[0; 20])), Kind::Plaintext);
        let arp = [&[0xff; 6][..], &[2; 6], &[8, 6], &[0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
        assert_eq!(classify(&arp), Kind::Neighbour);
        assert_eq!(classify(&[0; 9]), Kind::Plaintext);
    }

    #[test]
    fn ipv6_discovery_is_the_links_own_business() {
        let frame = |kind: u8| {
            let mut frame = Vec::new();
            let builder = ethernet().ipv6([0xfe; 16], [0xff; 16], 255);
            builder.write(&mut frame, IpNumber::IPV6_ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0]).unwrap();
            frame
        };
        assert_eq!(classify(&frame(135)), Kind::Neighbour);
        assert_eq!(classify(&frame(128)), Kind::Plaintext);
    }

    #[test]
    fn a_frame_cut_off_by_the_snap_length_keeps_its_kind() {
        let frame = udp((4500, 4500), &[3; 1200]);
        assert_eq!(classify(&frame[..96]), Kind::EspInUdp);
    }

    #[test]
    fn a_tally_shows_what_went_in_clear() {
        let mut tally = Tally::default();
        tally.add(&udp((500, 500), &[7; 28]));
        tally.expect_no_plaintext("the WAN").unwrap();
        tally.add(&ip(IpNumber::ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]));
        let words = tally.expect_no_plaintext("the WAN").unwrap_err().to_string();
        assert!(words.contains("1 packets") && words.contains("192.0.2.1 > 198.51.100.1 ICMP"), "{words}");
    }
}
