//! What the kernel counts of each interface.

use crate::status::{NicStatus, Traffic};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, Stats64};
use std::{collections::BTreeMap, fs, io, path::Path, time::Duration};
use tokio::time::timeout;

/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Every interface's counters and speed, by its name; nothing where the kernel does not tell, which the log says.
pub(crate) async fn all() -> BTreeMap<String, NicStatus> {
    match timeout(PATIENCE, ask()).await {
        Ok(Ok(known)) => known,
        Ok(Err(error)) => {
            tracing::debug!("the kernel does not tell of its interfaces: {error}");
            BTreeMap::new()
        }
        Err(_) => {
            tracing::debug!("the kernel does not tell of its interfaces in time");
            BTreeMap::new()
        }
    }
}

async fn ask() -> io::Result<BTreeMap<String, NicStatus>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    // It ends with the handle.
    tokio::spawn(connection);
    let mut links = handle.link().get().execute();
    let mut known = BTreeMap::new();
    while let Some(link) = links.try_next().await.map_err(io::Error::other)? {
        known.extend(of_link(link));
    }
    for (name, nic) in &mut known {
        nic.speed_bits = speed(name);
    }
    Ok(known)
}

fn of_link(link: LinkMessage) -> Option<(String, NicStatus)> {
    let (mut name, mut counted) = (None, Stats64::default());
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(found) => name = Some(found),
            LinkAttribute::Stats64(found) => counted = found,
            _ => {}
        }
    }
    let nic = NicStatus {
        received: Traffic { packets: counted.rx_packets, bytes: counted.rx_bytes },
        sent: Traffic { packets: counted.tx_packets, bytes: counted.tx_bytes },
        speed_bits: None,
    };
    name.map(|name| (name, nic))
}

/// Bits per second of a link that is up and has a speed: a virtual one has none.
fn speed(interface: &str) -> Option<u64> {
    let said = fs::read_to_string(Path::new("/sys/class/net").join(interface).join("speed")).ok()?;
    megabits(&said)
}

/// The kernel says -1 where it does not know.
fn megabits(said: &str) -> Option<u64> {
    said.trim()
        .parse::<u64>()
        .ok()
        .filter(|speed| (1..u32::MAX.into()).contains(speed))
        .map(|speed| speed * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_there_or_unknown() {
        assert_eq!(megabits("10000\n"), Some(10_000_000_000));
        for unknown in ["-1\n", "0\n", "4294967295\n", "", "fast"] {
            assert_eq!(megabits(unknown), None, "{unknown:?}");
        }
    }

    #[tokio::test]
    async fn loopback_is_counted() {
        let before = all().await["lo"];
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(&[0; 100], socket.local_addr().unwrap()).unwrap();
        let after = all().await["lo"];
        assert!(after.sent.packets > before.sent.packets && after.sent.bytes >= before.sent.bytes + 100);
        assert!(after.received.bytes >= before.received.bytes + 100);
        assert_eq!(after.speed_bits, None);
    }
}
