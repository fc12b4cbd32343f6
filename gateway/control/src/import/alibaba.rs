//! The peer configuration of an IPsec connection of Alibaba Cloud, as its console and `DownloadVpnConnectionConfig` give it:
//! local is the customer's side. A connection of two tunnels has one for each.

use super::{
    ImportError,
    draft::{Draft, Suite},
    subnets,
    swanctl::set_subnets,
    words::{encryption, id, integrity},
};
use adit_ike::{Group, Mode, Version};
use serde::Deserialize;
use zeroize::Zeroizing;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    vpn_connection_config: Connection,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Connection {
    #[serde(default)]
    local_subnet: String,
    #[serde(default)]
    remote_subnet: String,
    tunnels_config: Option<Tunnels>,
    #[serde(flatten)]
    only: Tunnel,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tunnels {
    #[serde(default)]
    tunnel_config: Vec<Tunnel>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tunnel {
    tunnel_id: Option<String>,
    local: Option<String>,
    remote: Option<String>,
    ike_config: Option<Ike>,
    ipsec_config: Option<Ipsec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ike {
    psk: Option<String>,
    ike_version: Option<String>,
    ike_mode: Option<String>,
    ike_enc_alg: Option<String>,
    ike_auth_alg: Option<String>,
    ike_pfs: Option<String>,
    ike_lifetime: Option<u64>,
    local_id: Option<String>,
    remote_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipsec {
    ipsec_enc_alg: Option<String>,
    ipsec_auth_alg: Option<String>,
    ipsec_pfs: Option<String>,
    ipsec_lifetime: Option<u64>,
}

/// Each tunnel.
///
/// # Errors
/// No such JSON, or what Adit does not have.
pub(super) fn read(text: &str) -> Result<Vec<Draft>, ImportError> {
    // The message of a syntax error quotes no value, that of a wrong type may.
    let wrong = |e: serde_json::Error| {
        let what = if e.is_data() { "is not of the kind that is expected there" } else { "is not JSON" };
        ImportError::new(e.line().max(1), what)
    };
    let is_answer = text.contains("\"VpnConnectionConfig\"");
    let connection = match is_answer {
        true => serde_json::from_str::<Answer>(text).map_err(wrong)?.vpn_connection_config,
        false => serde_json::from_str::<Connection>(text).map_err(wrong)?,
    };
    let at = |field: &str| line_of(text, field);
    let local = subnets(&connection.local_subnet, at("LocalSubnet"))?;
    let remote = subnets(&connection.remote_subnet, at("RemoteSubnet"))?;
    let several = connection.tunnels_config.map(|t| t.tunnel_config).unwrap_or_default();
    let tunnels = if several.is_empty() { vec![connection.only] } else { several };
    if tunnels.len() > 8 {
        return Err(ImportError::new(at("TunnelsConfig"), "there are more tunnels than Alibaba Cloud gives"));
    }
    let count = tunnels.len();
    tunnels
        .into_iter()
        .enumerate()
        .map(|(i, tunnel)| {
            let name = match &tunnel.tunnel_id {
                Some(id) => id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(60).collect(),
                None if count == 1 => "alibaba".to_owned(),
                None => format!("alibaba-{}", i + 1),
            };
            let mut draft = draft(text, name, tunnel)?;
            set_subnets(&mut draft, local.clone(), remote.clone(), &[]);
            Ok(draft)
        })
        .collect()
}

fn draft(text: &str, name: String, tunnel: Tunnel) -> Result<Draft, ImportError> {
    let at = |field: &str| line_of(text, field);
    let Some(remote) = tunnel.remote.filter(|r| !r.is_empty()) else {
        return Err(ImportError::new(at("Remote"), "Remote, the address of the VPN gateway, is missing"));
    };
    let mut draft = Draft::new(at("Remote"), name, remote);
    draft.local = tunnel.local.filter(|l| !l.is_empty());
    let nothing = |field: &str, word: &str| {
        ImportError::new(at(field), format!("{field}: {word:?} is nothing that Adit has"))
    };
    let group = |field: &str, word: &str| {
        let number = word.strip_prefix("group").and_then(|n| n.parse().ok()).and_then(Group::from_number);
        number.map(|group| vec![group]).ok_or_else(|| nothing(field, word))
    };
    let Some(ike) = tunnel.ike_config else {
        return Err(ImportError::new(at("IkeConfig"), "IkeConfig is missing"));
    };
    if let Some(psk) = ike.psk {
        draft.set_psk(Zeroizing::new(psk), at("Psk"))?;
    }
    match ike.ike_version.as_deref() {
        Some("ikev1") | None => draft.version = Version::Ikev1,
        Some("ikev2") => draft.version = Version::Ikev2,
        Some(other) => return Err(nothing("IkeVersion", other)),
    }
    match ike.ike_mode.as_deref() {
        Some("main") | None => {}
        Some("aggressive") => draft.mode = Mode::Aggressive,
        Some(other) => return Err(nothing("IkeMode", other)),
    }
    let cipher = |field: &str, word: Option<String>| match word {
        Some(word) => encryption(&word).map(|e| vec![e]).ok_or_else(|| nothing(field, &word)),
        None => Ok(Vec::new()),
    };
    let hash = |field: &str, word: Option<String>| match word {
        Some(word) => integrity(&word).map(|i| vec![i]).ok_or_else(|| nothing(field, &word)),
        None => Ok(Vec::new()),
    };
    draft.ike = Suite {
        encryption: cipher("IkeEncAlg", ike.ike_enc_alg)?,
        integrity: hash("IkeAuthAlg", ike.ike_auth_alg)?,
        groups: ike.ike_pfs.map_or_else(|| Ok(Vec::new()), |word| group("IkePfs", &word))?,
        ..Suite::default()
    };
    draft.ike_lifetime = ike.ike_lifetime;
    let identity = |field: &str, word: Option<String>| match word.filter(|w| !w.is_empty()) {
        Some(word) => id(&word, at(field)),
        None => Ok(None),
    };
    draft.local_id = identity("LocalId", ike.local_id)?;
    draft.peer_id = identity("RemoteId", ike.remote_id)?;
    if let Some(ipsec) = tunnel.ipsec_config {
        let groups = match ipsec.ipsec_pfs.as_deref() {
            Some("disabled") | None => Vec::new(),
            Some(word) => group("IpsecPfs", word)?,
        };
        draft.ipsec = Some(Suite {
            encryption: cipher("IpsecEncAlg", ipsec.ipsec_enc_alg)?,
            integrity: hash("IpsecAuthAlg", ipsec.ipsec_auth_alg)?,
            groups,
            ..Suite::default()
        });
        draft.ipsec_lifetime = ipsec.ipsec_lifetime;
    }
    Ok(draft)
}

/// Where a field stands first.
fn line_of(text: &str, field: &str) -> usize {
    let quoted = format!("\"{field}\"");
    text.lines().position(|line| line.contains(&quoted)).map_or(1, |at| at + 1)
}
