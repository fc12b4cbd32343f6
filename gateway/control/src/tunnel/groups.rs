//! Which slots of OUTBOUND a tunnel has, and which flows each of them is for.
//!
//! A slot names one SA, so flows that may be sent with different SAs need different slots. IKEv2 negotiates all subnets
//! of a tunnel at once: one slot. IKEv1 negotiates each pair of subnets for itself: a slot for each. Where a peer agrees
//! to less than a whole slot's flows, what it agreed to gets a slot of its own, before the whole one: nothing else may be
//! sent with that SA (RFC 4301 section 5.1). The rest asks for another SA by the whole slot, which has none.

use crate::{
    config::{self, Subnet},
    echo::{ICMP, ICMPV6},
    spd::{self, Policy, Tables, prefixes},
};
use adit_ike::{TrafficSelector, TunnelId};
use adit_maps::address::Prefix;
use adit_maps::policy::{MAX_POLICIES, MAX_RULES, PortRange};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr},
};

/// Policies that all that a peer has narrowed may become: ranges of addresses that are no prefixes take many. The tables are
/// for all tunnels, and one peer must not fill them.
const MAX_NARROWED: usize = 512;
/// How many of them, each for a protocol or for ports, may meet in one place: the list of rules there ends with the whole
/// slot's, and may begin with that of a health check.
const MAX_MEETING: usize = MAX_RULES - 2;

/// Every slot of OUTBOUND, and whose it is.
#[derive(Clone, Debug)]
pub struct Slots {
    free: VecDeque<u32>,
    owners: HashMap<u32, TunnelId>,
}

impl Default for Slots {
    fn default() -> Self {
        Slots { free: (0..MAX_POLICIES as u32).collect(), owners: HashMap::new() }
    }
}

impl Slots {
    /// The slot that was free for the longest time; `None` when there is none.
    pub fn take(&mut self, tunnel: TunnelId) -> Option<u32> {
        // Slots that were claimed are still among the free ones.
        let slot = loop {
            let slot = self.free.pop_front()?;
            if !self.owners.contains_key(&slot) {
                break slot;
            }
        };
        self.owners.insert(slot, tunnel);
        Some(slot)
    }

    /// Takes a slot that a tunnel had in an earlier process. Whether it was free.
    pub fn claim(&mut self, slot: u32, tunnel: TunnelId) -> bool {
        let free = (slot as usize) < MAX_POLICIES && !self.owners.contains_key(&slot);
        free && self.owners.insert(slot, tunnel).is_none()
    }

    /// A slot that no policy in the maps names any more.
    pub fn give_back(&mut self, slot: u32) {
        if self.owners.remove(&slot).is_some() {
            self.free.push_back(slot);
        }
    }

    /// Whose a slot is.
    pub fn owner(&self, slot: u32) -> Option<TunnelId> {
        self.owners.get(&slot).copied()
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.owners.len()
    }
}

/// The slots of one tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    whole: Vec<Whole>,
    narrowed: Vec<Narrowed>,
    /// Source and destination of the health check, if there is one.
    checked: Option<(IpAddr, IpAddr)>,
    /// What BGP says, if there is BGP.
    taught: Option<Taught>,
    /// Whether the tunnel is disabled.
    disabled: bool,
}

/// What the peer of a tunnel teaches by BGP.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taught {
    /// Our end of the session and the peer's.
    ends: (IpAddr, IpAddr),
    /// Within the tunnel's destinations, what is sent through it.
    prefixes: BTreeSet<Subnet>,
    /// How many more there are, for which there is no room.
    beyond: usize,
}

/// Pairs of subnets that one Child SA is to cover.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whole {
    slot: u32,
    pairs: Vec<(Subnet, Subnet)>,
}

/// What a peer agreed to where that is less than a [`Whole`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Narrowed {
    slot: u32,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
}

/// Why a Child SA has no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// Its selectors have nothing in common with the tunnel's subnets, or what all are for is too much: too many ranges, or
    /// too many protocols and ports in one place.
    Selectors,
    /// Every slot is taken.
    Full,
}

/// The slots that a Child SA serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The slots.
    pub slots: Vec<u32>,
    /// Whether the policies are others than before.
    pub changed: bool,
}

/// The slots of a tunnel, without what its configuration says about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptGroups {
    /// Of what the tunnel is configured to protect, in its order.
    pub whole: Vec<u32>,
    /// Of what a peer agreed to where that is less: our side and the peer's.
    pub narrowed: Vec<(u32, Flows)>,
}

/// Traffic selectors of our side and of the peer's.
type Flows = (Vec<TrafficSelector>, Vec<TrafficSelector>);

adit_ike::kept! { KeptGroups { whole, narrowed } }

impl Groups {
    /// Slots for what a tunnel is configured to protect; `None` when there are not enough, and none is taken.
    pub fn new(tunnel: TunnelId, config: &config::Tunnel, slots: &mut Slots) -> Option<Self> {
        let groups = config.groups();
        if groups.len() > MAX_POLICIES - slots.taken() {
            return None;
        }
        let whole = groups.into_iter().filter_map(|pairs| Some(Whole { slot: slots.take(tunnel)?, pairs }));
        let disabled = !config.enabled;
        let mut groups = Groups { whole: whole.collect(), disabled, ..Groups::default() };
        groups.check(config.health_check.as_ref());
        groups.speak(config.bgp.as_deref());
        Some(groups)
    }

    /// The slots that a tunnel of the same configuration had in an earlier process; `None` when they do not fit it, or
    /// are not free.
    pub fn resume(
        tunnel: TunnelId,
        config: &config::Tunnel,
        kept: &KeptGroups,
        slots: &mut Slots,
    ) -> Option<Self> {
        let groups = config.groups();
        let narrowed = || kept.narrowed.iter().map(|(slot, _)| slot);
        let claimed: Vec<u32> = kept.whole.iter().chain(narrowed()).copied().collect();
        let taken = claimed.iter().take_while(|slot| slots.claim(**slot, tunnel)).count();
        if groups.len() != kept.whole.len() || taken != claimed.len() {
            claimed[..taken].iter().for_each(|slot| slots.give_back(*slot));
            return None;
        }
        let whole = groups.into_iter().zip(&kept.whole).map(|(pairs, slot)| Whole { slot: *slot, pairs });
        let narrowed = kept.narrowed.iter().cloned();
        let narrowed = narrowed.map(|(slot, (local, remote))| Narrowed { slot, local, remote });
        let (narrowed, disabled) = (narrowed.collect(), !config.enabled);
        let mut groups = Groups { whole: whole.collect(), narrowed, checked: None, taught: None, disabled };
        if !groups.fits() {
            groups.slots().for_each(|slot| slots.give_back(slot));
            return None;
        }
        groups.check(config.health_check.as_ref());
        groups.speak(config.bgp.as_deref());
        Some(groups)
    }

    /// Takes another health check, or none.
    pub fn check(&mut self, check: Option<&config::HealthCheck>) {
        self.checked = check.map(|check| (check.source, check.destination));
    }

    /// The policy of the health check: its requests go through this tunnel, whoever else carries what the tunnel protects,
    /// and with an SA that admits them, if there is one. Nothing else that goes from its source to its destination does,
    /// unless it has no other policy. None while the tunnel is disabled.
    pub fn check_policy(&self) -> Option<Policy> {
        self.between(self.checked.filter(|_| !self.disabled)?)
    }

    /// Takes BGP, or none. Nothing is sent through the tunnel until something is learned.
    pub fn speak(&mut self, bgp: Option<&config::Bgp>) {
        let ends = bgp.map(config::Bgp::ends);
        if self.taught.as_ref().map(|taught| taught.ends) != ends {
            self.taught = ends.map(|ends| Taught { ends, prefixes: BTreeSet::new(), beyond: 0 });
        }
    }

    /// Takes what the peer teaches, as far as it lies within the tunnel's destinations, up to `room` prefixes. Whether the
    /// policies are others than before.
    pub fn learn(&mut self, prefixes: &BTreeSet<Subnet>, room: usize) -> bool {
        let whole = &self.whole;
        let Some(taught) = &mut self.taught else { return false };
        let bounds = |p: &&Subnet| {
            let within = |(_, r): &(Subnet, Subnet)| r.prefix().contains(&p.prefix());
            whole.iter().flat_map(|w| &w.pairs).any(within)
        };
        let mut within = prefixes.iter().filter(bounds).copied();
        let prefixes: BTreeSet<Subnet> = within.by_ref().take(room).collect();
        taught.beyond = within.count();
        let differs = taught.prefixes != prefixes;
        taught.prefixes = prefixes;
        differs
    }

    /// What the peer teaches.
    pub fn learned(&self) -> impl Iterator<Item = &Subnet> {
        self.taught.iter().flat_map(|taught| &taught.prefixes)
    }

    /// How many prefixes that the peer teaches are not taken.
    pub fn beyond(&self) -> usize {
        self.taught.as_ref().map_or(0, |taught| taught.beyond)
    }

    /// How many policies one learned prefix may become for each source, at most: where a peer has narrowed a Child SA, each
    /// part of it that lies within the prefix is one more.
    pub fn weight(&self) -> usize {
        let pairs = || self.whole.iter().flat_map(|w| &w.pairs);
        1 + self.narrowed.iter().flat_map(|n| pairs().map(|pair| n.within(pair).len())).sum::<usize>()
    }

    /// The policy of the session itself, through this tunnel and no other.
    pub fn session_policy(&self) -> Option<Policy> {
        let taught = self.taught.as_ref().filter(|_| !self.disabled)?;
        // From all that sessions may have, so that thousands of them have one source.
        let local = Prefix::new(Ipv4Addr::new(169, 254, 0, 0).into(), 16)?;
        Some(Policy { protocol: 0, local, ..self.between(taught.ends)? })
    }

    /// What is dropped where BGP leads through no tunnel: with BGP everything that a tunnel is for.
    pub fn bounds(&self) -> impl Iterator<Item = (Subnet, Subnet)> {
        let whole = self.taught.iter().flat_map(|_| &self.whole);
        whole.flat_map(|w| w.pairs.iter().copied())
    }

    /// The policy between two hosts, to the slot whose SA admits them: of ICMP alone, where others protect the rest.
    fn between(&self, (source, destination): (IpAddr, IpAddr)) -> Option<Policy> {
        let holds = |side: &[TrafficSelector], ip: IpAddr| {
            side.iter().any(|ts| ts.contains(&Subnet::host(ip).selector()))
        };
        let admits = |n: &&Narrowed| holds(&n.local, source) && holds(&n.remote, destination);
        let v4 = source.is_ipv4();
        // In routing mode `route` the destination need not be one that is routed.
        let of_family = |w: &&Whole| w.pairs.iter().any(|(l, _)| l.address().is_ipv4() == v4);
        let covers = |w: &&Whole| w.pairs.iter().any(|(l, r)| l.holds(source) && r.holds(destination));
        let covering = self.whole.iter().find(covers);
        let whole = || covering.or_else(|| self.whole.iter().find(of_family));
        let slot = self.narrowed.iter().find(admits).map(|n| n.slot).or_else(|| whole().map(|w| w.slot))?;
        let policy = Policy::protect(Subnet::host(source).prefix(), Subnet::host(destination).prefix(), slot);
        let protocol = match covering {
            Some(_) if v4 => ICMP,
            Some(_) => ICMPV6,
            None => 0,
        };
        Some(Policy { protocol, ..policy })
    }

    /// Whether the tunnel is disabled. Another may then have the same pairs, and comes first.
    pub fn is_disabled(&self) -> bool {
        self.disabled
    }

    /// The pairs of subnets that each slot is for, without what a peer agreed to.
    pub fn wholes(&self) -> impl Iterator<Item = &[(Subnet, Subnet)]> {
        self.whole.iter().map(|w| w.pairs.as_slice())
    }

    /// The slot of a pair of subnets.
    pub fn slot_for(&self, pair: &(Subnet, Subnet)) -> Option<u32> {
        self.whole.iter().find(|w| w.pairs.contains(pair)).map(|w| w.slot)
    }

    /// What a later process needs for [`Groups::resume`].
    pub fn kept(&self) -> KeptGroups {
        let narrowed = self.narrowed.iter();
        KeptGroups {
            whole: self.whole.iter().map(|w| w.slot).collect(),
            narrowed: narrowed.map(|n| (n.slot, (n.local.clone(), n.remote.clone()))).collect(),
        }
    }

    /// Every slot.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        self.whole.iter().map(|w| w.slot).chain(self.narrowed.iter().map(|n| n.slot))
    }

    /// The slots for a Child SA: those that it covers wholly, or else one for exactly what it covers.
    ///
    /// # Errors
    /// [`Unserved`]; nothing has changed then.
    pub fn serve(
        &mut self,
        tunnel: TunnelId,
        local: &[TrafficSelector],
        remote: &[TrafficSelector],
        slots: &mut Slots,
    ) -> Result<Served, Unserved> {
        let covers = |side: &[TrafficSelector], subnet: &Subnet| {
            let whole = subnet.selector();
            side.iter().any(|ts| ts.contains(&whole))
        };
        let covered = |w: &&Whole| w.pairs.iter().all(|(l, r)| covers(local, l) && covers(remote, r));
        let whole: Vec<u32> = self.whole.iter().filter(covered).map(|w| w.slot).collect();
        if !whole.is_empty() {
            return Ok(Served { slots: whole, changed: false });
        }
        if let Some(known) = self.narrowed.iter().find(|n| n.local == local && n.remote == remote) {
            return Ok(Served { slots: vec![known.slot], changed: false });
        }
        let narrowed = Narrowed { slot: 0, local: local.to_vec(), remote: remote.to_vec() };
        if self.whole.iter().flat_map(|w| &w.pairs).all(|pair| narrowed.within(pair).is_empty()) {
            return Err(Unserved::Selectors);
        }
        let slot = slots.take(tunnel).ok_or(Unserved::Full)?;
        self.narrowed.push(Narrowed { slot, ..narrowed });
        if !self.fits() {
            self.narrowed.pop();
            slots.give_back(slot);
            return Err(Unserved::Selectors);
        }
        Ok(Served { slots: vec![slot], changed: true })
    }

    /// Whether the tables have room for what the peer has narrowed, whatever the other tunnels are.
    fn fits(&self) -> bool {
        let pairs = || self.whole.iter().flat_map(|w| &w.pairs);
        let policies = self.narrowed.iter().flat_map(|n| pairs().flat_map(|pair| n.within(pair)));
        let policies: Vec<Policy> = policies.take(MAX_NARROWED + 1).collect();
        if policies.len() > MAX_NARROWED {
            return false;
        }
        let limited: Vec<Policy> = policies.into_iter().filter(|p| !p.rule().is_total()).collect();
        limited.len() <= MAX_MEETING
            || spd::compile(&limited, &Tables::default()).is_ok_and(|tables| tables.longest() <= MAX_MEETING)
    }

    /// Forgets the narrowed slots that `serves` says nothing serves, and returns them: they are free once the policies
    /// are in the maps.
    pub fn forget(&mut self, serves: impl Fn(u32) -> bool) -> Vec<u32> {
        let (kept, gone) = std::mem::take(&mut self.narrowed).into_iter().partition(|n| serves(n.slot));
        self.narrowed = kept;
        gone.into_iter().map(|n| n.slot).collect()
    }

    /// The policies of each pair of subnets, the pair's own last.
    pub fn policies(&self) -> impl Iterator<Item = ((Subnet, Subnet), Vec<Policy>)> {
        self.policies_of(self.sent())
    }

    /// Those of what is configured alone, without what is learned.
    pub fn configured_policies(&self) -> impl Iterator<Item = ((Subnet, Subnet), Vec<Policy>)> {
        self.policies_of(if self.taught.is_some() { Vec::new() } else { self.sent() })
    }

    fn policies_of(
        &self,
        sent: Vec<(u32, (Subnet, Subnet))>,
    ) -> impl Iterator<Item = ((Subnet, Subnet), Vec<Policy>)> {
        sent.into_iter().map(|(slot, pair)| {
            let mut policies: Vec<_> = self.narrowed.iter().flat_map(|n| n.within(&pair)).collect();
            policies.sort_by_key(|p| {
                let any =
                    p.protocol == 0 && p.local_ports == PortRange::ANY && p.remote_ports == PortRange::ANY;
                (any, Reverse(p.local.len + p.remote.len))
            });
            policies.push(Policy::protect(pair.0.prefix(), pair.1.prefix(), slot));
            (pair, policies)
        })
    }
}

impl Groups {
    /// The pairs that are sent through the tunnel: those of its configuration, or what BGP says.
    fn sent(&self) -> Vec<(u32, (Subnet, Subnet))> {
        let Some(taught) = &self.taught else {
            let pairs = self.whole.iter().flat_map(|w| w.pairs.iter().map(|pair| (w.slot, *pair)));
            return pairs.collect();
        };
        let slots = self.whole.iter().filter_map(|w| Some((w.slot, w.pairs.first()?.0)));
        slots.flat_map(|(slot, l)| taught.prefixes.iter().map(move |p| (slot, (l, *p)))).collect()
    }
}

impl Narrowed {
    /// The part of it that lies within a pair of subnets.
    fn within(&self, (local, remote): &(Subnet, Subnet)) -> Vec<Policy> {
        let part = |side: &[TrafficSelector], subnet: &Subnet| -> Vec<TrafficSelector> {
            side.iter().filter_map(|ts| ts.intersection(&subnet.selector())).collect()
        };
        let (locals, remotes) = (part(&self.local, local), part(&self.remote, remote));
        let mut policies = Vec::new();
        for l in &locals {
            for r in &remotes {
                let protocol = match (l.protocol, r.protocol) {
                    (0, p) | (p, 0) => p,
                    (p, q) if p == q => p,
                    _ => continue,
                };
                let ports =
                    |ts: &TrafficSelector| PortRange { first: *ts.ports.start(), last: *ts.ports.end() };
                for local in prefixes(l.start.into(), l.end.into()) {
                    for remote in prefixes(r.start.into(), r.end.into()) {
                        policies.push(Policy {
                            protocol,
                            local_ports: ports(l),
                            remote_ports: ports(r),
                            ..Policy::protect(local, remote, self.slot)
                        });
                        if policies.len() > MAX_NARROWED {
                            return policies;
                        }
                    }
                }
            }
        }
        policies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spd::{InMemory, Tables, compile};
    use adit_maps::{
        address::Address,
        policy::{self, Flow},
    };
    const TUNNEL: TunnelId = TunnelId(9);

    fn config(version: &str, local: &str, remote: &str) -> config::Tunnel {
        let text = format!(
            "[gateway]\nname = \"a\"\naddress = \"192.0.2.1\"\nwan = \"w\"\nlan = [\"l\"]\n\
             [[peer]]\nname = \"b\"\naddress = \"198.51.100.1\"\n\
             [[tunnel]]\nname = \"t\"\npeer = \"b\"\nlocal_subnets = {local}\nremote_subnets = {remote}\n\
             psk = \"0123456789abcdef\"\nike.version = \"{version}\"\n"
        );
        config::Config::parse(std::path::Path::new("t"), &text).unwrap().tunnels.remove(0)
    }

    fn prefix(text: &str) -> TrafficSelector {
        text.parse::<Subnet>().unwrap().selector()
    }

    fn slot(groups: &Groups, from: &str, to: &str, protocol: u8, ports: (u16, u16)) -> Option<u32> {
        slot_of([groups], from, to, protocol, ports)
    }

    /// The slot that a flow is for where there are several tunnels.
    fn slot_of<'a>(
        groups: impl IntoIterator<Item = &'a Groups>,
        from: &str,
        to: &str,
        protocol: u8,
        ports: (u16, u16),
    ) -> Option<u32> {
        let tunnels = groups.into_iter().map(|groups| (TUNNEL, groups));
        let policies = crate::tunnel::policies(tunnels, &Default::default(), true);
        let tables = InMemory::new(&compile(&policies, &Tables::default()).unwrap()).unwrap();
        let address = |a: &str| Address::from(a.parse::<IpAddr>().unwrap());
        let flow = Flow::new(address(from), address(to), protocol, Some(ports));
        policy::look_up(&tables, &flow).map(|rule| rule.policy)
    }

    #[test]
    fn ikev2_has_one_slot_and_ikev1_one_for_each_pair() {
        let (local, remote) = (
            "[\"10.1.0.0/16\", \"2001:db8:1::/48\"]",
            "[\"10.2.0.0/16\", \"10.3.0.0/16\", \"2001:db8:2::/48\"]",
        );
        let mut slots = Slots::default();
        let v2 = Groups::new(TUNNEL, &config("ikev2", local, remote), &mut slots).unwrap();
        assert_eq!(v2.slots().collect::<Vec<_>>(), [0]);
        let v1 = Groups::new(TUNNEL, &config("ikev1", local, remote), &mut slots).unwrap();
        assert_eq!(v1.slots().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(slot(&v1, "10.1.0.1", "10.3.0.1", 6, (1, 2)), Some(2));
        assert_eq!(slot(&v1, "2001:db8:1::1", "2001:db8:2::1", 6, (1, 2)), Some(3));
        assert_eq!(slot(&v2, "10.1.0.1", "10.3.0.1", 6, (1, 2)), Some(0));
        assert_eq!((slots.owner(3), slots.owner(4), slots.taken()), (Some(TUNNEL), None, 4));
    }

    #[test]
    fn a_peer_that_narrows_too_much_changes_nothing() {
        let mut slots = Slots::default();
        let config = config("ikev2", "[\"10.1.0.0/16\"]", "[\"10.2.0.0/16\"]");
        let mut groups = Groups::new(TUNNEL, &config, &mut slots).unwrap();
        let all = [prefix("10.1.0.0/16")];
        let to =
            |remote: &str, port: u16| TrafficSelector { protocol: 6, ports: port..=port, ..prefix(remote) };
        for port in 1..=MAX_MEETING as u16 {
            groups.serve(TUNNEL, &all, &[to("10.2.0.0/16", port)], &mut slots).unwrap();
        }
        let before = (groups.clone(), slots.taken());
        let refused = groups.serve(TUNNEL, &all, &[to("10.2.7.0/24", 99)], &mut slots);
        assert_eq!((refused, (groups.clone(), slots.taken())), (Err(Unserved::Selectors), before));
        // What is for all protocols ends the list, and takes no place in it.
        let whole =
            groups.serve(TUNNEL, &[prefix("10.1.7.0/24")], &[prefix("10.2.7.0/24")], &mut slots).unwrap();
        assert_eq!(slot(&groups, "10.1.1.1", "10.2.7.7", 6, (9, 1)), Some(1));
        assert_eq!(slot(&groups, "10.1.7.1", "10.2.7.7", 6, (9, 99)), Some(whole.slots[0]));
        // A record of an earlier version may have more: the tunnel begins anew.
        let mut kept = groups.kept();
        kept.narrowed.push((100, (all.to_vec(), vec![to("10.2.0.0/16", 99)])));
        let mut others = Slots::default();
        assert_eq!(Groups::resume(TUNNEL, &config, &kept, &mut others), None);
        assert_eq!(others.taken(), 0);
        // Ranges that are no prefixes, one Child SA after the other.
        let (mut groups, mut served) = (Groups::new(TUNNEL, &config, &mut others).unwrap(), 0);
        for third in 0..=255 {
            let range = TrafficSelector {
                start: [10, 2, third, 1].into(),
                end: [10, 2, third, 254].into(),
                ..prefix("10.2.0.0/16")
            };
            served += usize::from(groups.serve(TUNNEL, &all, &[range], &mut others).is_ok());
        }
        assert!(served > 10 && served < 64, "{served}");
        let policies: usize = groups.policies().map(|(_, policies)| policies.len()).sum();
        assert!(policies <= MAX_NARROWED + 1, "{policies}");
    }

    #[test]
    fn by_route_every_source_has_the_slot_of_the_destination() {
        let text = "[gateway]\nname = \"a\"\naddress = \"192.0.2.1\"\nwan = \"w\"\nlan = [\"l\"]\n\
                    [[peer]]\nname = \"b\"\naddress = \"198.51.100.1\"\n\
                    [[tunnel]]\nname = \"t\"\npeer = \"b\"\nrouting_mode = \"route\"\n\
                    routes = [\"10.2.0.0/16\", \"10.3.0.0/16\", \"2001:db8:2::/48\"]\npsk = \"0123456789abcdef\"\n";
        for (version, expected, v6) in [("ikev2", vec![0], 0), ("ikev1", vec![0, 1], 1)] {
            let text = format!("{text}ike.version = \"{version}\"\n");
            let config = config::Config::parse(std::path::Path::new("t"), &text).unwrap().tunnels.remove(0);
            let mut slots = Slots::default();
            let mut groups = Groups::new(TUNNEL, &config, &mut slots).unwrap();
            assert_eq!(groups.slots().collect::<Vec<_>>(), expected);
            let (from, to) = (["192.168.7.7", "10.2.0.9"], ["10.2.0.1", "10.3.0.1"]);
            for (from, to) in from.into_iter().zip(to) {
                assert_eq!(slot(&groups, from, to, 6, (1, 2)), Some(0));
            }
            assert_eq!(slot(&groups, "10.2.0.1", "10.4.0.1", 6, (1, 2)), None);
            assert_eq!(slot(&groups, "2001:db8:9::1", "2001:db8:2::1", 6, (1, 2)), Some(v6));
            let any = [prefix("0.0.0.0/0"), prefix("::/0")];
            let served = groups.serve(TUNNEL, &any, &any, &mut slots);
            assert_eq!(served, Ok(Served { slots: expected, changed: false }));
            // A peer that agrees to less gets that, and what it did not agree to is not sent.
            let narrowed = groups.serve(TUNNEL, &[prefix("10.1.0.0/16")], &any[..1], &mut slots).unwrap();
            assert_eq!(slot(&groups, "10.1.0.1", "10.3.0.1", 6, (1, 2)), Some(narrowed.slots[0]));
            assert_eq!(slot(&groups, "10.2.0.1", "10.3.0.1", 6, (1, 2)), Some(0));
        }
    }

    #[test]
    fn of_policies_that_overlap_the_most_specific_remote_then_local_prefix_decides() {
        let mut slots = Slots::default();
        let pairs = [
            ("10.1.0.0/16", "172.16.0.0/12"),
            ("10.1.0.0/16", "172.16.2.0/24"),
            ("10.1.7.0/24", "172.16.2.0/24"),
            ("10.1.0.0/16", "172.16.0.0/16"),
        ];
        let quoted = |s: &str| format!("[\"{s}\"]");
        let mut tunnels: Vec<Groups> = pairs
            .iter()
            .map(|(l, r)| Groups::new(TUNNEL, &config("ikev2", &quoted(l), &quoted(r)), &mut slots).unwrap())
            .collect();
        for _ in 0..pairs.len() {
            for (from, to, expected) in [
                ("10.1.7.1", "172.16.2.1", 2),
                ("10.1.8.1", "172.16.2.1", 1),
                ("10.1.7.1", "172.16.3.1", 3),
                ("10.1.7.1", "172.17.3.1", 0),
            ] {
                assert_eq!(slot_of(&tunnels, from, to, 6, (1, 2)), Some(expected), "{from} to {to}");
            }
            // Whatever the order of the configuration is.
            tunnels.rotate_left(1);
        }
    }

    #[test]
    fn a_child_serves_what_it_covers_wholly() {
        let mut slots = Slots::default();
        let config = config("ikev1", "[\"10.1.0.0/16\"]", "[\"10.2.0.0/16\", \"10.3.0.0/16\"]");
        let mut groups = Groups::new(TUNNEL, &config, &mut slots).unwrap();
        let before = groups.clone();
        let one = groups.serve(TUNNEL, &[prefix("10.1.0.0/16")], &[prefix("10.3.0.0/16")], &mut slots);
        assert_eq!(one, Ok(Served { slots: vec![1], changed: false }));
        let both = groups.serve(TUNNEL, &[prefix("10.0.0.0/8")], &[prefix("0.0.0.0/0")], &mut slots);
        assert_eq!(both, Ok(Served { slots: vec![0, 1], changed: false }));
        assert_eq!(groups, before);
    }

    #[test]
    fn only_what_the_peer_agreed_to_is_sent_with_a_narrowed_child() {
        let mut slots = Slots::default();
        let config = config("ikev2", "[\"10.1.0.0/16\"]", "[\"10.2.0.0/16\", \"10.3.0.0/16\"]");
        let mut groups = Groups::new(TUNNEL, &config, &mut slots).unwrap();
        let range = TrafficSelector { end: [10, 1, 0, 9].into(), ..prefix("10.1.0.1/32") };
        let https = TrafficSelector { protocol: 6, ports: 443..=443, ..prefix("10.2.7.0/24") };
        let served = groups.serve(TUNNEL, std::slice::from_ref(&range), &[https], &mut slots).unwrap();
        assert_eq!(served, Served { slots: vec![1], changed: true });
        for (from, to, protocol, ports, expected) in [
            ("10.1.0.1", "10.2.7.7", 6, (999, 443), 1),
            ("10.1.0.9", "10.2.7.7", 6, (999, 443), 1),
            ("10.1.0.10", "10.2.7.7", 6, (999, 443), 0),
            ("10.1.0.1", "10.2.8.7", 6, (999, 443), 0),
            ("10.1.0.1", "10.2.7.7", 6, (999, 80), 0),
            ("10.1.0.1", "10.2.7.7", 17, (999, 443), 0),
            ("10.1.0.1", "10.3.7.7", 6, (999, 443), 0),
        ] {
            assert_eq!(slot(&groups, from, to, protocol, ports), Some(expected), "{from} {to}");
        }
        let rest =
            groups.serve(TUNNEL, &[prefix("10.1.0.0/16")], &[prefix("10.3.0.0/16")], &mut slots).unwrap();
        assert_eq!((rest.slots, rest.changed), (vec![2], true));
        assert_eq!(slot(&groups, "10.1.0.1", "10.3.7.7", 6, (1, 1)), Some(2));
        assert_eq!(slot(&groups, "10.1.0.1", "10.2.7.7", 6, (999, 443)), Some(1));

        assert_eq!(groups.forget(|slot| slot != 1), [1]);
        assert_eq!(slot(&groups, "10.1.0.1", "10.2.7.7", 6, (999, 443)), Some(0));
        assert_eq!(slot(&groups, "10.1.0.1", "10.3.7.7", 6, (1, 1)), Some(2));
    }

    #[test]
    fn a_health_check_goes_through_its_own_tunnel() {
        let checked = |version: &str, from: &str, to: &str| config::Tunnel {
            health_check: Some(config::HealthCheck {
                destination: to.parse().unwrap(),
                source: from.parse().unwrap(),
                interval: std::time::Duration::from_secs(3),
                retries: 3,
                switch_route: false,
            }),
            ..config(version, "[\"10.1.0.0/16\"]", "[\"10.2.0.0/16\", \"10.3.0.0/16\"]")
        };
        let mut slots = Slots::default();
        let first = Groups::new(TUNNEL, &checked("ikev1", "10.1.0.1", "10.3.0.1"), &mut slots).unwrap();
        let other = config("ikev2", "[\"10.1.0.0/16\"]", "[\"10.3.0.1/32\"]");
        let other = Groups::new(TUNNEL, &other, &mut slots).unwrap();
        // The other one's remote prefix is as specific, and its flows are otherwise its own.
        let all = [&other, &first];
        assert_eq!(slot_of(all, "10.1.0.1", "10.3.0.1", 1, (0, 0)), Some(1));
        assert_eq!(slot_of(all, "10.1.0.1", "10.3.0.1", 17, (53, 53)), Some(2), "not what else goes there");
        assert_eq!(slot_of(all, "10.1.0.2", "10.3.0.1", 1, (0, 0)), Some(2));
        assert_eq!(slot_of(all, "10.1.0.1", "10.3.0.2", 1, (0, 0)), Some(1));

        let mut groups = Groups::new(TUNNEL, &checked("ikev2", "10.1.0.1", "10.2.0.1"), &mut slots).unwrap();
        assert_eq!(slot(&groups, "10.1.0.1", "10.2.0.1", 1, (0, 0)), Some(3));
        let narrowed =
            groups.serve(TUNNEL, &[prefix("10.1.0.0/24")], &[prefix("10.2.0.0/24")], &mut slots).unwrap();
        let narrowed = narrowed.slots[0];
        assert_eq!(slot(&groups, "10.1.0.1", "10.2.0.1", 1, (0, 0)), Some(narrowed), "the SA that admits it");
        groups.check(None);
        assert_eq!(groups.check_policy(), None);
        let disabled = config::Tunnel { enabled: false, ..checked("ikev2", "10.1.0.1", "10.2.0.1") };
        assert_eq!(Groups::new(TUNNEL, &disabled, &mut slots).unwrap().check_policy(), None);
    }

    #[test]
    fn the_same_selectors_again_keep_their_slot() {
        let mut slots = Slots::default();
        let config = config("ikev2", "[\"10.1.0.0/16\"]", "[\"10.2.0.0/16\"]");
        let mut groups = Groups::new(TUNNEL, &config, &mut slots).unwrap();
        let (local, remote) = ([prefix("10.1.0.0/16")], [prefix("10.2.7.0/24")]);
        let first = groups.serve(TUNNEL, &local, &remote, &mut slots).unwrap();
        let second = groups.serve(TUNNEL, &local, &remote, &mut slots).unwrap();
        assert_eq!((second.slots, second.changed), (first.slots, false));
    }

    #[test]
    fn what_cannot_be_told_apart_or_has_no_slot_is_not_served() {
        let mut slots = Slots::default();
        let config = config("ikev2", "[\"10.0.0.0/8\"]", "[\"172.16.0.0/12\"]");
        let mut groups = Groups::new(TUNNEL, &config, &mut slots).unwrap();
        let before = groups.clone();
        let elsewhere = [prefix("192.168.0.0/24")];
        assert_eq!(groups.serve(TUNNEL, &elsewhere, &elsewhere, &mut slots), Err(Unserved::Selectors));
        let ragged = |a: [u8; 4], b: [u8; 4]| TrafficSelector {
            end: b.into(),
            start: a.into(),
            ..prefix("10.0.0.0/8")
        };
        let (l, r) =
            (ragged([10, 0, 0, 1], [10, 255, 255, 254]), ragged([172, 16, 0, 1], [172, 31, 255, 254]));
        assert_eq!(groups.serve(TUNNEL, &[l], &[r], &mut slots), Err(Unserved::Selectors));
        while slots.take(TUNNEL).is_some() {}
        let narrow = [prefix("10.1.0.0/16")];
        assert_eq!(
            groups.serve(TUNNEL, &narrow, &[prefix("172.16.0.0/12")], &mut slots),
            Err(Unserved::Full)
        );
        assert_eq!(groups, before);
        assert!(Groups::new(TUNNEL, &config, &mut slots).is_none());
    }
}
