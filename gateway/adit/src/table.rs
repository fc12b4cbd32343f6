//! The status on one screen: what is up, what is not, and why.

use crate::screen::{self, Screen, cut, wrapped};
use adit_control::status::{
    GroupStatus, MemberStatus, ResourceStatus, State, Status, Timestamp, Traffic, TunnelStatus,
};
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use std::time::{SystemTime, UNIX_EPOCH};

/// The status as text without a final line break.
pub(crate) fn status(status: &Status, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut out = head(status, now);
    if !status.tunnels.is_empty() {
        out.push(String::new());
        out.push(tunnels(&status.tunnels, now));
    }
    if !status.groups.is_empty() {
        out.push(String::new());
        out.extend(groups(&status.groups, usize::MAX));
    }
    let reasons: Vec<_> = status.tunnels.iter().filter_map(|t| reason(t, now)).collect();
    if !reasons.is_empty() {
        out.push(String::new());
        out.extend(reasons);
    }
    out.join("\n")
}

/// What there is to say of the gateway itself.
fn head(status: &Status, now: Timestamp) -> Vec<String> {
    let gateway = &status.gateway;
    let addresses = gateway.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let up = status.tunnels.iter().filter(|t| t.state == State::Connected).count();
    let name = match gateway.addresses.is_empty() {
        true => "no gateway yet".to_owned(),
        false => format!("gateway {} ({addresses})", gateway.name),
    };
    let mut out = vec![format!(
        "{name}, Adit {}, up {}: {up} of {} tunnels connected",
        gateway.version,
        ago(now, gateway.started_at),
        status.tunnels.len()
    )];
    out.extend(gateway.waiting_for.iter().cloned());
    let api = status.api.as_ref();
    out.extend(api.map(|api| format!("API on https://{}, certificate {}", api.listen, api.fingerprint)));
    out.extend(data_plane(status));
    out.extend(gateway.refused_reload.iter().map(|why| format!("the last reload was refused: {why}")));
    out
}

/// The same on one screen: what is not up comes first, and what there is no room for is counted.
pub(crate) fn status_on(status: &Status, now: SystemTime, screen: Screen) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    // The prompt wants a line of its own.
    let room = screen.rows.saturating_sub(1).max(1);
    let is_up = |t: &&TunnelStatus| t.state == State::Connected;
    let (up, down): (Vec<_>, Vec<_>) = status.tunnels.iter().partition(is_up);
    let ordered: Vec<&TunnelStatus> = down.into_iter().chain(up).collect();
    let whole = head(status, seconds);
    let mut out: Vec<String> = whole.iter().flat_map(|line| wrapped(line, screen.columns)).collect();
    if ordered.is_empty() {
        out.truncate(room);
        return out.join("\n");
    }
    // Tunnels have at least half of it, and why they are not up half of what they leave.
    if out.len() > room / 2 {
        // How many are up is at the end of the first.
        let (first, others) = whole.split_at(1);
        out = first.iter().flat_map(|line| wrapped(line, screen.columns)).collect();
        out.extend(others.iter().map(|line| cut(line, screen.columns)));
        out.truncate((room / 2).max(1));
    }
    let reasons: Vec<String> = ordered
        .iter()
        .filter_map(|t| reason(t, seconds))
        .flat_map(|line| wrapped(&line, screen.columns))
        .collect();
    let left = room.saturating_sub(out.len() + 2);
    let for_reasons = match reasons.len() {
        0 => 0,
        // A line without anything stands before them.
        n if ordered.len() + n < left => n + 1,
        n => (left.saturating_sub(ordered.len())).max(left / 2).min(n + 1),
    };
    let for_tunnels = left.saturating_sub(for_reasons);
    let shown = match ordered.len() > for_tunnels {
        true => for_tunnels.saturating_sub(1),
        false => ordered.len(),
    };
    let rows: Vec<Vec<String>> = ordered.iter().take(shown).map(|t| row(t, seconds)).collect();
    out.push(String::new());
    out.extend(screen::table(&HEADER, &rows, &SPARE, screen.columns));
    if shown < ordered.len() {
        let down = ordered[shown..].iter().filter(|t| !is_up(t)).count();
        let line = format!("… {} more, {down} of them not connected", ordered.len() - shown);
        out.push(cut(&line, screen.columns));
    }
    if for_reasons > 1 {
        out.push(String::new());
        let fits = reasons.len() < for_reasons;
        let count = if fits { reasons.len() } else { for_reasons - 2 };
        out.extend(reasons.iter().take(count).cloned());
        if !fits {
            out.push(cut(&format!("… {} more lines", reasons.len() - count), screen.columns));
        }
    }
    if !status.groups.is_empty() {
        out.push(String::new());
        out.extend(groups(&status.groups, screen.columns));
    }
    out.truncate(room);
    out.join("\n")
}

/// How packets come and go, and why so.
fn data_plane(status: &Status) -> Vec<String> {
    let Some(data_plane) = &status.data_plane else {
        // Who waits for the maps says so already.
        let dead = "the data plane does not run: what a policy protects is dropped";
        return status.gateway.waiting_for.is_none().then(|| dead.to_owned()).into_iter().collect();
    };
    let alive = data_plane.workers.iter().filter(|w| w.running).count();
    let all = data_plane.workers.len();
    let mut out =
        vec![format!("data plane: {alive} of {all} workers run, cryptography on {}", data_plane.crypto)];
    out.extend(status.ports.iter().map(|port| {
        let mode = port.mode.as_deref().unwrap_or("-");
        format!("  {}: {mode}, {}", port.interface, port.reason.as_deref().unwrap_or("not a port any more"))
    }));
    out
}

const HEADER: [&str; 10] = ["TUNNEL", "STATE", "FOR", "IKE", "PEER", "LOCAL", "REMOTE", "SUITE", "IN", "OUT"];
/// What a narrow terminal goes without, the first first.
const SPARE: [&str; 8] = ["SUITE", "IKE", "LOCAL", "REMOTE", "PEER", "OUT", "IN", "FOR"];

fn tunnels(tunnels: &[TunnelStatus], now: Timestamp) -> String {
    let rows: Vec<_> = tunnels.iter().map(|t| row(t, now)).collect();
    screen::table(&HEADER, &rows, &[], usize::MAX).join("\n")
}

fn row(t: &TunnelStatus, now: Timestamp) -> Vec<String> {
    let esp = t.children.last().map_or("-".into(), |c| {
        let more = t.children.iter().filter(|other| other.suite != c.suite).count();
        let way = if c.encapsulated { " in UDP" } else { "" };
        let others = if more > 0 { ", …" } else { "" };
        format!("{}{way}{others}", c.suite)
    });
    vec![
        t.name.clone(),
        t.state.to_string(),
        ago(now, t.since),
        ike(t),
        peer(t),
        few(&t.local_subnets),
        few(if t.routes.is_empty() { &t.remote_subnets } else { &t.routes }),
        esp,
        bytes(t.inbound.bytes),
        bytes(t.outbound.bytes),
    ]
}

/// Who carries what of each connection group.
fn groups(groups: &[GroupStatus], columns: usize) -> Vec<String> {
    let row = |group: &GroupStatus, member: &MemberStatus| {
        let health = if member.healthy { "healthy" } else { "not healthy" };
        let share = format!("{:.0} %", member.share * 100.0);
        vec![group.name.clone(), group.mode.clone(), member.tunnel.clone(), health.into(), share]
    };
    let members = groups.iter().flat_map(|group| group.members.iter().map(move |member| row(group, member)));
    let rows: Vec<_> = members.collect();
    screen::table(&["GROUP", "MODE", "MEMBER", "HEALTH", "CARRIES"], &rows, &["MODE"], columns)
}

/// A table without lines, as wide as the terminal, if stdout is one.
pub(crate) fn fitted(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table.add_rows(rows);
    trimmed(&table)
}

fn trimmed(table: &Table) -> String {
    let text = table.to_string();
    // One space stands before each cell: where a cell goes on in a second line, its place says to which it belongs.
    text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect::<Vec<_>>().join("\n")
}

/// One tunnel with everything there is to say about it, without a final line break.
pub(crate) fn tunnel(t: &TunnelStatus, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let standing = match t.status {
        ResourceStatus::Running => String::new(),
        other => format!(", {}", other.label()),
    };
    let mut out = vec![
        format!("tunnel {}: {} for {}{standing}", t.name, t.state, ago(now, t.since)),
        format!("  peer     {} at {}, from {}", t.peer, peer(t), t.local),
        format!("  local    {}", t.local_subnets.join(", ")),
        format!("  remote   {}", t.remote_subnets.join(", ")),
    ];
    if !t.routes.is_empty() {
        out.push(format!("  routes   {}", t.routes.join(", ")));
    }
    let mut phase1 = vec![ike(t)];
    phase1.extend(t.ike_suite.clone());
    phase1.extend(t.ike_since.map(|since| format!("up {}", ago(now, since))));
    phase1
        .extend(t.ike_begun_by_us.map(|us| if us { "begun by us" } else { "begun by the peer" }.to_owned()));
    phase1.extend(t.nat.as_ref().map(|side| format!("NAT: {side}")));
    phase1.extend((t.rekeys.ike > 0).then(|| format!("renewed {} times", t.rekeys.ike)));
    out.push(format!("  phase 1  {}", phase1.join(", ")));
    for c in &t.children {
        let mut child = vec![c.suite.clone()];
        child.extend(c.pfs.as_ref().map(|group| format!("PFS with {group}")));
        child.extend(c.encapsulated.then(|| "in UDP".to_owned()));
        child.push(format!("up {}", ago(now, c.installed_at)));
        child.push(format!("ends in {}", ago(c.expires_at, now)));
        let mtu = c.mtu.zip(c.path_mtu);
        child.extend(mtu.map(|(mtu, path)| format!("MTU {mtu} on a path of {path}")));
        out.push(format!("  phase 2  {}", child.join(", ")));
        out.push(format!("           {} to {}", c.local.join(", "), c.remote.join(", ")));
        let carried = |traffic: &Traffic, most: Option<u64>| {
            let limit = most.map_or(String::new(), |n| format!(" of {}", bytes(n)));
            format!("{}{limit}, {} packets", bytes(traffic.bytes), traffic.packets)
        };
        let figures = [(&c.inbound_spi, &c.inbound), (&c.outbound_spi, &c.outbound)];
        for (word, (spi, traffic)) in ["in ", "out"].into_iter().zip(figures) {
            out.push(format!("           {word} {spi}  {}", carried(traffic, c.lifetime_bytes)));
        }
    }
    if t.rekeys.child > 0 {
        out.push(format!("           renewed {} times", t.rekeys.child));
    }
    if let Some(check) = &t.health_check {
        let answers = if check.answers { "answers" } else { "does not answer" };
        let took = check.round_trip_ms.map_or(String::new(), |ms| format!(", the last in {ms:.1} ms"));
        out.push(format!("  health   {} {answers} {}{took}", check.destination, check.source));
    }
    if let Some(bgp) = &t.bgp {
        out.push(format!(
            "  bgp      {} ({}) with {} ({}), {}; {} received, {} announced",
            bgp.local_ip, bgp.local_asn, bgp.peer_ip, bgp.peer_asn, bgp.state, bgp.received, bgp.announced
        ));
        if !bgp.routes.is_empty() {
            out.push(format!("           sends {}", few(&bgp.routes)));
        }
    }
    out.extend(reason(t, now));
    out.join("\n")
}

fn peer(t: &TunnelStatus) -> String {
    match t.remote {
        Some(ip) if ip.to_string() != t.peer_address => format!("{} ({ip})", t.peer_address),
        _ => t.peer_address.clone(),
    }
}

fn ike(t: &TunnelStatus) -> String {
    t.mode.as_ref().map_or(t.version.clone(), |mode| format!("{} {mode}", t.version))
}

/// Why a tunnel is not up, or what it drops.
fn reason(t: &TunnelStatus, now: Timestamp) -> Option<String> {
    if let Some(error) = &t.last_error {
        let phase = error.phase.map_or(String::new(), |n| format!("phase {n}"));
        let exchange = error.exchange.as_ref().map_or(String::new(), |e| format!(" in {e}"));
        let with = error.peer.map_or(String::new(), |peer| format!(" with {peer}"));
        let whose = if error.ours { "" } else { ", begun by the peer" };
        let place =
            if phase.is_empty() { String::new() } else { format!("{phase}{exchange}{with}{whose}, ") };
        return Some(format!("{}: {place}{} ago: {}", t.name, ago(now, error.at), error.cause));
    }
    if let Some(check) = t.health_check.as_ref().filter(|check| !check.answers) {
        let (to, from) = (check.destination, check.source);
        return Some(format!("{}: health 0: {to} does not answer echo requests from {from}", t.name));
    }
    if let Some(problem) = t.bgp.as_ref().and_then(|bgp| bgp.problem.as_ref()) {
        return Some(format!("{}: BGP: {problem}", t.name));
    }
    let drops: Vec<_> =
        t.drops.iter().filter(|(_, n)| **n > 0).map(|(cause, n)| format!("{cause} {n}")).collect();
    (!drops.is_empty()).then(|| format!("{}: packets dropped: {}", t.name, drops.join(", ")))
}

fn few(list: &[String]) -> String {
    match list {
        [first, second, _, ..] => format!("{first}, {second}, +{}", list.len() - 2),
        _ => list.join(", "),
    }
}

pub(crate) fn ago(now: Timestamp, then: Timestamp) -> String {
    match now.saturating_sub(then) {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s @ 3600..86400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        s => format!("{} d {} h", s / 86400, s % 86400 / 3600),
    }
}

pub(crate) fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// A time as `2026-01-31 23:59:59Z`.
pub(crate) fn utc(time: Timestamp) -> String {
    let (days, seconds) = (time / 86400, time % 86400);
    // Years that begin in March put the leap day last; 719468 days lie between 0000-03-01 and 1970-01-01.
    let day = days + 719_468;
    let era = day / 146_097;
    let day_of_era = day % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (time, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_709_251_199, "2024-02-29 23:59:59Z"),
            (1_709_251_200, "2024-03-01 00:00:00Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(utc(time), text);
        }
    }

    #[test]
    fn figures_are_short() {
        let list = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!([few(&list(1)), few(&list(2)), few(&list(5))], ["0", "0, 1", "0, 1, +3"]);
        assert_eq!(
            [bytes(999), bytes(1000), bytes(999_950), bytes(u64::MAX)],
            ["999 B", "1.0 kB", "1.0 MB", "18.4 EB"]
        );
        assert_eq!([ago(60, 1), ago(60, 0), ago(90_000, 0), ago(0, 9)], ["59 s", "1 min", "1 d 1 h", "0 s"]);
    }

    #[test]
    fn one_screen_says_what_is_up_what_is_not_and_why() {
        let status: Status = serde_json::from_str(include_str!("../tests/status.json")).unwrap();
        let text = super::status(&status, UNIX_EPOCH + std::time::Duration::from_secs(1_000_090));
        assert_eq!(text, include_str!("../tests/status.txt").trim_end());
    }

    #[test]
    fn status_fits_every_terminal_and_begins_with_what_is_not_up() {
        let mut status: Status = serde_json::from_str(include_str!("../tests/status.json")).unwrap();
        let now = UNIX_EPOCH + std::time::Duration::from_secs(1_000_090);
        let two = status.tunnels.clone();
        for count in [0, 1, 2, 3, 20, 500] {
            status.tunnels = two.iter().cycle().take(count).cloned().collect();
            for (columns, rows) in [(80, 24), (132, 50), (40, 12), (20, 6), (5, 3), (1, 1)] {
                let text = status_on(&status, now, Screen { columns, rows });
                let lines: Vec<&str> = text.lines().collect();
                let shown = format!("{count} tunnels on {columns} x {rows}:\n{text}");
                assert!(lines.len() < rows.max(2), "{shown}");
                assert!(lines.iter().all(|line| line.chars().count() <= columns), "{shown}");
                if count > 1 && columns >= 40 {
                    let first = lines.iter().position(|line| line.starts_with("TUNNEL")).unwrap() + 1;
                    assert!(
                        lines[first].starts_with("a-c") && lines[first].contains("phase1-failed"),
                        "{shown}"
                    );
                }
                if rows >= 24 && count != 20 {
                    assert_eq!(text.contains(" more, "), count == 500, "{shown}");
                }
            }
        }
        status.tunnels = two;
        let text = status_on(&status, now, Screen { columns: 80, rows: 24 });
        for part in
            ["1 of 2 tunnels connected", "a-c: phase 1 in Aggressive", "a-b: packets dropped: replay 2"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn one_tunnel_is_shown_with_its_sas() {
        let status: Status = serde_json::from_str(include_str!("../tests/status.json")).unwrap();
        let now = UNIX_EPOCH + std::time::Duration::from_secs(1_000_090);
        let text = status.tunnels.iter().map(|t| super::tunnel(t, now)).collect::<Vec<_>>().join("\n\n");
        assert_eq!(text, include_str!("../tests/tunnel.txt").trim_end());
    }
}
