//! AF_XDP: frames to and from a NIC's queue through rings shared with the kernel.
//!
//! | file | story |
//! |---|---|
//! | `umem` | the memory that packets lie in, and the ownership of its chunks |
//! | `ring` | single-producer, single-consumer rings in shared memory |
//! | `far_side` | the kernel's ends of the rings, in memory, for who measures a worker |
//! | `socket` | one queue of one interface: its four rings, and how frames pass through them |
//!
//! One worker has one UMEM, shared by all its sockets (`XDP_SHARED_UMEM`): a packet that comes in by one interface
//! leaves by another without being copied. A [`Frame`] is the right to touch one chunk. It is neither `Copy` nor
//! `Clone`; the rings take it by value and give it back by value, so a chunk is never in two places at once.

#[cfg(feature = "in-memory")]
mod far_side;
mod ring;
mod socket;
mod umem;

#[cfg(feature = "in-memory")]
pub(crate) use far_side::FarSide;
pub(crate) use socket::{Bind, Copying, Lost, Memory, RING, Received, Socket, open_all};
pub(crate) use umem::{Frame, HEADROOM, SHORT_PACKET, Umem};
