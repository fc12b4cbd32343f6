//! This machine.

use crate::config::{self, Xdp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

super::resource! {
    /// One Adit node: the local end of every tunnel. There is one.
    Gateway, GatewaySpec
}

/// What a gateway is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GatewaySpec {
    /// Its public addresses: one, or one of each family. One may be given without a list.
    #[schema(example = json!(["192.0.2.1"]))]
    pub address: Vec<String>,
    /// The interface that faces the peers.
    #[schema(example = "eth0")]
    pub wan: String,
    /// The interfaces that face the protected networks; the same as `wan` on a one-armed gateway.
    #[schema(example = json!(["eth1"]))]
    pub lan: Vec<String>,
    /// What it calls itself unless a tunnel says otherwise; none is its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_id: Option<String>,
    /// The alarm template that it and its tunnels have; none is the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm_template: Option<String>,
    /// `standalone`.
    pub model: String,
    /// How packets come and go: `auto`, `zero-copy`, `driver`, `generic`, `none`.
    pub xdp: String,
    /// IKE as a whole.
    pub ike: GatewayIke,
    /// BIRD, which speaks BGP.
    #[serde(default)]
    pub bird: BirdSpec,
}

/// Where BIRD is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BirdSpec {
    /// The file that is written for it, which its own configuration includes.
    pub file: String,
    /// Its control socket.
    pub socket: String,
}

impl Default for BirdSpec {
    fn default() -> Self {
        BirdSpec::from(&config::Bird::default())
    }
}

impl From<&config::Bird> for BirdSpec {
    fn from(b: &config::Bird) -> Self {
        BirdSpec { file: b.file.display().to_string(), socket: b.socket.display().to_string() }
    }
}

/// IKE as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GatewayIke {
    /// Half-open IKE SAs from which on strangers have to show a cookie.
    pub cookie_threshold: u64,
    /// Half-open IKE SAs from which on strangers are ignored.
    pub half_open_limit: u64,
    /// Largest IP packet of an IKE message in bytes.
    pub fragment_size: u64,
    /// Milliseconds until a request is sent again.
    pub retransmit_after: u64,
    /// Milliseconds between two sendings at most.
    pub retransmit_ceiling: u64,
    /// How often a request is sent in all.
    pub attempts: u32,
    /// Seconds between NAT keepalives.
    pub keepalive: u64,
}

impl From<&config::Gateway> for GatewaySpec {
    fn from(g: &config::Gateway) -> Self {
        let xdp = Xdp::WORDS.into_iter().find(|(_, xdp)| *xdp == g.xdp).map_or("auto", |(word, _)| word);
        let milliseconds = |d: std::time::Duration| d.as_millis().try_into().unwrap_or(u64::MAX);
        GatewaySpec {
            address: g.addresses.iter().map(ToString::to_string).collect(),
            wan: g.wan.clone(),
            lan: g.lan.clone(),
            local_id: g.local_id.as_ref().map(ToString::to_string),
            alarm_template: g.alarm_template.clone(),
            model: "standalone".into(),
            xdp: xdp.into(),
            ike: GatewayIke {
                cookie_threshold: g.ike.cookie_threshold as u64,
                half_open_limit: g.ike.half_open_limit as u64,
                fragment_size: g.ike.fragment_size as u64,
                retransmit_after: milliseconds(g.ike.retransmission.initial),
                retransmit_ceiling: milliseconds(g.ike.retransmission.ceiling),
                attempts: g.ike.retransmission.attempts,
                keepalive: g.ike.keepalive.as_secs(),
            },
            bird: BirdSpec::from(&g.bird),
        }
    }
}
