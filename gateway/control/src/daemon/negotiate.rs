//! Between the IKE endpoint and the rest: what it says is done, what it wants is brought.

use super::run::Daemon;
use crate::config::PeerAddress;
use adit_ike::{Event, Phase, TunnelId};
use adit_maps::event::{Event as MapEvent, kind};
use std::{
    net::{IpAddr, SocketAddr},
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
        loop {
            while let Some(event) = self.endpoint.poll_event() {
                self.handle_event(now, event);
            }
            while let Some(transmit) = self.endpoint.poll_transmit() {
                self.sockets.send(&transmit);
            }
            let mut worked = false;
            while let Some(job) = self.endpoint.poll_job() {
                worked = true;
                let done = self.done.clone();
                tokio::task::spawn_blocking(move || {
                    // Nobody listens any more when the task has ended.
                    let _ = done.send(Done::Job(job.run()));
                });
            }
            if !worked {
                return;
            }
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
                if let Some(t) = self.tunnels.get_mut(&tunnel) {
                    t.ike_up(path, suite, handshake, nat, initiator);
                }
            }
            Event::ChildUp { tunnel, child } => {
                let (Some(t), Some(data_plane)) = (self.tunnels.get_mut(&tunnel), &mut self.data_plane)
                else {
                    return;
                };
                match data_plane.sadb.install(&mut data_plane.maps, now, tunnel, &child, t.limits()) {
                    Ok(()) => t.child_up(&child),
                    Err(e) => {
                        t.not_installed(now, &e);
                        self.endpoint.close(now, tunnel);
                    }
                }
            }
            Event::SwitchOutbound { .. } => {}
            Event::ChildMoved { tunnel, inbound_spi, peer, encapsulation, .. } => {
                let (Some(t), Some(data_plane)) = (self.tunnels.get_mut(&tunnel), &mut self.data_plane)
                else {
                    return;
                };
                let pair = (tunnel, inbound_spi);
                match data_plane.sadb.relocate(&mut data_plane.maps, now, pair, peer, encapsulation) {
                    Ok(()) => t.child_moved(inbound_spi, peer, encapsulation.is_some()),
                    Err(e) => {
                        t.not_installed(now, &e);
                        self.endpoint.close(now, tunnel);
                    }
                }
            }
            Event::ChildDown { tunnel, inbound_spi, reason, .. } => {
                if let Some(data_plane) = &mut self.data_plane
                    && let Err(e) = data_plane.sadb.remove(&mut data_plane.maps, now, tunnel, inbound_spi)
                {
                    tracing::error!(%tunnel, "{e}");
                }
                if let Some(t) = self.tunnels.get_mut(&tunnel) {
                    t.child_down(inbound_spi, reason);
                }
            }
            Event::IkeDown { tunnel, reason } => {
                if let Some(t) = self.tunnels.get_mut(&tunnel) {
                    t.ike_down(now, reason);
                }
            }
            Event::Failed { tunnel, peer, phase, exchange, cause, .. } => {
                match tunnel.and_then(|id| self.tunnels.get_mut(&id)) {
                    Some(t) => t.failed(now, phase, Some(exchange.to_string()), &cause),
                    None => tracing::debug!(%peer, "{exchange} failed: {cause}"),
                }
            }
        }
    }

    /// Begins the negotiations whose time has come; a peer's name is looked up anew for each.
    pub(super) fn negotiate(&mut self, now: Instant) {
        let due: Vec<TunnelId> =
            self.tunnels.values_mut().filter_map(|t| t.handle_timeout(now).then_some(t.id())).collect();
        for id in due {
            let Some(config) = self.tunnels.get(&id).map(|t| t.config()) else { continue };
            match &config.peer {
                PeerAddress::Ip(ip) => {
                    let ip = *ip;
                    self.connect(now, id, Ok(ip));
                }
                PeerAddress::Name(name) => {
                    let (name, v4, done) = (name.clone(), config.local.is_ipv4(), self.done.clone());
                    tokio::spawn(async move {
                        let found = resolve(&name, v4).await;
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
        let peer = self.tunnels.get(&id).map(|t| &t.config().peer);
        if self.data_plane.is_some() && peer == Some(&PeerAddress::Name(name)) {
            self.connect(now, id, found);
        }
    }

    /// Goes on where a peer's address is known, or known not to be.
    fn connect(&mut self, now: Instant, id: TunnelId, peer: Result<IpAddr, String>) {
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        match peer {
            Ok(ip) => {
                tunnel.connecting_to(ip);
                self.endpoint.connect(now, id, ip);
            }
            Err(cause) => tunnel.failed(now, Phase::One, None, &cause),
        }
    }

    /// Takes in what the data plane noticed.
    pub(super) fn handle_map_event(&mut self, now: Instant, event: &MapEvent) {
        match event.kind {
            kind::ACQUIRE => {
                if let Some(t) = self.tunnels.get_mut(&TunnelId(event.subject)) {
                    t.acquire(now);
                }
            }
            kind::UNKNOWN_SPI => {
                tracing::debug!(spi = format_args!("{:#010x}", event.subject), "ESP with no SA")
            }
            other => tracing::debug!("event {other} of the data plane is not known"),
        }
    }

    /// Frees what has rested, and tells the endpoint whose peers have been heard.
    pub(super) fn look_at_traffic(&mut self, now: Instant) {
        let Some(data_plane) = &mut self.data_plane else { return };
        data_plane.sadb.reap(&data_plane.maps, now);
        let totals = data_plane.sadb.totals(&data_plane.maps);
        for tunnel in self.tunnels.values_mut() {
            if totals.get(&tunnel.id()).is_some_and(|totals| tunnel.heard(totals)) {
                self.endpoint.traffic_seen(now, tunnel.id(), 0);
            }
        }
    }
}

fn of(event: &Event) -> Option<TunnelId> {
    match event {
        Event::IkeUp { tunnel, .. }
        | Event::ChildUp { tunnel, .. }
        | Event::SwitchOutbound { tunnel, .. }
        | Event::ChildMoved { tunnel, .. }
        | Event::ChildDown { tunnel, .. }
        | Event::IkeDown { tunnel, .. } => Some(*tunnel),
        Event::Failed { tunnel, .. } => *tunnel,
    }
}

async fn resolve(name: &str, v4: bool) -> Result<IpAddr, String> {
    let family = if v4 { "IPv4" } else { "IPv6" };
    match tokio::time::timeout(RESOLVE, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(mut found)) => found
            .find(|a| a.is_ipv4() == v4)
            .map(|a: SocketAddr| a.ip())
            .ok_or_else(|| format!("the peer's name {name} has no {family} address")),
        Ok(Err(e)) => Err(format!("the peer's name {name} does not resolve: {e}")),
        Err(_) => Err(format!("the peer's name {name} does not resolve within {} s", RESOLVE.as_secs())),
    }
}
