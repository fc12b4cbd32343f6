//! What an IKE SA's two sides can do beyond RFC 7296, as they say to each other in notifies.

use crate::wire::{Notify, NotifyType, Payload};

/// The extensions that are in use on an IKE SA: those that both sides have said they know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    /// Messages may come in fragments (RFC 7383).
    pub(crate) fragmentation: bool,
}

impl Extensions {
    /// What this endpoint knows.
    pub(super) const OURS: Self = Self { fragmentation: true };

    /// What an IKE_SA_INIT message says its sender knows, of what we know too.
    pub(super) fn of(payloads: &[Payload]) -> Self {
        Self { fragmentation: says(payloads, NotifyType::IKEV2_FRAGMENTATION_SUPPORTED) }
    }

    /// The notifies that say so.
    pub(super) fn notifies(self) -> impl Iterator<Item = Payload> {
        let said = [(self.fragmentation, NotifyType::IKEV2_FRAGMENTATION_SUPPORTED)];
        said.into_iter().filter(|(known, _)| *known).map(|(_, kind)| Payload::Notify(Notify::new(kind, [])))
    }
}

/// Whether there is a notify of this kind.
pub(super) fn says(payloads: &[Payload], kind: NotifyType) -> bool {
    payloads.iter().any(|payload| matches!(payload, Payload::Notify(notify) if notify.kind == kind))
}
