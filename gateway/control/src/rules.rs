//! Rules of the kernel's routing that take the place of the XDP program where there is none: what comes in on the WAN in
//! clear and belongs to a protected flow is not forwarded, in either direction.
//!
//! The kernel looks at them for what it forwards, not for what is addressed to this machine: its table of local addresses
//! comes before every other rule. They carry the protocol number of our routes, by which stale ones are found.

use crate::{
    config::{Gateway, Subnet, Tunnel, Xdp},
    routes::PROTOCOL,
};
use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, IpVersion,
    packet_route::{
        AddressFamily,
        route::RouteProtocol,
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Where our rules stand: before the main table (32766), behind that of the local addresses (0).
const PRIORITY: u32 = 173;

/// What is not forwarded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Blocked {
    /// The interface that it comes in by.
    pub(crate) interface: String,
    /// Where it says that it comes from.
    pub(crate) from: Subnet,
    /// Where it goes.
    pub(crate) to: Subnet,
}

/// Adds what of a tunnel must not come in on the WAN in clear; nothing, where the XDP program sees to it. What goes to a
/// peer's site comes in there on a one-armed gateway.
pub(crate) fn block(gateway: &Gateway, tunnel: &Tunnel, blocked: &mut BTreeSet<Blocked>) {
    if gateway.xdp != Xdp::None {
        return;
    }
    for (local, remote) in tunnel.pairs() {
        let interface = || gateway.wan.clone();
        blocked.insert(Blocked { interface: interface(), from: remote, to: local });
        if !gateway.is_one_armed() {
            blocked.insert(Blocked { interface: interface(), from: local, to: remote });
        }
    }
}

/// Makes our rules those that are wanted.
pub(crate) async fn reconcile(handle: &Handle, wanted: &BTreeSet<Blocked>) -> Result<(), String> {
    let mut present = BTreeSet::new();
    let mut stale = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let is_wanted = wanted.iter().any(|b| b.from.address().is_ipv4() == matches!(version, IpVersion::V4));
        match ours(handle, version).await {
            Ok(found) => {
                for (blocked, message) in found {
                    if wanted.contains(&blocked) && present.insert(blocked) {
                        continue;
                    }
                    stale.push(message);
                }
            }
            Err(e) if is_wanted => return Err(format!("cannot list rules: {e}")),
            // A kernel without this version, or without rules: there is none of ours.
            Err(_) => {}
        }
    }
    let mut problems = Vec::new();
    for blocked in wanted.difference(&present) {
        let mut request = handle.rule().add();
        *request.message_mut() = message(blocked);
        if let Err(e) = request.execute().await {
            problems.push(format!("no rule from {} to {}: {e}", blocked.from, blocked.to));
        }
    }
    for message in stale {
        // One that another actor removed in the meantime is as good as removed.
        if let Err(e) = handle.rule().del(message).execute().await {
            tracing::debug!("a stale rule: {e}");
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// All rules that carry our protocol number, whatever they say.
pub(crate) async fn all(handle: &Handle) -> Result<Vec<RuleMessage>, rtnetlink::Error> {
    let mut found = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let mut rules = handle.rule().get(version).execute();
        loop {
            match rules.try_next().await {
                Ok(Some(message)) if is_ours(&message) => found.push(message),
                Ok(Some(_)) => {}
                Ok(None) => break,
                // A kernel without this version, or without rules: there is none of ours.
                Err(rtnetlink::Error::NetlinkError(e)) if UNKNOWN.contains(&-e.raw_code()) => break,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(found)
}

/// What a kernel answers that knows nothing of what it is asked for.
const UNKNOWN: [i32; 2] = [libc::EAFNOSUPPORT, libc::EOPNOTSUPP];

fn is_ours(message: &RuleMessage) -> bool {
    message.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)))
}

/// A rule in words: from where, to where.
pub(crate) fn words(message: &RuleMessage) -> String {
    match read(message) {
        Some(Blocked { interface, from, to }) => format!("rule for {interface} from {from} to {to}"),
        None => "rule".to_owned(),
    }
}

async fn ours(handle: &Handle, version: IpVersion) -> Result<Vec<(Blocked, RuleMessage)>, rtnetlink::Error> {
    let mut rules = handle.rule().get(version).execute();
    let mut found = Vec::new();
    while let Some(message) = rules.try_next().await? {
        found.extend(read(&message).map(|blocked| (blocked, message)));
    }
    Ok(found)
}

/// What a rule of ours blocks; `None` for the rules of others.
fn read(message: &RuleMessage) -> Option<Blocked> {
    let any: IpAddr = match message.header.family {
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let (mut from, mut to, mut interface) = (any, any, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(address) => from = *address,
            RuleAttribute::Destination(address) => to = *address,
            RuleAttribute::Iifname(name) => interface = Some(name.clone()),
            _ => {}
        }
    }
    let subnet = |address: IpAddr, length: u8| format!("{address}/{length}").parse().ok();
    Some(Blocked {
        interface: interface
            .filter(|_| is_ours(message) && message.header.action == RuleAction::Blackhole)?,
        from: subnet(from, message.header.src_len)?,
        to: subnet(to, message.header.dst_len)?,
    })
}

fn message(blocked: &Blocked) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match blocked.from.address() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::Blackhole;
    message.header.src_len = blocked.from.length();
    message.header.dst_len = blocked.to.length();
    message.attributes = vec![
        RuleAttribute::Iifname(blocked.interface.clone()),
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    if blocked.from.length() > 0 {
        message.attributes.push(RuleAttribute::Source(blocked.from.address()));
    }
    if blocked.to.length() > 0 {
        message.attributes.push(RuleAttribute::Destination(blocked.to.address()));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_back_as_it_was_written() {
        for (from, to) in
            [("10.2.0.0/16", "10.1.0.0/24"), ("::/0", "2001:db8::/32"), ("0.0.0.0/0", "10.1.2.3/32")]
        {
            let blocked =
                Blocked { interface: "eth0".into(), from: from.parse().unwrap(), to: to.parse().unwrap() };
            let mut written = message(&blocked);
            assert_eq!(read(&written), Some(blocked));
            written.attributes.retain(|a| !matches!(a, RuleAttribute::Protocol(_)));
            assert_eq!(read(&written), None, "another's rule");
        }
    }
}
