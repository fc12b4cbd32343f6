//! What an IKE SA's two sides can do beyond RFC 7296, as they say to each other in notifies.

use crate::{
    config::TunnelConfig,
    tunnels::Kind,
    wire::{Notify, NotifyType, Payload},
};

/// The extensions that are in use on an IKE SA: those that both sides have said they know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    /// Messages may come in fragments (RFC 7383).
    pub(crate) fragmentation: bool,
    /// Exchanges between IKE_SA_INIT and IKE_AUTH (RFC 9242).
    pub(crate) intermediate: bool,
    /// A post-quantum pre-shared key may be used (RFC 8784).
    pub(crate) ppk: bool,
    /// IKE_AUTH may be without a Child SA: only a responder says so (RFC 6023).
    pub(crate) childless: bool,
    /// The initiator may go on from another address (RFC 4555); said in IKE_AUTH.
    pub(crate) mobike: bool,
}

impl Extensions {
    /// What the initiator of a tunnel says it knows.
    pub(super) fn of_tunnel(tunnel: &TunnelConfig) -> Self {
        Self {
            fragmentation: true,
            intermediate: !tunnel.ike.additional_ke.is_empty(),
            ppk: tunnel.ppk.is_some(),
            childless: false,
            mobike: false,
        }
    }

    /// What an IKE_SA_INIT message says its sender knows, of what we know too.
    pub(super) fn of(payloads: &[Payload]) -> Self {
        Self {
            fragmentation: says(payloads, NotifyType::IKEV2_FRAGMENTATION_SUPPORTED),
            intermediate: says(payloads, NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED),
            ppk: says(payloads, NotifyType::USE_PPK),
            childless: says(payloads, NotifyType::CHILDLESS_IKEV2_SUPPORTED),
            mobike: false,
        }
    }

    /// What a responder answers to what the initiator said, with these tunnels that may be meant.
    pub(super) fn answer(self, kinds: &[Kind]) -> Self {
        let ppk = self.ppk && kinds.iter().any(|kind| kind.tunnel.ppk.is_some());
        Self { ppk, childless: true, ..self }
    }

    /// The notifies that say so.
    pub(super) fn notifies(self) -> impl Iterator<Item = Payload> {
        let said = [
            (self.fragmentation, NotifyType::IKEV2_FRAGMENTATION_SUPPORTED),
            (self.intermediate, NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED),
            (self.ppk, NotifyType::USE_PPK),
            (self.childless, NotifyType::CHILDLESS_IKEV2_SUPPORTED),
        ];
        said.into_iter().filter(|(known, _)| *known).map(|(_, kind)| Payload::Notify(Notify::new(kind, [])))
    }
}

/// Whether there is a notify of this kind.
pub(super) fn says(payloads: &[Payload], kind: NotifyType) -> bool {
    data_of(payloads, kind).is_some()
}

/// The data of the first notify of this kind.
pub(super) fn data_of(payloads: &[Payload], kind: NotifyType) -> Option<&[u8]> {
    payloads.iter().find_map(|payload| match payload {
        Payload::Notify(notify) if notify.kind == kind => Some(&notify.data[..]),
        _ => None,
    })
}
