//! From policies to SA payloads and from SA payloads to suites (RFC 2407 section 4.5, RFC 2409 appendix A).
//!
//! Each transform of IKEv1 is a whole suite. Of phase 1 and of phase 2 alike, one proposal with a transform for each
//! combination of the policy's algorithms is offered, in the policy's order. What peers offer may also be spread
//! over several proposals; those of one number belong together and are passed over, for they ask for two protocols
//! at once. A responder takes the first of its own combinations that the peer offers too, and gives the peer's
//! transform back as it came.

mod lifetime;
mod phase_one;
mod phase_two;
mod words;

pub(crate) use lifetime::Lifetime;
pub(crate) use phase_one::{
    PhaseOneSuite, accept_phase_one, offer_phase_one, other_authentication, select_phase_one,
};
pub(crate) use phase_two::{
    Encapsulation, PhaseTwoSuite, accept_phase_two, offer_phase_two, other_protocol, pfs_group, pfs_groups,
    select_phase_two,
};
pub(crate) use words::{first_difference, in_words};

use std::collections::BTreeMap;

use super::wire::{Proposal, SecurityAssociation, Transform};
use crate::algorithm::Group;

/// Proposals hold no more transforms than that.
const MAX_TRANSFORMS: usize = 255;

/// The attributes of a transform, by type, apart from lifetimes.
struct Attributes {
    values: BTreeMap<u16, u64>,
    lifetime: Lifetime,
}

impl Attributes {
    /// `None` where an attribute is there twice, or its value is no number, or lifetimes are malformed: such a
    /// transform is not chosen.
    fn of(transform: &Transform, life_type: u16) -> Option<Self> {
        let (life, others): (Vec<_>, Vec<_>) = transform
            .attributes
            .iter()
            .partition(|attribute| (life_type..=life_type + 1).contains(&attribute.kind));
        let mut values = BTreeMap::new();
        for attribute in others {
            if values.insert(attribute.kind, attribute.number()?).is_some() {
                return None;
            }
        }
        Some(Self { values, lifetime: Lifetime::of(life.into_iter(), life_type)? })
    }

    /// Takes a value out, so that what is left is what nobody asked for.
    fn take(&mut self, kind: u16) -> Option<u64> {
        self.values.remove(&kind)
    }

    /// The same, with a value that fits in 16 bits, or is too large for anything that is known.
    fn take_u16(&mut self, kind: u16) -> Option<u16> {
        self.take(kind).map(|value| u16::try_from(value).unwrap_or(u16::MAX))
    }
}

/// A group that IKEv1 can make a key exchange with.
fn group_of(number: u16) -> Option<Group> {
    Group::from_number(number).filter(|group| is_diffie_hellman(*group))
}

/// Additional key exchanges are IKEv2's.
fn is_diffie_hellman(group: Group) -> bool {
    !Group::ADDITIONAL.contains(&group)
}

/// Every proposal that does not belong together with another one.
fn alone(offered: &SecurityAssociation) -> impl Iterator<Item = &Proposal> {
    offered.proposals.iter().filter(|proposal| {
        offered.proposals.iter().filter(|other| other.number == proposal.number).count() == 1
    })
}

#[cfg(test)]
mod tests;
