//! The two ends of the tunnel under test and the algorithms between them, told once for every kind of peer.

use crate::topology::{GATEWAY_B, SIDE_A6, SIDE_B6, SUBNET_A, SUBNET_B, Side6, Topology};

/// The key both ends hold.
pub const PSK: &str = "open-sesame-with-32-characters-1";

/// Algorithms of both phases, in Adit's words and in strongSwan's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// What tests call it.
    pub name: &'static str,
    /// `ike.encryption`.
    pub encryption: &'static str,
    /// `ike.integrity`.
    pub integrity: &'static str,
    /// `ike.prf`.
    pub prf: &'static str,
    /// `ike.dh`.
    pub dh: u16,
    /// `ipsec.encryption`.
    pub esp_encryption: &'static str,
    /// `ipsec.integrity`.
    pub esp_integrity: &'static str,
    /// strongSwan's IKE proposal.
    pub swan_ike: &'static str,
    /// strongSwan's ESP proposal.
    pub swan_esp: &'static str,
}

/// What every old device speaks.
pub const AES128_SHA1: Suite = Suite {
    name: "aes128-sha1-modp1024",
    encryption: "aes128",
    integrity: "sha1",
    prf: "sha1",
    dh: 2,
    esp_encryption: "aes128",
    esp_integrity: "sha1",
    swan_ike: "aes128-sha1-modp1024",
    swan_esp: "aes128-sha1",
};

/// Adit's defaults.
pub const AES256_GCM: Suite = Suite {
    name: "aes256gcm16-prfsha256-x25519",
    encryption: "aes256gcm16",
    integrity: "sha256",
    prf: "sha256",
    dh: 31,
    esp_encryption: "aes256gcm16",
    esp_integrity: "sha256",
    swan_ike: "aes256gcm16-prfsha256-x25519",
    swan_esp: "aes256gcm16",
};

/// One end of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Name of the gateway, `a` or `b`.
    pub name: &'static str,
    /// Name of the peer.
    pub peer: &'static str,
    /// Our WAN address.
    pub address: String,
    /// The peer's address as we see it, or `any`.
    pub peer_address: String,
    /// What we call ourselves.
    pub local_id: String,
    /// What the peer calls itself.
    pub peer_id: String,
    /// The prefix behind us.
    pub local_subnet: String,
    /// The prefix behind the peer.
    pub remote_subnet: String,
    /// The key.
    pub psk: String,
    /// The algorithms.
    pub suite: Suite,
    /// Whether we begin.
    pub initiates: bool,
}

impl Site {
    /// Site A of a topology; it begins.
    pub fn a(topology: &Topology) -> Site {
        let address = topology.address_a.to_string();
        Site {
            name: "a",
            peer: "b",
            local_id: address.clone(),
            address,
            peer_address: GATEWAY_B.to_string(),
            peer_id: GATEWAY_B.to_string(),
            local_subnet: SUBNET_A.to_owned(),
            remote_subnet: SUBNET_B.to_owned(),
            psk: PSK.to_owned(),
            suite: AES256_GCM,
            initiates: true,
        }
    }

    /// Site B of a topology; it waits. It knows gateway A's address unless that is behind NAT.
    pub fn b(topology: &Topology) -> Site {
        let a = Site::a(topology);
        let known = topology.address_a == crate::topology::GATEWAY_A;
        Site {
            name: "b",
            peer: "a",
            address: a.peer_address,
            peer_address: if known { a.address } else { "any".to_owned() },
            local_id: a.peer_id,
            peer_id: a.local_id,
            local_subnet: a.remote_subnet,
            remote_subnet: a.local_subnet,
            psk: a.psk,
            suite: a.suite,
            initiates: false,
        }
    }

    /// The same end with other algorithms.
    pub fn with(self, suite: Suite) -> Site {
        Site { suite, ..self }
    }

    /// The same end with IPv6 outside, where the topology has it.
    pub fn ipv6_outside(self) -> Site {
        let (ours, peers) = self.sides6();
        Site {
            address: ours.gateway.to_owned(),
            local_id: ours.gateway.to_owned(),
            peer_address: peers.gateway.to_owned(),
            peer_id: peers.gateway.to_owned(),
            ..self
        }
    }

    /// The same end with IPv6 inside, where the topology has it.
    pub fn ipv6_inside(self) -> Site {
        let (ours, peers) = self.sides6();
        Site { local_subnet: ours.subnet.to_owned(), remote_subnet: peers.subnet.to_owned(), ..self }
    }

    fn sides6(&self) -> (Side6, Side6) {
        if self.name == "a" { (SIDE_A6, SIDE_B6) } else { (SIDE_B6, SIDE_A6) }
    }

    /// The same end, beginning or waiting.
    pub fn initiating(self, initiates: bool) -> Site {
        Site { initiates, ..self }
    }

    /// Name of the tunnel on this end.
    pub fn tunnel(&self) -> String {
        format!("{}-{}", self.name, self.peer)
    }
}
