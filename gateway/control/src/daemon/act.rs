//! What people do to a tunnel by hand.

use super::run::Daemon;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// What is to be done to a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is to be up: it negotiates at once, where that is ours to begin.
    Up,
    /// It is to be down, and the peer is not answered, until it is to be up.
    Down,
    /// Its SAs are to be renewed while traffic goes on.
    Rekey(Rekey),
}

/// Which SAs are to be renewed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rekey {
    /// The IKE SA.
    Ike,
    /// Every pair of Child SAs.
    Child,
    /// Both.
    #[default]
    All,
}

/// Why something is not done to a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// There is none of that name.
    #[error("there is no tunnel {0:?}")]
    Unknown(String),
    /// Its state does not allow it.
    #[error("tunnel {0:?} {1}")]
    Refused(String, String),
}

impl Daemon {
    /// Does what somebody wants done, and answers what comes of it.
    pub(super) fn act(&mut self, now: Instant, name: &str, action: Action) -> Result<String, ActionError> {
        let id = self.tunnels.named(name).ok_or_else(|| ActionError::Unknown(name.to_owned()))?;
        let refused = |why: &str| ActionError::Refused(name.to_owned(), why.to_owned());
        let data_plane = self.data_plane.is_some();
        let Some(done) = self.tunnels.with(id, |t| match action {
            Action::Up => t.up(now, data_plane).map(|(answer, again)| (answer.to_owned(), again)),
            Action::Down => t.down().map(|()| ("is down, until `adit tunnel up`".to_owned(), false)),
            Action::Rekey(_) if !t.has_ike() => Err("is not up: there is nothing to renew"),
            Action::Rekey(what) => {
                let what = match what {
                    Rekey::Ike => "the IKE SA",
                    Rekey::Child => "its Child SAs",
                    Rekey::All => "the IKE SA and its Child SAs",
                };
                t.say(&format!("renews {what}, by hand"));
                Ok((format!("renews {what}"), false))
            }
        }) else {
            return Err(ActionError::Unknown(name.to_owned()));
        };
        let (answer, again) = done.map_err(refused)?;
        if again && let Some(tunnel) = self.tunnels.get(id) {
            self.endpoint.set_tunnel(now, tunnel.ike_config());
        }
        self.keep(id);
        match action {
            Action::Up => {}
            Action::Down => self.endpoint.remove_tunnel(now, id),
            Action::Rekey(what) => {
                if what != Rekey::Ike {
                    let spis = self.tunnels.get(id).map(|t| t.child_spis()).unwrap_or_default();
                    spis.into_iter().for_each(|spi| self.endpoint.rekey_child(now, id, spi));
                }
                if what != Rekey::Child {
                    self.endpoint.rekey_ike(now, id);
                }
            }
        }
        Ok(format!("tunnel {name:?} {answer}"))
    }
}
