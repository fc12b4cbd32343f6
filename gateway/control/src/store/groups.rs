//! What changes connection groups, or is bound by them.

use super::{
    StoreError,
    database::{self, Given, Row},
    write::{Checked, Writing, invalid, json, unreadable},
};
use crate::{
    config::{
        self, in_another, misfits, read_gateway, read_group, read_tunnel, same_check, same_inside, same_pair,
    },
    resource::{GroupSpec, Kind, Reference, Violation},
};
use rusqlite::OptionalExtension;
use serde_json::Value;
use std::collections::HashMap;

impl Writing<'_> {
    /// Every group, in their order.
    pub(super) fn groups(&self) -> Result<Vec<config::Group>, StoreError> {
        let groups = self.rows(Kind::Group)?.into_iter().map(|row| read(&row));
        groups.collect()
    }

    /// Whether a group can be, of the tunnels that there are.
    pub(super) fn check_group(&mut self, row: Option<&Row>, whole: &Given) -> Result<Checked, StoreError> {
        let read = read_group(whole).map_err(invalid)?;
        self.warnings.extend(read.warnings);
        let group = read.value;
        let mut ids = Vec::new();
        let mut tunnels = HashMap::new();
        let mut problems = Vec::new();
        for member in &group.members {
            let found = database::find(&self.transaction, Kind::Tunnel, member).map_err(self.failed())?;
            // By its name alone: an id may be the name of another.
            let Some(tunnel) = found.filter(|found| found.meta.name == *member) else { continue };
            let own = row.map(|row| row.meta.id.as_str());
            if let Some(other) = self.group_of(&tunnel.meta.id)?.filter(|other| Some(other.as_str()) != own) {
                let other = self.row(Kind::Group, &other)?;
                let violation = Violation::new("members", in_another(member, &other.meta.name));
                problems.push(Violation { clashes_with: Some(other.reference()), ..violation });
            }
            tunnels.insert(member.clone(), self.tunnel(&tunnel)?);
            ids.push(tunnel.meta.id);
        }
        for misfit in misfits(&group, |name| tunnels.get(name)) {
            let clashes_with =
                misfit.clashes_with.map(|name| Reference { kind: Kind::Tunnel, name, id: None });
            problems.push(Violation { clashes_with, ..Violation::new("members", misfit.why) });
        }
        if !problems.is_empty() {
            return Err(StoreError::Invalid(problems));
        }
        if let Some(row) = row {
            self.check_leaving(row, &ids)?;
        }
        Ok(Checked { uses: ids, ..Checked::new(json(&GroupSpec::from(&group))) })
    }

    /// Whether the tunnels of a group that are not to `stay` in it can be without it.
    pub(super) fn check_leaving(&self, group: &Row, stay: &[String]) -> Result<(), StoreError> {
        for id in self.members(group)? {
            if stay.contains(&id) {
                continue;
            }
            let row = self.row(Kind::Tunnel, &id)?;
            if let Some(problem) = self.check_pairs(Some(&row.meta.id), &self.tunnel(&row)?, None)?.pop() {
                let member = &row.meta.name;
                let why = format!(
                    "tunnel {member:?} cannot be without the group: {}; disable it first",
                    problem.why
                );
                let violation = Violation { why, ..Violation::new("members", "") };
                let clashes_with = problem.clashes_with;
                return Err(StoreError::Invalid(vec![Violation { clashes_with, ..violation }]));
            }
        }
        Ok(())
    }

    /// The ids of a group's tunnels.
    fn members(&self, group: &Row) -> Result<Vec<String>, StoreError> {
        let failed = self.failed();
        let mut used = self.transaction.prepare("SELECT used FROM uses WHERE user = ?1").map_err(failed)?;
        let ids = used.query_map([&group.meta.id], |row| row.get(0)).and_then(Iterator::collect);
        ids.map_err(failed)
    }

    /// Looks at the group of a tunnel that has changed: it has its name, and its subnets are the others'.
    pub(super) fn check_groups(&mut self, before: &Row) -> Result<(), StoreError> {
        let after = self.row(Kind::Tunnel, &before.meta.id)?;
        let groups = database::users(&self.transaction, Kind::Group, &before.meta.id);
        for row in groups.map_err(self.failed())? {
            let mut given = row.given.clone();
            if let Some(Value::Array(members)) = given.get_mut("members") {
                for member in members.iter_mut().filter(|m| m.as_str() == Some(&before.meta.name)) {
                    *member = Value::String(after.meta.name.clone());
                }
            } else if given.get("members").and_then(Value::as_str) == Some(&before.meta.name) {
                given.insert("members".into(), Value::String(after.meta.name.clone()));
            }
            let no_secrets = database::SecretParts::default();
            let checked = self.check(Kind::Group, Some(&row), &given, &no_secrets).map_err(|e| match e {
                StoreError::Invalid(problems) => StoreError::Invalid(
                    problems
                        .into_iter()
                        .map(|p| Violation {
                            field: "local_subnets".into(),
                            why: format!("does not go with {}: {}", row.reference(), p.why),
                            clashes_with: Some(row.reference()),
                            ..p
                        })
                        .collect(),
                ),
                other => other,
            })?;
            if given != row.given {
                self.replace(&row, &given, &no_secrets, &checked)?;
            }
        }
        Ok(())
    }

    /// The id of the group that a tunnel is in.
    pub(super) fn group_of(&self, tunnel: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT user FROM uses JOIN resource ON id = user WHERE used = ?1 AND kind = 'group'";
        self.transaction.query_row(sql, [tunnel], |row| row.get(0)).optional().map_err(self.failed())
    }

    /// What is wrong with the pairs of subnets of a tunnel in `group`, or with its health check, beside those of every
    /// other tunnel. One that is disabled may have those of another: that one's are looked up first.
    pub(super) fn check_pairs(
        &self,
        id: Option<&str>,
        tunnel: &config::Tunnel,
        group: Option<&str>,
    ) -> Result<Vec<Violation>, StoreError> {
        if !tunnel.enabled {
            return Ok(Vec::new());
        }
        let field = if tunnel.routes.is_some() { "routes" } else { "local_subnets" };
        for (local, remote) in tunnel.pairs() {
            for other in self.owners(&local.to_string(), &remote.to_string(), id)? {
                let theirs = self.group_of(other.id.as_deref().unwrap_or_default())?;
                let by_bgp = tunnel.bgp.is_some() && self.has_bgp(other.id.as_deref().unwrap_or_default())?;
                if by_bgp || group.is_some() && theirs.as_deref() == group {
                    continue;
                }
                let violation = Violation::new(field, same_pair((local, remote), &other.name));
                return Ok(vec![Violation { clashes_with: Some(other), ..violation }]);
            }
        }
        if let (Some(check), Some((source, destination))) = (tunnel.health_check, check_pair(tunnel))
            && let Some(other) = self.owners(&source, &destination, id)?.into_iter().next()
        {
            let why = same_check((check.source, check.destination), &other.name);
            return Ok(vec![Violation { clashes_with: Some(other), ..Violation::new("health_check", why) }]);
        }
        if let (Some(bgp), Some((source, destination))) = (&tunnel.bgp, inside_pair(tunnel))
            && let Some(other) = self.owners(&source, &destination, id)?.into_iter().next()
        {
            let why = same_inside(bgp.inside_cidr, &other.name);
            let clashes_with = Some(other);
            return Ok(vec![Violation { clashes_with, ..Violation::new("bgp.inside_cidr", why) }]);
        }
        Ok(Vec::new())
    }

    /// Whether BGP says what is sent through a tunnel.
    fn has_bgp(&self, id: &str) -> Result<bool, StoreError> {
        let sql = "SELECT json_extract(shown, '$.bgp') IS NOT NULL FROM resource WHERE id = ?1";
        self.transaction.query_row(sql, [id], |row| row.get(0)).map_err(self.failed())
    }

    /// The other tunnels that are enabled and have a pair.
    fn owners(&self, local: &str, remote: &str, but: Option<&str>) -> Result<Vec<Reference>, StoreError> {
        let sql = "SELECT name, id FROM pair JOIN resource ON id = tunnel \
                   WHERE local = ?1 AND remote = ?2 AND id <> ?3 AND json_extract(shown, '$.enabled')";
        let failed = self.failed();
        let mut owners = self.transaction.prepare(sql).map_err(failed)?;
        let owner = |row: &rusqlite::Row<'_>| {
            Ok(Reference { kind: Kind::Tunnel, name: row.get(0)?, id: Some(row.get(1)?) })
        };
        let found = owners.query_map((local, remote, but.unwrap_or_default()), owner);
        found.and_then(Iterator::collect).map_err(failed)
    }

    /// A tunnel as it is stored.
    fn tunnel(&self, row: &Row) -> Result<config::Tunnel, StoreError> {
        let gateway = self.rows(Kind::Gateway)?.into_iter().next();
        let Some(gateway) = gateway else { return Err(row.unreadable("there is no gateway")) };
        let of = read_gateway(&gateway.given).map_err(|problems| unreadable(&gateway, problems))?.value;
        let peer = match row.given.get("peer").and_then(Value::as_str) {
            Some(name) => self.peer(name)?,
            None => None,
        };
        let whole = row.secrets(self.key)?.within(&row.given);
        let read = read_tunnel(&whole.0, &of, peer.map(|(row, address)| (row.meta.name, address)));
        Ok(read.map_err(|problems| unreadable(row, problems))?.value)
    }
}

/// A group as it is stored.
pub(super) fn read(row: &Row) -> Result<config::Group, StoreError> {
    Ok(read_group(&row.given).map_err(|problems| unreadable(row, problems))?.value)
}

/// What stands for a health check among the pairs of subnets.
pub(super) fn check_pair(tunnel: &config::Tunnel) -> Option<(String, String)> {
    tunnel.health_check.map(|check| (format!("check {}", check.source), check.destination.to_string()))
}

/// What stands for the inside network of BGP among the pairs of subnets.
pub(super) fn inside_pair(tunnel: &config::Tunnel) -> Option<(String, String)> {
    tunnel.bgp.as_ref().map(|bgp| ("inside".to_owned(), bgp.inside_cidr.to_string()))
}
