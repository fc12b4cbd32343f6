//! What changes one resource, or deletes some: checked against what else is there, in one transaction.

use super::{
    Change, Follow, GatewayChange, StoreError, Written,
    database::{self, Database, Given, Row, SecretParts},
    generated_psk, groups,
    key::Key,
};
use crate::{
    config::{
        self, Diagnostic, Peer, asks_a_peer, other_key, peer_is_asked, read_gateway, read_peer, read_tunnel,
    },
    resource::{GatewaySpec, Kind, Meta, PeerSpec, Reference, TunnelSpec, Violation},
};
use adit_ike::Psk;
use adit_maps::policy::MAX_POLICIES;
use rusqlite::{OptionalExtension, Transaction};
use serde::Serialize;
use serde_json::Value;
use std::{io, net::IpAddr, path::Path, sync::Arc};
use zeroize::Zeroizing;

/// What only Adit gives a resource. Who sends back what was shown may leave it in.
pub(super) const GENERATED: [&str; 4] = ["id", "created_at", "updated_at", "revision"];
/// How many that need a resource are named.
const NAMED: i64 = 100;
/// A tunnel, but for one by its id, whose peer is at an address: joined in this order (`CROSS JOIN`), from the address on.
pub(super) const PEERS_TUNNEL: &str = "SELECT tunnel.name, tunnel.id \
     FROM resource AS peer INDEXED BY resource_peer_at \
     CROSS JOIN uses ON used = peer.id CROSS JOIN resource AS tunnel ON tunnel.id = user \
     WHERE peer.kind = 'peer' AND json_extract(peer.shown, '$.address') = ?1 \
     AND tunnel.kind = 'tunnel' AND tunnel.id <> ?2 LIMIT 1";
/// A tunnel, but for one by its id, whose health check asks an address.
pub(super) const ASKING: &str = "SELECT name, id FROM resource INDEXED BY resource_asks WHERE kind = 'tunnel' \
     AND json_extract(shown, '$.health_check.destination') = ?1 AND id <> ?2 LIMIT 1";

/// How a resource is to change.
#[derive(Clone)]
pub enum Edit {
    /// To what is given, with defaults for what is not. Secrets that are not given stay.
    Replace(Given),
    /// As RFC 7396 has it: what is given changes, what is null goes back to its default. A tunnel's key that is null is
    /// generated.
    Merge(Given),
}

/// A transaction that writes, and what comes of it.
pub(super) struct Writing<'a> {
    pub(super) transaction: Transaction<'a>,
    pub(super) key: &'a Key,
    path: &'a Path,
    pub(super) now: String,
    pub(super) change: Change,
    pub(super) warnings: Vec<Diagnostic>,
    /// Whether nothing is to be written after all.
    pub(super) dry_run: bool,
    /// Whether connection groups are others than before.
    pub(super) regrouped: bool,
}

/// What a transaction has done.
pub(super) struct Done<T> {
    pub(super) value: T,
    pub(super) change: Arc<Change>,
    pub(super) warnings: Vec<Violation>,
    /// What is to be said where the process's own file does not know of it.
    pub(super) undone: Option<String>,
}

impl<T> Done<T> {
    /// For whoever has asked for it.
    pub(super) fn written<R>(self, resource: R) -> Written<R> {
        let Done { change, mut warnings, undone, .. } = self;
        warnings.extend(undone.map(|words| Violation::new("", words)));
        Written { resource, warnings, change }
    }
}

/// A resource that has been checked.
pub(super) struct Checked {
    pub(super) shown: String,
    pub(super) uses: Vec<String>,
    pub(super) tunnel: Option<config::Tunnel>,
}

impl Database {
    /// Does `work` in a transaction, has `follower` look at what changes, commits, and has it follow. When anything fails
    /// before that, nothing is written; nor is it where the work was only to be tried.
    pub(super) fn write<T>(
        &mut self,
        work: impl FnOnce(&mut Writing<'_>) -> Result<T, StoreError>,
        mut follower: Box<dyn Follow>,
    ) -> Result<Done<T>, StoreError> {
        let path = self.path.clone();
        let failed = |source| StoreError::Database { path: path.clone(), source };
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
        let transaction = transaction.map_err(failed)?;
        let now = database::now(&transaction).map_err(failed)?;
        let (change, warnings) = (Change::default(), Vec::new());
        let mut writing = Writing {
            transaction,
            key: &self.key,
            path: &path,
            now,
            change,
            warnings,
            dry_run: false,
            regrouped: false,
        };
        let value = work(&mut writing)?;
        if writing.regrouped {
            writing.change.groups = Some(writing.groups()?);
        }
        let Writing { transaction, change, warnings, dry_run, .. } = writing;
        let change = Arc::new(change);
        follower.approve(&change)?;
        if !dry_run {
            transaction.commit().map_err(failed)?;
            if let Some(own) = &change.own {
                self.governed_by = own.governs.then(|| own.file.clone());
            }
            follower.follow(&change)?;
        }
        let undone = self.governed_by.as_deref().filter(|_| change.own.is_none()).map(undone_by);
        let warnings = warnings.into_iter().map(Violation::from).collect();
        Ok(Done { value, change, warnings, undone })
    }
}

impl Writing<'_> {
    pub(super) fn failed(&self) -> impl Fn(rusqlite::Error) -> StoreError + Copy + use<'_> {
        |source| StoreError::Database { path: self.path.to_owned(), source }
    }

    fn no_randomness(&self, e: io::Error) -> StoreError {
        self.failed()(rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
    }

    /// Creates a resource; its id.
    pub(super) fn create(&mut self, kind: Kind, mut given: Given) -> Result<String, StoreError> {
        let mut secrets = SecretParts::take(&mut given);
        tidy(&mut given);
        if kind == Kind::Gateway
            && let Some(other) = self.rows(Kind::Gateway)?.first()
        {
            let clashes_with = Some(other.reference());
            let why = "is a second gateway, and an Adit is one";
            return Err(StoreError::Invalid(vec![Violation { clashes_with, ..Violation::new("name", why) }]));
        }
        if kind == Kind::Tunnel && secrets.psk.is_none() && !given.contains_key("psk") {
            secrets.psk = Some(text_of(&self.generated_psk()?));
        }
        let checked = self.check(kind, None, &given, &secrets)?;
        self.put_new(kind, &given, &secrets, &checked)
    }

    /// Writes a new resource that has been checked; its id.
    pub(super) fn put_new(
        &mut self,
        kind: Kind,
        given: &Given,
        secrets: &SecretParts,
        checked: &Checked,
    ) -> Result<String, StoreError> {
        let id = database::new_id(kind).map_err(|e| self.no_randomness(e))?;
        self.regrouped |= kind == Kind::Group;
        self.change.note(None, checked);
        self.insert(kind, &id, given, secrets, checked)?;
        Ok(id)
    }

    /// Takes a tunnel its pairs of subnets, until it is replaced.
    pub(super) fn release_pairs(&self, row: &Row) -> Result<(), StoreError> {
        let deleted = self.transaction.execute("DELETE FROM pair WHERE tunnel = ?1", [&row.meta.id]);
        deleted.map(|_| ()).map_err(self.failed())
    }

    /// Changes a resource, if it is of the revision that somebody has seen; its id.
    pub(super) fn update(
        &mut self,
        kind: Kind,
        name: &str,
        revision: Option<u64>,
        edit: Edit,
    ) -> Result<String, StoreError> {
        let row = self.row(kind, name)?;
        self.is_of(&row, revision)?;
        let mut before = row.secrets(self.key)?;
        let mut given = match edit {
            Edit::Replace(given) => given,
            Edit::Merge(patch) => {
                // Of a key that somebody takes back nothing stays: a tunnel without one is given another.
                let patch = Value::Object(patch);
                if kind == Kind::Tunnel && patch.pointer("/psk").is_some_and(Value::is_null) {
                    before.psk = Some(text_of(&self.generated_psk()?));
                }
                if patch.pointer("/ike/ppk/key").is_some_and(Value::is_null) {
                    before.ppk_key = None;
                }
                let mut merged = Value::Object(row.given.clone());
                merge(&mut merged, patch);
                match merged {
                    Value::Object(given) => given,
                    _ => Given::new(),
                }
            }
        };
        let secrets = SecretParts::take(&mut given);
        tidy(&mut given);
        let secrets = match given.contains_key("psk") {
            true => secrets,
            false => secrets.or(before),
        };
        let secrets = secrets.of(&mut given);
        let checked = self.check(kind, Some(&row), &given, &secrets)?;
        self.replace(&row, &given, &secrets, &checked)?;
        match kind {
            Kind::Gateway | Kind::Peer => self.check_users(&row)?,
            Kind::Tunnel => self.check_groups(&row)?,
            Kind::Alarm => self.rename_template(&row)?,
            Kind::Group => {}
        }
        Ok(row.meta.id)
    }

    /// Deletes a resource, if it is of the revision that somebody has seen and nobody needs it.
    pub(super) fn delete(&mut self, kind: Kind, name: &str, revision: Option<u64>) -> Result<(), StoreError> {
        let row = self.row(kind, name)?;
        self.is_of(&row, revision)?;
        self.delete_row(&row)
    }

    pub(super) fn delete_row(&mut self, row: &Row) -> Result<(), StoreError> {
        let failed = self.failed();
        let by = "SELECT kind, name, id FROM resource JOIN uses ON user = id WHERE used = ?1 ORDER BY place LIMIT ?2";
        let mut by = self.transaction.prepare(by).map_err(failed)?;
        let user = |row: &rusqlite::Row<'_>| {
            let word: String = row.get(0)?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word).unwrap_or(Kind::Tunnel);
            Ok(Reference { kind, name: row.get(1)?, id: Some(row.get(2)?) })
        };
        let by: Result<Vec<_>, _> = by.query_map((&row.meta.id, NAMED), user).and_then(Iterator::collect);
        let by = by.map_err(failed)?;
        if !by.is_empty() {
            return Err(StoreError::InUse { what: row.reference(), by });
        }
        if row.kind == Kind::Group {
            self.check_leaving(row, &[])?;
        }
        self.transaction
            .execute("DELETE FROM resource WHERE id = ?1", [&row.meta.id])
            .map_err(self.failed())?;
        match row.kind {
            Kind::Tunnel => self.change.removed.push(row.meta.name.clone()),
            Kind::Gateway => self.change.gateway = GatewayChange::Gone,
            Kind::Group => self.regrouped = true,
            Kind::Peer | Kind::Alarm => {}
        }
        Ok(())
    }

    pub(super) fn row(&self, kind: Kind, name: &str) -> Result<Row, StoreError> {
        let found = database::find(&self.transaction, kind, name).map_err(self.failed())?;
        found.ok_or_else(|| database::not_found(kind, name))
    }

    pub(super) fn rows(&self, kind: Kind) -> Result<Vec<Row>, StoreError> {
        database::rows(&self.transaction, kind).map_err(self.failed())
    }

    pub(super) fn generated_psk(&self) -> Result<Psk, StoreError> {
        generated_psk().map_err(|e| self.no_randomness(e))
    }

    fn is_of(&self, row: &Row, revision: Option<u64>) -> Result<(), StoreError> {
        match revision {
            Some(seen) if seen != row.meta.revision => {
                Err(StoreError::Changed { what: row.reference(), revision: row.meta.revision })
            }
            _ => Ok(()),
        }
    }

    /// Whether what is given can be, beside everything else.
    pub(super) fn check(
        &mut self,
        kind: Kind,
        row: Option<&Row>,
        given: &Given,
        secrets: &SecretParts,
    ) -> Result<Checked, StoreError> {
        let whole = secrets.within(given);
        let checked = match kind {
            Kind::Gateway => {
                let read = read_gateway(&whole.0).map_err(invalid)?;
                self.warnings.extend(read.warnings);
                let shown = GatewaySpec::from(&read.value);
                let uses = self.template(kind, read.value.alarm_template.as_deref())?;
                self.change.gateway = GatewayChange::Now(Box::new(read.value));
                Checked { uses: uses.into_iter().collect(), ..Checked::new(json(&shown)) }
            }
            Kind::Peer => {
                let read = read_peer(&whole.0).map_err(invalid)?;
                self.warnings.extend(read.warnings);
                let shown = PeerSpec::from(&read.value.1);
                Checked::new(json(&shown))
            }
            Kind::Tunnel => self.check_tunnel(row, given, &whole.0)?,
            Kind::Group => self.check_group(row, &whole.0)?,
            Kind::Alarm => self.check_alarm(row, &whole.0)?,
        };
        let name = given.get("name").and_then(Value::as_str).unwrap_or_default();
        let sql = "SELECT id FROM resource WHERE kind = ?1 AND name = ?2 AND id <> ?3";
        let own = row.map_or("", |row| &row.meta.id);
        let taken: Option<String> = self
            .transaction
            .query_row(sql, (kind.word(), name, own), |row| row.get(0))
            .optional()
            .map_err(self.failed())?;
        match taken {
            Some(id) => Err(StoreError::NameTaken(Reference { kind, name: name.to_owned(), id: Some(id) })),
            None => Ok(checked),
        }
    }

    fn check_tunnel(
        &mut self,
        row: Option<&Row>,
        given: &Given,
        whole: &Given,
    ) -> Result<Checked, StoreError> {
        let Some(gateway) = self.rows(Kind::Gateway)?.into_iter().next() else {
            let why = "has no gateway to be of: create one first";
            return Err(StoreError::Invalid(vec![Violation::new("", why)]));
        };
        let of = read_gateway(&gateway.given).map_err(|problems| unreadable(&gateway, problems))?.value;
        let peer = match given.get("peer").and_then(Value::as_str) {
            Some(name) => self.peer(name)?,
            None => None,
        };
        let peer_id = peer.as_ref().map(|(row, _)| row.meta.id.clone());
        let read = read_tunnel(whole, &of, peer.map(|(row, address)| (row.meta.name, address)));
        let read = read.map_err(invalid)?;
        self.warnings.extend(read.warnings);
        let tunnel = read.value;
        let template = self.template(Kind::Tunnel, tunnel.alarm_template.as_deref())?;
        let uses = [Some(gateway.meta.id), peer_id, template];
        let id = row.map(|row| row.meta.id.as_str());
        let group = match id {
            Some(id) => self.group_of(id)?,
            None => None,
        };
        let mut problems = self.check_pairs(id, &tunnel, group.as_deref())?;
        problems.extend(self.check_beside(id, &tunnel)?);
        if !problems.is_empty() {
            return Err(StoreError::Invalid(problems));
        }
        Ok(Checked {
            shown: json(&TunnelSpec::from(&tunnel)),
            uses: uses.into_iter().flatten().collect(),
            tunnel: Some(tunnel),
        })
    }

    pub(super) fn peer(&self, name: &str) -> Result<Option<(Row, Peer)>, StoreError> {
        let sql_failed = self.failed();
        let Some(row) = database::find(&self.transaction, Kind::Peer, name).map_err(sql_failed)? else {
            return Ok(None);
        };
        // By its name alone: an id may be the name of another.
        if row.meta.name != name {
            return Ok(None);
        }
        let read = read_peer(&row.given).map_err(|problems| unreadable(&row, problems))?;
        Ok(Some((row, read.value.1)))
    }

    /// What must hold between a tunnel and every other, but for their pairs of subnets.
    fn check_beside(&self, id: Option<&str>, tunnel: &config::Tunnel) -> Result<Vec<Violation>, StoreError> {
        let failed = self.failed();
        let own = id.unwrap_or_default();
        let mut problems = Vec::new();
        let slots: i64 = self
            .transaction
            .query_row("SELECT coalesce(sum(slots), 0) FROM resource WHERE id <> ?1", [own], |row| row.get(0))
            .map_err(failed)?;
        let slots = usize::try_from(slots).unwrap_or(usize::MAX).saturating_add(tunnel.groups().len());
        if slots > MAX_POLICIES {
            let why = format!("would be one too many: all tunnels together need {slots} slots of the SPD");
            let allowed = Some(format!("at most {MAX_POLICIES}"));
            problems.push(Violation { allowed, ..Violation::new("", why) });
        }
        problems.extend(self.check_asked(own, tunnel)?);
        if let Some(at) = tunnel.strangers_at() {
            for other in self.strangers_at(at)?.into_iter().filter(|other| other.meta.id != own) {
                let key = other.secrets(self.key)?.psk;
                if key.is_none_or(|key| Psk::new(key.as_str()) != tunnel.psk) {
                    let violation = Violation::new("psk", other_key(&other.meta.name));
                    problems.push(Violation { clashes_with: Some(other.reference()), ..violation });
                    break;
                }
            }
        }
        Ok(problems)
    }

    /// Whether the health check of a tunnel asks where the peer of another is, or the other's asks where its peer is: the route
    /// to it would lead into the tunnel, and IKE with it.
    fn check_asked(&self, own: &str, tunnel: &config::Tunnel) -> Result<Vec<Violation>, StoreError> {
        let found = |sql, address: IpAddr| {
            let other = |row: &rusqlite::Row<'_>| {
                Ok(Reference { kind: Kind::Tunnel, name: row.get(0)?, id: Some(row.get(1)?) })
            };
            let found = self.transaction.prepare(sql);
            found
                .and_then(|mut found| found.query_row((address.to_string(), own), other).optional())
                .map_err(self.failed())
        };
        let mut problems = Vec::new();
        if let Some(check) = tunnel.health_check
            && let Some(other) = found(PEERS_TUNNEL, check.destination)?
        {
            let why = asks_a_peer(check.destination, &other.name);
            let violation = Violation::new("health_check", why);
            problems.push(Violation { clashes_with: Some(other), ..violation });
        }
        if let config::PeerAddress::Ip(ip) = tunnel.peer
            && let Some(other) = found(ASKING, ip)?
        {
            let violation = Violation::new("peer", peer_is_asked(ip, &other.name));
            problems.push(Violation { clashes_with: Some(other), ..violation });
        }
        Ok(problems)
    }

    fn strangers_at(&self, at: IpAddr) -> Result<Vec<Row>, StoreError> {
        let failed = self.failed();
        let ids = "SELECT id FROM resource WHERE strangers_at = ?1";
        let mut ids = self.transaction.prepare(ids).map_err(failed)?;
        let ids: Result<Vec<String>, _> =
            ids.query_map([at.to_string()], |row| row.get(0)).and_then(Iterator::collect);
        ids.map_err(failed)?.iter().map(|id| self.row(Kind::Tunnel, id)).collect()
    }

    /// Reads the tunnels of a gateway or a peer again that has changed: they are shown otherwise, may be others, and may no
    /// longer be possible.
    fn check_users(&mut self, before: &Row) -> Result<(), StoreError> {
        let tunnels = database::users(&self.transaction, Kind::Tunnel, &before.meta.id);
        let tunnels = tunnels.map_err(self.failed())?;
        let after = self.row(before.kind, &before.meta.id)?;
        for row in tunnels {
            let mut given = row.given.clone();
            if before.kind == Kind::Peer {
                given.insert("peer".into(), Value::String(after.meta.name.clone()));
            }
            let secrets = row.secrets(self.key)?;
            let warned = self.warnings.len();
            let checked = self.check(Kind::Tunnel, Some(&row), &given, &secrets);
            // It was warned of when it was given.
            self.warnings.truncate(warned);
            let checked = checked.map_err(|e| match e {
                StoreError::Invalid(problems) => StoreError::Invalid(
                    problems
                        .into_iter()
                        .map(|p| Violation {
                            field: "address".into(),
                            value: None,
                            why: format!("does not go with tunnel {:?}: {p}", row.meta.name),
                            allowed: None,
                            clashes_with: Some(row.reference()),
                        })
                        .collect(),
                ),
                other => other,
            })?;
            match checked.shown != row.shown || given != row.given {
                true => self.replace(&row, &given, &secrets, &checked)?,
                // Where its peer is does not show in it.
                false => self.change.note(Some(&row.meta), &checked),
            }
        }
        Ok(())
    }

    fn insert(
        &mut self,
        kind: Kind,
        id: &str,
        given: &Given,
        secrets: &SecretParts,
        checked: &Checked,
    ) -> Result<(), StoreError> {
        let secret = secrets.seal(self.key, id).map_err(|e| self.no_randomness(e))?;
        let sql = "INSERT INTO resource (id, kind, name, created_at, updated_at, revision, given, shown, secret, slots, \
                   strangers_at) VALUES (?1, ?2, ?3, ?4, ?4, 1, ?5, ?6, ?7, ?8, ?9)";
        let name = given.get("name").and_then(Value::as_str).unwrap_or_default();
        let values = (
            id,
            kind.word(),
            name,
            &self.now,
            json(given),
            &checked.shown,
            secret,
            checked.slots(),
            checked.strangers(),
        );
        self.transaction.execute(sql, values).map_err(self.failed())?;
        self.relate(id, checked)
    }

    pub(super) fn replace(
        &mut self,
        row: &Row,
        given: &Given,
        secrets: &SecretParts,
        checked: &Checked,
    ) -> Result<(), StoreError> {
        self.change.note(Some(&row.meta), checked);
        self.regrouped |= row.kind == Kind::Group;
        let id = row.meta.id.as_str();
        let secret = secrets.seal(self.key, id).map_err(|e| self.no_randomness(e))?;
        let sql = "UPDATE resource SET name = ?2, updated_at = ?3, revision = revision + 1, given = ?4, shown = ?5, \
                   secret = ?6, slots = ?7, strangers_at = ?8 WHERE id = ?1";
        let name = given.get("name").and_then(Value::as_str).unwrap_or_default();
        let values =
            (id, name, &self.now, json(given), &checked.shown, secret, checked.slots(), checked.strangers());
        let failed = self.failed();
        self.transaction.execute(sql, values).map_err(failed)?;
        self.transaction.execute("DELETE FROM uses WHERE user = ?1", [id]).map_err(failed)?;
        self.release_pairs(row)?;
        self.relate(id, checked)
    }

    pub(super) fn relate(&mut self, id: &str, checked: &Checked) -> Result<(), StoreError> {
        let failed = self.failed();
        for used in &checked.uses {
            self.transaction
                .execute("INSERT INTO uses (user, used) VALUES (?1, ?2)", [id, used])
                .map_err(failed)?;
        }
        let Some(tunnel) = &checked.tunnel else { return Ok(()) };
        let insert = "INSERT INTO pair (local, remote, tunnel) VALUES (?1, ?2, ?3)";
        let mut insert = self.transaction.prepare(insert).map_err(failed)?;
        for (local, remote) in tunnel.pairs() {
            insert.execute((local.to_string(), remote.to_string(), id)).map_err(failed)?;
        }
        for (source, destination) in groups::check_pair(tunnel).into_iter().chain(groups::inside_pair(tunnel))
        {
            insert.execute((source, destination, id)).map_err(failed)?;
        }
        Ok(())
    }
}

impl Checked {
    /// Of what uses nothing.
    pub(super) fn new(shown: String) -> Self {
        Checked { shown, uses: Vec::new(), tunnel: None }
    }

    fn slots(&self) -> i64 {
        self.tunnel.as_ref().map_or(0, |tunnel| tunnel.groups().len() as i64)
    }

    fn strangers(&self) -> Option<String> {
        self.tunnel.as_ref().and_then(config::Tunnel::strangers_at).map(|at| at.to_string())
    }
}

impl Change {
    /// Adds a resource that is new, or another than before.
    pub(super) fn note(&mut self, before: Option<&Meta>, checked: &Checked) {
        if let Some(tunnel) = &checked.tunnel {
            self.tunnels.push((before.map(|meta| meta.name.clone()), tunnel.clone()));
        }
    }
}

fn undone_by(file: &Path) -> String {
    let file = file.display();
    format!("{file} says what there is: this is undone at the next start or reload, unless it says so too")
}

/// A key as it was written: the reader takes none but of ASCII.
pub(super) fn text_of(psk: &Psk) -> Zeroizing<String> {
    Zeroizing::new(String::from_utf8_lossy(psk.reveal()).into_owned())
}

/// Drops what only Adit gives, and what says nothing.
pub(super) fn tidy(given: &mut Given) {
    GENERATED.iter().for_each(|name| drop(given.remove(*name)));
    given.retain(|_, value| !value.is_null());
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Given::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.remove(&name)),
            value => merge(target.entry(name).or_insert(Value::Null), value),
        }
    }
}

pub(super) fn invalid(problems: Vec<Diagnostic>) -> StoreError {
    StoreError::Invalid(problems.into_iter().map(Violation::from).collect())
}

pub(super) fn unreadable(row: &Row, problems: Vec<Diagnostic>) -> StoreError {
    row.unreadable(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// As JSON. Nothing that is written here has a map whose keys are no texts, which alone could fail.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
