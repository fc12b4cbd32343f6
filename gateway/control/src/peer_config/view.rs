//! The tunnel as its peer sees it.

use crate::config::{PeerAddress, Start, Subnet, Tunnel};
use adit_ike::Id;
use std::net::IpAddr;

/// The tunnel with local and remote swapped: what is local here is the peer's.
pub(super) struct View<'a> {
    /// What this gateway is called.
    pub(super) gateway: &'a str,
    /// The tunnel as it is configured here.
    pub(super) tunnel: &'a Tunnel,
    /// Where the peer is.
    pub(super) local: &'a PeerAddress,
    /// Where this gateway is.
    pub(super) remote: IpAddr,
    /// What the peer calls itself.
    pub(super) local_id: &'a Id,
    /// What this gateway calls itself.
    pub(super) remote_id: &'a Id,
    /// The peer's traffic selectors; everything in routing mode `route`.
    pub(super) local_subnets: &'a [Subnet],
    /// This gateway's traffic selectors; everything in routing mode `route`.
    pub(super) remote_subnets: &'a [Subnet],
    /// When the peer begins.
    pub(super) start: Start,
}

impl<'a> View<'a> {
    pub(super) fn new(gateway: &'a str, tunnel: &'a Tunnel, address: Option<IpAddr>) -> View<'a> {
        View {
            gateway,
            tunnel,
            local: &tunnel.peer,
            remote: address.unwrap_or(tunnel.local),
            local_id: &tunnel.peer_id,
            remote_id: &tunnel.local_id,
            local_subnets: &tunnel.remote_subnets,
            remote_subnets: &tunnel.local_subnets,
            start: match tunnel.start {
                Start::Immediate => Start::Respond,
                Start::OnDemand => Start::OnDemand,
                Start::Respond => Start::Immediate,
            },
        }
    }

    /// Whether everything is negotiated, and routes say what goes through.
    pub(super) fn is_by_route(&self) -> bool {
        self.tunnel.routes.is_some()
    }

    /// The pairs of selectors of one family, the peer's first.
    pub(super) fn pairs(&self) -> Vec<(Subnet, Subnet)> {
        let all = self.local_subnets.iter().flat_map(|l| self.remote_subnets.iter().map(move |r| (*l, *r)));
        all.filter(|(l, r)| l.address().is_ipv4() == r.address().is_ipv4()).collect()
    }

    /// The peer's address, where it is one.
    pub(super) fn local_ip(&self) -> Option<IpAddr> {
        match self.local {
            PeerAddress::Ip(ip) => Some(*ip),
            _ => None,
        }
    }

    /// The tunnel's name as a word of lower-case letters, digits and `-` that begins with a letter, of `longest` characters
    /// at most.
    pub(super) fn slug(&self, longest: usize) -> String {
        let mut slug = String::new();
        for c in self.tunnel.name.chars() {
            match c.to_ascii_lowercase() {
                c if c.is_ascii_alphanumeric() => slug.push(c),
                _ if slug.ends_with('-') => {}
                _ => slug.push('-'),
            }
        }
        let slug = slug.trim_matches('-');
        let slug = if slug.starts_with(|c: char| c.is_ascii_lowercase()) {
            slug.into()
        } else {
            format!("adit-{slug}")
        };
        slug[..slug.len().min(longest)].trim_end_matches('-').to_owned()
    }
}
