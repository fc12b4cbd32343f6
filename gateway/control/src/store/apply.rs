//! A document and the store, one as the other: what differs is said first, and written in one transaction.

use super::{
    Change, Follow, Given, Store, StoreError,
    database::{Database, Row, SecretParts, rows},
    groups, run,
    write::{Checked, Done, GENERATED, Writing, json, text_of, tidy, unreadable},
};
use crate::{
    config::{
        self, Config, ConfigError, Keys, Objects, read_document, read_gateway, read_peer, read_tunnel, tree,
    },
    resource::{AlarmSpec, GatewaySpec, GroupSpec, Kind, PeerSpec, TunnelSpec},
    store::{GatewayChange, Own},
};
use adit_ike::Psk;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    path::PathBuf,
    sync::Arc,
};
use toml_edit::{ArrayOfTables, DocumentMut, Item};
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// What is to be applied.
#[derive(Clone)]
pub struct Document {
    /// The text, as `docs/configuration.md` describes it.
    pub text: Zeroizing<String>,
    /// What messages call it.
    pub name: PathBuf,
    /// Whether peers, tunnels, groups and alarm templates that are not in it are deleted, if it names any resource.
    pub prune: bool,
    /// Whether it is only said what would be done.
    pub dry_run: bool,
    /// The digest of the plan that somebody has agreed to: it is refused where the store has moved on since.
    pub digest: Option<String>,
    /// Whether it is the process's own file, whose `[api]` counts.
    pub is_own: bool,
}

/// What the process's own file has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// What it says beside its resources.
    pub own: Own,
    /// What it has done to what is stored.
    pub plan: Plan,
}

impl Adopted {
    /// For the log, without a value of any field; of a file that somebody has had applied `again`, with his name.
    pub fn words(&self, again: Option<&str>) -> String {
        let file = self.own.file.display();
        let again = again.map_or(String::new(), |by| format!(" again, by {by}"));
        match self.own.governs {
            true => format!("{file} is applied{again}: {}", self.plan),
            false => format!("{file} is read{again}: {}", Adopted::NO_RESOURCE),
        }
    }

    /// What is said of a file that governs none.
    pub const NO_RESOURCE: &str = "it names no resource, so what is stored stays as it is";
}

/// What applying a document does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// What is created, changed and deleted, in that order of kinds in which it is done.
    pub changes: Vec<Planned>,
    /// How many resources stay as they are.
    pub unchanged: usize,
    /// What works and should not be used, and what undoes it, a line each.
    pub warnings: Vec<String>,
    /// Of everything that was there before. Who gives it back has this plan done, or nothing.
    #[serde(default)]
    pub digest: String,
}

/// Changes that [`Plan`] names one by one as a text.
const NAMED: usize = 20;

/// In one line, without a value of any field.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in self.changes.iter().take(NAMED) {
            write!(f, "{} {:?} {}", change.kind, change.name, change.action.done())?;
            let fields: Vec<&str> = change.fields.iter().map(|differs| differs.field.as_str()).collect();
            if !fields.is_empty() {
                write!(f, " ({})", fields.join(", "))?;
            }
            f.write_str("; ")?;
        }
        let others = self.changes.len().saturating_sub(NAMED);
        if others > 0 {
            write!(f, "{others} more created, changed or deleted; ")?;
        }
        write!(f, "{} unchanged", self.unchanged)
    }
}

/// What becomes of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Planned {
    /// What is done.
    pub action: Verb,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What differs, of one that changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Differs>,
}

/// What is done with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// It is new.
    Create,
    /// It is there, and otherwise.
    Change,
    /// It is not in the document.
    Delete,
}

impl Verb {
    fn done(self) -> &'static str {
        match self {
            Verb::Create => "created",
            Verb::Change => "changed",
            Verb::Delete => "deleted",
        }
    }
}

/// A field before and after; neither value of a secret. One that was not given before, or is not to be any more, and says
/// what its default says, has no value on that side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Differs {
    /// The field by its way from the top of the resource.
    pub field: String,
    /// As it is, in JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// As it is to be, in JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

impl Store {
    /// Makes the store what a document says, all of it or nothing, or says what that would do.
    ///
    /// # Errors
    /// [`StoreError::Document`], [`StoreError::Moved`], what `follower` says; [`StoreError::Database`].
    pub async fn apply(
        &self,
        document: Document,
        follower: Box<dyn Follow>,
    ) -> Result<(Plan, Arc<Change>), StoreError> {
        self.write(move |database| {
            let done = database.write(|writing| writing.apply(&document), follower)?;
            let Done { value: (mut plan, _), change, undone, .. } = done;
            plan.warnings.extend(undone.filter(|_| !plan.changes.is_empty()));
            Ok((plan, change))
        })
        .await
    }

    /// What is stored, as a document that [`Store::apply`] takes back. Without keys, those that are there stay then.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn export(&self, with_psk: bool) -> Result<Zeroizing<String>, StoreError> {
        run(&self.reader, move |database| database.export(with_psk)).await
    }

    /// What is stored, as the daemon runs it; `None` where there is no gateway. `api` is the process's own.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn config(&self, api: config::Api) -> Result<Option<Config>, StoreError> {
        run(&self.reader, move |database| database.config(api)).await
    }

    /// Makes the store what the process's own file says. Where that names resources, whoever changes one by other ways is
    /// warned from then on.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub async fn adopt(&self, document: Document, follower: Box<dyn Follow>) -> Result<Adopted, StoreError> {
        let document = Document { is_own: true, ..document };
        self.write(move |database| {
            let (plan, own) = database.write(|writing| writing.apply(&document), follower)?.value;
            Ok(Adopted { own, plan })
        })
        .await
    }
}

impl Database {
    fn config(&self, api: config::Api) -> Result<Option<Config>, StoreError> {
        let failed = self.failed();
        let Some(gateway) = rows(&self.connection, Kind::Gateway).map_err(failed)?.into_iter().next() else {
            return Ok(None);
        };
        let of = read_gateway(&gateway.given).map_err(|problems| unreadable(&gateway, problems))?.value;
        let mut peers = HashMap::new();
        for row in rows(&self.connection, Kind::Peer).map_err(failed)? {
            let (name, address) = read_peer(&row.given).map_err(|problems| unreadable(&row, problems))?.value;
            peers.insert(name, address);
        }
        let tunnels = rows(&self.connection, Kind::Tunnel).map_err(failed)?.into_iter().map(|row| {
            let whole = row.secrets(&self.key)?.within(&row.given);
            let peer = row.given.get("peer").and_then(Value::as_str);
            let peer = peer.and_then(|name| Some((name.to_owned(), peers.get(name)?.clone())));
            let read = read_tunnel(&whole.0, &of, peer);
            Ok(read.map_err(|problems| unreadable(&row, problems))?.value)
        });
        let tunnels = tunnels.collect::<Result<_, StoreError>>()?;
        let groups = rows(&self.connection, Kind::Group).map_err(failed)?;
        let groups = groups.iter().map(groups::read).collect::<Result<_, _>>()?;
        let alarms = self.alarms()?;
        Ok(Some(Config { gateway: of, api, tunnels, groups, alarms, warnings: Vec::new() }))
    }

    fn export(&self, with_psk: bool) -> Result<Zeroizing<String>, StoreError> {
        let mut document = DocumentMut::new();
        for kind in Kind::ALL {
            let mut tables = ArrayOfTables::new();
            for row in rows(&self.connection, kind).map_err(self.failed())? {
                let secrets = if with_psk { row.secrets(&self.key)? } else { SecretParts::default() };
                tables.push(tree::table(&secrets.within(&row.given).0));
            }
            let item = match kind {
                Kind::Gateway => tables.iter().next().cloned().map(Item::Table),
                _ => Some(Item::ArrayOfTables(tables)),
            };
            item.into_iter().for_each(|item| drop(document.insert(kind.word(), item)));
        }
        Ok(Zeroizing::new(document.to_string()))
    }
}

impl Writing<'_> {
    fn apply(&mut self, document: &Document) -> Result<(Plan, Own), StoreError> {
        self.dry_run = document.dry_run;
        let digest = self.digest()?;
        if document.digest.as_ref().is_some_and(|seen| *seen != digest) {
            return Err(StoreError::Moved);
        }
        let (gateways, peers, tunnels) =
            (self.rows(Kind::Gateway)?, self.rows(Kind::Peer)?, self.rows(Kind::Tunnel)?);
        let (groups, alarms) = (self.rows(Kind::Group)?, self.rows(Kind::Alarm)?);
        let mut secrets: HashMap<&str, SecretParts> = HashMap::new();
        for row in &tunnels {
            secrets.insert(&row.meta.name, row.secrets(self.key)?);
        }
        let (config, ours) =
            self.read(document, [&gateways, &peers, &tunnels, &groups, &alarms], &secrets)?;
        let named = |objects: Vec<Given>| -> BTreeMap<String, Given> {
            objects.into_iter().map(|object| (name_of(&object).to_owned(), object)).collect()
        };
        let in_order: Vec<String> = ours.peers.iter().map(|peer| name_of(peer).to_owned()).collect();
        let (mut our_peers, mut our_tunnels) = (named(ours.peers), named(ours.tunnels));
        let (mut our_groups, mut our_alarms) = (named(ours.groups), named(ours.alarms));
        let mut plan = Plan {
            warnings: config.warnings_for(&document.name).lines().map(str::to_owned).collect(),
            digest,
            ..Plan::default()
        };
        let governs = config.names_resources();
        let own = Own { file: document.name.clone(), api: config.api, governs };
        let file = document.name.display();
        if document.is_own {
            self.change.own = Some(own.clone());
        } else if own.api != config::Api::default() {
            let words = "[api] is not applied: the file that `adit control --config` names says it";
            plan.warnings.push(format!("{file}: {words}"));
        }
        if !governs {
            plan.unchanged = [&gateways, &peers, &tunnels, &groups, &alarms].map(Vec::len).iter().sum();
            if !document.is_own {
                plan.warnings.push(format!("{file}: {}", Adopted::NO_RESOURCE));
            }
            return Ok((plan, own));
        }

        let stays =
            |row: &&Row, ours: &BTreeMap<String, Given>| !document.prune || ours.contains_key(&row.meta.name);
        for row in &groups {
            // Members may go, and come: the whole document has been read before.
            self.release_uses(row)?;
            if !stays(&row, &our_groups) {
                self.forget_group(row)?;
                plan.changes.push(Planned::of(Verb::Delete, row));
            }
        }
        for row in tunnels.iter().filter(|row| !stays(row, &our_tunnels)) {
            self.delete_row(row)?;
            plan.changes.push(Planned::of(Verb::Delete, row));
        }
        let removed: Vec<&Row> = peers
            .iter()
            .filter(|row| !stays(row, &our_peers))
            .chain(alarms.iter().filter(|row| !stays(row, &our_alarms)))
            .collect();
        for alarm in &config.alarms {
            let row = alarms.iter().find(|row| row.meta.name == alarm.name);
            let given = our_alarms.remove(&alarm.name).or_else(|| row.map(|row| row.given.clone()));
            let shown = json(&AlarmSpec::from(alarm));
            self.put(Kind::Alarm, row, keyless(given.unwrap_or_default()), Checked::new(shown), &mut plan)?;
        }
        let templates = self.ids(&[Kind::Alarm])?;
        let template = |name: &Option<String>| {
            name.as_ref().and_then(|name| templates.get(&(Kind::Alarm, name.clone())).cloned())
        };

        let gateway = ours.gateway.or_else(|| gateways.first().map(|row| row.given.clone()));
        let shown = json(&GatewaySpec::from(&config.gateway));
        let uses = template(&config.gateway.alarm_template).into_iter().collect();
        let checked = Checked { uses, ..Checked::new(shown) };
        let was = gateways.first();
        // What tunnels use may change without showing in them.
        let mut moved = Vec::new();
        if let Some(given) = gateway
            && self.put(Kind::Gateway, was, keyless(given), checked, &mut plan)?
        {
            self.change.gateway = GatewayChange::Now(Box::new(config.gateway.clone()));
            moved.push((Kind::Gateway, config.gateway.name.clone()));
        }
        for row in peers.iter().filter(|row| stays(row, &our_peers)).collect::<Vec<_>>() {
            let given = our_peers.remove(&row.meta.name).unwrap_or_else(|| row.given.clone());
            if self.put_peer(Some(row), given, &mut plan)? {
                moved.push((Kind::Peer, row.meta.name.clone()));
            }
        }
        for given in in_order.iter().filter_map(|name| our_peers.remove(name)) {
            self.put_peer(None, given, &mut plan)?;
        }

        // A pair may pass from one tunnel to another.
        let known: HashMap<&str, &Row> = tunnels.iter().map(|row| (row.meta.name.as_str(), row)).collect();
        let uses = self.ids(&[Kind::Gateway, Kind::Peer])?;
        let mut next = Vec::new();
        for tunnel in &config.tunnels {
            let row = known.get(tunnel.name.as_str()).copied();
            let given = our_tunnels.remove(&tunnel.name).or_else(|| row.map(|row| row.given.clone()));
            let mut given = given.unwrap_or_default();
            let before = secrets.get(tunnel.name.as_str()).cloned().unwrap_or_default();
            let taken = SecretParts::take(&mut given);
            let psk = text_of(&tunnel.psk);
            let key = tunnel.ppk.as_ref().and_then(|_| taken.ppk_key.or(before.ppk_key.clone()));
            let parts = SecretParts { psk: Some(psk), ppk_key: key };
            let uses = [
                uses.get(&(Kind::Gateway, config.gateway.name.clone())),
                uses.get(&(Kind::Peer, tunnel.peer_name.clone())),
            ];
            let checked = Checked {
                shown: json(&TunnelSpec::from(tunnel)),
                uses: uses.into_iter().flatten().cloned().chain(template(&tunnel.alarm_template)).collect(),
                tunnel: Some(tunnel.clone()),
            };
            let changed = row.is_none_or(|row| row.differs(&given, &checked.shown) || parts != before);
            if changed && let Some(row) = row {
                self.release_pairs(row)?;
            }
            next.push((row, given, parts, checked));
        }
        for (row, given, parts, checked) in next {
            let before = row.and_then(|row| secrets.get(row.meta.name.as_str()));
            let keys = match before {
                Some(before) => parts.differences(before),
                None => Vec::new(),
            };
            let uses_moved = moved.iter().any(|(kind, name)| match (kind, &checked.tunnel) {
                (Kind::Peer, Some(tunnel)) => tunnel.peer_name == *name,
                (kind, _) => *kind == Kind::Gateway,
            });
            let parts = (given, parts, keys);
            let note = row.filter(|_| uses_moved).map(|row| (row, checked.tunnel.clone()));
            if !self.put(Kind::Tunnel, row, parts, checked, &mut plan)?
                && let Some((row, Some(tunnel))) = note
            {
                self.change.tunnels.push((Some(row.meta.name.clone()), tunnel));
            }
        }
        for row in removed {
            self.delete_row(row)?;
            plan.changes.push(Planned::of(Verb::Delete, row));
        }
        if !config.groups.is_empty() {
            let ids = self.ids(&[Kind::Tunnel])?;
            for group in &config.groups {
                let row = groups.iter().find(|row| row.meta.name == group.name);
                let given = our_groups.remove(&group.name).or_else(|| row.map(|row| row.given.clone()));
                let members = group.members.iter().filter_map(|m| ids.get(&(Kind::Tunnel, m.clone())));
                let uses: Vec<String> = members.cloned().collect();
                let checked =
                    || Checked { uses: uses.clone(), ..Checked::new(json(&GroupSpec::from(group))) };
                let parts = keyless(given.unwrap_or_default());
                if !self.put(Kind::Group, row, parts, checked(), &mut plan)?
                    && let Some(row) = row
                {
                    self.relate(&row.meta.id, &checked())?;
                }
            }
        }
        Ok((plan, own))
    }

    /// Of what there is: each resource with its revision.
    fn digest(&self) -> Result<String, StoreError> {
        let failed = self.failed();
        let mut hash = Sha256::new();
        let mut all =
            self.transaction.prepare("SELECT id, revision FROM resource ORDER BY place").map_err(failed)?;
        let mut rows = all.query(()).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let (id, revision): (String, i64) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
            hash.update(format!("{id} {revision}\n"));
        }
        Ok(hash.finalize().iter().take(16).map(|octet| format!("{octet:02x}")).collect())
    }

    /// Reads a document together with what is stored and stays.
    fn read(
        &self,
        document: &Document,
        [gateways, peers, tunnels, groups, alarms]: [&[Row]; 5],
        secrets: &HashMap<&str, SecretParts>,
    ) -> Result<(Config, Objects), StoreError> {
        let mut beside =
            Objects { gateway: gateways.first().map(|row| row.given.clone()), ..Objects::default() };
        if !document.prune {
            beside.peers = peers.iter().map(|row| row.given.clone()).collect();
            // Without their keys, which the reader is told as it asks.
            beside.tunnels = tunnels.iter().map(|row| row.given.clone()).collect();
            beside.groups = groups.iter().map(|row| row.given.clone()).collect();
            beside.alarms = alarms.iter().map(|row| row.given.clone()).collect();
        }
        let failed = RefCell::new(None);
        let psk = |name: &str| match secrets.get(name).and_then(|parts| parts.psk.as_ref()) {
            Some(psk) => Some(Psk::new(psk.as_str())),
            None => match self.generated_psk() {
                Ok(psk) => Some(psk),
                Err(e) => {
                    failed.replace(Some(e));
                    None
                }
            },
        };
        let ppk = |name: &str| secrets.get(name)?.ppk_key.clone();
        let read = read_document(&document.name, &document.text, &beside, &Keys { psk: &psk, ppk: &ppk });
        match failed.into_inner() {
            Some(e) => Err(e),
            None => read.map_err(|e: ConfigError| e.into()),
        }
    }

    fn put_peer(&mut self, row: Option<&Row>, given: Given, plan: &mut Plan) -> Result<bool, StoreError> {
        // The whole document has been read before.
        let shown = match read_peer(&given) {
            Ok(read) => json(&PeerSpec::from(&read.value.1)),
            Err(problems) => return Err(row.map_or(StoreError::Stopped, |row| unreadable(row, problems))),
        };
        self.put(Kind::Peer, row, keyless(given), Checked::new(shown), plan)
    }

    /// Writes what has been checked, if it differs, be it in its keys. Whether it did.
    fn put(
        &mut self,
        kind: Kind,
        row: Option<&Row>,
        (mut given, secrets, keys): (Given, SecretParts, Vec<Differs>),
        checked: Checked,
        plan: &mut Plan,
    ) -> Result<bool, StoreError> {
        tidy(&mut given);
        let Some(row) = row else {
            self.put_new(kind, &given, &secrets, &checked)?;
            let name = name_of(&given).to_owned();
            plan.changes.push(Planned { action: Verb::Create, kind, name, fields: Vec::new() });
            return Ok(true);
        };
        if !row.differs(&given, &checked.shown) && keys.is_empty() {
            plan.unchanged += 1;
            return Ok(false);
        }
        let mut fields = row.differences(&given, &checked.shown);
        fields.extend(keys);
        plan.changes.push(Planned { fields, ..Planned::of(Verb::Change, row) });
        self.replace(row, &given, &secrets, &checked)?;
        Ok(true)
    }

    /// The ids of what there is of some kinds, by kind and name.
    fn ids(&self, kinds: &[Kind]) -> Result<HashMap<(Kind, String), String>, StoreError> {
        let mut ids = HashMap::new();
        for kind in kinds {
            ids.extend(self.rows(*kind)?.into_iter().map(|row| ((*kind, row.meta.name), row.meta.id)));
        }
        Ok(ids)
    }

    /// Takes a resource what it uses, until it is replaced.
    fn release_uses(&self, row: &Row) -> Result<(), StoreError> {
        let deleted = self.transaction.execute("DELETE FROM uses WHERE user = ?1", [&row.meta.id]);
        deleted.map(drop).map_err(self.failed())
    }

    /// Deletes a group of which nothing is asked any more.
    fn forget_group(&mut self, row: &Row) -> Result<(), StoreError> {
        self.regrouped = true;
        let deleted = self.transaction.execute("DELETE FROM resource WHERE id = ?1", [&row.meta.id]);
        deleted.map(drop).map_err(self.failed())
    }
}

impl Planned {
    fn of(action: Verb, row: &Row) -> Self {
        Planned { action, kind: row.kind, name: row.meta.name.clone(), fields: Vec::new() }
    }
}

impl SecretParts {
    fn differences(&self, before: &SecretParts) -> Vec<Differs> {
        let parts = [("psk", self.psk != before.psk), ("ike.ppk.key", self.ppk_key != before.ppk_key)];
        let changed = parts.into_iter().filter(|(_, differs)| *differs);
        changed.map(|(field, _)| Differs { field: field.into(), old: None, new: None }).collect()
    }
}

impl Row {
    /// Whether it would be shown otherwise, or follow other defaults.
    fn differs(&self, given: &Given, shown: &str) -> bool {
        self.shown != shown || (self.given != *given && leaves(&self.given) != leaves(given))
    }

    fn differences(&self, given: &Given, shown: &str) -> Vec<Differs> {
        let flat = |given: &Given, shown: &str| {
            let mut fields = BTreeMap::new();
            // What is stored as shown was written as JSON.
            flatten("", &serde_json::from_str(shown).unwrap_or_default(), &mut fields);
            for name in ["name", "remark", "labels"] {
                said(given, name).iter().for_each(|value| flatten(name, value, &mut fields));
            }
            fields
        };
        let differing = |old: BTreeMap<String, String>, new: BTreeMap<String, String>| {
            let fields: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            let fields = fields.into_iter().filter(|field| old.get(*field) != new.get(*field));
            let of = |field: &String| Differs {
                field: field.clone(),
                old: old.get(field).cloned(),
                new: new.get(field).cloned(),
            };
            fields.map(of).collect::<Vec<_>>()
        };
        let mut fields = differing(flat(&self.given, &self.shown), flat(given, shown));
        // What is given and shows as before: it follows its default no more, or again.
        let mut followed = differing(leaves(&self.given), leaves(given));
        followed.retain(|one| fields.iter().all(|shown| shown.field != one.field));
        fields.extend(followed);
        fields
    }
}

fn keyless(given: Given) -> (Given, SecretParts, Vec<Differs>) {
    (given, SecretParts::default(), Vec::new())
}

/// A field, unless it says nothing.
fn said<'a>(given: &'a Given, name: &str) -> Option<&'a Value> {
    given.get(name).filter(|value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    })
}

/// What is given, field by field, without what only Adit gives and what says nothing.
fn leaves(given: &Given) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let given = given.iter().filter(|(name, _)| !GENERATED.contains(&name.as_str()));
    given.for_each(|(name, value)| flatten(name, value, &mut fields));
    fields.retain(|_, value| value != "null" && value != "\"\"");
    for value in fields.values_mut().filter(|value| value.starts_with('[')) {
        // One may stand without a list.
        if let Ok([one]) = serde_json::from_str::<[Value; 1]>(value) {
            *value = one.to_string();
        }
    }
    fields
}

fn name_of(given: &Given) -> &str {
    given.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn flatten(path: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, fields);
            }
        }
        leaf => drop(fields.insert(path.to_owned(), leaf.to_string())),
    }
}
