//! The interfaces that packets come in and leave by.

use crate::{PortConfig, error::Error, nexthop, sys};
use adit_maps::port::{MAX_PORTS, MAX_QUEUES, Port as Entry, role};

/// Largest MTU. Its packets fit a long frame, sealed or not.
pub(crate) const MAX_MTU: u32 = 9216;

/// An interface that carries the program.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    /// Which part of XSKS and VERDICTS is this port's.
    pub(crate) slot: u32,
    pub(crate) interface: String,
    pub(crate) ifindex: u32,
    pub(crate) roles: u32,
    /// Receive queues that are served.
    pub(crate) queues: u32,
    /// At the start, in bytes.
    pub(crate) mtu: u32,
}

impl Port {
    /// Its entry of PORTS, with the MAC address whose frames are ours.
    pub(crate) fn entry(&self, mac: [u8; 6]) -> Entry {
        Entry { slot: self.slot, roles: self.roles, mac, reserved: [0; 2] }
    }
}

/// Looks the configured interfaces up and checks that they can be ports.
pub(crate) fn find(configs: &[PortConfig]) -> Result<Vec<Port>, Error> {
    if configs.len() > MAX_PORTS as usize {
        return Err(Error::Config(format!(
            "{} interfaces are given, {MAX_PORTS} are possible",
            configs.len()
        )));
    }
    let links = nexthop::links().map_err(Error::Netlink)?;
    let mut ports: Vec<Port> = Vec::new();
    for (slot, config) in (0..).zip(configs) {
        let name = &config.interface;
        let failed = |problem: String| Error::interface(name, problem);
        if ports.iter().any(|p| p.interface == *name) {
            return Err(failed("is given twice: give it once with both roles".into()));
        }
        if config.roles == 0 || config.roles & !(role::WAN | role::LAN) != 0 {
            return Err(failed("has no role: WAN, LAN or both".into()));
        }
        let Some(link) = links.iter().find(|l| l.name == *name) else {
            let others: Vec<&str> = links.iter().map(|l| l.name.as_str()).collect();
            return Err(failed(format!("does not exist; there are {}", others.join(", "))));
        };
        if link.mac.is_none() {
            return Err(failed("is no Ethernet interface".into()));
        }
        if link.mtu > MAX_MTU {
            return Err(failed(format!(
                "has an MTU of {} bytes, {MAX_MTU} are possible: `ip link set {name} mtu 1500`",
                link.mtu
            )));
        }
        let queues = sys::receive_queues(name).map_err(|e| failed(e.to_string()))?;
        if queues > MAX_QUEUES {
            return Err(failed(format!(
                "has {queues} receive queues, {MAX_QUEUES} are possible: `ethtool -L {name} combined {MAX_QUEUES}`"
            )));
        }
        ports.push(Port {
            slot,
            interface: name.clone(),
            ifindex: link.index,
            roles: config.roles,
            queues,
            mtu: link.mtu,
        });
    }
    Ok(ports)
}
