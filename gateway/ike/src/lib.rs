//! IKEv2 (RFC 7296) and IKEv1 (RFC 2409) with pre-shared keys, without I/O, clock or randomness of its own.
//!
//! An [`Endpoint`] negotiates IKE SAs and Child SAs for any number of tunnels, as initiator and as responder.
//! It opens no socket and reads no clock: time and datagrams are arguments, and everything it wants done
//! comes out as data. So the same code runs behind UDP sockets and in a simulation that loses, repeats and
//! reorders datagrams in virtual time.
//!
//! IKEv1 goes in main and aggressive mode, with one quick mode for each pair of subnets, NAT traversal (RFC 3947), dead
//! peer detection (RFC 3706) and the fragmentation in use. A tunnel's policy says which version it speaks.
//!
//! IKEv2 beyond RFC 7296: fragments (RFC 7383), MOBIKE as responder (RFC 4555), IKE SAs that begin without a Child SA (RFC
//! 6023), IKE_INTERMEDIATE (RFC 9242) for an additional key exchange such as ML-KEM (RFC 9370), and post-quantum
//! pre-shared keys (RFC 8784). EAP and certificates are refused in words.
//!
//! # What goes in
//! [`Endpoint::set_tunnel`] makes a tunnel known; [`Endpoint::connect`] initiates it, [`Endpoint::close`]
//! ends it. [`Endpoint::handle_datagram`] takes what arrives on UDP ports 500 and 4500,
//! [`Endpoint::handle_timeout`] the passing of time, [`Endpoint::handle_job`] the outcome of a Diffie-Hellman
//! computation, and [`Endpoint::traffic_seen`] word of ESP from the peer, which counts as a sign of life.
//!
//! # What comes out
//! After every call, in this order:
//! 1. [`Endpoint::poll_job`]: computations to be run, here or on another thread. They are the only expensive
//!    work.
//! 2. [`Endpoint::poll_event`]: Child SAs to install and remove, and what people should know. Drained before
//!    the datagrams, so that an inbound SA is in place before the peer hears that it may use it.
//! 3. [`Endpoint::poll_transmit`]: datagrams to send.
//! 4. [`Endpoint::poll_timeout`]: when `handle_timeout` is due at the latest.
//!
//! ```
//! use std::time::Instant;
//! use adit_ike::{Endpoint, Event, Path};
//!
//! fn drive(
//!     endpoint: &mut Endpoint,
//!     now: Instant,
//!     send: impl Fn(Path, &[u8]),
//!     react: impl Fn(Event),
//! ) -> Option<Instant> {
//!     while let Some(job) = endpoint.poll_job() {
//!         endpoint.handle_job(now, job.run());
//!     }
//!     while let Some(event) = endpoint.poll_event() {
//!         react(event);
//!     }
//!     while let Some(transmit) = endpoint.poll_transmit() {
//!         send(transmit.path, &transmit.payload);
//!     }
//!     endpoint.poll_timeout().map(|(at, _why)| at)
//! }
//! ```
//!
//! # What it promises
//! - A datagram that does not pass its integrity check changes nothing of an SA that has keys. What strangers can
//!   begin without any is bounded in all and by address, and their failures are reported now and then only.
//! - A request that comes again gets the answer it got before, octet by octet.
//! - A flow has one pair of Child SAs, whoever began and however often; for a moment two, while one takes the place
//!   of another. [`ChildSa::switch_outbound`] and [`Event::SwitchOutbound`] say which to send with, and no inbound SA
//!   goes before what the peer has sent with it has had time to come. `sa/collision.rs`, `sa/child_life.rs` and
//!   `sa/rekey_ike.rs` tell how both ends come to agree.
//! - A failure is told with both sides' values as far as they are known ([`Cause`]). A failed attempt to replace the
//!   IKE SA of a tunnel that is still up is not reported: it is tried again until the old one expires. Otherwise trying
//!   again is the caller's business.
//! - Keys are wiped when they are dropped, compared in constant time, and never printed.
//!
//! # Where things are
//! `endpoint` has the tables and the way of a datagram, `exchange` requests and answers as such, `sa` the
//! states and one file for each exchange, `wire` the octets, all of IKEv2; `v1` has the same for IKEv1; `crypto` whatever touches keys, `proposal` and
//! `selector` the negotiation, `error` who is to blame and what the peer is told, `words` what people are
//! told, `advice` the same as values.

mod advice;
mod algorithm;
pub mod codec;
mod config;
mod counters;
mod crypto;
mod endpoint;
mod error;
mod event;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod golden;
mod half_open;
mod kept;
mod of_tunnel;
mod proposal;
mod sa;
mod selector;
mod timer;
mod tunnels;
mod v1;
mod wire;
mod words;

pub use advice::{Advice, Matter};
pub use algorithm::{Encryption, Group, Integrity, Prf, UnknownAlgorithm};
pub use config::{
    Dpd, EndpointConfig, Id, IkePolicy, InvalidId, IpsecPolicy, Mode, NatT, Ppk, Protocol, Psk,
    Retransmission, TunnelConfig, TunnelId, Version,
};
pub use counters::{Counters, ExchangeResult};
pub use crypto::dh::{Job, JobResult};
pub use endpoint::{Counts, Endpoint};
pub use error::{Blame, Cause};
pub use event::{ChildSa, DirectionKeys, DownReason, Event, Nat, Path, Phase, Transmit};
pub use kept::{Restored, RestoredChild, RestoredIke};
pub use selector::TrafficSelector;
pub use timer::TimerKind;
pub use v1::wire::NotifyType as Ikev1NotifyType;
pub use wire::{ExchangeType, NotifyType, WireError};
