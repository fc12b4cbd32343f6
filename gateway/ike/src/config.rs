//! What an endpoint is told: its own settings and its tunnels.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    time::Duration,
};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    algorithm::{Encryption, Group, Integrity, Prf},
    selector::TrafficSelector,
};

/// A tunnel's number, given by the caller and stable over its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId(pub u32);

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Settings of the endpoint as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// UDP port of IKE, ours and the peers'.
    pub port: u16,
    /// UDP port of IKE and ESP behind a NAT, ours and the peers'; datagrams there carry the non-ESP marker.
    pub nat_t_port: u16,
    /// From this many half-open responder IKE SAs on, IKE_SA_INIT is answered with a COOKIE (RFC 7296 section
    /// 2.6).
    pub cookie_threshold: usize,
    /// From this many half-open responder IKE SAs on, IKE_SA_INIT requests are dropped; those of one address
    /// from an eighth of it on, though not below `cookie_threshold`. Where there are some of IKEv1 whose
    /// initiator has sent no more than its first message, the oldest of them makes room instead.
    pub half_open_limit: usize,
    /// How long a responder waits for IKE_AUTH after its IKE_SA_INIT answer.
    pub half_open_timeout: Duration,
    /// How often an unanswered request is sent again.
    pub retransmission: Retransmission,
    /// Interval of NAT keepalives while we are behind a NAT (RFC 3948 section 4).
    pub keepalive: Duration,
    /// How long an IKE SA that another has taken the place of stays, so that packets on their way still
    /// arrive.
    pub overlap: Duration,
    /// How long a closed IKE SA still answers retransmitted requests.
    pub linger: Duration,
    /// Largest IP packet in bytes that an IKE message is sent in; longer messages are fragmented where the peer
    /// can put them together (RFC 7383, and the vendor extension of IKEv1).
    pub fragment_size: usize,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            port: 500,
            nat_t_port: 4500,
            cookie_threshold: 64,
            half_open_limit: 4096,
            half_open_timeout: Duration::from_secs(30),
            retransmission: Retransmission::default(),
            keepalive: Duration::from_secs(20),
            overlap: Duration::from_secs(2),
            linger: Duration::from_secs(30),
            fragment_size: 1280,
        }
    }
}

impl EndpointConfig {
    /// How long a request takes that is never answered.
    pub(crate) fn give_up_after(&self) -> Duration {
        (1..=self.retransmission.attempts).map(|attempt| self.retransmission.wait(attempt)).sum()
    }
}

/// Exponential back-off of a request: sent at once, after `initial`, then after twice the last wait, never
/// more than
/// `ceiling`; given up one wait after the last of `attempts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmission {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait.
    pub ceiling: Duration,
    /// How often a request is sent in all.
    pub attempts: u32,
}

impl Default for Retransmission {
    fn default() -> Self {
        Self { initial: Duration::from_millis(500), ceiling: Duration::from_secs(8), attempts: 5 }
    }
}

impl Retransmission {
    /// The wait after the `attempt`th sending, counted from 1.
    pub(crate) fn wait(&self, attempt: u32) -> Duration {
        let factor = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.initial.saturating_mul(factor).min(self.ceiling)
    }
}

/// One tunnel: the peer, how each side proves who it is, and what is negotiated.
#[derive(Clone, Debug)]
pub struct TunnelConfig {
    /// The caller's number for it.
    pub id: TunnelId,
    /// The name people gave it.
    pub name: String,
    /// Our address.
    pub local: IpAddr,
    /// Our address of the other family, at which the tunnel is as well; only where `peer` is `None`.
    pub other_local: Option<IpAddr>,
    /// The peer's address; `None` takes a peer from anywhere.
    pub peer: Option<IpAddr>,
    /// The identity we present.
    pub local_id: Id,
    /// The identity the peer must present.
    pub peer_id: Id,
    /// The pre-shared key.
    pub psk: Psk,
    /// Phase 1.
    pub ike: IkePolicy,
    /// Phase 2.
    pub ipsec: IpsecPolicy,
    /// What we protect on our side.
    pub local_ts: Vec<TrafficSelector>,
    /// What the peer protects on its side.
    pub remote_ts: Vec<TrafficSelector>,
    /// NAT traversal.
    pub nat_t: NatT,
    /// Dead peer detection; `None` turns it off.
    pub dpd: Option<Dpd>,
    /// Whether this side may begin an IKE SA by itself, as it does to reauthenticate. An SA that is up is rekeyed
    /// by either side.
    pub initiates: bool,
    /// Whether the IKE SA is begun without a Child SA where the peer can do so (RFC 6023); IKEv2 only.
    pub childless: bool,
    /// A post-quantum pre-shared key mixed into the keys (RFC 8784); IKEv2 only.
    pub ppk: Option<Ppk>,
}

/// A version of IKE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// RFC 7296.
    #[default]
    Ikev2,
    /// RFC 2408 and RFC 2409.
    Ikev1,
}

/// How phase 1 of IKEv1 goes (RFC 2409 section 5); says nothing in IKEv2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Six messages; identities are protected.
    #[default]
    Main,
    /// Three messages; identities go in clear, and so does a hash of the PSK.
    Aggressive,
}

/// What protects the packets of a Child SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 4303.
    #[default]
    Esp,
    /// RFC 4302.
    Ah,
}

/// A post-quantum pre-shared key (RFC 8784).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ppk {
    /// PPK_ID: by which both sides name the key.
    pub id: Vec<u8>,
    /// The key.
    pub key: Psk,
    /// Whether a peer without it is refused.
    pub required: bool,
}

/// Parameters of phase 1, each list in order of preference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IkePolicy {
    /// The version spoken, and the only one taken.
    pub version: Version,
    /// IKEv1: how phase 1 goes.
    pub mode: Mode,
    /// Encryption.
    pub encryption: Vec<Encryption>,
    /// Integrity, used with the encryption algorithms that are not AEAD.
    pub integrity: Vec<Integrity>,
    /// Pseudorandom function.
    pub prf: Vec<Prf>,
    /// Diffie-Hellman groups; the first is guessed in IKE_SA_INIT.
    pub dh: Vec<Group>,
    /// Additional key exchanges (RFC 9370), one of which is made where this is not empty; IKEv2 only.
    pub additional_ke: Vec<Group>,
    /// Life of an IKE SA.
    pub lifetime: Duration,
    /// Whether an IKE SA is renewed by a new one that is authenticated, made before the old one goes, rather than
    /// by a rekey.
    pub reauthenticate: bool,
}

/// What a tunnel has where its configuration says nothing.
impl Default for IkePolicy {
    fn default() -> Self {
        Self {
            version: Version::Ikev2,
            mode: Mode::Main,
            encryption: vec![Encryption::Aes256Gcm16],
            integrity: vec![Integrity::Sha256],
            prf: vec![Prf::Sha256],
            dh: vec![Group::X25519, Group::P256, Group::Modp2048],
            additional_ke: Vec::new(),
            lifetime: Duration::from_secs(86_400),
            reauthenticate: false,
        }
    }
}

/// Parameters of phase 2, each list in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpsecPolicy {
    /// What protects the packets.
    pub protocol: Protocol,
    /// Encryption; says nothing with AH.
    pub encryption: Vec<Encryption>,
    /// Integrity, used with AH and with the encryption algorithms that are not AEAD.
    pub integrity: Vec<Integrity>,
    /// Groups of the Diffie-Hellman exchange that every Child SA has of its own (perfect forward secrecy), but
    /// for the one that IKE_AUTH makes; empty for none.
    pub pfs: Vec<Group>,
    /// Whether extended sequence numbers are offered and preferred; IKEv2 only.
    pub esn: bool,
    /// Life of a Child SA.
    pub lifetime: Duration,
    /// Bytes after which a Child SA ends, as IKEv1 tells the peer in kilobytes. The caller counts them and calls
    /// [`Endpoint::rekey_child`](crate::Endpoint::rekey_child).
    pub lifetime_bytes: Option<u64>,
}

/// What a tunnel has where its configuration says nothing; PFS is with the groups of phase 1 there.
impl Default for IpsecPolicy {
    fn default() -> Self {
        Self {
            protocol: Protocol::Esp,
            encryption: vec![Encryption::Aes256Gcm16],
            integrity: vec![Integrity::Sha256],
            pfs: Vec::new(),
            esn: true,
            lifetime: Duration::from_secs(3600),
            lifetime_bytes: None,
        }
    }
}

/// NAT traversal of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NatT {
    /// Found out by NAT detection (RFC 7296 section 2.23).
    #[default]
    Auto,
    /// ESP is encapsulated in UDP even where there is no NAT.
    Force,
    /// No NAT detection, no encapsulation.
    Off,
}

/// Dead peer detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dpd {
    /// Silence after which the peer is asked for a sign of life.
    pub delay: Duration,
    /// Silence from then on after which it is held for dead.
    pub timeout: Duration,
}

/// A pre-shared key. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Psk(Zeroizing<Vec<u8>>);

impl Psk {
    /// Takes the octets as they are.
    pub fn new(key: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(key.into()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The octets in clear, for who writes the configuration of the other side.
    pub fn reveal(&self) -> &[u8] {
        self.as_bytes()
    }

    /// By which a key is known to be the same as before: SHA-256. As secret as the key, which may be short.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(..)")
    }
}

/// Compared in constant time.
impl PartialEq for Psk {
    fn eq(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.as_bytes(), other.as_bytes()).into()
    }
}

impl Eq for Psk {}

/// An identity (RFC 7296 section 3.5).
///
/// From text: an address is `V4` or `V6`, `keyid:` with hexadecimal digits is `KeyId`, anything with an `@`
/// that does not lead is `UserFqdn`, everything else is `Fqdn`. A leading `@`, strongSwan's way to say "not
/// an address", is dropped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// ID_IPV4_ADDR.
    V4(Ipv4Addr),
    /// ID_IPV6_ADDR.
    V6(Ipv6Addr),
    /// ID_FQDN.
    Fqdn(String),
    /// ID_RFC822_ADDR.
    UserFqdn(String),
    /// ID_KEY_ID.
    KeyId(Vec<u8>),
}

impl Id {
    /// Octets that an identity may have on the wire. No RFC has a bound; a message has.
    pub const LONGEST: usize = 255;

    /// Whether it is one that can be said: one of up to [`Id::LONGEST`] octets.
    pub fn fits(&self) -> bool {
        self.data().len() <= Self::LONGEST
    }

    /// The ID type and the identification data. Of one that does not fit it is the beginning, so that a message that it is in
    /// has its bounds whatever somebody has configured: the peer does not know us by that.
    pub(crate) fn to_wire(&self) -> (u8, Vec<u8>) {
        let kind = match self {
            Self::V4(_) => 1,
            Self::Fqdn(_) => 2,
            Self::UserFqdn(_) => 3,
            Self::V6(_) => 5,
            Self::KeyId(_) => 11,
        };
        let mut data = self.data();
        data.truncate(Self::LONGEST);
        (kind, data)
    }

    fn data(&self) -> Vec<u8> {
        match self {
            Self::V4(address) => address.octets().to_vec(),
            Self::V6(address) => address.octets().to_vec(),
            Self::Fqdn(name) | Self::UserFqdn(name) => name.as_bytes().to_vec(),
            Self::KeyId(octets) => octets.clone(),
        }
    }

    /// `None` for an ID type or a length this endpoint does not know.
    pub(crate) fn from_wire(kind: u8, data: &[u8]) -> Option<Self> {
        let text = || String::from_utf8(data.to_vec()).ok();
        match kind {
            1 => Some(Self::V4(<[u8; 4]>::try_from(data).ok()?.into())),
            2 => text().map(Self::Fqdn),
            3 => text().map(Self::UserFqdn),
            5 => Some(Self::V6(<[u8; 16]>::try_from(data).ok()?.into())),
            11 => Some(Self::KeyId(data.to_vec())),
            _ => None,
        }
    }

    /// Equal as RFC 7296 means it: names without regard to case.
    pub fn matches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fqdn(a), Self::Fqdn(b)) | (Self::UserFqdn(a), Self::UserFqdn(b)) => {
                a.eq_ignore_ascii_case(b)
            }
            (a, b) => a == b,
        }
    }
}

impl From<IpAddr> for Id {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => Self::V6(v6),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(address) => write!(f, "{address}"),
            Self::Fqdn(name) | Self::UserFqdn(name) => {
                name.chars().try_for_each(|c| write!(f, "{}", if c.is_control() { '?' } else { c }))
            }
            Self::KeyId(octets) => {
                f.write_str("keyid:")?;
                octets.iter().try_for_each(|o| write!(f, "{o:02x}"))
            }
        }
    }
}

/// Text that is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// No text at all.
    #[error("an identity must not be empty")]
    Empty,
    /// `keyid:` not followed by pairs of hexadecimal digits.
    #[error("keyid: must be followed by pairs of hexadecimal digits")]
    KeyId,
}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        if let Some(digits) = text.strip_prefix("keyid:") {
            return parse_hex(digits).map(Self::KeyId).ok_or(InvalidId::KeyId);
        }
        let name = text.strip_prefix('@').unwrap_or(text);
        match name {
            "" => Err(InvalidId::Empty),
            _ if name.contains('@') => Ok(Self::UserFqdn(name.to_owned())),
            _ => Ok(Self::Fqdn(name.to_owned())),
        }
    }
}

fn parse_hex(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_from_text_and_back() {
        for (text, id) in [
            ("192.0.2.1", Id::V4([192, 0, 2, 1].into())),
            ("2001:db8::1", Id::V6("2001:db8::1".parse().unwrap())),
            ("gw.example.net", Id::Fqdn("gw.example.net".into())),
            ("ops@example.net", Id::UserFqdn("ops@example.net".into())),
            ("keyid:0aff", Id::KeyId(vec![0x0a, 0xff])),
        ] {
            assert_eq!(text.parse::<Id>().unwrap(), id);
            assert_eq!(id.to_string(), text);
            let (kind, data) = id.to_wire();
            assert_eq!(Id::from_wire(kind, &data), Some(id));
        }
        assert_eq!("@moon".parse::<Id>().unwrap(), Id::Fqdn("moon".into()));
        assert_eq!("keyid:0".parse::<Id>(), Err(InvalidId::KeyId));
        assert_eq!("".parse::<Id>(), Err(InvalidId::Empty));
        assert!(Id::Fqdn("A.example".into()).matches(&Id::Fqdn("a.EXAMPLE".into())));
    }

    #[test]
    fn no_identity_is_longer_on_the_wire_than_a_message_has_room_for() {
        let ids = |n: usize| [Id::Fqdn("a".repeat(n)), Id::UserFqdn("@".repeat(n)), Id::KeyId(vec![7; n])];
        assert!(ids(Id::LONGEST).iter().all(|id| id.fits() && id.to_wire().1.len() == Id::LONGEST));
        assert!(ids(70_000).iter().all(|id| !id.fits() && id.to_wire().1.len() == Id::LONGEST));
    }

    #[test]
    fn back_off_doubles_up_to_its_ceiling() {
        let waits = Retransmission::default();
        let seconds: Vec<_> = (1..=6).map(|n| waits.wait(n).as_secs_f32()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]);
        assert_eq!(waits.wait(u32::MAX), waits.ceiling);
    }

    #[test]
    fn a_psk_is_not_printed() {
        assert_eq!(format!("{:?}", Psk::new("hunter2")), "Psk(..)");
    }
}
