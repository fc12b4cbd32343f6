//! `adit gateway`, `adit peer`, `adit tunnel`, `adit group`, `adit alarm`: `list`, `show`, `create`, `edit` and `delete` of what is configured.

mod render;
mod sheet;

use crate::{ask, cli::Access, print, wrong_usage};
use adit_api::{Client, ClientError};
use adit_control::resource::Kind;
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    fs,
    io::{ErrorKind, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

/// Resources of a page, as many as the API gives.
const PAGE: usize = 1000;

/// What to do with what is configured.
#[derive(Debug, Subcommand)]
pub(crate) enum ResourceCommand {
    /// Show one with all its fields.
    Show(One),
    #[command(flatten)]
    Other(Verb),
}

/// What is done in the same words to resources of every kind.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show what there is.
    List(List),
    /// Create one.
    Create(Fields),
    /// Change some fields of one; the others stay.
    Edit(Fields),
    /// Delete some: all of them or none.
    Delete(Several),
}

/// What to list.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those that have this text in any of their fields.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only those with this label.
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Option<String>,
    /// In which order: name, created_at or updated_at, with - from the other end; without it, that of the configuration.
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    sort: Option<String>,
    /// How to show them.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Write it to this file rather than to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

/// Which one.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Its name or its id.
    pub(crate) name: String,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
    /// Write it to this file rather than to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

/// Which ones.
#[derive(Debug, Args)]
pub(crate) struct Several {
    /// Their names or ids.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    access: Access,
}

/// What one is, or is to be.
#[derive(Debug, Args)]
pub(crate) struct Fields {
    /// Its name; its id does as well where it exists.
    name: String,
    /// Fields, as in `ike.version=ikev1`, `remote_subnets=10.2.0.0/16,10.3.0.0/16`. `@FILE` is what is in a file, for a psk;
    /// `null` is the default; a value may be JSON.
    #[arg(value_name = "FIELD=VALUE")]
    fields: Vec<String>,
    /// Further fields as an object of JSON, from a file; `-` is stdin.
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    #[command(flatten)]
    access: Access,
}

/// How to show resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people, as wide as the terminal.
    Table,
    /// For programs.
    Json,
    /// For both.
    Yaml,
    /// For spreadsheets: every field a column (RFC 4180).
    Csv,
    /// For spreadsheets, as a workbook: into a file, or into a stdout that is no terminal.
    Xlsx,
}

/// Does what is to be done to resources of a kind.
pub(crate) fn run(kind: Kind, command: ResourceCommand) -> anyhow::Result<()> {
    match command {
        ResourceCommand::Show(one) => show(kind, one),
        ResourceCommand::Other(verb) => act(kind, verb),
    }
}

/// Shows one with all its fields.
pub(crate) fn show(kind: Kind, one: One) -> anyhow::Result<()> {
    has_somewhere_to_go(one.output, one.out.as_deref())?;
    let found = ask(one.access, async |client| client.resource(kind, &one.name).await)?;
    give(&render::one(&found, kind, one.output)?, one.out.as_deref())
}

/// Does what every kind has done to it in the same words.
pub(crate) fn act(kind: Kind, verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::List(list) => {
            has_somewhere_to_go(list.output, list.out.as_deref())?;
            let wanted = [("search", list.search), ("label", list.label), ("sort", list.sort)];
            let found = ask(list.access, async |client| all(client, kind, &wanted).await)?;
            give(&render::list(&found, kind, list.output)?, list.out.as_deref())
        }
        Verb::Create(fields) => {
            let mut given = fields.given()?;
            given.insert("name".into(), Value::String(fields.name));
            let made = ask(fields.access, async |client| client.create(kind, &given).await)?;
            told(&made, kind, "created")
        }
        Verb::Edit(fields) => {
            let given = fields.given()?;
            if given.is_empty() {
                return Err(wrong_usage("nothing is to change: give FIELD=VALUE or --file"));
            }
            let made = ask(fields.access, async |client| client.edit(kind, &fields.name, &given).await)?;
            told(&made, kind, "changed")
        }
        Verb::Delete(several) => {
            ask(several.access, async |client| client.delete(kind, &several.names).await)?;
            several.names.iter().try_for_each(|name| print(&format!("{kind} {name:?} deleted")))
        }
    }
}

/// Where to show several of something, and how.
#[derive(Debug, Args)]
pub(crate) struct Shown {
    /// How to show them.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Write it to this file rather than to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Shown {
    /// Shows what `found` finds, which people see as the `table` of it.
    pub(crate) fn show<T: Serialize>(
        &self,
        title: &str,
        found: impl FnOnce() -> anyhow::Result<Vec<T>>,
        table: impl FnOnce(&[T]) -> String,
    ) -> anyhow::Result<()> {
        let file = self.out.as_deref();
        has_somewhere_to_go(self.output, file)?;
        let found = found()?;
        let values = found.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        give(&render::rows(&values, title, self.output, || table(&found))?, file)
    }
}

/// Refuses to write a workbook to a terminal, before anybody is asked for what is in it.
fn has_somewhere_to_go(output: Output, file: Option<&Path>) -> anyhow::Result<()> {
    if output == Output::Xlsx && file.is_none() && std::io::stdout().is_terminal() {
        let words = "a workbook is nothing for a terminal: name a file with --out, or redirect it";
        return Err(wrong_usage(words));
    }
    Ok(())
}

/// Writes to a file or to stdout. A reader that went away has read what it wanted.
pub(crate) fn give(octets: &[u8], file: Option<&Path>) -> anyhow::Result<()> {
    match file {
        Some(file) => fs::write(file, octets).with_context(|| file.display().to_string()),
        None => match std::io::stdout().write_all(octets) {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
            _ => Ok(()),
        },
    }
}

fn told(made: &Value, kind: Kind, done: &str) -> anyhow::Result<()> {
    for warning in made["warnings"].as_array().into_iter().flatten() {
        let part = |field: &str| warning[field].as_str().unwrap_or_default().to_owned();
        eprintln!("warning: {}: {} {}", part("field"), part("value"), part("why"));
    }
    let part = |field: &str| made[field].as_str().unwrap_or_default();
    print(&format!("{kind} {:?} {done}: {}", part("name"), part("id")))
}

/// Every page of a list.
async fn all(
    client: &Client,
    kind: Kind,
    wanted: &[(&str, Option<String>)],
) -> Result<Vec<Value>, ClientError> {
    let mut found = Vec::new();
    loop {
        let page = client.resources(kind, wanted, PAGE, found.len()).await?;
        let last = page.items.len() < PAGE;
        found.extend(page.items);
        if last {
            return Ok(found);
        }
    }
}

impl Fields {
    /// What is given of the fields.
    fn given(&self) -> anyhow::Result<Map<String, Value>> {
        let mut given = match self.file.as_deref() {
            None => Map::new(),
            Some(file) => {
                let text = text_of(file)?;
                serde_json::from_str(&text).with_context(|| format!("{file} is no object of JSON"))?
            }
        };
        for field in &self.fields {
            let Some((path, value)) = field.split_once('=') else {
                return Err(wrong_usage(format!("{field:?} is no FIELD=VALUE")));
            };
            set(&mut given, path, self::value(value)?)?;
        }
        Ok(given)
    }
}

fn text_of(file: &str) -> anyhow::Result<String> {
    if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    fs::read_to_string(Path::new(file)).with_context(|| file.to_owned())
}

/// JSON where it is some, a list where there are commas, what a file holds, or a word.
fn value(text: &str) -> anyhow::Result<Value> {
    if let Some(file) = text.strip_prefix('@') {
        return Ok(Value::String(text_of(file)?.trim_end_matches(['\r', '\n']).to_owned()));
    }
    Ok(match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) if text.contains(',') => {
            let item = |item: &str| -> Value { serde_json::from_str(item).unwrap_or_else(|_| item.into()) };
            text.split(',').map(|part| item(part.trim())).collect()
        }
        Err(_) => text.to_owned().into(),
    })
}

fn set(given: &mut Map<String, Value>, path: &str, value: Value) -> anyhow::Result<()> {
    match path.split_once('.') {
        None => {
            given.insert(path.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => {
            let inner = given.entry(first).or_insert_with(|| Map::new().into());
            let whole = || wrong_usage(format!("{first} is given as a whole already"));
            set(inner.as_object_mut().ok_or_else(whole)?, rest, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_given_in_words() {
        let mut given = Map::new();
        for field in [
            "ike.version=ikev1",
            "ike.dh=14,19",
            "mtu=1400",
            "enabled=false",
            "remote_subnets=10.2.0.0/16,fd00::/64",
            "remark=\"1\"",
            "labels.site=berlin",
            "routes=null",
        ] {
            let (path, text) = field.split_once('=').unwrap();
            set(&mut given, path, value(text).unwrap()).unwrap();
        }
        let wanted = json!({
            "ike": {"version": "ikev1", "dh": [14, 19]}, "mtu": 1400, "enabled": false,
            "remote_subnets": ["10.2.0.0/16", "fd00::/64"], "remark": "1", "labels": {"site": "berlin"}, "routes": null,
        });
        assert_eq!(Value::Object(given.clone()), wanted);
        assert!(set(&mut given, "mtu.x", Value::Null).is_err());
        assert!(value("@/nonexistent").is_err());
    }
}
