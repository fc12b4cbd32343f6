//! The interfaces that packets come in and leave by.

use crate::{
    PortConfig, PortMode, PortReport, XdpMode, error::Error, load::Attached, nexthop, sys, xsk::Memory,
};
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
pub(crate) fn find(configs: &[PortConfig], mode: XdpMode) -> Result<Vec<Port>, Error> {
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
        let by_xdp = mode != XdpMode::None;
        if by_xdp && link.mtu > MAX_MTU {
            return Err(failed(format!(
                "has an MTU of {} bytes, {MAX_MTU} are possible: `ip link set {name} mtu 1500`",
                link.mtu
            )));
        }
        let queues = sys::receive_queues(name).map_err(|e| failed(e.to_string()))?;
        if by_xdp && queues > MAX_QUEUES {
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

/// What is told of the ports. `attached` is in their order, and empty when there is no XDP.
pub(crate) fn reports(
    ports: &[Port],
    attached: &[Attached],
    memory: &Memory,
    mode: XdpMode,
) -> Vec<PortReport> {
    let name = |ifindex| ports.iter().find(|p| p.ifindex == ifindex).map_or("", |p| p.interface.as_str());
    let asked = || "the configuration says so".to_owned();
    let described = |n: usize| match (attached.get(n), memory) {
        (None, _) => (PortMode::Sockets, asked()),
        (Some(Attached { in_driver: false, fallback }), _) => {
            let reason = match fallback {
                Some(why) => format!("the driver refuses XDP: {why}"),
                None if mode == XdpMode::Generic => asked(),
                None => {
                    "an earlier run attached it so; `adit unload` lets the next one try the driver".into()
                }
            };
            (PortMode::Generic, reason)
        }
        (Some(_), Memory::ZeroCopy) => (PortMode::ZeroCopy, "the driver has zero-copy".into()),
        (Some(_), Memory::Copied(Some((bind, why)))) => {
            let whose = name(bind.ifindex);
            (PortMode::Driver, format!("queue {} of {whose} has no zero-copy: {why}", bind.queue))
        }
        (Some(_), Memory::Copied(None)) => (PortMode::Driver, asked()),
    };
    ports
        .iter()
        .enumerate()
        .map(|(n, port)| {
            let (mode, reason) = described(n);
            PortReport {
                interface: port.interface.clone(),
                ifindex: port.ifindex,
                slot: port.slot,
                roles: port.roles,
                queues: port.queues,
                mode,
                reason,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xsk::Bind;
    use std::io;

    #[test]
    fn every_mode_has_its_reason() {
        let port = |slot, name: &str| Port {
            slot,
            interface: name.into(),
            ifindex: slot + 10,
            roles: role::WAN,
            queues: 1,
            mtu: 1500,
        };
        let ports = [port(0, "eth0"), port(1, "eth1")];
        let driver = Attached { in_driver: true, fallback: None };
        let told = |attached: &[Attached], memory: Memory, mode| -> Vec<String> {
            let reports = reports(&ports, attached, &memory, mode);
            reports.iter().map(|r| format!("{} {}: {}", r.interface, r.mode, r.reason)).collect()
        };
        let refused = Memory::Copied(Some((
            Bind { ifindex: 11, queue: 3, long: false },
            io::Error::from_raw_os_error(95),
        )));
        let generic = Attached { in_driver: false, fallback: Some("Operation not supported".into()) };
        let all = told(&[driver.clone(), generic.clone()], refused, XdpMode::Auto);
        assert!(
            all[0].starts_with("eth0 driver: queue 3 of eth1 has no zero-copy: Operation not"),
            "{all:?}"
        );
        assert_eq!(all[1], "eth1 generic: the driver refuses XDP: Operation not supported");
        let both = [driver.clone(), driver.clone()];
        assert!(told(&both, Memory::ZeroCopy, XdpMode::Auto)[1].starts_with("eth1 zero-copy"));
        assert_eq!(
            told(&both, Memory::Copied(None), XdpMode::Driver)[0],
            "eth0 driver: the configuration says so"
        );
        let asked = Attached { in_driver: false, fallback: None };
        let all = told(&[asked.clone(), asked.clone()], Memory::Copied(None), XdpMode::Generic);
        assert_eq!(all[0], "eth0 generic: the configuration says so");
        let all = told(&[asked.clone(), asked], Memory::Copied(None), XdpMode::Auto);
        assert!(all[1].contains("an earlier run"), "{all:?}");
        assert!(told(&[], Memory::Copied(None), XdpMode::None)[0].starts_with("eth0 sockets"));
    }
}
