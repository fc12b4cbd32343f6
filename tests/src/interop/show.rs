//! What a case does, and what must hold.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::diagnosis;
use crate::interop::case::{self, Case, Role, Sa, Shows, Side, TUNNEL};
use crate::interop::station::{Kind, Pool, Station};
use crate::namespace::wait_for;
use crate::stream::{Stream, exchange};
use crate::topology::{HOST_A, HOST_B};
use crate::traffic::tcp_stream;
use crate::wire::{self, Counters};

/// How long a negotiation may take.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long a dead peer may stay unnoticed with the DPD that the cases configure.
const NOTICE: Duration = Duration::from_secs(20);
/// How long a refusal may take that only silence tells: until a request was sent for the last time.
const SILENCE: Duration = Duration::from_secs(20);
/// From datagram to datagram of a stream.
const PACE: Duration = Duration::from_millis(4);
/// How long a stream runs before and after what it is to survive.
const AROUND: Duration = Duration::from_millis(300);

/// Runs a case on a station of the pool.
///
/// # Errors
/// Something that must hold does not: with what both ends last said.
pub fn run(pool: &Pool, case: &Case) -> Result<String> {
    let kind = Kind::of(case);
    let mut station = pool.take(kind)?;
    let (begun_a, begun_b) = (station.adit.log().len(), station.swan.log().len());
    let shown = show(&mut station, case);
    match shown {
        Ok(note) if case.shows == Shows::Moves => station.end().map(|()| note),
        Ok(note) => pool.give(kind, station).map(|()| note),
        Err(error) => {
            let log = |text: String, begun: usize| {
                crate::namespace::tail(text.get(begun..).unwrap_or_default(), 45)
            };
            let words = format!(
                "{error:#}\n  status: {}\n  the tunnel's log:\n{}  Adit's log:\n{}  charon's log:\n{}",
                station.adit.status().map(|status| status.to_string()).unwrap_or_default(),
                crate::namespace::tail(&tunnel_log(&station), 30),
                log(station.adit.log(), begun_a),
                log(station.swan.log(), begun_b),
            );
            drop(station);
            bail!(words)
        }
    }
}

fn show(station: &mut Station, case: &Case) -> Result<String> {
    let before = wire::read(&station.topology.router)?;
    let log = station.swan.log().len();
    station.swan.load(&case.swanctl_conf(&station.topology)).context("strongSwan refuses the case")?;
    if case.shows == Shows::Cookie {
        half_open(station)?;
    }
    if let Shows::Mismatch(words) = case.shows {
        let note = mismatch(station, case, words)?;
        tidy(station, case)?;
        crossed(station, case, &before)?;
        return Ok(note);
    }
    load(station, case)?;
    connect(station, case)?;
    let note = match &case.shows {
        Shows::Traffic => traffic(station)?,
        Shows::Tcp => {
            traffic(station)?;
            tcp(station)?
        }
        Shows::Subnets => every_pair(station, case)?,
        Shows::Rekey(side, sa) => {
            traffic(station)?;
            stream_through(station, |station| rekey(station, case, *side, *sa))?
        }
        Shows::RekeyAll => {
            traffic(station)?;
            stream_through(station, |station| {
                for (side, sa) in [(Side::Adit, Sa::Child), (Side::Peer, Sa::Child), (Side::Adit, Sa::Ike)] {
                    rekey(station, case, side, sa)?;
                }
                rekey(station, case, Side::Peer, Sa::Ike)
            })?
        }
        Shows::Reauthenticate(side) => {
            traffic(station)?;
            stream_through(station, |station| reauthenticate(station, *side))?
        }
        Shows::Narrowed => narrowed(station)?,
        Shows::PeerDeletes => peer_deletes(station, case)?,
        Shows::PeerDies => peer_dies(station, case)?,
        Shows::Moves => moves(station)?,
        Shows::PeerLogs(words) => {
            let note = traffic(station)?;
            for words in *words {
                logged(station, log, words)?;
            }
            note
        }
        Shows::Cookie => {
            let note = traffic(station)?;
            logged(station, log, "N(COOKIE)")?;
            note
        }
        Shows::Mismatch(_) => bail!("a mismatch does not connect"),
    };
    let wire = crossed(station, case, &before)?;
    carried_as_expected(case, &wire)?;
    end(station, case)?;
    Ok(format!("{}{}{note}", wire.carriage(), if note.is_empty() { "" } else { "; " }))
}

fn load(station: &Station, case: &Case) -> Result<()> {
    let mut text = case.adit_toml(&station.topology, std::path::Path::new("/"))?;
    station
        .adit
        .reload(|directory| {
            // The directory is known here only, and the text was made above for the sake of its errors.
            text = case.adit_toml(&station.topology, directory).unwrap_or_default();
            text.clone()
        })
        .with_context(|| format!("Adit refuses the case:\n{text}"))
}

fn connect(station: &mut Station, case: &Case) -> Result<()> {
    if case.role == Role::Responds {
        for child in case.children() {
            station.swan.initiate(&child, PATIENCE).context("the peer could not bring the tunnel up")?;
        }
    }
    station.adit.wait_connected(PATIENCE)?;
    station.swan.wait_children(case.children().len(), PATIENCE)
}

/// Datagrams both ways between the first hosts, and Adit's own counters for them.
fn traffic(station: &Station) -> Result<String> {
    both_ways(station, HOST_A, HOST_B)?;
    let status = station.adit.status()?;
    for way in ["inbound", "outbound"] {
        let packets = status.pointer(&format!("/{way}/packets")).and_then(Value::as_u64);
        ensure!(packets.is_some_and(|packets| packets >= 16), "Adit counts {packets:?} packets {way}");
    }
    Ok(String::new())
}

/// Datagrams of two sizes between two hosts, none lost. The first may be: IKEv1's initiator sends before the responder
/// has its last message.
fn both_ways(station: &Station, a: Ipv4Addr, b: Ipv4Addr) -> Result<()> {
    let one = (&station.topology.host_a, IpAddr::V4(a));
    let other = (&station.topology.host_b, IpAddr::V4(b));
    wait_for(&format!("a datagram between {a} and {b}, each way"), Duration::from_secs(5), || {
        Ok(exchange(one, other, 1, 64, Duration::from_millis(300))?.expect_all().is_ok())
    })?;
    for size in [64, 1200] {
        let count = exchange(one, other, 8, size, Duration::from_secs(3))?;
        count.expect_all().with_context(|| format!("of {size} bytes, between {a} and {b}"))?;
    }
    Ok(())
}

/// # Errors
/// Something came through.
fn expect_silence(station: &Station, why: &str) -> Result<()> {
    let one = (&station.topology.host_a, IpAddr::V4(HOST_A));
    let other = (&station.topology.host_b, IpAddr::V4(HOST_B));
    let count = exchange(one, other, 3, 64, Duration::from_millis(200))?;
    ensure!(count.forth.received + count.back.received == 0, "{count:?} although {why}");
    Ok(())
}

/// What the peer takes is carried, also after the rest has asked for a Child SA of its own, which the peer does not give.
fn narrowed(station: &Station) -> Result<String> {
    traffic(station)?;
    let outside = (&station.topology.host_a, IpAddr::V4(Ipv4Addr::new(10, 1, 1, 2)));
    let other = (&station.topology.host_b, IpAddr::V4(HOST_B));
    let count = exchange(outside, other, 3, 64, Duration::from_millis(500))?;
    ensure!(count.forth.sent == 3, "nothing was sent outside what the peer takes: {count:?}");
    ensure!(count.forth.received + count.back.received == 0, "{count:?} outside what the peer takes");
    traffic(station)?;
    Ok("carries what the peer takes, and stops the rest".to_owned())
}

fn tcp(station: &Station) -> Result<String> {
    let (a, b) = (&station.topology.host_a, &station.topology.host_b);
    let mut rates = Vec::new();
    for (client, server, address) in [(a, b, HOST_B), (b, a, HOST_A)] {
        let rate = tcp_stream(client, server, address, 1)?;
        ensure!(rate > 1.0, "a TCP stream to {address} ran at {rate:.3} Mbit/s only");
        rates.push(rate);
    }
    Ok("TCP both ways".to_owned())
}

fn every_pair(station: &Station, case: &Case) -> Result<String> {
    let host = |subnet: &str| -> Result<Ipv4Addr> {
        let network = subnet.split('/').next().unwrap_or(subnet);
        let [a, b, c, _] = network.parse::<Ipv4Addr>()?.octets();
        Ok(Ipv4Addr::new(a, b, c, 2))
    };
    let mut pairs = 0;
    // Those of all tunnels.
    for a in &case.swan.subnets_a {
        for b in &case.swan.subnets_b {
            let (one, other) = (host(a)?, host(b)?);
            both_ways(station, one, other)?;
            pairs += 1;
        }
    }
    Ok(format!("{pairs} pairs of subnets"))
}

/// Datagrams both ways while `work` goes on: none may be lost.
fn stream_through(station: &mut Station, work: impl FnOnce(&mut Station) -> Result<()>) -> Result<String> {
    let (a, b) = (station.topology.host_a.clone(), station.topology.host_b.clone());
    let stream = Stream::start((&a, IpAddr::V4(HOST_A)), (&b, IpAddr::V4(HOST_B)), PACE)?;
    thread::sleep(AROUND);
    let done = work(station);
    thread::sleep(AROUND);
    let count = stream.finish()?;
    done?;
    count.expect_all()?;
    Ok(format!("{} of {} datagrams lost", count.lost(), count.sent()))
}

fn rekey(station: &mut Station, case: &Case, side: Side, sa: Sa) -> Result<()> {
    let what = if sa == Sa::Child { "--child" } else { "--ike" };
    replaced(station, sa, |station| match side {
        Side::Adit => station.adit.done(&["tunnel", "rekey", TUNNEL, what]).map(|_| ()),
        Side::Peer => station.swan.rekey(&[what, TUNNEL]),
    })
    .with_context(|| format!("{side:?} rekeys the {sa:?} SA"))?;
    station.swan.wait_children(case.children().len(), PATIENCE)
}

/// Has one side authenticate anew, until of the two IKE SAs one is left.
fn reauthenticate(station: &mut Station, side: Side) -> Result<()> {
    replaced(station, Sa::Ike, |station| match side {
        Side::Adit => station.adit.done(&["tunnel", "rekey", TUNNEL, "--ike"]).map(|_| ()),
        Side::Peer => station.swan.rekey(&["--ike", TUNNEL, "--reauth"]),
    })
    .with_context(|| format!("{side:?} authenticates anew"))?;
    wait_for("the old IKE SA to go", PATIENCE, || Ok(spis(&station.swan.sas()?, Sa::Ike).len() == 1))?;
    station.swan.wait_children(1, PATIENCE)
}

/// Does `work` and waits until another SA of this kind has come and the tunnel is up.
fn replaced(station: &mut Station, sa: Sa, work: impl FnOnce(&Station) -> Result<()>) -> Result<()> {
    let spis = |station: &Station| Ok::<_, anyhow::Error>(spis(&station.swan.sas()?, sa));
    let before = spis(station)?;
    ensure!(!before.is_empty(), "there is no {sa:?} SA to replace");
    work(station)?;
    wait_for("another SA", PATIENCE, || {
        let now = spis(station)?;
        Ok(now.iter().any(|spi| !before.contains(spi)))
    })?;
    // The old one may live on for a while beside the new one; what counts is that traffic moves over.
    thread::sleep(AROUND);
    station.adit.wait_connected(PATIENCE)
}

/// The SPIs of the established IKE SAs, or of the installed Child SAs, in what `swanctl --list-sas` says.
fn spis(sas: &str, sa: Sa) -> Vec<String> {
    let mut found = Vec::new();
    let mut installed = false;
    for line in sas.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if sa == Sa::Ike && line.contains("ESTABLISHED, IKE") {
            let is_spi = |word: &&&str| word.contains("_i") || word.contains("_r");
            found.push(words.iter().filter(is_spi).map(|word| word.trim_end_matches('*')).collect());
        } else if sa == Sa::Child && line.contains("reqid") {
            installed = line.contains("INSTALLED");
        } else if let ["in", spi, ..] = words[..]
            && installed
        {
            found.push(spi.trim_end_matches(',').to_owned());
        }
    }
    found
}

fn peer_deletes(station: &mut Station, case: &Case) -> Result<String> {
    traffic(station)?;
    // A tunnel that Adit keeps up would come again at once; a responder waits.
    station.swan.terminate()?;
    wait_for("Adit to see the DELETE", PATIENCE, || Ok(station.adit.state()? != "connected"))?;
    if case.role == Role::Responds {
        expect_silence(station, "the tunnel is down")?;
    }
    connect(station, case).context("the tunnel does not come again")?;
    traffic(station)?;
    Ok("down, and up again".to_owned())
}

fn peer_dies(station: &mut Station, case: &Case) -> Result<String> {
    traffic(station)?;
    let begun = Instant::now();
    station.swan.kill();
    wait_for("Adit to notice", NOTICE, || Ok(station.adit.state()? != "connected"))?;
    let seconds = begun.elapsed().as_secs_f64();
    expect_silence(station, "the peer is dead")?;
    station.swan.restart()?;
    station.swan.load(&case.swanctl_conf(&station.topology))?;
    if case.role == Role::Responds {
        connect(station, case)?;
    }
    // Adit tries again every 12 s at the latest.
    station.adit.wait_connected(Duration::from_secs(30)).context("after the peer came back")?;
    traffic(station)?;
    Ok(format!("noticed after {seconds:.0} s, and up again"))
}

fn moves(station: &mut Station) -> Result<String> {
    traffic(station)?;
    let gateway = &station.topology.gateway_b;
    gateway.sysctl(&["net.ipv4.conf.wan.promote_secondaries=1"])?;
    let stream_before = wire::read(&station.topology.router)?;
    gateway.ip(&["address", "add", "198.51.100.77/24", "dev", "wan"])?;
    gateway.ip(&["address", "delete", "198.51.100.1/24", "dev", "wan"])?;
    gateway.ip(&["route", "replace", "default", "via", "198.51.100.254"])?;
    wait_for("Adit to follow the peer", PATIENCE, || {
        let status = station.adit.status()?;
        Ok(status.get("remote").and_then(Value::as_str) == Some("198.51.100.77"))
    })?;
    traffic(station).context("after the peer moved")?;
    let after = wire::read(&station.topology.router)?.since(&stream_before);
    ensure!(after.protected_a() > 0, "nothing protected went to the new address");
    Ok("followed to another address".to_owned())
}

/// Loads ends that cannot agree, and looks for one of `words` in what Adit says.
fn mismatch(station: &mut Station, case: &Case, words: &[&str]) -> Result<String> {
    let begun = station.adit.log().len();
    load(station, case)?;
    let mut said = String::new();
    thread::scope(|scope| -> Result<()> {
        let swan = &station.swan;
        let initiation = (case.role == Role::Responds).then(|| {
            let child = case.children().into_iter().next().unwrap_or_default();
            scope.spawn(move || swan.initiate(&child, Duration::from_secs(3)))
        });
        let told = wait_for(&format!("one of {words:?} in Adit's status or log"), SILENCE, || {
            let log = station.adit.log();
            let status = station.adit.status()?.to_string();
            let text = format!("{status}\n{}\n{}", tunnel_log(station), log.get(begun..).unwrap_or_default());
            let text = text.to_lowercase();
            let found = words.iter().find(|word| text.contains(&word.to_lowercase()));
            said = found.map(|word| (*word).to_owned()).unwrap_or_default();
            Ok(found.is_some())
        });
        if let Some(initiation) = initiation
            && let Ok(Ok(())) = initiation.join()
        {
            bail!("strongSwan says that the tunnel is up");
        }
        told
    })?;
    diagnosed(station, case)?;
    let state = station.adit.state()?;
    ensure!(state != "connected", "Adit says that the tunnel is up");
    expect_silence(station, "the ends do not agree")?;
    Ok(format!("says {said:?}"))
}

/// The diagnosis names the field to change, and both values where the protocol tells them: to who is offered something.
fn diagnosed(station: &Station, case: &Case) -> Result<()> {
    let field = match case.name.as_str() {
        "psk" => "psk",
        "peer-id" => "ike.peer_id",
        "proposal" => "ike.encryption",
        "group" => "ike.dh",
        "child-proposal" => "ipsec.encryption",
        "ah-against-esp" => "ipsec.protocol",
        "subnets" => "local_subnets",
        "version" => "ike.version",
        "mode" => "ike.mode",
        "pfs" => "ipsec.pfs",
        other => bail!("nobody has said what a diagnosis of {other:?} has to name"),
    };
    let finding = diagnosis::wait_for_error(&station.adit, SILENCE, |finding| {
        finding.fields.iter().any(|name| name == field)
    })?;
    ensure!(finding.remedy.as_ref().is_some_and(|words| words.contains(field)), "no remedy: {finding:?}");
    ensure!(!finding.ours.is_empty(), "what Adit has is not told: {finding:?}");
    ensure!(!finding.cause.contains(case.adit.psk), "the key is told");
    if case.role == Role::Responds && case.name != "psk" {
        let theirs = finding.theirs.as_deref().unwrap_or_default();
        ensure!(!theirs.is_empty() && theirs != finding.ours, "what the peer has is not told: {finding:?}");
    }
    Ok(())
}

fn tunnel_log(station: &Station) -> String {
    station.adit.done(&["tunnel", "log", TUNNEL]).unwrap_or_default()
}

fn logged(station: &Station, begun: usize, words: &str) -> Result<()> {
    let log = station.swan.log();
    ensure!(log.get(begun..).unwrap_or_default().contains(words), "charon's log does not say {words:?}");
    Ok(())
}

/// Begins an exchange that nobody goes on with, from another port of Adit's address.
fn half_open(station: &Station) -> Result<()> {
    let [a, b] = [station.topology.address_a, station.topology.address_b];
    station.topology.gateway_a.inside(|| {
        let socket = UdpSocket::bind((a, 501))?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        socket.send_to(&ike_sa_init(), (b, 500))?;
        let mut answer = [0; 2000];
        let length = socket.recv(&mut answer).context("the peer does not answer a first message")?;
        ensure!(length > 100, "the peer answered {length} bytes: it refused the first message");
        Ok(())
    })
}

/// An IKE_SA_INIT request for AES-256-GCM, PRF-HMAC-SHA-256 and Curve25519 (RFC 7296, 1.2).
fn ike_sa_init() -> Vec<u8> {
    let transform = |last: bool, kind: u8, id: u16, attribute: &[u8]| {
        let length = u16::try_from(8 + attribute.len()).unwrap_or(u16::MAX).to_be_bytes();
        let head = [if last { 0 } else { 3 }, 0, length[0], length[1], kind, 0];
        [&head[..], &id.to_be_bytes(), attribute].concat()
    };
    let transforms = [
        transform(false, 1, 20, &[0x80, 14, 1, 0]),
        transform(false, 2, 5, &[]),
        transform(true, 4, 31, &[]),
    ]
    .concat();
    let length = u16::try_from(8 + transforms.len()).unwrap_or(u16::MAX).to_be_bytes();
    let proposal = [&[0, 0, length[0], length[1], 1, 1, 0, 3][..], &transforms].concat();
    let payload = |next: u8, body: &[u8]| {
        let length = u16::try_from(4 + body.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&[next, 0, length[0], length[1]][..], body].concat()
    };
    let key = [&[0, 31, 0, 0][..], &[9; 32]].concat();
    let payloads = [payload(34, &proposal), payload(40, &key), payload(0, &[7; 32])].concat();
    let length = u32::try_from(28 + payloads.len()).unwrap_or(u32::MAX).to_be_bytes();
    let header = [&[0xad; 8][..], &[0; 8], &[33, 0x20, 34, 0x08], &[0; 4], &length].concat();
    [header, payloads].concat()
}

/// What crossed the router since: nothing in clear. While there is no tunnel strongSwan has no rule for what should go
/// into it and lets it out, as for what it takes no part in; that it goes no further than to Adit is seen at the hosts.
fn crossed(station: &Station, case: &Case, before: &Counters) -> Result<Counters> {
    let wire = wire::read(&station.topology.router)?.since(before);
    ensure!(wire.clear_a == 0, "{} packets came from Adit in clear", wire.clear_a);
    let silent =
        matches!(case.shows, Shows::PeerDeletes | Shows::PeerDies | Shows::Narrowed | Shows::Mismatch(_));
    ensure!(silent || wire.clear_b == 0, "{} packets came from the peer in clear", wire.clear_b);
    Ok(wire)
}

fn carried_as_expected(case: &Case, wire: &Counters) -> Result<()> {
    ensure!(wire.protected_a() > 0 && wire.protected_b() > 0, "{wire:?}: nothing protected crossed");
    use case::{Network, Peer};
    let expected = match (case.peer, case.network, case.adit.ah) {
        (_, _, true) => "AH",
        (Peer::Swan5, ..) => "ESP in UDP",
        (_, Network::Direct, _) => "ESP",
        _ => "ESP in UDP",
    };
    let carriage = wire.carriage();
    ensure!(carriage == expected, "{carriage} crossed the router, not {expected}: {wire:?}");
    Ok(())
}

/// Takes the tunnel away on Adit's side: the peer must have been told.
fn end(station: &Station, case: &Case) -> Result<()> {
    unload(station, case)?;
    station.swan.wait_empty(Duration::from_secs(5)).context("after Adit removed the tunnel")
}

fn unload(station: &Station, case: &Case) -> Result<()> {
    let topology = &station.topology;
    station
        .adit
        .reload(|directory| case::gateway(topology, directory, case.gateway))
        .context("Adit keeps the tunnel")
}

/// Takes away what is left of a negotiation that failed.
fn tidy(station: &Station, case: &Case) -> Result<()> {
    unload(station, case)?;
    station.swan.forget();
    station.swan.wait_empty(PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAS: &str = "net: #4, ESTABLISHED, IKEv2, 1111111111111111_i* 2222222222222222_r\n  \
                       local  '198.51.100.1' @ 198.51.100.1[4500]\n  \
                       net: #7, reqid 1, REKEYED, TUNNEL-in-UDP, ESP:AES_GCM_16-256\n    \
                       in  c0000001, 10 bytes\n    out c0000002, 10 bytes\n  \
                       net: #8, reqid 1, INSTALLED, TUNNEL-in-UDP, ESP:AES_GCM_16-256\n    \
                       in  c0000003, 10 bytes\n    out c0000004, 10 bytes\n";

    #[test]
    fn spis_are_those_of_live_sas() {
        assert_eq!(spis(SAS, Sa::Child), ["c0000003"]);
        assert_eq!(spis(SAS, Sa::Ike), ["1111111111111111_i2222222222222222_r"]);
        assert!(spis("", Sa::Ike).is_empty());
    }

    #[test]
    fn the_half_open_request_has_the_length_it_says() {
        let message = ike_sa_init();
        assert_eq!(u32::from_be_bytes(message[24..28].try_into().unwrap()) as usize, message.len());
    }
}
