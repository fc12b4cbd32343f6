//! The XDP program, run by the kernel on frames made here (`BPF_PROG_TEST_RUN`): its verdicts, the action and counter of
//! each, and the metadata. Nothing is attached to an interface, so `no_metadata`, which takes a driver without room, is
//! not among them.

#[path = "xdp/spd.rs"]
mod spd;

use adit_maps::{
    address::Prefix,
    classes::Image,
    decode::protocol,
    event::kind,
    meta::{Meta, task},
    policy::{ClassPair, MAX_RULES, PortRange, Rule, RuleList, action},
    port::{Port, role},
    sa::{SaRef, SadConfig, SpiKey},
    user::{Directory, Events, Locals, Outbounds, Ports, Sad, SpdTables, SpiIndex, Verdicts, Xsks, name},
    verdict::Verdict,
};
use adit_tests::scenario::unavailable;
use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    programs::{TestRun, TestRunOptions, Xdp},
};
use etherparse::{IpNumber, PacketBuilder};
use libtest_mimic::{Arguments, Completion, Trial};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::fd::{FromRawFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex},
};
use zerocopy::FromBytes;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// The interface that `BPF_PROG_TEST_RUN` says the frame came from.
const LOOPBACK: u32 = 1;
const SLOT: u32 = 3;
const POLICY: u32 = 7;
const SPI: u32 = 0xc0ff_ee01;
/// The inbound SAs, which have the same SPI: they differ by their protocol.
const ESP_SA: u32 = 12;
const AH_SA: u32 = 13;
const OUTBOUND: SaRef = SaRef { index: 11, generation: 1 };

const GATEWAY: [u8; 4] = [192, 0, 2, 1];
const PEER: [u8; 4] = [198, 51, 100, 1];
const SITE_A: [u8; 4] = [10, 1, 0, 2];
const SITE_B: [u8; 4] = [10, 2, 0, 2];

/// The loaded program and its maps, with one policy 10.1.0.0/16 → 10.2.0.0/16 (and 2001:db8:1::/48 → 2001:db8:2::/48),
/// one inbound SA of ESP and one of AH, and TCP port 22 of the policy in clear, UDP port 9 of it discarded.
struct Program {
    ebpf: Ebpf,
    ports: Ports,
    outbounds: Outbounds,
    verdicts: Verdicts,
    events: Events,
    xsks: Xsks,
    sad: Sad,
    spi_index: SpiIndex,
    spd: SpdTables,
    dir: Directory,
}

impl Program {
    fn load() -> Result<Self> {
        let object = object();
        let bytes = std::fs::read(&object)
            .with_context(|| format!("{} is missing: run `cargo xtask build`", object.display()))?;
        let dir = Directory::new(private_bpffs()?);
        let mut loader = EbpfLoader::new();
        for name in name::ALL {
            loader.map_pin_path(name, dir.pin(name));
        }
        let mut ebpf = loader.load(&bytes)?;
        dir.stamp_or_check()?;
        let program: &mut Xdp = ebpf.program_mut("adit_xdp").context("no program adit_xdp")?.try_into()?;
        program.load()?;

        let mut locals = Locals::open(&dir)?;
        locals.insert(IpAddr::from(GATEWAY).into(), 0)?;
        locals.insert("2001:db8::1".parse::<IpAddr>()?.into(), 0)?;
        let mut this = Program {
            ports: Ports::open(&dir)?,
            outbounds: Outbounds::open(&dir)?,
            verdicts: Verdicts::open(&dir)?,
            events: Events::open(&dir)?,
            xsks: Xsks::open(&dir)?,
            sad: Sad::open(&dir)?,
            spi_index: SpiIndex::open(&dir)?,
            spd: SpdTables::open(&dir)?,
            dir,
            ebpf,
        };
        this.standard_policies()?;
        for (index, protocol) in [(ESP_SA, protocol::ESP), (AH_SA, protocol::AH)] {
            let inbound = this.sad.install(index, &SadConfig::free()).context("no such SA")?;
            for destination in [IpAddr::from(GATEWAY), "2001:db8::1".parse()?] {
                let key = SpiKey { destination: destination.into(), spi: SPI, protocol: u32::from(protocol) };
                this.spi_index.insert(key, inbound)?;
            }
        }
        this.role(role::LAN)?;
        Ok(this)
    }

    fn standard_policies(&mut self) -> Result<()> {
        for class in [1, 2] {
            self.spd.insert_rules(ClassPair { source: class, destination: class }, rules())?;
        }
        self.replace_classes(
            &[(prefix("10.1.0.0/16")?, 1), (prefix("2001:db8:1::/48")?, 2)].into(),
            &[(prefix("10.2.0.0/16")?, 1), (prefix("2001:db8:2::/48")?, 2)].into(),
        )
    }

    fn replace_classes(
        &mut self,
        sources: &BTreeMap<Prefix, u32>,
        destinations: &BTreeMap<Prefix, u32>,
    ) -> Result<()> {
        self.spd.replace_classes(&Image::new(sources, destinations).ok().context("too many prefixes")?);
        Ok(())
    }

    fn role(&mut self, roles: u32) -> Result<()> {
        Ok(self.ports.insert(LOOPBACK, Port { slot: SLOT, roles, ..Port::default() })?)
    }

    /// Runs the program on `frame` and requires the action and that exactly `verdict`'s counter moved by one.
    /// Returns what comes out: the metadata, if any, and the frame.
    fn expect(&mut self, frame: &[u8], action: u32, verdict: Verdict) -> Result<Vec<u8>> {
        let before = self.counters()?;
        let (returned, out) = self.run(frame)?;
        let after = self.counters()?;
        for ((v, b), (_, a)) in before.iter().zip(&after) {
            let expected = b + u64::from(*v == verdict);
            ensure!(*a == expected, "counter {} went from {b} to {a}, expected {expected}", v.label());
        }
        ensure!(returned == action, "action {returned}, expected {action}");
        Ok(out)
    }

    fn run(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        let program: &mut Xdp =
            self.ebpf.program_mut("adit_xdp").context("no program adit_xdp")?.try_into()?;
        let mut out = vec![0; frame.len() + 64];
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        })?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    fn counters(&self) -> Result<Vec<(Verdict, u64)>> {
        Verdict::ALL.iter().map(|v| Ok((*v, self.verdicts.read(SLOT, *v)?))).collect()
    }
}

/// The object file, as `cargo xtask build` leaves it.
fn object() -> PathBuf {
    match std::env::var_os("ADIT_XDP_OBJECT") {
        Some(path) => path.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/adit-xdp.o"),
    }
}

fn rules() -> RuleList {
    let rule = |action, protocol, port: Option<u16>| Rule {
        action,
        protocol,
        reserved: 0,
        source_ports: PortRange::ANY,
        destination_ports: port.map_or(PortRange::ANY, |p| PortRange { first: p, last: p }),
        policy: POLICY,
    };
    let protect = rule(action::PROTECT, 0, None);
    let mut list = RuleList { len: 3, rules: [protect; MAX_RULES] };
    list.rules[0] = rule(action::BYPASS, protocol::TCP, Some(22));
    list.rules[1] = rule(action::DISCARD, protocol::UDP, Some(9));
    list
}

fn prefix(s: &str) -> Result<Prefix> {
    let (ip, len) = s.split_once('/').context("no /")?;
    Prefix::new(ip.parse()?, len.parse()?).context("prefix too long")
}

/// A bpffs that only this process sees and that goes away with it.
fn private_bpffs() -> Result<PathBuf> {
    let dir = std::env::temp_dir();
    let c = |s: &str| std::ffi::CString::new(s);
    // SAFETY: plain system calls on strings that outlive them; the mount namespace becomes this process's own first.
    unsafe {
        ensure!(libc::unshare(libc::CLONE_NEWNS) == 0, "unshare: {}", std::io::Error::last_os_error());
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let none = std::ptr::null();
        ensure!(
            libc::mount(none, c("/")?.as_ptr(), none, private, none.cast()) == 0,
            "mount --make-rprivate"
        );
        let (kind, target) = (c("bpf")?, std::ffi::CString::new(dir.as_os_str().as_encoded_bytes())?);
        let mounted = libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, none.cast());
        ensure!(mounted == 0, "mount bpffs: {}", std::io::Error::last_os_error());
    }
    Ok(dir)
}

fn udp(source: [u8; 4], destination: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let builder =
        PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(source, destination, 64).udp(ports.0, ports.1);
    builder.write(&mut out, payload).expect("writing to a Vec does not fail");
    out
}

fn udp6(source: &str, destination: &str, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let address = |s: &str| s.parse::<std::net::Ipv6Addr>().expect("a literal address").octets();
    let mut out = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6(address(source), address(destination), 64)
        .udp(ports.0, ports.1);
    builder.write(&mut out, payload).expect("writing to a Vec does not fail");
    out
}

fn tcp(source: [u8; 4], destination: [u8; 4], port: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let builder =
        PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(source, destination, 64).tcp(40000, port, 1, 1000);
    builder.write(&mut out, b"data").expect("writing to a Vec does not fail");
    out
}

fn esp_payload(spi: u32) -> Vec<u8> {
    [&spi.to_be_bytes()[..], &1u32.to_be_bytes(), &[0x5a; 48]].concat()
}

fn esp(destination: [u8; 4], spi: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(PEER, destination, 64);
    builder.write(&mut out, IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, &esp_payload(spi)).expect("as above");
    out
}

fn ah_payload(spi: u32) -> Vec<u8> {
    // Next header IPv4, 24 bytes long, and as much as an inner packet of an ICV of 12 bytes.
    [&[4, 4, 0, 0][..], &spi.to_be_bytes(), &1u32.to_be_bytes(), &[0x5a; 12 + 28]].concat()
}

fn ah(destination: [u8; 4], spi: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(PEER, destination, 64);
    builder.write(&mut out, IpNumber::AUTHENTICATION_HEADER, &ah_payload(spi)).expect("as above");
    out
}

/// An IPv6 packet with this next header, behind a destination-options header when asked for.
fn ip6(destination: &str, options: bool, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = udp6("2001:db8::2", destination, (0, 0), &[]);
    frame.truncate(14 + 40);
    frame[20] = next_header;
    if options {
        frame[20] = 60;
        frame.extend([next_header, 0, 1, 4, 0, 0, 0, 0]);
    }
    frame.extend(payload);
    let len = (frame.len() - 14 - 40) as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame
}

/// The frame came out unchanged behind metadata that says `task` with `sa`.
fn redirected(out: &[u8], frame: &[u8], task: u8, sa: SaRef) -> Result<()> {
    let (meta, rest) = Meta::read_from_prefix(out).ok().context("no metadata")?;
    let expected = Meta { sa: sa.index, generation: sa.generation, task, ip: 14, reserved: [0; 6] };
    ensure!(meta == expected, "metadata {meta:?}, expected {expected:?}");
    ensure!(rest == frame, "the frame was changed");
    Ok(())
}

/// A socket that can sit in XSKS; it is never bound, so nothing is ever delivered to it.
fn socket() -> Result<OwnedFd> {
    // SAFETY: a plain system call; the descriptor is owned at once.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "AF_XDP socket: {}", std::io::Error::last_os_error());
    // SAFETY: just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Each CPU tells of unknown SPIs by itself; on one, how often is certain.
fn pin_to_one_cpu() {
    // SAFETY: plain system calls on a set that lives here; where they fail the tests run as before.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

type Scenario = fn(&mut Program) -> Result<()>;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("an_interface_that_is_no_port_passes_uncounted", |p| {
        p.ports.remove(&LOOPBACK)?;
        let before = p.counters()?;
        ensure!(p.run(&udp(SITE_A, SITE_B, (1, 2), &[]))?.0 == XDP_PASS);
        ensure!(p.counters()? == before);
        Ok(())
    }),
    ("arp_passes", |p| {
        let mut arp = udp(SITE_A, SITE_B, (1, 2), &[0; 32]);
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        p.expect(&arp, XDP_PASS, Verdict::NotIp).map(drop)
    }),
    ("malformed_headers_are_dropped", |p| {
        let mut short = udp(SITE_A, SITE_B, (1, 2), &[0; 32]);
        short[16] = 0xff;
        p.expect(&short, XDP_DROP, Verdict::Malformed)?;
        p.expect(&udp6("2001:db8:1::2", "2001:db8:2::2", (1, 2), &[])[..40], XDP_DROP, Verdict::Malformed)
            .map(drop)
    }),
    ("frames_in_several_buffers_are_judged_as_others", |p| {
        let jumbo = |source, destination| udp(source, destination, (1, 2), &[7; 8900]);
        let worker = socket()?;
        p.xsks.set(SLOT, 0, &worker)?;
        p.expect(&jumbo(SITE_A, [203, 0, 113, 9]), XDP_PASS, Verdict::Unprotected)?;
        p.expect(&jumbo(SITE_A, SITE_B), XDP_REDIRECT, Verdict::Hold)?;
        p.expect(&jumbo(SITE_A, SITE_B)[..8000], XDP_DROP, Verdict::Malformed)?;
        p.role(role::WAN)?;
        p.expect(&jumbo(SITE_B, SITE_A), XDP_DROP, Verdict::ClearOnWan)?;
        p.expect(&udp(PEER, GATEWAY, (4500, 4500), &[1; 8900]), XDP_DROP, Verdict::UnknownSpi).map(drop)
    }),
    ("ike_on_500_and_4500_and_keepalives_pass", |p| {
        p.role(role::WAN)?;
        for (port, payload) in
            [(500, &[1u8; 28][..]), (4500, &[0, 0, 0, 0, 1, 2, 3, 4]), (4500, &[0xff]), (4500, &[1, 2, 3])]
        {
            p.expect(&udp(PEER, GATEWAY, (500, port), payload), XDP_PASS, Verdict::Ike)?;
        }
        p.expect(&udp6("2001:db8::2", "2001:db8::1", (500, 500), &[0; 28]), XDP_PASS, Verdict::Ike).map(drop)
    }),
    ("a_padded_keepalive_is_no_esp", |p| {
        p.role(role::WAN)?;
        let mut frame = udp(PEER, GATEWAY, (4500, 4500), &[0xff]);
        frame.resize(60, 0);
        p.expect(&frame, XDP_PASS, Verdict::Ike).map(drop)
    }),
    ("esp_with_a_known_spi_goes_to_the_worker", |p| {
        p.role(role::WAN)?;
        let worker = socket()?;
        p.xsks.set(SLOT, 0, &worker)?;
        let sa = SaRef { index: ESP_SA, generation: p.sad.generation(ESP_SA) };
        let v6 = udp6("2001:db8::2", "2001:db8::1", (4500, 4500), &esp_payload(SPI));
        for frame in [esp(GATEWAY, SPI), udp(PEER, GATEWAY, (1024, 4500), &esp_payload(SPI)), v6] {
            let out = p.expect(&frame, XDP_REDIRECT, Verdict::Open)?;
            redirected(&out, &frame, task::OPEN, sa)?;
        }
        Ok(())
    }),
    ("esp_with_an_unknown_spi_is_dropped_and_told_once", |p| {
        p.role(role::WAN)?;
        for _ in 0..5 {
            p.expect(&esp(GATEWAY, 0xdead_0001), XDP_DROP, Verdict::UnknownSpi)?;
        }
        let event = p.events.next_event().context("no event")?;
        ensure!((event.kind, event.subject) == (kind::UNKNOWN_SPI, 0xdead_0001), "{event:?}");
        ensure!(p.events.next_event().is_none(), "told more than once within the interval");
        Ok(())
    }),
    ("ah_with_a_known_spi_goes_to_the_worker_as_its_own_sa", |p| {
        p.role(role::WAN)?;
        let worker = socket()?;
        p.xsks.set(SLOT, 0, &worker)?;
        let sa = SaRef { index: AH_SA, generation: p.sad.generation(AH_SA) };
        let v6 = |options| ip6("2001:db8::1", options, protocol::AH, &ah_payload(SPI));
        for frame in [ah(GATEWAY, SPI), v6(false), v6(true)] {
            let out = p.expect(&frame, XDP_REDIRECT, Verdict::Open)?;
            redirected(&out, &frame, task::OPEN, sa)?;
        }
        Ok(())
    }),
    ("ah_with_an_unknown_spi_is_dropped_and_told_as_ah", |p| {
        p.role(role::WAN)?;
        p.expect(&ah(GATEWAY, 0xdead_0002), XDP_DROP, Verdict::UnknownSpi)?;
        let event = p.events.next_event().context("no event")?;
        ensure!((event.kind, event.subject) == (kind::UNKNOWN_SPI, 0xdead_0002), "{event:?}");
        ensure!(event.protocol == protocol::AH, "{event:?}");
        p.expect(&ip6("2001:db8::1", false, protocol::AH, &ah_payload(7)), XDP_DROP, Verdict::UnknownSpi)
            .map(drop)
    }),
    ("ah_that_is_cut_fragmented_or_encapsulated_is_not_for_a_worker", |p| {
        p.role(role::WAN)?;
        let mut cut = ah(GATEWAY, SPI);
        cut.truncate(14 + 20 + 6);
        cut[16..18].copy_from_slice(&26u16.to_be_bytes());
        p.expect(&cut, XDP_DROP, Verdict::Malformed)?;
        let mut fragment = ah(GATEWAY, SPI);
        fragment[20] = 0x20;
        p.expect(&fragment, XDP_PASS, Verdict::EspFragment)?;
        // In UDP it is ESP by definition, with the first four bytes of the AH as its SPI.
        p.expect(&udp(PEER, GATEWAY, (4500, 4500), &ah_payload(SPI)), XDP_DROP, Verdict::UnknownSpi)?;
        p.expect(&ah([203, 0, 113, 9], SPI), XDP_PASS, Verdict::Unprotected).map(drop)
    }),
    ("esp_for_somebody_else_is_not_ours", |p| {
        p.role(role::WAN)?;
        p.expect(&esp([203, 0, 113, 9], SPI), XDP_PASS, Verdict::Unprotected).map(drop)
    }),
    ("a_fragment_of_esp_is_left_to_the_kernel", |p| {
        p.role(role::WAN)?;
        for mut frame in [esp(GATEWAY, SPI), udp(PEER, GATEWAY, (4500, 4500), &esp_payload(SPI))] {
            frame[20] = 0x20;
            p.expect(&frame, XDP_PASS, Verdict::EspFragment)?;
        }
        let mut later = esp(GATEWAY, SPI);
        later[20..22].copy_from_slice(&[0x00, 0x10]);
        p.expect(&later, XDP_PASS, Verdict::EspFragment).map(drop)
    }),
    ("a_protected_flow_goes_to_the_worker", |p| {
        let worker = socket()?;
        p.xsks.set(SLOT, 0, &worker)?;
        p.outbounds.set(POLICY, OUTBOUND);
        for frame in [
            udp(SITE_A, SITE_B, (1, 2), b"x"),
            tcp(SITE_A, SITE_B, 443),
            udp6("2001:db8:1::2", "2001:db8:2::2", (1, 2), b"x"),
        ] {
            let out = p.expect(&frame, XDP_REDIRECT, Verdict::Seal)?;
            redirected(&out, &frame, task::SEAL, OUTBOUND)?;
        }
        Ok(())
    }),
    ("a_later_fragment_of_a_protected_flow_does_not_slip_past", |p| {
        let worker = socket()?;
        p.xsks.set(SLOT, 0, &worker)?;
        p.outbounds.set(POLICY, OUTBOUND);
        let later = |mut frame: Vec<u8>| {
            frame[20..22].copy_from_slice(&[0x00, 0x10]);
            frame
        };
        // No port is to be seen, so of each protocol the first rule decides that does not let it pass in clear.
        p.expect(&later(udp(SITE_A, SITE_B, (1, 2), &[0; 32])), XDP_DROP, Verdict::Discard)?;
        p.expect(&later(tcp(SITE_A, SITE_B, 22)), XDP_REDIRECT, Verdict::Seal)?;
        p.role(role::WAN)?;
        p.expect(&later(tcp(SITE_B, SITE_A, 22)), XDP_DROP, Verdict::ClearOnWan).map(drop)
    }),
    ("a_priority_tag_hides_nothing", |p| {
        let worker = socket()?;
        p.xsks.set(SLOT, 0, &worker)?;
        p.outbounds.set(POLICY, OUTBOUND);
        let plain = udp(SITE_A, SITE_B, (1, 2), b"x");
        const PRIORITY: [u8; 4] = [0x81, 0, 0xe0, 0];
        const SERVICE: [u8; 4] = [0x88, 0xa8, 0xe0, 0];
        const VLAN: [u8; 4] = [0x81, 0, 0, 7];
        let tagged = |tags: &[[u8; 4]]| [&plain[..12], &tags.concat(), &plain[12..]].concat();
        for (tags, ip) in [(&[PRIORITY][..], 18), (&[SERVICE, PRIORITY], 22)] {
            let out = p.expect(&tagged(tags), XDP_REDIRECT, Verdict::Seal)?;
            let (meta, _) = Meta::read_from_prefix(&out).ok().context("no metadata")?;
            ensure!(meta.ip == ip, "the IP header is at {ip}, the metadata says {}", meta.ip);
        }
        p.expect(&tagged(&[VLAN]), XDP_PASS, Verdict::NotIp)?;
        p.expect(&tagged(&[PRIORITY, VLAN]), XDP_PASS, Verdict::NotIp)?;
        p.expect(&tagged(&[PRIORITY; 3]), XDP_DROP, Verdict::Malformed)?;
        p.role(role::WAN)?;
        let plain = udp(SITE_B, SITE_A, (1, 2), b"x");
        let frame = [&plain[..12], &PRIORITY, &plain[12..]].concat();
        p.expect(&frame, XDP_DROP, Verdict::ClearOnWan).map(drop)
    }),
    ("mapped_addresses_pass_for_nobody", |p| {
        let frame = udp6("::ffff:10.1.0.2", "::ffff:10.2.0.2", (1, 2), b"x");
        p.expect(&frame, XDP_DROP, Verdict::Malformed).map(drop)
    }),
    ("nobody_on_the_wan_can_have_a_clear_packet_sealed", |p| {
        p.outbounds.set(POLICY, OUTBOUND);
        p.role(role::WAN)?;
        p.expect(&udp(SITE_A, SITE_B, (1, 2), b"x"), XDP_DROP, Verdict::ClearOnWan)?;
        p.expect(&tcp(SITE_A, SITE_B, 22), XDP_PASS, Verdict::Unprotected).map(drop)
    }),
    ("without_a_worker_nothing_leaves", |p| {
        p.outbounds.set(POLICY, OUTBOUND);
        p.expect(&udp(SITE_A, SITE_B, (1, 2), b"x"), XDP_DROP, Verdict::NoWorker)?;
        p.role(role::WAN)?;
        p.expect(&ah(GATEWAY, SPI), XDP_DROP, Verdict::NoWorker)?;
        p.expect(&esp(GATEWAY, SPI), XDP_DROP, Verdict::NoWorker).map(drop)
    }),
    ("without_an_sa_who_asks_waits_and_nothing_else_leaves", |p| {
        let worker = socket()?;
        p.xsks.set(SLOT, 0, &worker)?;
        let frame = udp(SITE_A, SITE_B, (7, 8), b"x");
        let out = p.expect(&frame, XDP_REDIRECT, Verdict::Hold)?;
        redirected(&out, &frame, task::HOLD, SaRef { index: POLICY, generation: 0 })?;
        for _ in 0..5 {
            p.expect(&frame, XDP_DROP, Verdict::NoSa)?;
        }
        let event = p.events.next_event().context("no event")?;
        ensure!((event.kind, event.subject) == (kind::ACQUIRE, POLICY), "{event:?}");
        ensure!(
            event.source == IpAddr::from(SITE_A).into() && event.destination == IpAddr::from(SITE_B).into()
        );
        ensure!((event.source_port, event.destination_port, event.protocol) == (7, 8, protocol::UDP));
        ensure!(p.events.next_event().is_none(), "asked more than once within the interval");
        Ok(())
    }),
    ("without_an_sa_and_a_worker_nobody_waits", |p| {
        p.expect(&udp(SITE_A, SITE_B, (7, 8), b"x"), XDP_DROP, Verdict::NoWorker)?;
        ensure!(p.events.next_event().is_some_and(|e| e.kind == kind::ACQUIRE), "control was not asked");
        Ok(())
    }),
    ("what_is_for_another_mac_address_is_neither_sealed_nor_opened", |p| {
        let worker = socket()?;
        p.xsks.set(SLOT, 0, &worker)?;
        let both = role::WAN | role::LAN;
        let port = |mac| Port { slot: SLOT, roles: both, mac, reserved: [0; 2] };
        let seal = udp(SITE_A, SITE_B, (7, 8), b"x");
        // The frames here are for 04:04:04:04:04:04.
        p.ports.insert(LOOPBACK, port([6; 6]))?;
        p.expect(&seal, XDP_DROP, Verdict::ForeignMac)?;
        ensure!(p.events.next_event().is_none(), "a tunnel was asked for");
        p.outbounds.set(POLICY, OUTBOUND);
        p.expect(&seal, XDP_DROP, Verdict::ForeignMac)?;
        p.expect(&tcp(SITE_A, SITE_B, 22), XDP_PASS, Verdict::Bypass)?;
        p.expect(&esp(GATEWAY, SPI), XDP_PASS, Verdict::Local)?;
        p.expect(&udp(SITE_B, SITE_A, (1, 2), b"x"), XDP_DROP, Verdict::ClearOnWan)?;
        let mut broadcast = seal.clone();
        broadcast[..6].fill(0xff);
        p.expect(&broadcast, XDP_REDIRECT, Verdict::Seal)?;
        p.ports.insert(LOOPBACK, port([4; 6]))?;
        p.expect(&seal, XDP_REDIRECT, Verdict::Seal)?;
        p.expect(&esp(GATEWAY, SPI), XDP_REDIRECT, Verdict::Open).map(drop)
    }),
    ("bypass_passes_and_discard_drops", |p| {
        p.outbounds.set(POLICY, OUTBOUND);
        p.expect(&tcp(SITE_A, SITE_B, 22), XDP_PASS, Verdict::Bypass)?;
        p.expect(&udp(SITE_A, SITE_B, (1, 9), b"x"), XDP_DROP, Verdict::Discard).map(drop)
    }),
    ("what_no_policy_covers_passes", |p| {
        p.expect(&udp(SITE_A, [203, 0, 113, 9], (1, 2), b"x"), XDP_PASS, Verdict::Unprotected)?;
        p.expect(&udp([10, 9, 0, 1], SITE_B, (1, 2), b"x"), XDP_PASS, Verdict::Unprotected)?;
        p.expect(&udp(SITE_A, GATEWAY, (1, 2), b"x"), XDP_PASS, Verdict::Local).map(drop)
    }),
    ("a_protected_flow_in_clear_on_the_wan_is_dropped", |p| {
        p.role(role::WAN)?;
        p.expect(&udp(SITE_B, SITE_A, (1, 2), b"x"), XDP_DROP, Verdict::ClearOnWan)?;
        p.expect(&udp6("2001:db8:2::2", "2001:db8:1::2", (1, 2), b"x"), XDP_DROP, Verdict::ClearOnWan)?;
        p.expect(&udp(PEER, GATEWAY, (1, 2), b"x"), XDP_PASS, Verdict::Local).map(drop)
    }),
    ("a_one_armed_port_seals_one_way_and_drops_clear_the_other", |p| {
        p.role(role::WAN | role::LAN)?;
        let worker = socket()?;
        p.xsks.set(SLOT, 0, &worker)?;
        p.outbounds.set(POLICY, OUTBOUND);
        p.expect(&udp(SITE_A, SITE_B, (1, 2), b"x"), XDP_REDIRECT, Verdict::Seal)?;
        p.expect(&udp(SITE_B, SITE_A, (1, 2), b"x"), XDP_DROP, Verdict::ClearOnWan).map(drop)
    }),
    ("the_longest_prefix_decides", spd::the_longest_prefix_decides),
    ("classes_are_replaced_at_once", spd::classes_are_replaced_at_once),
    ("damaged_classes_discard", spd::damaged_classes_discard),
];

fn main() {
    let mut arguments = Arguments::from_args();
    // One program, one set of maps: the scenarios take turns.
    arguments.test_threads = Some(1);
    pin_to_one_cpu();
    let lacking = unavailable();
    let program = match &lacking {
        Some(_) => Err(String::new()),
        None => Program::load()
            .map(|p| Arc::new(Mutex::new(p)))
            .map_err(|e| format!("cannot load the XDP program: {e:#}")),
    };
    let trials = SCENARIOS
        .iter()
        .map(|(name, scenario)| {
            let (program, lacking) = (program.clone(), lacking.clone());
            Trial::ignorable_test(*name, move || {
                if let Some(reason) = lacking {
                    return Ok(Completion::ignored_with(reason));
                }
                let program = program?;
                let mut program = program.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                program.outbounds.set(POLICY, SaRef::default());
                program.role(role::LAN)?;
                program.standard_policies()?;
                // An event is told once an interval: let the one of the scenario before pass.
                std::thread::sleep(std::time::Duration::from_nanos(adit_maps::event::INTERVAL_NS * 2));
                while program.events.next_event().is_some() {}
                scenario(&mut program).map_err(|e| format!("{e:#}"))?;
                Ok(Completion::Completed)
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}
