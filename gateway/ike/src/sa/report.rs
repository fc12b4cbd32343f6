//! How failures are reported, and how often those of strangers: whoever can send datagrams can fail, and must fill neither
//! logs nor memory by it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    TunnelId,
    endpoint::Endpoint,
    error::Cause,
    event::{Event, Path, Phase},
    wire::ExchangeType,
};

/// In the long run, one report in this time.
const EVERY: Duration = Duration::from_secs(10);
/// Reports that may come at once.
const BURST: u32 = 8;

/// What was reported of each tunnel, and of none: when it would all have been said, one report after another.
#[derive(Debug, Default)]
pub(crate) struct Reports(BTreeMap<Option<TunnelId>, Instant>);

impl Reports {
    /// Whether one more report of a tunnel may be made now; if so, it counts.
    pub(crate) fn permit(&mut self, now: Instant, tunnel: Option<TunnelId>) -> bool {
        let said = self.0.entry(tunnel).or_insert(now);
        *said = now.max(*said);
        let permitted = *said < now + EVERY * BURST;
        if permitted {
            *said += EVERY;
        }
        permitted
    }

    pub(crate) fn forget(&mut self, tunnel: TunnelId) {
        self.0.remove(&Some(tunnel));
    }
}

impl Endpoint {
    /// Reports a failure that anybody can bring about, now and then.
    pub(super) fn stranger_failed(
        &mut self,
        now: Instant,
        tunnel: Option<TunnelId>,
        path: Path,
        cause: Cause,
    ) {
        self.failed_now_and_then(now, tunnel, path, ExchangeType::IkeSaInit, cause);
    }

    pub(super) fn failed_now_and_then(
        &mut self,
        now: Instant,
        tunnel: Option<TunnelId>,
        path: Path,
        exchange: ExchangeType,
        cause: Cause,
    ) {
        if self.reports.permit(now, tunnel) {
            self.failed(tunnel, path, false, Phase::One, exchange, cause);
        }
    }

    pub(crate) fn failed(
        &mut self,
        tunnel: Option<TunnelId>,
        path: Path,
        initiator: bool,
        phase: Phase,
        exchange: ExchangeType,
        cause: Cause,
    ) {
        self.events.push_back(Event::Failed { tunnel, peer: path.remote, initiator, phase, exchange, cause });
    }
}
