//! One table of all deadlines, ordered by time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// What a deadline is for. Each IKE SA has at most one of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKind {
    /// A request is to be sent again, or given up.
    Retransmit,
    /// Fragments of a message have waited long enough for the others.
    Reassembly,
    /// A responder has waited long enough for IKE_AUTH.
    HalfOpen,
    /// The peer's silence is to be looked at.
    Liveness,
    /// A NAT mapping is to be kept alive.
    Keepalive,
    /// An IKE SA is to be renewed before it expires.
    SoftLifetime,
    /// An IKE SA expires.
    HardLifetime,
    /// Something is to be done about a pair of Child SAs: it is to be rekeyed, switched to, removed.
    Children,
    /// An IKE SA without use is to be closed: another took its place, or it never got a Child SA.
    Superseded,
    /// An answer that was held back is to be sent.
    Answer,
    /// A closed IKE SA is to be forgotten.
    Linger,
}

/// Deadlines by IKE SA and kind.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Instant, u64, TimerKind)>,
    set: BTreeMap<(u64, TimerKind), Instant>,
}

impl Timers {
    /// Sets a deadline, in place of an earlier one of the same kind.
    pub(crate) fn set(&mut self, sa: u64, kind: TimerKind, at: Instant) {
        if let Some(earlier) = self.set.insert((sa, kind), at) {
            self.due.remove(&(earlier, sa, kind));
        }
        self.due.insert((at, sa, kind));
    }

    pub(crate) fn stop(&mut self, sa: u64, kind: TimerKind) {
        if let Some(at) = self.set.remove(&(sa, kind)) {
            self.due.remove(&(at, sa, kind));
        }
    }

    /// Has every deadline of a kind that is later be at `latest`.
    pub(crate) fn bring_forward(&mut self, kind: TimerKind, latest: Instant) {
        let late =
            |((sa, of), at): (&(u64, TimerKind), &Instant)| (*of == kind && *at > latest).then_some(*sa);
        let late: Vec<u64> = self.set.iter().filter_map(late).collect();
        late.into_iter().for_each(|sa| self.set(sa, kind, latest));
    }

    pub(crate) fn get(&self, sa: u64, kind: TimerKind) -> Option<Instant> {
        self.set.get(&(sa, kind)).copied()
    }

    /// Everything of one IKE SA.
    pub(crate) fn of(&self, sa: u64) -> Vec<(TimerKind, Instant)> {
        let all = self.set.range((sa, TimerKind::Retransmit)..=(sa, TimerKind::Linger));
        all.map(|((_, kind), at)| (*kind, *at)).collect()
    }

    /// Stops everything of one IKE SA.
    pub(crate) fn stop_all(&mut self, sa: u64) {
        self.of(sa).into_iter().for_each(|(kind, _)| self.stop(sa, kind));
    }

    /// Stops everything of one IKE SA but these.
    pub(crate) fn stop_all_but(&mut self, sa: u64, kept: &[TimerKind]) {
        let kept =
            kept.iter().filter_map(|kind| Some((*kind, *self.set.get(&(sa, *kind))?))).collect::<Vec<_>>();
        self.stop_all(sa);
        kept.into_iter().for_each(|(kind, at)| self.set(sa, kind, at));
    }

    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }

    /// The next deadline.
    pub(crate) fn next(&self) -> Option<(Instant, TimerKind)> {
        self.due.first().map(|(at, _, kind)| (*at, *kind))
    }

    /// Takes out the first deadline that `now` has reached.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(u64, TimerKind)> {
        let &(at, sa, kind) = self.due.first()?;
        if at > now {
            return None;
        }
        self.stop(sa, kind);
        Some((sa, kind))
    }
}
