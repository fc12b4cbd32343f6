//! `adit gateway`, `adit peer`, `adit tunnel`, `adit group`, `adit alarm`: `list`, `show`, `create`, `edit` and `delete` of what is configured.

mod given;
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
    /// Fields, as in `ike.version=ikev1`, `remote_subnets=10.2.0.0/16,10.3.0.0/16`. Where a text belongs the value is that
    /// text, where a list belongs a list with commas or of JSON, where an object belongs JSON. `@FILE` is what is in a file,
    /// for a psk; `null` is the default. Double quotes, as in JSON, make a text of whatever is in them: `psk='"@b"'`.
    #[arg(value_name = "FIELD=VALUE")]
    fields: Vec<String>,
    /// Further fields as an object of JSON, from a file; `-` is stdin.
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Show what it is then, with all its fields, rather than say that it is done.
    #[arg(short, long, value_enum)]
    output: Option<Whole>,
    #[command(flatten)]
    access: Access,
}

/// How to show something with all its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Whole {
    /// For programs.
    Json,
    /// For both.
    Yaml,
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
            let mut given = fields.given(kind)?;
            given.insert("name".into(), Value::String(fields.name));
            let made = ask(fields.access, async |client| client.create(kind, &given).await)?;
            told(&made, kind, "created", fields.output)
        }
        Verb::Edit(fields) => {
            let given = fields.given(kind)?;
            if given.is_empty() {
                return Err(wrong_usage("nothing is to change: give FIELD=VALUE or --file"));
            }
            let made = ask(fields.access, async |client| client.edit(kind, &fields.name, &given).await)?;
            told(&made, kind, "changed", fields.output)
        }
        Verb::Delete(several) => {
            let deleted = ask(several.access, async |client| client.delete(kind, &several.names).await)?;
            warn(&serde_json::to_value(&deleted)?);
            several.names.iter().try_for_each(|name| print(&format!("{kind} {name:?} deleted")))
        }
    }
}

/// Where to show something, and how.
#[derive(Debug, Args)]
pub(crate) struct Shown {
    /// How to show it.
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

    /// Shows what `found` finds where that is one thing: people see the `table` of it, a spreadsheet has its `rows`.
    pub(crate) fn show_one<T: Serialize>(
        &self,
        title: &str,
        found: impl FnOnce() -> anyhow::Result<T>,
        rows: impl FnOnce(&Value) -> Vec<Value>,
        table: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let file = self.out.as_deref();
        has_somewhere_to_go(self.output, file)?;
        let found = found()?;
        let value = serde_json::to_value(&found)?;
        give(&render::whole(&value, &rows(&value), title, self.output, || table(&found))?, file)
    }

    /// The same as JSON.
    pub(crate) fn for_programs(self) -> Self {
        Shown { output: Output::Json, ..self }
    }

    /// Whether a table is for whoever sits at this terminal.
    pub(crate) fn goes_to_stdout(&self) -> bool {
        self.out.is_none()
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

/// Says what an answer warns of.
fn warn(answer: &Value) {
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        let part = |field: &str| warning[field].as_str().unwrap_or_default().to_owned();
        let field = Some(part("field")).filter(|field| !field.is_empty()).map(|field| format!("{field}:"));
        let words = [field.unwrap_or_default(), part("value"), part("why")];
        let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
        eprintln!("warning: {}", words.join(" "));
    }
}

fn told(made: &Value, kind: Kind, done: &str, output: Option<Whole>) -> anyhow::Result<()> {
    warn(made);
    let output = match output {
        Some(Whole::Json) => Output::Json,
        Some(Whole::Yaml) => Output::Yaml,
        None => {
            let part = |field: &str| made[field].as_str().unwrap_or_default();
            return print(&format!("{kind} {:?} {done}: {}", part("name"), part("id")));
        }
    };
    give(&render::one(made, kind, output)?, None)
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
    fn given(&self, kind: Kind) -> anyhow::Result<Map<String, Value>> {
        let mut given = match self.file.as_deref() {
            None => Map::new(),
            Some(file) => {
                let text = text_of(file)?;
                serde_json::from_str(&text).with_context(|| format!("{file} is no object of JSON"))?
            }
        };
        let schema = kind.body();
        for field in &self.fields {
            let Some((path, value)) = field.split_once('=') else {
                return Err(wrong_usage(format!("{field:?} is no FIELD=VALUE")));
            };
            given::put(&mut given, path, value, &schema)?;
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
