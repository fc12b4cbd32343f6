//! What AWS lets download for the vendor "Generic": prose with values in lines `- NAME : VALUE`, for each of two tunnels.

use super::{
    ImportError,
    draft::{Bgp, Draft, Suite},
    words::{encryption, integrity},
};
use crate::config::Subnet;
use adit_ike::{Group, Mode, Version};
use std::net::{IpAddr, Ipv4Addr};
use zeroize::Zeroizing;

/// What follows belongs to this.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Ike,
    Ipsec,
    Outside,
    Inside,
    Bgp,
    Rest,
}

/// Each tunnel.
///
/// # Errors
/// A value that Adit does not have, or a tunnel without its addresses.
pub(super) fn read(text: &str, routes: &[Subnet]) -> Result<Vec<Draft>, ImportError> {
    let mut drafts: Vec<Draft> = Vec::new();
    let mut connection = String::from("aws");
    let mut part = Part::Rest;
    let mut dpd = (10, 3);
    // Of the customer gateway.
    let mut inside = None;
    let mut bgp = Spoken::default();
    for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())) {
        if let Some((_, id)) = line.split_once(':').filter(|(name, _)| name.contains("VPN Connection ID")) {
            connection =
                id.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
        }
        let title = line.to_ascii_lowercase();
        if let Some(tunnel) = title.strip_prefix("ipsec tunnel #") {
            if drafts.len() >= 8 {
                return Err(ImportError::new(number, "there are more tunnels than AWS gives"));
            }
            let which: String = tunnel.chars().take_while(char::is_ascii_digit).take(4).collect();
            let mut draft = Draft::new(number, format!("{connection}-{which}"), "");
            draft.routes = routes.to_vec();
            // AWS makes pairs of everything, unless its owner has said otherwise.
            draft.ipsec = Some(Suite::default());
            draft.version = Version::Ikev1;
            (part, dpd, inside, bgp) = (Part::Rest, (10, 3), None, Spoken::default());
            drafts.push(draft);
            continue;
        }
        part = match title.as_str() {
            t if t.starts_with("#1:") => Part::Ike,
            t if t.starts_with("#2:") => Part::Ipsec,
            t if t.starts_with("outside ip addresses") => Part::Outside,
            t if t.starts_with("inside ip addresses") => Part::Inside,
            t if t.starts_with("#4:") && t.contains("bgp") => Part::Bgp,
            t if t.starts_with('#') => Part::Rest,
            _ => part,
        };
        let Some(draft) = drafts.last_mut() else { continue };
        let value = line.strip_prefix('-').and_then(|line| line.split_once(':'));
        let Some((name, value)) = value.map(|(name, value)| (name.to_ascii_lowercase(), value.trim())) else {
            continue;
        };
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        match (part, name.as_str()) {
            (Part::Inside, "customer gateway") => {
                (inside, bgp.inside) = (without_length(value), network(value));
            }
            // AWS's end of the tunnel answers there.
            (Part::Inside, "virtual private gateway") => draft.check = inside.zip(without_length(value)),
            (Part::Bgp, "customer gateway asn") => bgp.local_asn = Some(asn(value, number)?),
            (Part::Bgp, "virtual private gateway asn") => bgp.peer_asn = Some(asn(value, number)?),
            (Part::Bgp, "neighbor hold time") => bgp.hold_time = value.parse().ok(),
            _ => take(draft, part, &name, value, number, &mut dpd)?,
        }
        draft.dpd = Some(Some((dpd.0, dpd.0 * dpd.1)));
        if let Some(known) = bgp.whole() {
            // Its session is a better health check.
            (draft.bgp, draft.check) = (Some(known), None);
        }
    }
    for draft in &mut drafts {
        if draft.address.is_empty() {
            return Err(ImportError::new(
                draft.line,
                "this tunnel has no outside address of the virtual private gateway",
            ));
        }
        if draft.routes.is_empty() {
            let words = match draft.bgp {
                Some(_) => {
                    "what BGP may teach has to lie in networks that are named below, or with --remote-subnets: nothing for \
                     them ever leaves in clear"
                }
                None => {
                    "AWS does not say which networks lie behind it: name them below, or with --remote-subnets"
                }
            };
            draft.notes.push(words.into());
        }
    }
    Ok(drafts)
}

fn take(
    draft: &mut Draft,
    part: Part,
    name: &str,
    value: &str,
    line: usize,
    dpd: &mut (u64, u64),
) -> Result<(), ImportError> {
    let word = value.to_ascii_lowercase();
    let refused = |what: &str| Err(ImportError::new(line, format!("{value:?} is no {what} that Adit has")));
    let number =
        || value.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).filter(|n| *n < 1 << 32);
    let lifetime =
        || number().ok_or_else(|| ImportError::new(line, format!("{value:?} is no time in seconds")));
    let ipsec = draft.ipsec.get_or_insert_default();
    match (part, name) {
        (Part::Ike, "ike version") => match word.as_str() {
            "ikev1" => draft.version = Version::Ikev1,
            "ikev2" => draft.version = Version::Ikev2,
            _ => return refused("version of IKE"),
        },
        (Part::Ike, "authentication method") if word != "pre-shared key" => return refused("authentication"),
        (Part::Ike, "pre-shared key") => return draft.set_psk(Zeroizing::new(value.to_owned()), line),
        (Part::Ike, "phase 1 negotiation mode") => match word.as_str() {
            "main" => draft.mode = Mode::Main,
            "aggressive" => draft.mode = Mode::Aggressive,
            _ => return refused("mode"),
        },
        (Part::Ike | Part::Ipsec, "encryption algorithm") => match encryption(&word) {
            Some(found) if part == Part::Ike => draft.ike.encryption = vec![found],
            Some(found) => ipsec.encryption = vec![found],
            None => return refused("encryption algorithm"),
        },
        (Part::Ike | Part::Ipsec, "authentication algorithm") => match integrity(&word) {
            Some(found) if part == Part::Ike => draft.ike.integrity = vec![found],
            Some(found) => ipsec.integrity = vec![found],
            None => return refused("authentication algorithm"),
        },
        (Part::Ike, "diffie-hellman") | (Part::Ipsec, "perfect forward secrecy") => {
            let found = word.rsplit(' ').next().and_then(|n| n.parse().ok()).and_then(Group::from_number);
            match found {
                Some(group) if part == Part::Ike => draft.ike.groups = vec![group],
                Some(group) => ipsec.groups = vec![group],
                None => return refused("Diffie-Hellman group"),
            }
        }
        (Part::Ike, "lifetime") => draft.ike_lifetime = Some(lifetime()?),
        (Part::Ipsec, "lifetime") => draft.ipsec_lifetime = Some(lifetime()?),
        (Part::Ipsec, "protocol") if word != "esp" => return refused("protocol"),
        (Part::Ipsec, "mode") if word != "tunnel" => return refused("mode"),
        (Part::Ipsec, "dpd interval") => dpd.0 = lifetime()?,
        (Part::Ipsec, "dpd retries") => dpd.1 = lifetime()?.min(60),
        (Part::Ipsec, "tcp mss adjustment") => draft.mss_clamp = number().filter(|n| (88..=9156).contains(n)),
        (Part::Outside, "customer gateway") => draft.local = Some(address(value, line)?),
        (Part::Outside, "virtual private gateway") => draft.address = address(value, line)?,
        _ => {}
    }
    Ok(())
}

/// What a text has said of BGP so far.
#[derive(Default)]
struct Spoken {
    local_asn: Option<u32>,
    peer_asn: Option<u32>,
    inside: Option<(Ipv4Addr, Subnet)>,
    hold_time: Option<u64>,
}

impl Spoken {
    fn whole(&self) -> Option<Bgp> {
        let Spoken { local_asn, peer_asn, inside, hold_time } = *self;
        Some(Bgp { local_asn: local_asn?, peer_asn: peer_asn?, inside: inside?, hold_time })
    }
}

fn asn(value: &str, line: usize) -> Result<u32, ImportError> {
    value
        .parse()
        .ok()
        .filter(|asn| *asn > 0)
        .ok_or_else(|| ImportError::new(line, format!("{value:?} is no AS number")))
}

/// The address of `169.254.42.2/30`, and the network that it is in.
fn network(value: &str) -> Option<(Ipv4Addr, Subnet)> {
    let (ip, length) = value.split_once('/')?;
    let (ip, length): (Ipv4Addr, u32) = (ip.parse().ok()?, length.parse().ok().filter(|l| *l <= 32)?);
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    let network = Ipv4Addr::from(u32::from(ip) & mask);
    Some((ip, format!("{network}/{length}").parse().ok()?))
}

/// The address of `169.254.42.2/30`.
fn without_length(value: &str) -> Option<IpAddr> {
    value.split('/').next()?.parse().ok()
}

fn address(value: &str, line: usize) -> Result<String, ImportError> {
    match value.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.to_string()),
        Err(_) => Err(ImportError::new(line, format!("{value:?} is no address"))),
    }
}
