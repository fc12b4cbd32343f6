//! Alarm templates in the store: who names them, and what is made of them.

use super::{
    Store, StoreError,
    database::{self, Database, Given, Row},
    run,
    write::{Checked, Writing, invalid, json, unreadable},
};
use crate::{
    alarm::{Alarm, Attached},
    config::{NO_TEMPLATE, listed, not_of_a_tunnel, read_alarm, read_gateway},
    resource::{AlarmSpec, Kind, Violation},
};
use std::collections::{BTreeMap, BTreeSet};

/// The field by which a gateway or a tunnel names one.
const FIELD: &str = "alarm_template";

impl Store {
    /// The alarm templates as a rule file of Prometheus, for those of them that somebody names.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Unreadable`].
    pub async fn alarm_rules(&self) -> Result<String, StoreError> {
        Ok(run(&self.reader, |database| database.attached()).await?.render())
    }
}

impl Database {
    fn attached(&self) -> Result<Attached, StoreError> {
        let failed = self.failed();
        let gateway = database::rows(&self.connection, Kind::Gateway).map_err(failed)?.into_iter().next();
        let gateway = gateway.map(|row| match read_gateway(&row.given) {
            Ok(read) => Ok((read.value.name, read.value.alarm_template)),
            Err(problems) => Err(unreadable(&row, problems)),
        });
        let mut tunnels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let sql = "SELECT alarm.name, tunnel.name FROM uses \
                   JOIN resource AS alarm ON alarm.id = used AND alarm.kind = 'alarm' \
                   JOIN resource AS tunnel ON tunnel.id = user AND tunnel.kind = 'tunnel'";
        let mut named = self.connection.prepare(sql).map_err(failed)?;
        let named = named.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
        for pair in named {
            let (alarm, tunnel): (String, String) = pair.map_err(failed)?;
            tunnels.entry(alarm).or_default().insert(tunnel);
        }
        let alarms = self.alarms()?.into_iter().map(|alarm| (alarm.name.clone(), alarm)).collect();
        Ok(Attached { gateway: gateway.transpose()?, alarms, tunnels })
    }

    /// Every template, in their order.
    pub(super) fn alarms(&self) -> Result<Vec<Alarm>, StoreError> {
        let rows = database::rows(&self.connection, Kind::Alarm).map_err(self.failed())?;
        rows.iter().map(read).collect()
    }
}

impl Writing<'_> {
    /// Whether a template can be, for those that name it.
    pub(super) fn check_alarm(&mut self, row: Option<&Row>, whole: &Given) -> Result<Checked, StoreError> {
        let read = read_alarm(whole).map_err(invalid)?;
        self.warnings.extend(read.warnings);
        let alarm = read.value;
        if let (Some(row), Some(figure)) = (row, alarm.of_gateway()) {
            let users =
                database::users(&self.transaction, Kind::Tunnel, &row.meta.id).map_err(self.failed())?;
            if let Some(tunnel) = users.first() {
                let why = format!("{} names it, and it {}", tunnel.reference(), not_of_a_tunnel(figure));
                let clashes_with = Some(tunnel.reference());
                return Err(StoreError::Invalid(vec![Violation {
                    clashes_with,
                    ..Violation::new("rules", why)
                }]));
            }
        }
        Ok(Checked::new(json(&AlarmSpec::from(&alarm))))
    }

    /// The id of the template that a resource names, if it names one.
    pub(super) fn template(&self, kind: Kind, name: Option<&str>) -> Result<Option<String>, StoreError> {
        let Some(name) = name else { return Ok(None) };
        let found = database::find(&self.transaction, Kind::Alarm, name).map_err(self.failed())?;
        let refused = |why: &str, allowed: Option<String>| {
            let violation = Violation::new(FIELD, why);
            StoreError::Invalid(vec![Violation { value: Some(format!("{name:?}")), allowed, ..violation }])
        };
        // By its name alone: an id may be the name of another.
        let Some(row) = found.filter(|found| found.meta.name == name) else {
            let names: Vec<String> = self.rows(Kind::Alarm)?.into_iter().map(|row| row.meta.name).collect();
            let allowed = Some(listed(names.iter())).filter(|names| !names.is_empty());
            return Err(refused(NO_TEMPLATE, allowed));
        };
        match read(&row)?.of_gateway() {
            Some(figure) if kind == Kind::Tunnel => Err(refused(&not_of_a_tunnel(figure), None)),
            _ => Ok(Some(row.meta.id)),
        }
    }

    /// Gives those that name a template the name that it has now. What else they are has nothing to do with it.
    pub(super) fn rename_template(&self, before: &Row) -> Result<(), StoreError> {
        let after = self.row(Kind::Alarm, &before.meta.id)?;
        if after.meta.name == before.meta.name {
            return Ok(());
        }
        let sql = "UPDATE resource SET given = json_set(given, '$.alarm_template', ?1), \
                   shown = json_set(shown, '$.alarm_template', ?1), revision = revision + 1, updated_at = ?2 \
                   WHERE id IN (SELECT user FROM uses WHERE used = ?3)";
        let values = (&after.meta.name, &self.now, &after.meta.id);
        self.transaction.execute(sql, values).map(drop).map_err(self.failed())
    }
}

/// A template as it is stored.
fn read(row: &Row) -> Result<Alarm, StoreError> {
    Ok(read_alarm(&row.given).map_err(|problems| unreadable(row, problems))?.value)
}
