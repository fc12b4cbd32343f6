//! The remote gateway.

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
}
