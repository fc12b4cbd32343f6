//! The session of BGP through a tunnel, as BIRD tells of it, and what it teaches.

use super::{Tunnel, log};
use crate::{
    bird,
    config::{self, Subnet},
    status::BgpStatus,
};
use std::collections::BTreeSet;

/// Prefixes that are named in the log at most.
const NAMED: usize = 8;

/// What is known of a session.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    known: Option<Result<bird::Session, String>>,
}

impl Session {
    /// One of which nothing is known yet.
    pub(super) fn of(bgp: Option<&config::Bgp>) -> Option<Box<Session>> {
        bgp.map(|_| Box::default())
    }

    fn is_up(&self) -> bool {
        matches!(&self.known, Some(Ok(session)) if session.is_up())
    }
}

fn no_room(beyond: usize) -> String {
    format!(
        "{beyond} prefixes that the peer teaches are not taken and stay discarded: there is no room for more"
    )
}

impl Tunnel {
    /// BIRD tells of its session, or why it does not.
    pub fn session_is(&mut self, known: Result<bird::Session, String>) {
        let Some(session) = &mut self.session else { return };
        let known = known.map_err(|why| log::line(&why));
        let was_up = session.is_up();
        let before = session.known.replace(known.clone());
        match (known, before) {
            (Ok(now), _) if now.is_up() && !was_up => self.note("BGP: the session is established"),
            (Ok(now), _) if !now.is_up() && was_up => {
                let why = now.last_error.map_or(String::new(), |why| format!(": {why}"));
                self.note(format!("BGP: the session is no longer established{why}"));
            }
            (Err(why), Some(Err(before))) if why == before => {}
            (Err(why), _) => self.note(format!("BGP: {why}")),
            _ => {}
        }
    }

    /// The peer teaches these prefixes, of which there is room for so many. Whether what is sent through the tunnel is
    /// otherwise than before.
    pub fn learn(&mut self, prefixes: &BTreeSet<Subnet>, room: usize) -> bool {
        let before: BTreeSet<Subnet> = self.groups.learned().copied().collect();
        let was_beyond = self.groups.beyond();
        let differs = self.groups.learn(prefixes, room);
        match self.groups.beyond() {
            0 => {}
            beyond if beyond == was_beyond => {}
            beyond => self.note(format!("BGP: {}", no_room(beyond))),
        }
        if !differs {
            return false;
        }
        let after: BTreeSet<Subnet> = self.groups.learned().copied().collect();
        for (verb, some) in [
            ("learned", after.difference(&before).collect::<Vec<_>>()),
            ("withdrawn", before.difference(&after).collect()),
        ] {
            if some.is_empty() {
                continue;
            }
            let mut names: Vec<String> = some.iter().take(NAMED).map(ToString::to_string).collect();
            if some.len() > NAMED {
                names.push(format!("and {} more", some.len() - NAMED));
            }
            self.note(format!("BGP: {verb}: {}", names.join(", ")));
        }
        true
    }

    /// What people see of it.
    pub(super) fn bgp_status(&self) -> Option<BgpStatus> {
        let bgp = self.config.bgp.as_deref()?;
        let known = self.session.as_ref().and_then(|session| session.known.as_ref());
        let told = known.and_then(|known| known.as_ref().ok());
        Some(BgpStatus {
            local_ip: bgp.local_ip.into(),
            local_asn: bgp.local_asn,
            peer_ip: bgp.peer_ip().into(),
            peer_asn: bgp.peer_asn,
            state: told.map_or_else(|| "unknown".to_owned(), |session| session.state.clone()),
            up: told.is_some_and(bird::Session::is_up),
            received: told.map_or(0, |session| session.received),
            announced: told.map_or(0, |session| session.announced),
            routes: self.groups.learned().map(ToString::to_string).collect(),
            problem: known.and_then(|known| match known {
                Ok(session) if session.is_up() => {
                    Some(self.groups.beyond()).filter(|beyond| *beyond > 0).map(no_room)
                }
                Ok(session) => session.last_error.clone(),
                Err(why) => Some(why.clone()),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        spd::{self, Tables},
        tunnel::{Groups, Slots, policies},
    };
    use adit_ike::TunnelId;
    use adit_maps::policy::action;

    fn tunnels(count: u8) -> Vec<Tunnel> {
        let top = "[gateway]\nname = \"g\"\naddress = \"192.0.2.1\"\nwan = \"w\"\nlan = [\"l\"]\n\
                   [[peer]]\nname = \"b\"\naddress = \"198.51.100.1\"\nasn = 64512\n";
        let tunnel = |i: u8| {
            format!(
                "[[tunnel]]\nname = \"t{i}\"\npeer = \"b\"\npsk = \"0123456789abcdef\"\nrouting_mode = \"route\"\n\
                 routes = [\"10.0.0.0/8\"]\nike.peer_id = \"r{i}\"\n[tunnel.bgp]\nlocal_asn = 65000\n\
                 inside_cidr = \"169.254.9.{}/30\"\nlocal_ip = \"169.254.9.{}\"\n",
                4 * i,
                4 * i + 1
            )
        };
        let text = (0..count).fold(top.to_owned(), |text, i| text + &tunnel(i));
        let config = config::Config::parse(std::path::Path::new("t"), &text).unwrap();
        let mut slots = Slots::default();
        let tunnel = |(id, config): (u32, config::Tunnel)| {
            let groups = Groups::new(TunnelId(id), &config, &mut slots).unwrap();
            Tunnel::new(TunnelId(id), config, groups)
        };
        (0..).zip(config.tunnels).map(tunnel).collect()
    }

    #[test]
    fn what_there_is_no_room_for_is_not_taken_and_said() {
        let mut tunnels = tunnels(1);
        let tunnel = &mut tunnels[0];
        tunnel.session_is(Ok(bird::Session { state: "established".into(), ..Default::default() }));
        let taught: BTreeSet<Subnet> = (0..5)
            .map(|i| format!("10.{i}.0.0/16"))
            .chain(["11.0.0.0/8".into()])
            .map(|p| p.parse().unwrap())
            .collect();
        assert!(tunnel.learn(&taught, 3));
        let status = tunnel.bgp_status().unwrap();
        assert_eq!(status.routes, ["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16"]);
        assert!(status.problem.unwrap().starts_with("2 prefixes"), "what is outside of the bounds is none");
        assert!(tunnel.learn(&taught, 5));
        assert_eq!(tunnel.bgp_status().unwrap().problem, None);
    }

    #[test]
    fn sessions_share_a_source_and_what_is_learned_can_be_left_out() {
        let mut tunnels = tunnels(20);
        let before = tunnels.iter().map(|t| (t.id(), t.groups().clone())).collect::<Vec<_>>();
        for (i, tunnel) in tunnels.iter_mut().enumerate() {
            let taught = (0..50).map(|j| format!("10.{i}.{j}.0/24").parse().unwrap()).collect();
            assert!(tunnel.learn(&taught, usize::MAX));
        }
        let all = || tunnels.iter().map(|t| (t.id(), t.groups()));
        let learned = policies(all(), &Default::default(), true);
        let (tables, _) = spd::plan(&learned, &Tables::default()).unwrap();
        assert_eq!(tables.sources.len(), 2, "everything, and the sessions' ends");
        assert!(tables.rules.len() <= 2 * (20 * 50 + 20 + 1), "{}", tables.rules.len());
        let configured = policies(all(), &Default::default(), false);
        assert_eq!(configured, policies(before.iter().map(|(id, g)| (*id, g)), &Default::default(), true));
        assert!(configured.iter().any(|policy| policy.action == action::DISCARD));
    }
}
