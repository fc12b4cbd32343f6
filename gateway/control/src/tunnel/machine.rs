//! When a tunnel negotiates, and what its connection status is. Time comes in as an argument.
//!
//! ```text
//!             begin: immediate                 child up
//! disabled  ───────────────────▶ connecting ──────────────▶ connected
//!             begin: on-demand,      ▲  │ fourth failure        │ peer dead: connecting
//!             respond                │  ▼                       │ else, by start:
//!            idle ───────────────────┘ phase1-failed,           ▼ connecting, or idle
//!                     acquire          phase2-failed
//!                                      every 12 s again
//! ```
//!
//! What begins a tunnel that was up and has lost its peer follows from `dpd.action` and `start`: time, traffic, the peer,
//! or somebody by hand.

use crate::config::{DpdAction, Start};
use adit_ike::{DownReason, Phase};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, Instant},
};

/// Waits before the first, second and third retry.
const BACK_OFF: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// From the beginning of a further attempt to that of the next, unless it takes longer.
const STEADY: Duration = Duration::from_secs(12);

/// The wait after a tunnel that was up went down for a reason that might come back at once.
const AGAIN: Duration = Duration::from_secs(1);

/// The connection status of a tunnel.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A negotiation is under way or about to be, or the tunnel was up and has lost its peer.
    Connecting,
    /// Packets can pass.
    Connected,
    /// The IKE SA cannot be agreed on; tried again all the same.
    #[serde(rename = "phase1-failed")]
    Phase1Failed,
    /// The Child SA cannot be agreed on; tried again all the same.
    #[serde(rename = "phase2-failed")]
    Phase2Failed,
    /// Waits for its first traffic, or for a peer that has not begun yet or has closed it.
    Idle,
    /// Switched off.
    Disabled,
}

impl State {
    /// Every state.
    pub const ALL: [State; 6] = [
        State::Connecting,
        State::Connected,
        State::Phase1Failed,
        State::Phase2Failed,
        State::Idle,
        State::Disabled,
    ];
}

impl State {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::Connected => "connected",
            State::Phase1Failed => "phase1-failed",
            State::Phase2Failed => "phase2-failed",
            State::Idle => "idle",
            State::Disabled => "disabled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// One tunnel's state.
#[derive(Debug)]
pub struct Machine {
    start: Start,
    dpd_action: DpdAction,
    state: State,
    children: BTreeSet<u32>,
    /// Failed negotiations since the last that succeeded.
    failures: usize,
    /// When to negotiate.
    due: Option<Instant>,
    /// When a negotiation began that is ours and has neither failed nor succeeded yet.
    attempt: Option<Instant>,
    /// Whether traffic begins a negotiation.
    trap: bool,
}

impl Machine {
    /// A tunnel that does nothing yet.
    pub fn new(enabled: bool, start: Start, dpd_action: DpdAction) -> Self {
        let state = match (enabled, start) {
            (false, _) => State::Disabled,
            (true, Start::Immediate) => State::Connecting,
            (true, _) => State::Idle,
        };
        let children = BTreeSet::new();
        Machine { start, dpd_action, state, children, failures: 0, due: None, attempt: None, trap: false }
    }

    /// The connection status.
    pub fn state(&self) -> State {
        self.state
    }

    /// When [`Machine::handle_timeout`] has something to do.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether a negotiation that we began has neither failed nor succeeded yet.
    pub fn is_attempting(&self) -> bool {
        self.attempt.is_some()
    }

    /// Whether it does nothing before traffic wants it.
    pub fn awaits_traffic(&self) -> bool {
        self.trap || (self.state == State::Idle && self.start == Start::OnDemand)
    }

    /// From now on the tunnel is to be up, as its configuration says.
    pub fn begin(&mut self, now: Instant) {
        match self.state {
            State::Disabled => {}
            State::Connecting => self.due = Some(now),
            _ => self.trap = self.start == Start::OnDemand,
        }
    }

    /// Somebody asks for the tunnel by hand: it negotiates now, whatever `start` says; not where the peer is the one to
    /// begin. Whether it does.
    pub fn wake(&mut self, now: Instant) -> bool {
        let wakes = self.start != Start::Respond
            && self.attempt.is_none()
            && !matches!(self.state, State::Connected | State::Disabled);
        if wakes {
            (self.state, self.due, self.failures, self.trap) = (State::Connecting, Some(now), 0, false);
        }
        wakes
    }

    /// From now on it is to be down until it is made anew.
    pub fn hold(&mut self) {
        (self.state, self.due, self.attempt, self.trap) = (State::Disabled, None, None, false);
    }

    /// Whether it is time to negotiate.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let due = self.due.is_some_and(|at| at <= now);
        if due {
            (self.due, self.attempt) = (None, Some(now));
        }
        due
    }

    /// Traffic found no SA.
    pub fn acquire(&mut self, now: Instant) {
        if std::mem::take(&mut self.trap) {
            (self.state, self.due) = (State::Connecting, Some(now));
        }
    }

    /// A Child SA is installed.
    pub fn child_up(&mut self, inbound_spi: u32) {
        self.children.insert(inbound_spi);
        if self.state == State::Disabled {
            return;
        }
        (self.state, self.failures, self.due) = (State::Connected, 0, None);
        (self.attempt, self.trap) = (None, false);
    }

    /// A Child SA is gone. The IKE SA's end, which follows where it was the last, decides what comes next.
    pub fn child_down(&mut self, inbound_spi: u32) {
        self.children.remove(&inbound_spi);
        if self.children.is_empty() && self.state == State::Connected {
            self.state = State::Connecting;
        }
    }

    /// The last IKE SA is gone.
    pub fn ike_down(&mut self, now: Instant, reason: DownReason) {
        if reason == DownReason::Replaced || self.state == State::Disabled {
            return;
        }
        self.children.clear();
        let was_up = matches!(self.state, State::Connected | State::Connecting);
        if self.start == Start::Respond {
            // What the peer began in vain leaves the status that says so.
            if was_up {
                let closed = reason == DownReason::ClosedByPeer;
                self.state = if closed { State::Idle } else { State::Connecting };
            }
            return;
        }
        // What is left of a negotiation that failed goes down after it: the retry is planned already, or under way.
        let retried = self.due.is_some() || self.attempt.is_some();
        if matches!(reason, DownReason::ClosedByUs | DownReason::NoChild) && retried {
            return;
        }
        let lost = reason == DownReason::PeerDead;
        let (again, trap) = match (self.start, self.dpd_action) {
            (_, DpdAction::Restart) if lost => (Some(now), false),
            (_, DpdAction::Hold) if lost => (None, true),
            (Start::Immediate, DpdAction::Clear) if lost => (None, false),
            (Start::Immediate, _) if reason == DownReason::Expired => (Some(now), false),
            (Start::Immediate, _) => (Some(now + AGAIN), false),
            (Start::OnDemand | Start::Respond, _) => (None, true),
        };
        self.state = if lost || again.is_some() { State::Connecting } else { State::Idle };
        (self.due, self.trap) = (again, trap);
    }

    /// What was negotiated, by whichever side, is of no use here; the caller closes it.
    pub fn not_installed(&mut self, now: Instant) {
        let began = self.attempt.unwrap_or(now);
        self.attempt = self.children.is_empty().then_some(began);
        self.failed(now, Phase::Two, true);
    }

    /// A negotiation failed in this phase; `ours` is one that we began.
    pub fn failed(&mut self, now: Instant, phase: Phase, ours: bool) {
        if !self.children.is_empty() || self.state == State::Disabled {
            return;
        }
        let failed = match phase {
            Phase::One => State::Phase1Failed,
            Phase::Two => State::Phase2Failed,
        };
        if self.start == Start::Respond {
            (self.state, self.attempt) = (failed, None);
            return;
        }
        // Both ends may be trying: the failure of the peer's attempt is none of ours.
        if !ours {
            return;
        }
        let Some(began) = self.attempt.take() else { return };
        let wait = BACK_OFF.get(self.failures).copied();
        self.failures += 1;
        self.state = if wait.is_some() { State::Connecting } else { failed };
        let again = wait.map_or(now.max(began + STEADY), |wait| now + wait);
        (self.due, self.trap) = (Some(again), false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn machine(start: Start, action: DpdAction) -> (Machine, Instant) {
        let now = Instant::now();
        let mut m = Machine::new(true, start, action);
        m.begin(now);
        (m, now)
    }

    #[test]
    fn three_retries_then_every_twelve_seconds_for_ever() {
        let (mut m, mut now) = machine(Start::Immediate, DpdAction::Restart);
        let mut seen = Vec::new();
        for _ in 0..40 {
            assert!(m.handle_timeout(now));
            assert!(!m.handle_timeout(now));
            m.failed(now, Phase::One, true);
            let next = m.due().unwrap();
            seen.push(((next - now).as_secs(), m.state()));
            now = next;
        }
        let connecting = State::Connecting;
        assert_eq!(seen[..3], [(1, connecting), (2, connecting), (4, connecting)]);
        assert!(seen[3..].iter().all(|s| *s == (12, State::Phase1Failed)));
        assert!(m.handle_timeout(now));
        m.failed(now, Phase::Two, false);
        assert_eq!((m.state(), m.due()), (State::Phase1Failed, None), "the peer's attempt is not ours");
        m.failed(now, Phase::Two, true);
        assert_eq!(m.state(), State::Phase2Failed);
        m.child_up(1);
        assert_eq!((m.state(), m.due()), (State::Connected, None));
        m.child_down(1);
        m.ike_down(now, DownReason::ClosedByPeer);
        assert_eq!((m.state(), m.due()), (State::Connecting, Some(now + SECOND)));
    }

    #[test]
    fn further_attempts_are_twelve_seconds_from_beginning_to_beginning() {
        let (mut m, mut now) = machine(Start::Immediate, DpdAction::Restart);
        for _ in 0..3 {
            m.handle_timeout(now);
            m.failed(now, Phase::One, true);
            now = m.due().unwrap();
        }
        for (takes, wait) in [(0, 12_000), (5_000, 7_000), (11_999, 1), (12_000, 0), (15_500, 0)] {
            assert!(m.handle_timeout(now));
            let failed = now + Duration::from_millis(takes);
            m.failed(failed, Phase::One, true);
            assert_eq!(
                (m.state(), m.due()),
                (State::Phase1Failed, Some(failed + Duration::from_millis(wait)))
            );
            now = m.due().unwrap();
        }
        // The back-off is a rest after an attempt, however long that took.
        let (mut m, now) = machine(Start::Immediate, DpdAction::Restart);
        m.handle_timeout(now);
        let failed = now + Duration::from_millis(15_500);
        m.failed(failed, Phase::One, true);
        assert_eq!(m.due(), Some(failed + SECOND));
    }

    #[test]
    fn traffic_begins_an_on_demand_tunnel_once() {
        let (mut m, now) = machine(Start::OnDemand, DpdAction::Restart);
        assert_eq!((m.state(), m.due()), (State::Idle, None));
        m.acquire(now);
        assert!(m.handle_timeout(now));
        m.acquire(now);
        assert!(!m.handle_timeout(now));
        m.child_up(1);
        m.acquire(now);
        assert_eq!((m.state(), m.due()), (State::Connected, None));
        m.child_down(1);
        m.acquire(now);
        assert_eq!(m.due(), None, "the IKE SA is on its way out");
        m.ike_down(now, DownReason::Expired);
        assert_eq!((m.state(), m.due()), (State::Idle, None));
        assert!(m.awaits_traffic());
        m.acquire(now);
        assert!(m.handle_timeout(now) && !m.awaits_traffic());
    }

    #[test]
    fn a_responder_never_begins() {
        let (mut m, now) = machine(Start::Respond, DpdAction::Restart);
        m.acquire(now);
        m.failed(now, Phase::Two, false);
        assert_eq!((m.state(), m.due()), (State::Phase2Failed, None));
        assert!(!m.wake(now));
        m.child_up(1);
        m.ike_down(now, DownReason::PeerDead);
        m.acquire(now);
        assert_eq!((m.state(), m.due()), (State::Connecting, None));
        m.not_installed(now);
        assert!(!m.is_attempting());
    }

    #[test]
    fn a_responder_that_was_up_says_whether_it_lost_its_peer() {
        for action in [DpdAction::Restart, DpdAction::Clear, DpdAction::Hold] {
            for (reason, state) in [
                (DownReason::PeerDead, State::Connecting),
                (DownReason::Expired, State::Connecting),
                (DownReason::Broken, State::Connecting),
                (DownReason::ClosedByUs, State::Connecting),
                (DownReason::ClosedByPeer, State::Idle),
            ] {
                // The last Child SA goes with the IKE SA, or before it.
                for first in [false, true] {
                    let (mut m, now) = machine(Start::Respond, action);
                    assert_eq!(m.state(), State::Idle);
                    m.child_up(1);
                    if first {
                        m.child_down(1);
                    }
                    m.ike_down(now, reason);
                    m.acquire(now);
                    assert_eq!((m.state(), m.due(), m.awaits_traffic()), (state, None, false), "{reason}");
                }
            }
        }
        let (mut m, now) = machine(Start::Respond, DpdAction::Restart);
        m.failed(now, Phase::Two, false);
        m.ike_down(now, DownReason::ClosedByPeer);
        assert_eq!(m.state(), State::Phase2Failed, "it was not up");
    }

    #[test]
    fn a_dead_peer_is_met_as_configured() {
        for (start, action, due, trap) in [
            (Start::Immediate, DpdAction::Restart, true, false),
            (Start::Immediate, DpdAction::Clear, false, false),
            (Start::Immediate, DpdAction::Hold, false, true),
            (Start::OnDemand, DpdAction::Restart, true, false),
            (Start::OnDemand, DpdAction::Clear, false, true),
            (Start::OnDemand, DpdAction::Hold, false, true),
        ] {
            let (mut m, now) = machine(start, action);
            m.child_up(1);
            m.ike_down(now, DownReason::PeerDead);
            assert_eq!((m.state(), m.due().is_some()), (State::Connecting, due), "{start:?} {action:?}");
            assert_eq!(m.awaits_traffic(), trap);
            m.acquire(now);
            assert_eq!((m.due().is_some(), m.awaits_traffic()), (due || trap, false));
            assert!(m.wake(now), "by hand it begins whatever the action");
        }
    }

    #[test]
    fn what_fails_beside_a_tunnel_that_is_up_changes_nothing() {
        let (mut m, now) = machine(Start::Immediate, DpdAction::Restart);
        m.child_up(1);
        m.child_up(2);
        m.failed(now, Phase::One, true);
        m.ike_down(now, DownReason::Replaced);
        m.child_down(1);
        assert_eq!(m.state(), State::Connected);
    }

    #[test]
    fn what_cannot_be_installed_is_tried_again_later() {
        let (mut m, now) = machine(Start::Immediate, DpdAction::Restart);
        m.child_up(1);
        m.child_down(1);
        m.not_installed(now);
        m.ike_down(now, DownReason::ClosedByUs);
        assert_eq!((m.state(), m.due()), (State::Connecting, Some(now + SECOND)));
        m.child_up(2);
        m.not_installed(now);
        m.child_down(2);
        m.ike_down(now, DownReason::ClosedByUs);
        assert_eq!((m.state(), m.due()), (State::Connecting, Some(now + AGAIN)));
    }

    #[test]
    fn what_the_peer_began_in_vain_does_not_hide_our_failure() {
        let (mut m, mut now) = machine(Start::Immediate, DpdAction::Restart);
        for _ in 0..4 {
            assert!(m.handle_timeout(now));
            m.failed(now, Phase::Two, true);
            now = m.due().unwrap();
        }
        assert!(m.handle_timeout(now));
        m.ike_down(now, DownReason::NoChild);
        assert_eq!((m.state(), m.due()), (State::Phase2Failed, None), "our attempt is under way");
        m.failed(now, Phase::Two, true);
        assert_eq!(m.due(), Some(now + STEADY));
    }

    #[test]
    fn a_disabled_tunnel_stays_so() {
        let now = Instant::now();
        let mut m = Machine::new(false, Start::Immediate, DpdAction::Restart);
        m.begin(now);
        m.acquire(now);
        m.failed(now, Phase::One, true);
        assert_eq!((m.state(), m.due()), (State::Disabled, None));
    }

    #[test]
    fn by_hand_it_goes_up_at_once_and_stays_down() {
        let (mut m, mut now) = machine(Start::OnDemand, DpdAction::Restart);
        assert!(m.wake(now) && m.handle_timeout(now));
        assert!(!m.wake(now), "one attempt at a time");
        for _ in 0..4 {
            m.failed(now, Phase::One, true);
            now = m.due().unwrap();
            m.handle_timeout(now);
        }
        m.failed(now, Phase::One, true);
        assert_eq!(m.state(), State::Phase1Failed);
        assert!(m.wake(now));
        assert_eq!((m.state(), m.due()), (State::Connecting, Some(now)));
        m.child_up(1);
        assert!(!m.wake(now));
        m.hold();
        m.child_down(1);
        m.ike_down(now, DownReason::ClosedByUs);
        m.acquire(now);
        m.child_up(2);
        assert_eq!((m.state(), m.due()), (State::Disabled, None));
    }
}
