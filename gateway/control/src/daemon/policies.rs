//! Policies on their way into the maps. A thread compiles and writes them while IKE goes on; who waits for them is told
//! when they are there.

use super::{
    ControlError, Reloaded,
    data_plane::SharedSpd,
    reload::ReloadError,
    run::{AGAIN, Daemon},
};
use adit_ike::TunnelId;
use std::time::Instant;
use tokio::{sync::oneshot, task::JoinHandle};

/// A change that is followed but for its policies.
pub(super) struct Following {
    /// What it did.
    pub(super) done: Reloaded,
    /// New tunnels, which begin when they are protected.
    pub(super) begin: Vec<TunnelId>,
    /// Whether its sockets could be had.
    pub(super) listens: Result<(), ControlError>,
    /// Who asked for it.
    pub(super) answer: oneshot::Sender<Result<Reloaded, ReloadError>>,
}

/// Policies that a thread writes.
pub(super) struct Writing {
    thread: JoinHandle<Result<(), ControlError>>,
    /// Changes that they are of.
    following: Vec<Following>,
    /// Removed tunnels that they are without.
    gone: Vec<TunnelId>,
    /// Slots that they do not name.
    stale: Vec<u32>,
    /// Runs of slots that they do not name.
    runs: Vec<u32>,
}

impl Daemon {
    /// Has the policies of every tunnel written as they are now, and then tells who waits. Where a thread is at it, another
    /// follows it.
    pub(super) fn protect(&mut self, following: Option<Following>) {
        self.waiting.extend(following);
        self.unwritten = true;
        self.write_next();
    }

    /// Writes policies that wait, unless others are being written, or tunnels of a change are neither what they were nor what
    /// they will be: then they wait for that.
    fn write_next(&mut self) {
        if self.unwritten && self.writing.is_none() && self.underway.is_none() {
            self.write_policies();
        }
    }

    /// New tunnels of changes that wait for policies have begun already.
    pub(super) fn all_followed_have_begun(&mut self) {
        let written = self.writing.iter_mut().flat_map(|writing| &mut writing.following);
        self.waiting.iter_mut().chain(written).for_each(|following| following.begin.clear());
    }

    fn write_policies(&mut self) {
        self.unwritten = false;
        let policies = self.policies();
        let spd = self.data_plane.as_ref().map(|data_plane| data_plane.spd());
        let protect = move |spd: SharedSpd| spd.protect(&policies);
        self.writing = Some(Writing {
            thread: tokio::task::spawn_blocking(move || spd.map_or(Ok(()), protect)),
            following: std::mem::take(&mut self.waiting),
            gone: std::mem::take(&mut self.gone),
            stale: std::mem::take(&mut self.stale),
            runs: self.groups.take_resting(),
        });
    }

    /// Does what policies that are written, or are refused, let be done.
    pub(super) fn written(&mut self, now: Instant, result: Result<(), ControlError>) {
        let Some(writing) = self.writing.take() else { return };
        if result.is_ok() {
            writing.stale.into_iter().for_each(|slot| self.slots.give_back(slot));
            self.free_runs(writing.runs);
            for id in writing.gone {
                self.totals.remove(&id);
                if let Some(data_plane) = &mut self.data_plane {
                    data_plane.sadb.forget(id);
                }
            }
        } else {
            self.stale.extend(writing.stale);
            self.underway.iter_mut().for_each(|underway| underway.rest(&writing.runs));
            self.groups.rest(writing.runs);
            self.gone.extend(writing.gone);
        }
        if let Err(e) = &result {
            tracing::error!("policies do not reach the maps, what only they protect is not sent: {e}");
            self.policies_due = Some(now + AGAIN);
        }
        let refused = result.err().map(|e| e.to_string());
        for following in writing.following {
            for id in &following.begin {
                self.creating.remove(id);
            }
            self.beginning.extend(following.begin);
            let refused = following.listens.err().map(|e| e.to_string()).or_else(|| refused.clone());
            let answer = refused.map_or(Ok(following.done), |why| Err(ReloadError::Applied(why)));
            // Who asked may have gone away.
            let _ = following.answer.send(answer);
        }
        self.write_next();
    }
}

/// What a thread that writes policies has come to; never where there is none.
pub(super) async fn next_written(writing: &mut Option<Writing>) -> Result<(), ControlError> {
    match writing {
        Some(writing) => (&mut writing.thread).await.unwrap_or_else(|e| Err(super::panicked(e))),
        None => std::future::pending().await,
    }
}
