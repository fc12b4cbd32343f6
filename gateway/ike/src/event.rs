//! What an endpoint tells its caller.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    algorithm::{Encryption, Group, Integrity},
    config::{Protocol, TunnelId},
    error::Cause,
    selector::TrafficSelector,
    wire::ExchangeType,
};

/// The two ends of a UDP datagram, as we see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.local, self.remote)
    }
}

/// A datagram to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From where to where.
    pub path: Path,
    /// The whole UDP payload, with the non-ESP marker where one is needed.
    pub payload: Vec<u8>,
}

/// Something the caller has to do or to know.
#[derive(Debug)]
pub enum Event {
    /// An IKE SA was established. Tunnels of IKEv1 that differ by their subnets alone share one: each is told of it as
    /// of its own, from its first pair of Child SAs on.
    IkeUp {
        /// The tunnel it is of.
        tunnel: TunnelId,
        /// Where its messages go.
        path: Path,
        /// Its algorithms, as in `aes256gcm16-prfsha256-x25519`.
        suite: String,
        /// From the first message to now.
        handshake: Duration,
        /// Which side is behind a NAT.
        nat: Nat,
        /// Whether we began.
        initiator: bool,
    },
    /// A pair of Child SAs is to be installed, inbound first. A tunnel may have several: each serves the flows of
    /// its selectors.
    ChildUp {
        /// The tunnel it is of.
        tunnel: TunnelId,
        /// Keys, selectors and addresses.
        child: Box<ChildSa>,
    },
    /// From now on what the selectors of this pair cover is sent with it, for the peer is known to be ready: follows
    /// a [`Event::ChildUp`] whose pair was not to be used at once.
    SwitchOutbound {
        /// The tunnel it is of.
        tunnel: TunnelId,
        /// The pair, by its inbound SPI.
        inbound_spi: u32,
    },
    /// The peer of a Child SA is now at another address or port: authenticated IKE messages come from there.
    ChildMoved {
        /// The tunnel it is of.
        tunnel: TunnelId,
        /// The pair, by its SPIs.
        inbound_spi: u32,
        /// The pair, by its SPIs.
        outbound_spi: u32,
        /// The peer's new address.
        peer: IpAddr,
        /// Our UDP port and the peer's new one.
        encapsulation: Option<(u16, u16)>,
    },
    /// The peer has answered when it was asked for a sign of life, and to the first time of asking: with an answer to a
    /// repeated question nobody knows which of them it is for.
    Alive {
        /// The tunnel whose IKE SA it is.
        tunnel: TunnelId,
        /// From the question to the answer.
        round_trip: Duration,
    },
    /// A pair of Child SAs is to be removed.
    ChildDown {
        /// The tunnel it was of.
        tunnel: TunnelId,
        /// SPI of inbound packets.
        inbound_spi: u32,
        /// SPI of outbound packets.
        outbound_spi: u32,
        /// Why.
        reason: DownReason,
    },
    /// An established IKE SA is gone. With [`DownReason::Replaced`] the tunnel has another one; else it has
    /// none left.
    IkeDown {
        /// The tunnel it was of.
        tunnel: TunnelId,
        /// Why.
        reason: DownReason,
    },
    /// An attempt failed. The caller decides whether and when to try again.
    Failed {
        /// The tunnel, where the attempt got far enough to tell.
        tunnel: Option<TunnelId>,
        /// The peer.
        peer: SocketAddr,
        /// Whether the attempt was ours.
        initiator: bool,
        /// Which phase failed.
        phase: Phase,
        /// In which exchange.
        exchange: ExchangeType,
        /// Why, for people to read.
        cause: Cause,
    },
}

/// Which sides of an IKE SA are behind a NAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// We are, or say so to have ESP encapsulated.
    pub local: bool,
    /// The peer is, or says so to have ESP encapsulated.
    pub peer: bool,
}

impl Nat {
    /// Whether there is a NAT at all.
    pub fn any(self) -> bool {
        self.local || self.peer
    }
}

/// The phases of a negotiation, as people count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The IKE SA.
    One,
    /// The Child SAs.
    Two,
}

/// Why something that was up went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DownReason {
    /// The caller asked for it.
    ClosedByUs,
    /// The peer sent DELETE.
    ClosedByPeer,
    /// The peer gave no sign of life.
    PeerDead,
    /// Another SA took its place.
    Replaced,
    /// Its lifetime ended before another SA was up.
    Expired,
    /// The IKE SA had no Child SA.
    NoChild,
    /// The peer broke the protocol, or refused us after all.
    Broken,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClosedByUs => "closed by us",
            Self::ClosedByPeer => "closed by the peer",
            Self::PeerDead => "the peer gave no sign of life",
            Self::Replaced => "replaced by a newer one",
            Self::Expired => "its lifetime ended",
            Self::NoChild => "it had no Child SA",
            Self::Broken => "the peer broke the protocol",
        })
    }
}

/// A pair of Child SAs, ready to be installed.
#[derive(Debug)]
pub struct ChildSa {
    /// For packets from the peer.
    pub inbound: DirectionKeys,
    /// For packets to the peer.
    pub outbound: DirectionKeys,
    /// Whether what is sent goes with this pair from now on, in place of an earlier one with the same selectors;
    /// else from [`Event::SwitchOutbound`] on.
    pub switch_outbound: bool,
    /// The pair it is to take the place of in a rekey, by its inbound SPI. That one is removed by an event of its own.
    pub replaces: Option<u32>,
    /// What protects the packets.
    pub protocol: Protocol,
    /// Encryption of ESP; `None` with AH.
    pub encryption: Option<Encryption>,
    /// Integrity; `None` with AEAD.
    pub integrity: Option<Integrity>,
    /// The group of its own Diffie-Hellman exchange, if it had one.
    pub pfs: Option<Group>,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// What is protected on our side.
    pub local_ts: Vec<TrafficSelector>,
    /// What is protected on the peer's side.
    pub remote_ts: Vec<TrafficSelector>,
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub peer: IpAddr,
    /// Our UDP port and the peer's, where ESP goes in UDP.
    pub encapsulation: Option<(u16, u16)>,
    /// When the pair ends at the latest, from now.
    pub lifetime: Duration,
    /// After how many bytes the peer ends it, where it said so (IKEv1).
    pub lifetime_bytes: Option<u64>,
    /// Whether we began the exchange that made it.
    pub initiator: bool,
}

/// SPI and keys of one direction. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct DirectionKeys {
    /// The SPI in packets of this direction.
    pub spi: u32,
    /// The cipher's key, without the salt; empty with AH.
    pub encryption_key: Zeroizing<Vec<u8>>,
    /// The salt of an AEAD; zero otherwise.
    pub salt: [u8; 4],
    /// The key of integrity; empty with AEAD.
    pub integrity_key: Zeroizing<Vec<u8>>,
}

impl Drop for DirectionKeys {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

/// The keys are compared in constant time.
impl PartialEq for DirectionKeys {
    fn eq(&self, other: &Self) -> bool {
        let same = self.encryption_key.ct_eq(&other.encryption_key)
            & self.integrity_key.ct_eq(&other.integrity_key)
            & self.salt.ct_eq(&other.salt);
        self.spi == other.spi && bool::from(same)
    }
}

impl Eq for DirectionKeys {}

impl fmt::Debug for DirectionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectionKeys({:#010x}, ..)", self.spi)
    }
}
