//! CREATE_CHILD_SA (RFC 7296 section 1.3).
//!
//! Every Child SA is made by IKE_AUTH, and renewed together with its IKE SA (see `lifetime`). A peer that
//! wants another one or a new key on this IKE SA is told so, and then re-establishes the IKE SA itself (RFC
//! 7296 section 1.3.1).

use super::IkeSa;
use crate::{
    counters::ExchangeResult,
    endpoint::Endpoint,
    event::Path,
    wire::{ExchangeType, Notify, NotifyType, Payload},
};

impl Endpoint {
    /// The peer's authentic request for a new SA on this one.
    pub(crate) fn create_child_sa_request(&mut self, mut sa: IkeSa, path: Path) -> Option<IkeSa> {
        self.counters.exchange(ExchangeType::CreateChildSa, ExchangeResult::Refused);
        let refusal = if sa.established().is_some() {
            NotifyType::NO_ADDITIONAL_SAS
        } else {
            NotifyType::TEMPORARY_FAILURE
        };
        let refusal = Payload::Notify(Notify::new(refusal, []));
        self.answer(&mut sa, path, ExchangeType::CreateChildSa, &[refusal]);
        Some(sa)
    }
}
