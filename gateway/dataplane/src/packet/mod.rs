//! What a forwarder changes in inner packets, the ICMP errors it answers with, and those it reads.

mod checksum;
mod fragment;
mod icmp;
mod quote;
mod rewrite;
mod sealed;

pub(crate) use fragment::{Cut, MAX_FRAGMENTS};
pub(crate) use icmp::{Problem, answer, is_host};
pub(crate) use quote::Quote;
pub(crate) use rewrite::{clamp_mss, complete_checksum, decrement_hop_limit, forbids_fragmentation};
pub(crate) use sealed::Pieces;

#[cfg(test)]
mod tests;
