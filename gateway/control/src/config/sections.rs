//! The tables of the file, field by field.

use super::{
    Api, Config, Gateway, Group, Peer, PeerAddress, Start, Subnet, Tunnel, Xdp, alarm,
    bgp::{self, Beside, Inside, asn, bird},
    check, group,
    health::{Carried, health_check},
    policies::{dead_peer_detection, ike, ipsec},
    reader::{Field, Section},
};
use adit_ike::{EndpointConfig, Id, Mode, NatT, Protocol, Psk, Retransmission, Version};
use adit_maps::policy::MAX_POLICIES;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use zeroize::Zeroizing;

/// Where the socket is unless the file says otherwise.
pub(super) const SOCKET: &str = "/run/adit/adit.sock";

/// Peers or templates that somebody might have meant, at most.
pub(super) const SHOWN: usize = 20;
/// Labels of a resource, at most.
const LABELS: usize = 64;
/// What only Adit gives a resource.
pub(super) const GENERATED: [&str; 4] = ["id", "created_at", "updated_at", "revision"];

/// The peers by their names.
pub(super) type Peers = BTreeMap<String, Peer>;

/// What a tunnel refers to.
pub(super) struct Around<'a> {
    pub(super) gateway: Option<&'a Gateway>,
    pub(super) peers: &'a Peers,
    pub(super) alarms: alarm::Known<'a>,
    pub(super) keys: &'a Keys<'a>,
}

/// The keys of tunnels that are given none, by their names.
pub(crate) struct Keys<'a> {
    /// The pre-shared key.
    pub(crate) psk: &'a dyn Fn(&str) -> Option<Psk>,
    /// The post-quantum pre-shared key as it would be written.
    pub(crate) ppk: &'a dyn Fn(&str) -> Option<Zeroizing<String>>,
}

/// What is to be checked between tunnels, once all have been read.
#[derive(Default)]
pub(super) struct AmongTunnels<'a> {
    pairs: Vec<check::Subnets<'a>>,
    strangers: Vec<check::StrangersKey<'a>>,
    insides: Vec<Inside<'a>>,
}

impl AmongTunnels<'_> {
    /// Reports what does not go together, but for tunnels of one group.
    pub(super) fn check(&self, group_of: &HashMap<&str, &str>) {
        check::tunnels(&self.pairs, group_of);
        check::keys_of_strangers(&self.strangers);
        bgp::insides(&self.insides);
    }
}

/// Every key has to be given.
pub(super) const NO_KEYS: Keys<'static> = Keys { psk: &|_| None, ppk: &|_| None };

/// The tables of a whole configuration.
pub(super) struct Parts<'a> {
    pub(super) gateway: Section<'a>,
    pub(super) api: Section<'a>,
    pub(super) peers: Vec<Section<'a>>,
    pub(super) tunnels: Vec<Section<'a>>,
    pub(super) groups: Vec<Section<'a>>,
    pub(super) alarms: Vec<Section<'a>>,
    /// All tunnels together.
    pub(super) every: Option<Field<'a>>,
}

impl<'a> Parts<'a> {
    /// Of a file.
    pub(super) fn of(root: Section<'a>) -> Self {
        let parts = Parts {
            gateway: root.section("gateway"),
            api: root.section("api"),
            peers: root.sections("peer"),
            tunnels: root.sections("tunnel"),
            groups: root.sections("group"),
            alarms: root.sections("alarm"),
            every: root.get("tunnel"),
        };
        root.finish(&[]);
        parts
    }
}

/// Reads everything, and says nothing of what is to be warned of; `None` when a part without which there is nothing to check is missing.
pub(super) fn read(parts: Parts<'_>, keys: &Keys<'_>) -> Option<Config> {
    let mut names = BTreeSet::new();
    let alarms: Vec<_> = parts.alarms.into_iter().filter_map(|s| alarm::alarm(s, &mut names)).collect();
    let by_name = alarms.iter().map(|alarm| (alarm.name.clone(), alarm.clone())).collect();
    let gateway = gateway(parts.gateway, Some(&by_name));
    let api = api(parts.api);
    let mut names = BTreeSet::new();
    let peers: Peers = parts.peers.into_iter().filter_map(|s| peer(s, &mut names)).collect();
    let mut names = BTreeSet::new();
    let mut beside = AmongTunnels::default();
    let around = Around { gateway: gateway.as_ref(), peers: &peers, alarms: Some(&by_name), keys };
    let tunnels: Vec<_> =
        parts.tunnels.into_iter().filter_map(|s| tunnel(s, &around, &mut names, &mut beside)).collect();
    let slots: usize = tunnels.iter().map(|t| t.groups().len()).sum();
    if slots > MAX_POLICIES
        && let Some(f) = parts.every
    {
        f.fail(&too_many_slots(slots), Some(format!("at most {MAX_POLICIES}")));
    }
    let mut names = BTreeSet::new();
    let groups: Vec<_> = parts.groups.into_iter().filter_map(|s| group::group(s, &mut names)).collect();
    group::check(&groups, &tunnels);
    let groups: Vec<Group> = groups.into_iter().map(|drafted| drafted.group).collect();
    let group_of: HashMap<&str, &str> = groups
        .iter()
        .flat_map(|g| g.members.iter().map(|member| (member.as_str(), g.name.as_str())))
        .collect();
    beside.check(&group_of);
    Some(Config { gateway: gateway?, api: api?, tunnels, groups, alarms, warnings: Vec::new() })
}

/// What is said where the SPD has no room for all tunnels.
pub(super) fn too_many_slots(slots: usize) -> String {
    format!("need {slots} slots of the SPD, one each, with ikev1 one for each pair of subnets")
}

pub(super) fn gateway(s: Section<'_>, alarms: alarm::Known<'_>) -> Option<Gateway> {
    let name = s.require("name").and_then(|f| name(&f));
    let addresses = s.require("address").map(|f| {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for element in f.elements() {
            let Some(ip) = parsed::<IpAddr>(&element, "is not an IP address", None) else { continue };
            if !is_of_a_host(ip) {
                element.fail("is no address that a gateway can have", None);
            } else if addresses.iter().any(|a| a.is_ipv4() == ip.is_ipv4()) {
                element.fail("is a second address of its family", Some("one IPv4, one IPv6 address".into()));
            } else {
                addresses.push(ip);
            }
        }
        addresses
    });
    let wan = s.require("wan").and_then(|f| interface(&f));
    let lan = s.require("lan").map(|f| {
        let mut lan = Vec::new();
        for element in f.elements() {
            match interface(&element) {
                Some(name) if lan.contains(&name) => element.fail("is in the list twice", None),
                Some(name) => lan.push(name),
                None => {}
            }
        }
        lan
    });
    let local_id = s.get("local_id").and_then(|f| id(&f));
    if let Some(f) = s.get("model") {
        f.word(&[("standalone".into(), ())], &["primary-backup"]);
    }
    let ike = endpoint(s.section("ike"));
    let bird = bird(s.section("bird"));
    let xdp =
        s.get("xdp").map_or(Some(Xdp::Auto), |f| f.word(&Xdp::WORDS.map(|(w, x)| (w.to_owned(), x)), &[]));
    let alarm_template = alarm::of_gateway(&s, alarms);
    remark_and_labels(&s);
    s.finish(&GENERATED);
    let addresses = addresses.filter(|a| !a.is_empty())?;
    Some(Gateway {
        name: name?,
        addresses,
        wan: wan?,
        lan: lan?,
        local_id,
        alarm_template,
        xdp: xdp?,
        ike: ike?,
        bird: bird?,
    })
}

/// IKE as a whole.
fn endpoint(s: Section<'_>) -> Option<EndpointConfig> {
    let default = EndpointConfig::default();
    let number = |name, range, unit, default| s.get(name).map_or(Some(default), |f| f.number(range, unit));
    let cookies = number("cookie_threshold", 0..=65_534, "half-open IKE SAs", 64);
    let half_open = number("half_open_limit", 16..=65_535, "half-open IKE SAs", 4096);
    let fragment_size = number("fragment_size", 576..=65_535, "bytes", 1280);
    let initial = number("retransmit_after", 100..=60_000, "milliseconds", 500);
    let ceiling = number("retransmit_ceiling", 100..=60_000, "milliseconds", 8000);
    let attempts = number("attempts", 1..=20, "sendings", 5);
    let keepalive = number("keepalive", 1..=3600, "seconds", 20);
    let refused = cookies.zip(half_open).is_some_and(|(cookies, half_open)| cookies >= half_open);
    if let Some(f) = s.get("half_open_limit").or_else(|| s.get("cookie_threshold"))
        && refused
    {
        f.fail("leaves no room for cookies", Some("a half_open_limit above cookie_threshold".into()));
    }
    s.finish(&[]);
    let milliseconds = |n: u32| Duration::from_millis(n.into());
    Some(EndpointConfig {
        cookie_threshold: cookies? as usize,
        half_open_limit: half_open? as usize,
        fragment_size: fragment_size? as usize,
        retransmission: Retransmission {
            initial: milliseconds(initial?),
            ceiling: milliseconds(ceiling?),
            attempts: attempts?,
        },
        keepalive: Duration::from_secs(keepalive?.into()),
        ..default
    })
}

pub(super) fn api(s: Section<'_>) -> Option<Api> {
    let socket = match s.get("socket") {
        None => Some(PathBuf::from(SOCKET)),
        Some(f) => f.text().map(PathBuf::from).filter(|path| {
            // sun_path holds 108 bytes with the final zero; the socket is made under another name of up to 8.
            let fits = path.is_absolute() && path.file_name().is_some() && path.as_os_str().len() <= 100;
            if !fits {
                f.fail("is not a path for a socket", Some("an absolute path of at most 100 bytes".into()));
            }
            fits
        }),
    };
    let address = |field: &'static str, as_in: &str| match s.get(field) {
        None => Some(None),
        Some(f) => parsed::<SocketAddr>(&f, "is not an address with a port", Some(as_in)).map(Some),
    };
    let metrics = address("metrics", "as in 127.0.0.1:9360");
    let listen = address("listen", "as in 192.0.2.1:8443");
    let file = |field: &'static str| match s.get(field) {
        None => Some(None),
        Some(f) => f
            .text()
            .map(PathBuf::from)
            .filter(|path| {
                if !path.is_absolute() {
                    f.fail("is not the path of a file", Some("an absolute path".into()));
                }
                path.is_absolute()
            })
            .map(Some),
    };
    let certificate = match (file("certificate"), file("key")) {
        (Some(Some(certificate)), Some(Some(key))) => Some(Some((certificate, key))),
        (Some(None), Some(None)) => Some(None),
        (Some(given), Some(_)) => {
            let (there, missing) =
                if given.is_some() { ("certificate", "key") } else { ("key", "certificate") };
            if let Some(f) = s.get(there) {
                f.fail(&format!("stands without api.{missing}"), Some("both or none".into()));
            }
            None
        }
        _ => None,
    };
    let capture_keys = s.get("capture_keys").map_or(Some(false), |f| {
        let allowed = f.boolean();
        if allowed == Some(true) {
            f.warn("lets root read the keys of every tunnel's traffic with `adit tunnel capture --keys`");
        }
        allowed
    });
    let reveal_secrets = s.get("reveal_secrets").map_or(Some(false), |f| {
        let allowed = f.boolean();
        if allowed == Some(true) {
            f.warn(
                "lets whoever has the socket, and whoever has a token of scope reveal-secrets, read the key of every tunnel \
                 with `adit tunnel config --with-psk` and `adit export --with-psk`",
            );
        }
        allowed
    });
    s.finish(&[]);
    Some(Api {
        socket: socket?,
        metrics: metrics?,
        listen: listen?,
        certificate: certificate?,
        capture_keys: capture_keys?,
        reveal_secrets: reveal_secrets?,
    })
}

pub(super) fn peer(mut s: Section<'_>, names: &mut BTreeSet<String>) -> Option<(String, Peer)> {
    let name = unique_name(&mut s, "peer", names);
    let address = s.require("address").and_then(|f| {
        let text = f.text()?;
        let address = peer_address(text);
        if address.is_none() {
            f.fail("is not where a peer can be", Some("an IP address, a host name, \"any\"".into()));
        }
        address
    });
    let asn = s.get("asn").map_or(Some(None), |f| asn(&f).map(Some));
    remark_and_labels(&s);
    s.finish(&GENERATED);
    Some((name?, Peer { address: address?, asn: asn? }))
}

pub(super) fn tunnel<'a>(
    mut s: Section<'a>,
    around: &Around<'_>,
    names: &mut BTreeSet<String>,
    beside: &mut AmongTunnels<'a>,
) -> Option<Tunnel> {
    let gateway = around.gateway;
    let name = unique_name(&mut s, "tunnel", names);
    let peer = s.require("peer").and_then(|f| {
        let text = f.text()?;
        let found = around.peers.get_key_value(text);
        if found.is_none() {
            let known: Vec<_> = around.peers.keys().take(SHOWN).map(String::as_str).collect();
            f.fail("is no peer", Some(known.join(", ")).filter(|known| !known.is_empty()));
        }
        found
    });
    let address = peer.map(|(_, peer)| &peer.address);
    let traffic = traffic(&mut s);
    let psk_field = s.get("psk").map(Field::secret);
    let psk = match &psk_field {
        Some(f) => psk(f),
        None => name.as_deref().and_then(around.keys.psk),
    };
    if psk_field.is_none() && psk.is_none() {
        s.require("psk");
    }
    let enabled = s.get("enabled").map_or(Some(true), |f| f.boolean());
    let start = s.get("start").map_or(Some(Start::Immediate), |f| {
        let words =
            [("immediate", Start::Immediate), ("on-demand", Start::OnDemand), ("respond", Start::Respond)];
        let start = f.word(&words.map(|(w, m)| (w.to_owned(), m)), &[]);
        let comes_to_us = address == Some(&PeerAddress::Any);
        if comes_to_us && start.is_some_and(|s| s != Start::Respond) {
            f.fail("needs a peer whose address is known", Some("respond".into()));
        }
        start
    });
    let nat_t = s.get("nat_t").map_or(Some(NatT::Auto), |f| {
        let words = [("auto", NatT::Auto), ("force", NatT::Force), ("off", NatT::Off)];
        f.word(&words.map(|(w, m)| (w.to_owned(), m)), &[])
    });
    let mtu = s.get("mtu").map_or(Some(None), |f| automatic(&f, 576..=9216));
    let mss_clamp = s.get("mss_clamp").map_or(Some(None), |f| automatic(&f, 88..=9156));
    let local = gateway.map(|g| {
        if let (Some(PeerAddress::Ip(ip)), Some(f)) = (address, s.get("peer"))
            && g.addresses.contains(ip)
        {
            f.fail("has an address of this gateway", None);
        }
        let family = match address {
            Some(PeerAddress::Ip(ip)) => Some(ip.is_ipv4()),
            _ => None,
        };
        let mut found = g.addresses.iter().copied().filter(|a| family.is_none_or(|v4| a.is_ipv4() == v4));
        let local = found.next();
        if let (None, Some(f)) = (local, s.get("peer")) {
            f.fail("has an address of a family in which the gateway has none", None);
        }
        (local, found.next())
    });
    let (local, other_local) = local.unwrap_or_default();
    let phase1 = ike(s.section("ike"), || name.as_deref().and_then(around.keys.ppk));
    let (local_id, peer_id) = (phase1.local_id, phase1.peer_id);
    let phase2 = ipsec(s.section("ipsec"), phase1.version, &phase1.dh);
    if let Some(f) = s.get("nat_t")
        && nat_t == Some(NatT::Force)
        && phase2.as_ref().is_some_and(|p| p.policy.protocol == Protocol::Ah)
    {
        f.fail(
            "cannot be with ipsec.protocol ah, which no packet in UDP can carry",
            Some("auto, off".into()),
        );
    }
    let (dpd, dpd_action) = dead_peer_detection(s.section("dpd"));
    let by_route = traffic.routes.is_some();
    let carried = Carried { local: &traffic.local, remote: &traffic.remote, by_route };
    let health = match s.get("health_check") {
        Some(_) => health_check(s.section("health_check"), &carried).map(Some),
        None => Some(None),
    };
    let bgp_field = s.get("bgp");
    let bgp = match &bgp_field {
        Some(f) => {
            let routes = traffic.remote_field.clone().zip(traffic.routes.as_deref());
            let peer = peer.map(|(name, peer)| (name.as_str(), peer.asn));
            bgp::bgp(f, s.section("bgp"), &Beside { routes, peer }).map(|bgp| Some(Box::new(bgp)))
        }
        None => Some(None),
    };
    if let (Some(name), Some(field), Some(Some(bgp))) = (&name, &bgp_field, &bgp)
        && enabled != Some(false)
    {
        let (tunnel, field, network) = (name.clone(), field.clone(), bgp.inside_cidr);
        beside.insides.push(Inside { tunnel, field, network });
    }
    let local_id = match local_id {
        None => gateway.and_then(|g| g.local_id.clone()).or_else(|| Some(Id::from(local?))),
        Some(given) => given,
    };
    let peer_id = match (peer_id, address) {
        (Some(given), _) => given,
        (None, Some(PeerAddress::Ip(ip))) => Some(Id::from(*ip)),
        (None, Some(PeerAddress::Name(host))) => Some(Id::Fqdn(host.clone())),
        (None, Some(PeerAddress::Any)) => {
            if let Some(f) = s.get("peer") {
                f.fail("has the address any, so the tunnel needs ike.peer_id to know it by", None);
            }
            None
        }
        (None, None) => None,
    };
    let comes_from_anywhere = address == Some(&PeerAddress::Any);
    let key_field = psk_field.or_else(|| s.get("peer"));
    if let (Some(name), Some(field), Some(psk), Some(ike)) = (&name, key_field, &psk, &phase1.policy)
        && comes_from_anywhere
        && (ike.version, ike.mode) == (Version::Ikev1, Mode::Main)
    {
        beside.strangers.push(check::StrangersKey { tunnel: name.clone(), field, psk: psk.clone(), local });
    }
    if let (Some(name), Some(local), Some(remote)) = (&name, traffic.local_field, traffic.remote_field) {
        let remote_subnets = traffic.routes.as_ref().unwrap_or(&traffic.remote);
        beside.pairs.push(check::Subnets {
            tunnel: name.clone(),
            peer: address.cloned(),
            enabled: enabled != Some(false),
            by_route: traffic.routes.is_some(),
            bgp: bgp_field.is_some(),
            local: (local, traffic.local.clone()),
            remote: (remote, remote_subnets.clone()),
            check: s.get("health_check").zip(health.flatten().map(|check| (check.source, check.destination))),
        });
    }
    let alarm_template = alarm::of_tunnel(&s, around.alarms);
    remark_and_labels(&s);
    s.finish(&[&GENERATED[..], &["group"]].concat());
    let (peer_name, peer) = peer?;
    let phase2 = phase2?;
    Some(Tunnel {
        name: name?,
        enabled: enabled?,
        local: local?,
        other_local,
        peer_name: peer_name.clone(),
        peer: peer.address.clone(),
        local_id: local_id?,
        peer_id: peer_id?,
        local_subnets: traffic.local,
        remote_subnets: traffic.remote,
        routes: traffic.routes,
        psk: psk?,
        start: if comes_from_anywhere { Start::Respond } else { start? },
        nat_t: nat_t?,
        mtu: mtu?,
        mss_clamp: mss_clamp?,
        ike: phase1.policy?,
        childless: phase1.childless,
        ppk: phase1.ppk,
        ipsec: phase2.policy,
        lifetime_packets: phase2.lifetime_packets,
        replay_window: phase2.replay_window,
        dpd: dpd?,
        dpd_action: dpd_action?,
        health_check: health?,
        alarm_template,
        bgp: bgp?,
    })
}

/// What every resource may have for people: 0..256 printable characters, and words of one's own. Others see them in their
/// terminals.
pub(super) fn remark_and_labels(s: &Section<'_>) {
    if let Some(f) = s.get("remark")
        && let Some(text) = f.text()
    {
        match (text.chars().count() > 256, text.contains(char::is_control)) {
            (true, _) => f.refuse_whole("is too long", "0..256 characters"),
            (_, true) => f.fail("is not a remark", Some("0..256 printable characters in one line".into())),
            _ => {}
        }
    }
    let labels = s.section("labels");
    for (key, f) in labels.fields() {
        let is_word = |text: &str, least| {
            (least..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control)
        };
        if f.text().is_some_and(|value| !is_word(key, 1) || !is_word(value, 0)) {
            f.fail("is not a label", Some("1..64 printable characters = 0..64 printable characters".into()));
        }
    }
    if labels.fields().len() > LABELS
        && let Some(f) = s.get("labels")
    {
        f.refuse_whole("are too many", &format!("at most {LABELS}"));
    }
}

pub(super) fn unique_name(s: &mut Section<'_>, kind: &str, names: &mut BTreeSet<String>) -> Option<String> {
    let field = s.require("name")?;
    let name = name(&field)?;
    s.rename(format!("{kind} {name:?}"));
    if !names.insert(name.clone()) {
        field.fail(&format!("is the name of another {kind} above"), None);
        return None;
    }
    Some(name)
}

fn name(f: &Field<'_>) -> Option<String> {
    let text = f.text()?;
    let fits = (1..=64).contains(&text.chars().count())
        && text.trim() == text
        && !text.chars().any(char::is_control);
    if !fits {
        f.fail("is not a name", Some("1..64 printable characters, no space at either end".into()));
    }
    fits.then(|| text.to_owned())
}

fn interface(f: &Field<'_>) -> Option<String> {
    let text = f.text()?;
    let fits = (1..=15).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':')
        && text != "."
        && text != "..";
    if !fits {
        f.fail("is not the name of an interface", Some("1..15 characters, as `ip link` shows them".into()));
    }
    fits.then(|| text.to_owned())
}

pub(super) fn id(f: &Field<'_>) -> Option<Id> {
    let id: Id = parsed(f, "is not an identity", Some("an IP address, a host name, user@host, keyid:HEX"))?;
    if !id.fits() {
        f.refuse_whole("is longer than an identity may be", &format!("1..{} octets", Id::LONGEST));
        return None;
    }
    Some(id)
}

pub(super) fn parsed<T: std::str::FromStr>(f: &Field<'_>, message: &str, allowed: Option<&str>) -> Option<T> {
    let value = f.text()?.parse().ok();
    if value.is_none() {
        f.fail(message, allowed.map(str::to_owned));
    }
    value
}

fn psk(f: &Field<'_>) -> Option<Psk> {
    let text = f.text()?;
    if !(1..=128).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
        f.fail("is not a pre-shared key", Some("1..128 printable ASCII characters without space".into()));
        return None;
    }
    if text.len() < 16 {
        f.warn("is shorter than 16 characters: it can be guessed");
    }
    if text.len() > 100 || text.contains(['\'', '?']) {
        f.warn("is refused by some clouds, which take at most 100 characters and neither ' nor ?");
    }
    Some(Psk::new(text))
}

/// What a tunnel carries, with the fields that clashes are told by.
#[derive(Default)]
struct Traffic<'a> {
    local: Vec<Subnet>,
    remote: Vec<Subnet>,
    routes: Option<Vec<Subnet>>,
    local_field: Option<Field<'a>>,
    remote_field: Option<Field<'a>>,
}

/// The routing mode with its fields: subnets of both sides, or destinations only.
fn traffic<'a>(s: &mut Section<'a>) -> Traffic<'a> {
    let by_route = s.get("routing_mode").and_then(|f| {
        let modes = [("protected".to_owned(), false), ("route".to_owned(), true)];
        f.word(&modes, &[])
    });
    if by_route != Some(true) {
        if let Some(f) = s.get("routes") {
            f.fail("is of routing_mode route only", None);
        }
        let (local_field, remote_field) = (s.require("local_subnets"), s.require("remote_subnets"));
        let [local, remote] =
            [&local_field, &remote_field].map(|f| f.as_ref().map_or_else(Vec::new, subnets));
        return Traffic { local, remote, routes: None, local_field, remote_field };
    }
    let field = s.require("routes");
    let routes = field.as_ref().map_or_else(Vec::new, subnets);
    let everything = [Subnet::ALL_V4, Subnet::ALL_V6];
    let used = |all: &Subnet| routes.iter().any(|r| r.address().is_ipv4() == all.address().is_ipv4());
    let negotiated: Vec<Subnet> = everything.into_iter().filter(used).collect();
    for name in ["local_subnets", "remote_subnets"] {
        if let Some(f) = s.get(name)
            && subnets(&f).iter().any(|subnet| !everything.contains(subnet))
        {
            f.fail("is everything with routing_mode route", Some("0.0.0.0/0, ::/0".into()));
        }
    }
    Traffic {
        local: negotiated.clone(),
        remote: negotiated,
        routes: Some(routes),
        local_field: field.clone(),
        remote_field: field,
    }
}

fn subnets(f: &Field<'_>) -> Vec<Subnet> {
    let mut subnets: Vec<Subnet> = Vec::new();
    let elements = f.elements();
    // A traffic selector payload counts them in one byte (RFC 7296 section 3.13).
    if elements.len() > 255 {
        let message = format!("are {}, more than IKE can name at once", elements.len());
        f.refuse_whole(&message, "1..255 CIDR prefixes");
    }
    for element in elements {
        match element.text().map(str::parse::<Subnet>) {
            Some(Ok(subnet)) if subnets.contains(&subnet) => element.fail("is in the list twice", None),
            Some(Ok(subnet)) => subnets.push(subnet),
            Some(Err(e)) => element.fail(&e.to_string(), None),
            None => {}
        }
    }
    subnets
}

/// `"auto"` as `None`, or a number of bytes.
fn automatic(f: &Field<'_>, range: std::ops::RangeInclusive<u32>) -> Option<Option<u16>> {
    if f.is_text("auto") {
        return Some(None);
    }
    let allowed = format!("\"auto\" or {}..{}", range.start(), range.end());
    f.number_or(range, &allowed).and_then(|n| u16::try_from(n).ok()).map(Some)
}

/// Whether one machine may have the address. IPv4 in IPv6 notation would be of one family here and of the other on the wire.
pub(super) fn is_of_a_host(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.to_ipv4_mapped().is_some()),
    }
}

fn peer_address(text: &str) -> Option<PeerAddress> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return match ip {
            _ if ip.is_unspecified() => Some(PeerAddress::Any),
            _ => is_of_a_host(ip).then_some(PeerAddress::Ip(ip)),
        };
    }
    if text == "any" {
        return Some(PeerAddress::Any);
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // A last label of digits only is a mistyped address, not a name (RFC 3696 section 2).
    let numeric =
        text.trim_end_matches('.').rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    let fits = text.len() <= 253 && text.trim_end_matches('.').split('.').all(label) && !numeric;
    fits.then(|| PeerAddress::Name(text.trim_end_matches('.').to_owned()))
}
