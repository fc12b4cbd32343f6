//! strongSwan's ipsec.conf and ipsec.secrets.

use super::{
    Extra, ImportError,
    draft::{Draft, joined},
    subnets,
    swanctl::{is_yes, set_subnets},
    words::{id, proposals, seconds, secret},
};
use crate::config::Start;
use adit_ike::{Id, Mode, NatT, Version};
use std::collections::BTreeMap;

/// Conns in a row that take over from each other.
const DEEPEST: usize = 8;
/// Conns in all.
const MOST: usize = 2_000;

/// A conn as it stands there.
struct Written<'a> {
    name: &'a str,
    line: usize,
    /// Names, values and lines.
    values: Vec<(&'a str, &'a str, usize)>,
}

/// A conn's values with their lines, by name.
type Conn<'a> = BTreeMap<&'a str, (&'a str, usize)>;

/// Whether it is an ipsec.conf rather than a swanctl.conf.
pub(super) fn is_one(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("conn ") || line.starts_with("conn\t"))
}

/// Every conn with an other side and pre-shared keys.
///
/// # Errors
/// Of syntax, and of what Adit does not have.
pub(super) fn read(text: &str, extra: Extra<'_>) -> Result<Vec<Draft>, ImportError> {
    let conns = conns(text)?;
    let keys = extra.secrets.map(keys).transpose()?.unwrap_or_default();
    let mut drafts = Vec::new();
    for Written { name, line, .. } in conns.iter().filter(|c| c.name != "%default") {
        let conn = whole(&conns, name, *line, 0)?;
        let is_base = conns.iter().any(|c| c.values.iter().any(|(k, v, _)| *k == "also" && v == name));
        let is_off = conn.get("auto").is_none_or(|(v, _)| *v == "ignore");
        if !conn.contains_key("right") || (is_base && is_off) {
            continue;
        }
        drafts.push(tunnel(name, *line, &conn, &keys, extra)?);
    }
    joined(drafts)
}

/// Conns by name, with their lines.
fn conns(text: &str) -> Result<Vec<Written<'_>>, ImportError> {
    let mut conns: Vec<Written<'_>> = Vec::new();
    let mut inside = false;
    for (number, raw) in text.lines().enumerate().map(|(i, raw)| (i + 1, raw)) {
        // A # begins a comment at the beginning of a word only: a key ID holds one.
        let line = match raw.trim_start().starts_with('#') {
            true => "",
            false => raw.find(" #").or(raw.find("\t#")).map_or(raw, |at| &raw[..at]),
        };
        if line.trim().is_empty() {
            continue;
        }
        if !line.starts_with([' ', '\t']) {
            let mut words = line.split_whitespace();
            inside = false;
            match (words.next(), words.next()) {
                (Some("conn"), Some(name)) => {
                    if conns.len() >= MOST {
                        return Err(ImportError::new(number, format!("there are more than {MOST} conns")));
                    }
                    conns.push(Written { name, line: number, values: Vec::new() });
                    inside = true;
                }
                (Some("config" | "ca" | "version"), _) => {}
                (Some("include"), _) => {
                    return Err(ImportError::new(number, "other files are not read: put their text here"));
                }
                _ => {
                    return Err(ImportError::new(
                        number,
                        "is neither conn nor config, and has no space before it",
                    ));
                }
            }
            continue;
        }
        let Some(conn) = conns.last_mut().filter(|_| inside) else { continue };
        let Some((name, value)) = line.split_once('=') else {
            return Err(ImportError::new(number, "is no value: there is no = in it"));
        };
        conn.values.push((name.trim(), value.trim().trim_matches('"'), number));
    }
    Ok(conns)
}

/// A conn with what it takes over.
fn whole<'a>(conns: &[Written<'a>], name: &str, line: usize, depth: usize) -> Result<Conn<'a>, ImportError> {
    if depth > DEEPEST {
        return Err(ImportError::new(line, "also= goes round in circles, or too deep"));
    }
    let mut conn = Conn::new();
    if depth == 0 {
        let defaults = conns.iter().filter(|c| c.name == "%default").flat_map(|c| &c.values);
        conn.extend(defaults.map(|(k, v, l)| (*k, (*v, *l))));
    }
    let Some(Written { values, .. }) = conns.iter().find(|c| c.name == name) else {
        return Err(ImportError::new(line, format!("also={name}: there is no such conn")));
    };
    for (_, base, line) in values.iter().filter(|(k, ..)| *k == "also") {
        conn.extend(whole(conns, base, *line, depth + 1)?);
    }
    conn.extend(values.iter().filter(|(k, ..)| *k != "also").map(|(k, v, l)| (*k, (*v, *l))));
    Ok(conn)
}

fn tunnel(
    name: &str,
    line: usize,
    conn: &Conn<'_>,
    keys: &[Key<'_>],
    extra: Extra<'_>,
) -> Result<Draft, ImportError> {
    let get = |name: &str| conn.get(name).copied();
    let address = match get("right") {
        Some((right, _)) if !right.starts_with('%') => right.to_owned(),
        _ => "any".to_owned(),
    };
    let mut draft = Draft::new(line, name, address);
    draft.local = get("left").map(|(left, _)| left.to_owned()).filter(|left| !left.starts_with('%'));
    for side in ["authby", "leftauth", "rightauth"] {
        if let Some((how, line)) = get(side)
            && !matches!(how, "secret" | "psk")
        {
            return Err(ImportError::new(line, format!("{side}={how}: Adit has pre-shared keys only")));
        }
    }
    match get("keyexchange") {
        Some(("ikev1", _)) => draft.version = Version::Ikev1,
        Some(("ikev2", _)) => {}
        _ => draft.notes.push("strongSwan took either version of IKE; Adit takes one, ikev2".into()),
    }
    if let Some((kind, line)) = get("type")
        && kind != "tunnel"
    {
        return Err(ImportError::new(line, format!("type={kind}: Adit has tunnel mode only")));
    }
    if get("aggressive").is_some_and(|(v, _)| is_yes(v)) {
        draft.mode = Mode::Aggressive;
    }
    if get("forceencaps").is_some_and(|(v, _)| is_yes(v)) {
        draft.nat_t = NatT::Force;
    }
    if let Some((text, line)) = get("ike") {
        draft.ike = proposals(text, line)?;
    }
    draft.ah = get("ah").is_some();
    if let Some((text, line)) = get("ah").or(get("esp")) {
        draft.ipsec = Some(proposals(text, line)?);
    }
    let time = |names: [&str; 2]| names.iter().find_map(|n| get(n)).map(|(v, l)| seconds(v, l)).transpose();
    draft.ike_lifetime = time(["ikelifetime", "ikelifetime"])?;
    draft.ipsec_lifetime = time(["lifetime", "keylife"])?;
    let (delay, timeout) = (time(["dpddelay", "dpddelay"])?, time(["dpdtimeout", "dpdtimeout"])?);
    draft.dpd = Some(match get("dpdaction") {
        None | Some(("none", _)) => None,
        Some(_) => {
            let delay = delay.unwrap_or(30);
            Some((delay, timeout.unwrap_or(150).saturating_sub(delay).max(1)))
        }
    });
    draft.start = match get("auto").map_or("ignore", |(v, _)| v) {
        "start" => Start::Immediate,
        "route" | "ondemand" => Start::OnDemand,
        _ => Start::Respond,
    };
    draft.local_id = get("leftid").map(|(v, l)| id(v, l)).transpose()?.flatten();
    draft.peer_id = get("rightid").map(|(v, l)| id(v, l)).transpose()?.flatten();
    let networks = |name: &str| match get(name) {
        Some((text, line)) if text != "%dynamic" => subnets(text, line),
        _ => Err(ImportError::new(line, format!("conn {name:?} has no {name}: Adit joins networks"))),
    };
    let (local, remote) = (networks("leftsubnet")?, networks("rightsubnet")?);
    set_subnets(&mut draft, local, remote, extra.remote_subnets);

    let of_address = |text: &str| text.parse::<Id>().ok();
    let sides = [
        draft.local_id.clone().or(draft.local.as_deref().and_then(of_address)),
        draft.peer_id.clone().or(of_address(&draft.address)),
    ];
    let fitting = keys.iter().filter_map(|key| Some((key.fits(&sides)?, key)));
    if let Some((_, key)) = fitting.max_by_key(|(named, _)| *named) {
        draft.set_psk(secret(key.text, key.line)?, key.line)?;
    }
    Ok(draft)
}

/// A line of ipsec.secrets.
struct Key<'a> {
    owners: Vec<Id>,
    text: &'a str,
    line: usize,
}

impl Key<'_> {
    /// How many of the sides it names; `None` where it is another's.
    fn fits(&self, sides: &[Option<Id>; 2]) -> Option<usize> {
        let is_side = |owner: &Id| sides.iter().flatten().any(|side| side.matches(owner));
        self.owners.iter().all(is_side).then_some(self.owners.len())
    }
}

/// `OWNER OWNER : PSK "key"`.
fn keys(text: &str) -> Result<Vec<Key<'_>>, ImportError> {
    let mut keys = Vec::new();
    for (line, raw) in text.lines().enumerate().map(|(i, raw)| (i + 1, raw.trim())) {
        if raw.is_empty() || raw.starts_with('#') {
            continue;
        }
        if raw.starts_with("include") {
            return Err(ImportError::new(line, "other files are not read: put their text here"));
        }
        // An IPv6 address has colons as well, but no space before one.
        let at =
            if raw.starts_with(':') { Some(0) } else { raw.find(" :").or(raw.find("\t:")).map(|at| at + 1) };
        let Some((owners, rest)) = at.map(|at| (&raw[..at], raw[at + 1..].trim_start())) else {
            return Err(ImportError::new(line, "has no \" : PSK\" in it"));
        };
        let Some(key) = rest.strip_prefix("PSK").map(str::trim) else { continue };
        let key = key.strip_prefix('"').and_then(|k| k.split_once('"')).map_or(key, |(k, _)| k);
        let owners = owners.split_whitespace().map(|owner| id(owner.trim_matches('"'), line));
        let owners = owners.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        keys.push(Key { owners, text: key, line });
    }
    Ok(keys)
}
