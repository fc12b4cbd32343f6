//! Between the IKE endpoint and the rest: what it says is done, what it wants is brought.

use super::run::Daemon;
use crate::{config::PeerAddress, sadb::SadbError, tunnel::Failed};
use adit_ike::{ChildSa, DownReason, Event, TrafficSelector, TunnelId};
use adit_maps::event::{Event as MapEvent, kind};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// How long a name may take to resolve.
const RESOLVE: Duration = Duration::from_secs(5);

/// Something that was done beside the task.
pub(super) enum Done {
    /// A Diffie-Hellman job.
    Job(adit_ike::JobResult),
    /// A peer's name, for a tunnel: its address, or why there is none.
    Resolved(TunnelId, String, Result<IpAddr, String>),
}

impl Daemon {
    /// Brings out whatever the endpoint has to say: events first, because an answer may promise what they install.
    pub(super) fn drain(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            self.handle_event(now, event);
        }
        self.keep_changes();
        while let Some(transmit) = self.endpoint.poll_transmit() {
            self.sockets.send(&transmit);
        }
        while let Some(job) = self.endpoint.poll_job() {
            let stranger = self.endpoint.is_strangers(&job);
            self.pool.submit(job, stranger);
        }
    }

    /// Lets what was up of a tunnel that changed go: its Child SAs leave the maps, the rest is of no interest.
    pub(super) fn discard_events(&mut self, tunnel: TunnelId) {
        let now = Instant::now();
        let mut others = Vec::new();
        while let Some(event) = self.endpoint.poll_event() {
            if of(&event) != Some(tunnel) {
                others.push(event);
            }
        }
        if let Some(data_plane) = &mut self.data_plane {
            data_plane.sadb.remove_all(&mut data_plane.maps, now, tunnel);
        }
        for event in others {
            self.handle_event(now, event);
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::IkeUp { tunnel, path, suite, handshake, nat, initiator } => {
                self.tunnels.with(tunnel, |t| t.ike_up(path, suite, handshake, nat, initiator));
            }
            Event::ChildUp { tunnel, child } => self.child_up(now, tunnel, &child),
            Event::SwitchOutbound { tunnel, inbound_spi } => {
                if let Some(data_plane) = &mut self.data_plane {
                    data_plane.sadb.switch(&mut data_plane.maps, tunnel, inbound_spi);
                }
                self.tunnels.touch(tunnel);
            }
            Event::ChildMoved { tunnel, inbound_spi, peer, encapsulation, .. } => {
                let Some(data_plane) = &mut self.data_plane else { return };
                let pair = (tunnel, inbound_spi);
                match data_plane.sadb.relocate(&mut data_plane.maps, pair, peer, encapsulation) {
                    Ok(()) => {
                        let encapsulated = encapsulation.is_some();
                        self.tunnels.with(tunnel, |t| t.child_moved(inbound_spi, peer, encapsulated));
                    }
                    Err(e) => self.not_installed(now, tunnel, &e),
                }
            }
            Event::Alive { tunnel, round_trip } => {
                self.tunnels.with(tunnel, |t| t.peer_answered(round_trip));
            }
            Event::ChildDown { tunnel, inbound_spi, reason, .. } => {
                self.child_down(now, tunnel, inbound_spi, reason);
            }
            Event::IkeDown { tunnel, reason } => {
                self.tunnels.with(tunnel, |t| t.ike_down(now, reason));
            }
            Event::Failed { tunnel, peer, initiator, phase, exchange, cause } => {
                let of = tunnel.filter(|id| self.tunnels.get(*id).is_some());
                match of {
                    Some(id) => drop(self.tunnels.with(id, |t| {
                        let (exchange, peer) = (Some(exchange.to_string()), Some(peer.ip().to_canonical()));
                        let failed = Failed { phase, exchange, peer, ours: initiator };
                        t.failed(now, failed, &cause, Some(cause.advice(phase)));
                    })),
                    None => {
                        let who = peer.ip().to_canonical();
                        self.log.refused(
                            &format!("peer {who}"),
                            format!("{who} was refused in {exchange}: {cause}"),
                        );
                    }
                }
            }
        }
    }

    fn child_up(&mut self, now: Instant, tunnel: TunnelId, child: &ChildSa) {
        if self.spent_spis.remove(&child.inbound.spi) {
            return self.not_installed(now, tunnel, &SadbError::Spent);
        }
        let Some(data_plane) = &mut self.data_plane else { return };
        let slots = &mut self.slots;
        let installed = self.tunnels.with(tunnel, |t| {
            let served = t.serve(child, slots)?;
            data_plane.sadb.install(&mut data_plane.maps, now, tunnel, child, t.limits(), served.slots)?;
            t.child_up(child);
            Ok(served.changed)
        });
        match installed {
            Some(Ok(true)) => {
                if let Some(group) = self.groups.of(tunnel) {
                    let name = &group.config().name;
                    let why = format!(
                        "the peer agreed to less than what group {name:?} is for: it carries nothing of it"
                    );
                    self.tunnels.with(tunnel, |t| t.say(&why));
                }
                self.policies_changed(now);
            }
            Some(Err(e)) => self.not_installed(now, tunnel, &e),
            Some(Ok(false)) | None => {}
        }
    }

    fn not_installed(&mut self, now: Instant, tunnel: TunnelId, why: &SadbError) {
        self.tunnels.with(tunnel, |t| t.not_installed(now, why));
        self.forget_slots(now, tunnel);
        self.endpoint.close(now, tunnel);
    }

    fn child_down(&mut self, now: Instant, tunnel: TunnelId, inbound_spi: u32, reason: DownReason) {
        if let Some(data_plane) = &mut self.data_plane
            && let Err(e) = data_plane.sadb.remove(&mut data_plane.maps, now, tunnel, inbound_spi)
        {
            tracing::error!(%tunnel, "{e}");
        }
        self.tunnels.with(tunnel, |t| t.child_down(inbound_spi, reason));
        self.forget_slots(now, tunnel);
    }

    /// Lets go of slots for what a peer narrowed a Child SA to once there is none any more.
    fn forget_slots(&mut self, now: Instant, tunnel: TunnelId) {
        let sadb = self.data_plane.as_ref().map(|d| &d.sadb);
        let serves = |slot| sadb.is_some_and(|sadb| sadb.serves(tunnel, slot));
        let gone = self.tunnels.with(tunnel, |t| t.forget_slots(serves)).unwrap_or_default();
        if !gone.is_empty() {
            self.stale.extend(gone);
            self.policies_changed(now);
        }
    }

    /// Begins the negotiations whose time has come; a peer's name is looked up anew for each.
    pub(super) fn negotiate(&mut self, now: Instant) {
        while !self.pool.is_busy()
            && let Some(id) = self.tunnels.pop_due(now)
        {
            let Some(config) = self.tunnels.get(id).map(|t| t.config()) else { continue };
            match &config.peer {
                PeerAddress::Ip(ip) => {
                    let ip = *ip;
                    self.connect(now, id, Ok(ip));
                    self.drain(now);
                }
                PeerAddress::Name(name) => {
                    let (name, ours, done) = (name.clone(), config.locals().collect(), self.done.clone());
                    tokio::spawn(async move {
                        let found = resolve(&name, ours).await;
                        // Nobody listens any more when the task has ended.
                        let _ = done.send(Done::Resolved(id, name, found));
                    });
                }
                PeerAddress::Any => {}
            }
        }
    }

    /// Goes on with the address of a peer's name, unless the tunnel has another peer by now.
    pub(super) fn resolved(
        &mut self,
        now: Instant,
        id: TunnelId,
        name: String,
        found: Result<IpAddr, String>,
    ) {
        let peer = self.tunnels.get(id).map(|t| &t.config().peer);
        if self.data_plane.is_some() && peer == Some(&PeerAddress::Name(name)) {
            self.connect(now, id, found);
        }
    }

    /// Goes on where a peer's address is known, or known not to be.
    fn connect(&mut self, now: Instant, id: TunnelId, peer: Result<IpAddr, String>) {
        let endpoint = &mut self.endpoint;
        self.tunnels.with(id, |tunnel| match peer {
            Ok(ip) => {
                let flow = tunnel.connecting_to(ip);
                endpoint.acquire(now, id, ip, flow);
            }
            Err(cause) => tunnel.failed(now, Failed::early(), &cause, None),
        });
    }

    /// Takes in what the data plane noticed.
    pub(super) fn handle_map_event(&mut self, now: Instant, event: &MapEvent) {
        match event.kind {
            kind::ACQUIRE => {
                if let Some(id) = self.slots.owner(event.subject) {
                    self.acquire(now, id, event);
                } else if !self.acquire_for_group(now, event) {
                    tracing::debug!(slot = event.subject, "traffic wants a slot that nobody has");
                }
            }
            kind::UNKNOWN_SPI => {
                tracing::debug!(spi = format_args!("{:#010x}", event.subject), "ESP with no SA")
            }
            other => tracing::debug!("event {other} of the data plane is not known"),
        }
    }

    /// Traffic wants an SA of a tunnel.
    pub(super) fn acquire(&mut self, now: Instant, id: TunnelId, event: &MapEvent) {
        let flow = flow_of(event);
        let peer = self.tunnels.with(id, |t| t.acquire(now, flow.as_ref())).flatten();
        if let Some(peer) = peer {
            self.endpoint.acquire(now, id, peer, flow);
        }
    }

    /// Frees what has rested, tells the endpoint whose peers have been heard, and what is used up.
    pub(super) fn look_at_traffic(&mut self, now: Instant) {
        let Some(data_plane) = &mut self.data_plane else { return };
        data_plane.sadb.reap(&data_plane.maps, now);
        let look = data_plane.sadb.look(&data_plane.maps, now);
        for (tunnel, spi) in look.heard {
            self.endpoint.traffic_seen(now, tunnel, spi);
        }
        for (tunnel, spi) in look.low {
            self.tunnels.with(tunnel, |t| t.say("a Child SA is nearly used up"));
            self.endpoint.rekey_child(now, tunnel, spi);
        }
        for (tunnel, spi) in look.empty {
            self.tunnels.with(tunnel, |t| t.say("a Child SA is used up"));
            self.endpoint.expire_child(now, tunnel, spi);
        }
    }
}

/// The flow of the packet that found no SA: our side and the peer's.
fn flow_of(event: &MapEvent) -> Option<(TrafficSelector, TrafficSelector)> {
    let (source, destination) = (IpAddr::from(event.source), IpAddr::from(event.destination));
    if source.is_unspecified() || source.is_ipv4() != destination.is_ipv4() {
        return None;
    }
    let side = |ip: IpAddr, port: u16| TrafficSelector {
        protocol: event.protocol,
        ports: if port == 0 { 0..=u16::MAX } else { port..=port },
        start: ip,
        end: ip,
    };
    Some((side(source, event.source_port), side(destination, event.destination_port)))
}

fn of(event: &Event) -> Option<TunnelId> {
    match event {
        Event::IkeUp { tunnel, .. }
        | Event::ChildUp { tunnel, .. }
        | Event::SwitchOutbound { tunnel, .. }
        | Event::ChildMoved { tunnel, .. }
        | Event::Alive { tunnel, .. }
        | Event::ChildDown { tunnel, .. }
        | Event::IkeDown { tunnel, .. } => Some(*tunnel),
        Event::Failed { tunnel, .. } => *tunnel,
    }
}

async fn resolve(name: &str, ours: Vec<IpAddr>) -> Result<IpAddr, String> {
    match tokio::time::timeout(RESOLVE, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.map(|address| address.ip()).collect();
            choose(&ours, &found).ok_or_else(|| {
                let families: Vec<_> = ours.iter().map(family).collect();
                format!("the peer's name {name} has no {} address", families.join(" or "))
            })
        }
        Ok(Err(e)) => Err(format!("the peer's name {name} does not resolve: {e}")),
        Err(_) => Err(format!("the peer's name {name} does not resolve within {} s", RESOLVE.as_secs())),
    }
}

/// The first of a peer's addresses that is of the family of our first address, or else of that of our next.
fn choose(ours: &[IpAddr], found: &[IpAddr]) -> Option<IpAddr> {
    ours.iter().find_map(|own| found.iter().find(|ip| ip.is_ipv4() == own.is_ipv4())).copied()
}

fn family(ip: &IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_names_address_is_of_a_family_that_the_gateway_has_in_the_gateways_order() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (v4, v6) = (ip("192.0.2.1"), ip("2001:db8::1"));
        let (far4, far6) = (ip("198.51.100.1"), ip("2001:db8:b::1"));
        let both = [far6, far4, ip("198.51.100.2")];
        assert_eq!(choose(&[v4, v6], &both), Some(far4), "the first of its family, as the resolver has them");
        assert_eq!(choose(&[v6, v4], &both), Some(far6));
        assert_eq!(choose(&[v4, v6], &[far6]), Some(far6));
        assert_eq!(choose(&[v6, v4], &[far4]), Some(far4));
        assert_eq!(choose(&[v4], &[far6]), None);
        assert_eq!(choose(&[v4, v6], &[]), None);
    }

    #[tokio::test]
    async fn a_name_without_an_address_of_the_gateways_families_says_so() {
        // A literal is its own and only address.
        let found = resolve("2001:db8:b::1", vec!["192.0.2.1".parse().unwrap()]).await;
        assert_eq!(found.unwrap_err(), "the peer's name 2001:db8:b::1 has no IPv4 address");
        let ours = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        let found = resolve("2001:db8:b::1", ours.to_vec()).await;
        assert_eq!(found, Ok("2001:db8:b::1".parse().unwrap()));
    }
}
