//! ESP and AH in tunnel mode over batches of packets in place.
//!
//! An [`Engine`] holds the expanded keys of the SAs that one worker uses, by SA index. [`Engine::seal`] turns inner IP
//! packets into outer ones, [`Engine::open`] the other way round; both work on a batch of [`Packet`]s, each a window
//! into a frame buffer with headroom and tailroom, and leave an [`Outcome`] per packet. SAs, sizes and outcomes may
//! differ within a batch; what happens to one packet never touches its neighbours.
//!
//! | file | story |
//! |---|---|
//! | `sa` | what an SA is made of, and what makes one impossible |
//! | `packet` | the window into a buffer, its outcome, the causes of drops |
//! | `engine` | the way of a packet: seal and open |
//! | `outer` | outer IPv4, IPv6 and UDP headers: written from a template, parsed without trust |
//! | `inner` | what has to be known of inner IPv4 and IPv6 packets; ECN at the tunnel's end (RFC 6040) |
//! | `replay` | the anti-replay window in shared memory, and extended sequence numbers |
//! | `transform` | the algorithms of an ESP SA, put together |
//! | `aead`, `cbc`, `hmac` | each of them |
//! | `kernels` | what is written for vector units: many packets at once |
//! | `fuzzing` | what is fuzzed, as plain functions |
//! | `ah` | the Authentication Header, and what of the outer header it covers |
//!
//! # What it speaks
//! RFC 4303 with AES-GCM-16 (RFC 4106), ChaCha20-Poly1305 (RFC 7634), AES-CBC (RFC 3602), 3DES-CBC (RFC 2451), DES-CBC
//! (RFC 2405) and NULL (RFC 2410); RFC 4302; both with HMAC-MD5-96 (RFC 2403), HMAC-SHA1-96 (RFC 2404) and HMAC-SHA2
//! (RFC 4868). ESP is native (protocol 50) or UDP-encapsulated (RFC 3948), AH is native. Outer and inner IPv4 and IPv6
//! in all four mixes; extended sequence numbers. Both encapsulations are accepted on every inbound ESP SA: which one a
//! peer uses can change while packets are on their way. An outer IPv6 header has no extension headers.
//!
//! # What it leaves to others
//! There is no clock, no random source, no I/O and no other thread in here. Sequence numbers are reserved by the
//! caller, who owns the shared counter; the anti-replay window lives in memory that the caller hands in by
//! [`SaStates`], shared between workers and surviving a restart. Selectors are checked by the caller after opening;
//! inner TTLs and hop limits are the forwarder's to decrement. UDP payloads that are IKE (the non-ESP marker) or
//! keepalives are to be told apart before: here their SPI matches no SA.
//!
//! # Initialisation vectors
//! An AEAD's is the 64-bit sequence number, unique under the key as RFC 4106 section 3.1 demands. CBC's must be
//! unpredictable: it is the encryption, under the SA's key, of a block holding the sequence number (NIST SP 800-38A
//! appendix C), so that no random source is needed. A sequence number used twice would reuse an IV.
//!
//! # Headers
//! The outer header carries the inner DSCP and ECN field (RFC 6040 normal mode), DF, TTL or hop limit 64, flow
//! label 0. On the way in the inner DSCP stays and the ECN fields are merged after RFC 6040 section 4.2. The UDP
//! checksum is 0 over IPv4 and computed over IPv6, where receivers may drop 0; it is not checked on the way in, nor is
//! the IPv4 header checksum: all that either protects and that is believed, the ICV protects better.
//!
//! # Memory
//! [`Engine::install`] is the only call that allocates. Expanded keys are wiped when their SA is removed or replaced;
//! copies that moving them once leaves on the stack are not. A packet that fails leaves no plaintext: it is
//! verified before it is decrypted, or its payload is overwritten.

mod aead;
mod ah;
mod cbc;
mod engine;
#[cfg(all(any(test, feature = "fuzzing"), not(loom)))]
pub mod fuzzing;
mod hmac;
mod inner;
mod kernels;
mod outer;
mod packet;
mod replay;
mod sa;
#[cfg(test)]
mod test_util;
mod transform;

pub use engine::Engine;
pub use kernels::{Backend, prefetch};
pub use packet::{Drop, Outcome, Packet};
pub use replay::{REPLAY_SLOTS, ReplayState, SaStates};
pub use sa::{AUTH_KEY_LEN, Auth, Cipher, InvalidSa, KEY_LEN, Outer, Protocol, REPLAY_WINDOW_MAX, SaParams};
