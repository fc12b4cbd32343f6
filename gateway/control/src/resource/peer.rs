//! The remote gateway.

use crate::config;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

super::resource! {
    /// The remote gateway of tunnels.
    Peer, PeerSpec
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerSpec {
    /// An IPv4 or IPv6 address, a host name, or `any`: it comes to us.
    #[schema(example = "198.51.100.1")]
    pub address: String,
    /// Its autonomous system: 1..4294967295.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 64512)]
    pub asn: Option<u32>,
}

impl From<&config::Peer> for PeerSpec {
    fn from(p: &config::Peer) -> Self {
        PeerSpec { address: p.address.to_string(), asn: p.asn }
    }
}
