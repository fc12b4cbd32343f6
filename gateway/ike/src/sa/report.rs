//! How often failures of strangers are reported: whoever can send datagrams can fail, and must fill neither
//! logs nor memory by it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::TunnelId;

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
