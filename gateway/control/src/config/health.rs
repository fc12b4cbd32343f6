//! `[tunnel.health_check]`: whether anything answers at the other end of a tunnel.

use super::{
    HealthCheck, Subnet,
    reader::{Field, Section},
    sections::{is_of_a_host, parsed},
};
use std::{net::IpAddr, time::Duration};

/// What a tunnel carries, as far as a check has to lie in it.
pub(super) struct Carried<'a> {
    pub(super) local: &'a [Subnet],
    pub(super) remote: &'a [Subnet],
    /// Whether everything may pass, in routing mode `route`.
    pub(super) by_route: bool,
}

/// Reads the table.
pub(super) fn health_check(s: Section<'_>, carried: &Carried<'_>) -> Option<HealthCheck> {
    let (destination_field, source_field) = (s.require("destination"), s.require("source"));
    let destination = destination_field.as_ref().and_then(host);
    let source = source_field.as_ref().and_then(host);
    let interval = s.get("interval").map_or(Some(3), |f| f.number(1..=60, "seconds"));
    let retries = s.get("retries").map_or(Some(3), |f| f.number(1..=10, "echo requests"));
    let switch_route = s.get("switch_route").map_or(Some(false), |f| f.boolean());
    s.finish(&[]);
    if let (Some(f), Some(ip)) = (&destination_field, destination) {
        lies_in(f, ip, carried.remote, if carried.by_route { "routes" } else { "remote_subnets" });
    }
    if let (Some(f), Some(ip)) = (&source_field, source) {
        lies_in(f, ip, carried.local, if carried.by_route { "routes" } else { "local_subnets" });
    }
    if let (Some(f), Some(source), Some(destination)) = (&source_field, source, destination) {
        if source.is_ipv4() != destination.is_ipv4() {
            f.fail("is of another family than destination", None);
        } else if source == destination {
            f.fail("is the destination as well", Some("an address of this side".into()));
        }
    }
    Some(HealthCheck {
        destination: destination?,
        source: source?,
        interval: Duration::from_secs(interval?.into()),
        retries: retries?,
        switch_route: switch_route?,
    })
}

fn host(f: &Field<'_>) -> Option<IpAddr> {
    let ip = parsed::<IpAddr>(f, "is not an IP address", None)?;
    if !is_of_a_host(ip) {
        f.fail("is no address that a host can have", None);
        return None;
    }
    Some(ip)
}

/// An echo request that the SAs do not admit would never leave. In routing mode `route` they admit all of a family.
fn lies_in(f: &Field<'_>, ip: IpAddr, subnets: &[Subnet], name: &str) {
    if !subnets.is_empty() && !subnets.iter().any(|subnet| subnet.holds(ip)) {
        let known = subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        f.fail(&format!("is outside of what the tunnel carries by {name}"), Some(format!("in {known}")));
    }
}
