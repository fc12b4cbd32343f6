//! A tunnel that has been read, and how it is written.

use super::{Format, ImportError, Imported};
use crate::{
    config::{Start, Subnet},
    toml::{list, quoted},
};
use adit_ike::{Encryption, Group, Id, Integrity, Mode, NatT, Prf, Version};
use std::{
    fmt::{Display, Write as _},
    net::{IpAddr, Ipv4Addr},
};
use zeroize::Zeroizing;

/// Stands for a key that the text does not have.
pub(super) const NO_KEY: &str = "PUT-THE-PRE-SHARED-KEY-HERE";
/// Stands for a post-quantum pre-shared key that the text does not have.
pub(super) const NO_PPK: &str = "PUT-THE-POST-QUANTUM-KEY-HERE";
/// Stands for networks that the text does not name.
const NO_NETWORKS: &str = "PUT-THE-NETWORKS-BEHIND-THE-OTHER-SIDE-HERE";

/// Algorithms of a phase; an empty list takes Adit's own default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) encryption: Vec<Encryption>,
    pub(super) integrity: Vec<Integrity>,
    pub(super) prf: Vec<Prf>,
    pub(super) groups: Vec<Group>,
    pub(super) additional: Vec<Group>,
    pub(super) esn: bool,
}

/// BGP through a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bgp {
    pub(super) local_asn: u32,
    pub(super) peer_asn: u32,
    /// Our address in the inside network, and that network.
    pub(super) inside: (Ipv4Addr, Subnet),
    /// Seconds.
    pub(super) hold_time: Option<u64>,
}

/// A tunnel that has been read.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Draft {
    /// Where it begins in the text.
    pub(super) line: usize,
    pub(super) name: String,
    /// What is said above it.
    pub(super) notes: Vec<String>,
    /// Of this side, where the text says it.
    pub(super) local: Option<String>,
    /// An address, a name or `any`.
    pub(super) address: String,
    /// Both empty: everything, with `routes`.
    pub(super) local_subnets: Vec<Subnet>,
    pub(super) remote_subnets: Vec<Subnet>,
    pub(super) routes: Vec<Subnet>,
    pub(super) psk: Option<Zeroizing<String>>,
    pub(super) start: Start,
    pub(super) nat_t: NatT,
    pub(super) version: Version,
    pub(super) mode: Mode,
    pub(super) ike: Suite,
    pub(super) ah: bool,
    /// `None` takes Adit's own default.
    pub(super) ipsec: Option<Suite>,
    /// Seconds.
    pub(super) ike_lifetime: Option<u64>,
    pub(super) ipsec_lifetime: Option<u64>,
    pub(super) local_id: Option<Id>,
    pub(super) peer_id: Option<Id>,
    /// Delay and timeout in seconds; `Some(None)` is off.
    pub(super) dpd: Option<Option<(u64, u64)>>,
    pub(super) mss_clamp: Option<u64>,
    /// Where the echo requests of a health check come from, and who answers them.
    pub(super) check: Option<(IpAddr, IpAddr)>,
    pub(super) bgp: Option<Bgp>,
}

impl Draft {
    pub(super) fn new(line: usize, name: impl Into<String>, address: impl Into<String>) -> Draft {
        Draft {
            line,
            name: name.into(),
            notes: Vec::new(),
            local: None,
            address: address.into(),
            local_subnets: Vec::new(),
            remote_subnets: Vec::new(),
            routes: Vec::new(),
            psk: None,
            start: Start::Immediate,
            nat_t: NatT::Auto,
            version: Version::Ikev2,
            mode: Mode::Main,
            ike: Suite::default(),
            ah: false,
            ipsec: None,
            ike_lifetime: None,
            ipsec_lifetime: None,
            local_id: None,
            peer_id: None,
            dpd: None,
            mss_clamp: None,
            check: None,
            bgp: None,
        }
    }

    /// Keeps a key that Adit can have.
    ///
    /// # Errors
    /// It is none, which is said without showing it.
    pub(super) fn set_psk(&mut self, key: Zeroizing<String>, line: usize) -> Result<(), ImportError> {
        let fits = (1..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            return Err(ImportError::new(
                line,
                "the pre-shared key is none that Adit can have: 1..128 printable ASCII characters without space",
            ));
        }
        self.psk = Some(key);
        Ok(())
    }

    /// Whether the two differ in nothing but their subnets.
    fn is_same_connection(&self, other: &Draft) -> bool {
        let nameless = Draft {
            line: self.line,
            name: self.name.clone(),
            local_subnets: self.local_subnets.clone(),
            remote_subnets: self.remote_subnets.clone(),
            ..other.clone()
        };
        self == &nameless
    }
}

/// Joins what differs in subnets alone, as strongSwan has it with IKEv1: a tunnel of Adit negotiates each pair by itself.
///
/// # Errors
/// The pairs are not all pairs of two lists.
pub(super) fn joined(drafts: Vec<Draft>) -> Result<Vec<Draft>, ImportError> {
    let mut out: Vec<(Draft, Vec<(Subnet, Subnet)>)> = Vec::new();
    for draft in drafts {
        let pairs = pairs(&draft);
        match out.iter_mut().find(|(first, _)| first.is_same_connection(&draft)) {
            Some((first, all)) => {
                for (l, r) in &pairs {
                    if !first.local_subnets.contains(l) {
                        first.local_subnets.push(*l);
                    }
                    if !first.remote_subnets.contains(r) {
                        first.remote_subnets.push(*r);
                    }
                }
                all.extend(pairs);
            }
            None => out.push((draft, pairs)),
        }
    }
    for (draft, all) in &out {
        if let Some((l, r)) = self::pairs(draft).iter().find(|pair| !all.contains(pair)) {
            let message = format!(
                "the subnets of {:?} are not all pairs of two lists ({l} with {r} is missing); make tunnels of them by hand",
                draft.name
            );
            return Err(ImportError::new(draft.line, message));
        }
    }
    Ok(out.into_iter().map(|(draft, _)| draft).collect())
}

fn pairs(draft: &Draft) -> Vec<(Subnet, Subnet)> {
    let all = draft.local_subnets.iter().flat_map(|l| draft.remote_subnets.iter().map(move |r| (*l, *r)));
    all.filter(|(l, r)| l.address().is_ipv4() == r.address().is_ipv4()).collect()
}

/// Writes peers and tunnels, and connection groups of those that join the same networks.
///
/// # Errors
/// Two have the same name, or the subnets of the two sides overlap.
pub(super) fn write(format: Format, drafts: Vec<Draft>) -> Result<Imported, ImportError> {
    // Enough for what is usual: a text that grows leaves copies of the keys behind.
    let mut text = Zeroizing::new(String::with_capacity(4096 * (1 + drafts.len())));
    let mut put = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    put(&format!("# Read by Adit {} from {}.", env!("CARGO_PKG_VERSION"), format.title()));
    let mut taken: Vec<&Draft> = Vec::new();
    let mut groups: Vec<Vec<&Draft>> = Vec::new();
    for draft in &drafts {
        if taken.iter().any(|other| other.name == draft.name) {
            return Err(ImportError::new(
                draft.line,
                format!("{:?} is the name of another before it", draft.name),
            ));
        }
        let overlap = pairs(draft).into_iter().find(|(l, r)| l.overlaps(r));
        if let Some((l, r)) = overlap {
            let message = format!("{r} of the other side overlaps {l} of this one, which Adit does not have");
            return Err(ImportError::new(draft.line, message));
        }
        put("");
        let same = |other: &Draft| {
            (&other.local_subnets, &other.remote_subnets, &other.routes)
                == (&draft.local_subnets, &draft.remote_subnets, &draft.routes)
        };
        // Which of those that speak BGP carries what is for their peers to say.
        match groups
            .iter_mut()
            .filter(|_| draft.bgp.is_none())
            .find(|group| group.first().is_some_and(|first| same(first)))
        {
            Some(group) => group.push(draft),
            None if draft.bgp.is_some() => {}
            None => groups.push(vec![draft]),
        }
        taken.push(draft);
        one(draft).lines().for_each(&mut put);
    }
    for group in groups.iter().filter(|group| group.len() > 1) {
        put("");
        put("# They join the same networks: the first that is healthy carries everything.");
        put("[[group]]");
        put(&format!("name = {}", quoted(&group_name(group))));
        put(&format!("members = [{}]", group.iter().map(|d| quoted(&d.name)).collect::<Vec<_>>().join(", ")));
    }
    let tunnels = drafts.iter().map(|d| d.name.clone()).collect();
    Ok(Imported { text, tunnels })
}

/// What the names of its members have in common, or else the first one's.
fn group_name(group: &[&Draft]) -> String {
    let first = group.first().map_or("", |draft| draft.name.as_str());
    let common = |name: &str| first.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
    let length = group.iter().map(|draft| common(&draft.name)).min().unwrap_or(0);
    let shared: String = first.chars().take(length).collect();
    let name = shared.trim_end_matches(['-', '_', ' ', '.']);
    if name.is_empty() { first.to_owned() } else { name.to_owned() }
}

fn one(draft: &Draft) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let local =
        draft.local.as_ref().map(|local| format!("gateway.address has to be {local}, or be behind it"));
    for note in draft.notes.iter().chain(&local) {
        // What others wrote stays behind the sign of a comment. Writing into a String does not fail.
        let _ = writeln!(*text, "# {}", note.replace(char::is_control, " "));
    }
    let mut field = |name: &str, value: &dyn Display| {
        let _ = writeln!(*text, "{name} = {value}");
    };
    let ikev1 = draft.version == Version::Ikev1;
    field("[[peer]]\nname", &quoted(&draft.name));
    field("address", &quoted(&draft.address));
    draft.bgp.iter().for_each(|bgp| field("asn", &bgp.peer_asn));
    field("\n[[tunnel]]\nname", &quoted(&draft.name));
    field("peer", &quoted(&draft.name));
    if draft.local_subnets.is_empty() {
        field("routing_mode", &quoted("route"));
        match draft.routes.is_empty() {
            true => field("routes", &list([NO_NETWORKS])),
            false => field("routes", &list(&draft.routes)),
        }
    } else {
        field("local_subnets", &list(&draft.local_subnets));
        field("remote_subnets", &list(&draft.remote_subnets));
    }
    match &draft.psk {
        Some(psk) => field("psk", &*Zeroizing::new(quoted(psk))),
        None => field("psk", &quoted(&no_key(NO_KEY))),
    }
    match draft.start {
        _ if draft.address == "any" => {}
        Start::Immediate => field("start", &quoted("immediate")),
        Start::OnDemand => field("start", &quoted("on-demand")),
        Start::Respond => field("start", &quoted("respond")),
    }
    match draft.nat_t {
        NatT::Auto => {}
        NatT::Force => field("nat_t", &quoted("force")),
        NatT::Off => field("nat_t", &quoted("off")),
    }
    if let Some(mss) = draft.mss_clamp {
        field("mss_clamp", &mss);
    }

    field("\n[tunnel.ike]\nversion", &quoted(if ikev1 { "ikev1" } else { "ikev2" }));
    if ikev1 {
        field("mode", &quoted(if draft.mode == Mode::Aggressive { "aggressive" } else { "main" }));
    }
    let ike = &draft.ike;
    let all_aead =
        |suite: &Suite| !suite.encryption.is_empty() && suite.encryption.iter().all(|e| e.is_aead());
    if !ike.encryption.is_empty() {
        field("encryption", &list(&ike.encryption));
    }
    if !ike.integrity.is_empty() && !all_aead(ike) {
        field("integrity", &list(&ike.integrity));
    }
    // Without a word of its own the PRF goes with the integrity algorithm.
    let follows: Vec<_> = ike.integrity.iter().map(ToString::to_string).collect();
    let prf: Vec<_> = ike.prf.iter().map(|p| p.hash_name().to_owned()).collect();
    let prf = if prf.is_empty() { follows } else { prf };
    if !ikev1 && !prf.is_empty() {
        field("prf", &list(prf));
    }
    if !ike.groups.is_empty() {
        field("dh", &numbers(&ike.groups));
    }
    if !ike.additional.is_empty() {
        field("additional_ke", &list(&ike.additional));
    }
    for (name, id) in [("local_id", &draft.local_id), ("peer_id", &draft.peer_id)] {
        id.iter().for_each(|id| field(name, &quoted(&id.to_string())));
    }
    draft.ike_lifetime.iter().for_each(|s| field("lifetime", &(*s).clamp(60, 86_400)));

    field("\n[tunnel.ipsec]\nprotocol", &quoted(if draft.ah { "ah" } else { "esp" }));
    if let Some(ipsec) = &draft.ipsec {
        if !draft.ah && !ipsec.encryption.is_empty() {
            field("encryption", &list(&ipsec.encryption));
        }
        if !ipsec.integrity.is_empty() && (draft.ah || !all_aead(ipsec)) {
            field("integrity", &list(&ipsec.integrity));
        }
        match ipsec.groups.is_empty() {
            true => field("pfs", &quoted("disabled")),
            false => field("pfs", &numbers(&ipsec.groups)),
        }
        if !ikev1 {
            field("esn", &ipsec.esn);
        }
    }
    draft.ipsec_lifetime.iter().for_each(|s| field("lifetime", &(*s).clamp(60, 86_400)));
    match draft.dpd {
        None => {}
        Some(None) => field("\n[tunnel.dpd]\nenabled", &false),
        Some(Some((delay, timeout))) => {
            field("\n[tunnel.dpd]\ndelay", &delay.clamp(1, 3600));
            field("timeout", &timeout.clamp(1, 3600));
        }
    }
    if let Some((source, destination)) = draft.check {
        field("\n[tunnel.health_check]\ndestination", &quoted(&destination.to_string()));
        field("source", &quoted(&source.to_string()));
    }
    if let Some(Bgp { local_asn, inside: (local_ip, network), hold_time, .. }) = &draft.bgp {
        field("\n[tunnel.bgp]\nlocal_asn", local_asn);
        field("inside_cidr", &quoted(&network.to_string()));
        field("local_ip", &quoted(&local_ip.to_string()));
        hold_time.iter().for_each(|s| field("hold_time", &(*s).clamp(3, 3600)));
    }
    text
}

/// A word for a key that is missing, which nobody takes for one: there is a space in it.
pub(super) fn no_key(word: &str) -> String {
    word.replace('-', " ")
}

fn numbers(groups: &[Group]) -> String {
    format!("[{}]", groups.iter().map(|g| g.number().to_string()).collect::<Vec<_>>().join(", "))
}
