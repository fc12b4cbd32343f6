//! Reads typed fields out of a TOML table and collects everything that is wrong with them.

use super::diagnostic::Diagnostic;
use std::{
    cell::RefCell,
    ops::{Range, RangeInclusive},
};
use toml_edit::{Item, TableLike, Value};

const NOT_AVAILABLE: &str = "is not available in this version";

/// The text that is read, and what there is to say about it.
pub(super) struct Source<'a> {
    text: &'a str,
    problems: RefCell<Vec<Diagnostic>>,
    warnings: RefCell<Vec<Diagnostic>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Source { text, problems: RefCell::default(), warnings: RefCell::default() }
    }

    fn problem(&self, diagnostic: Diagnostic) {
        self.problems.borrow_mut().push(diagnostic);
    }

    /// Problems and warnings, each in the order of the file.
    pub(super) fn into_diagnostics(self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        let sorted = |mut list: Vec<Diagnostic>| {
            list.sort_by_key(|d| (d.line, d.column));
            list
        };
        (sorted(self.problems.into_inner()), sorted(self.warnings.into_inner()))
    }
}

/// A table, and which of its fields somebody has asked for.
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    path: String,
    table: Option<&'a dyn TableLike>,
    /// `None` where it is of no text.
    span: Option<Range<usize>>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        source: &'a Source<'a>,
        path: impl Into<String>,
        table: Option<&'a dyn TableLike>,
        span: Option<Range<usize>>,
    ) -> Self {
        Section { source, path: path.into(), table, span, asked: RefCell::default() }
    }

    pub(super) fn rename(&mut self, path: impl Into<String>) {
        self.path = path.into();
    }

    pub(super) fn get(&self, name: &'static str) -> Option<Field<'a>> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&name) {
            asked.push(name);
        }
        let item = self.table?.get(name)?;
        Some(Field {
            source: self.source,
            path: self.path_of(name),
            span: item.span().or(self.span.clone()),
            node: Node::Item(item),
            secret: false,
        })
    }

    pub(super) fn require(&self, name: &'static str) -> Option<Field<'a>> {
        let field = self.get(name);
        if field.is_none() {
            let diagnostic = Diagnostic::at(self.source.text, self.span.as_ref(), self.path_of(name));
            self.source.problem(Diagnostic { message: "is required".into(), ..diagnostic });
        }
        field
    }

    /// The table under `name`; an empty one when there is none.
    pub(super) fn section(&self, name: &'static str) -> Section<'a> {
        // What is there in place of a table may hold a key.
        let field = self.get(name).map(Field::secret);
        let table = field.as_ref().and_then(|field| {
            let table = field.item().and_then(Item::as_table_like);
            if table.is_none() {
                field.fail("must be a table", None);
            }
            table
        });
        let span = field.map_or(self.span.clone(), |f| f.span);
        Section::new(self.source, self.path_of(name), table, span)
    }

    /// The fields of a table, whatever their names are.
    pub(super) fn fields(&self) -> Vec<(&'a str, Field<'a>)> {
        let of = |(name, item): (&'a str, &'a Item)| {
            let span = item.span().or(self.span.clone());
            let node = Node::Item(item);
            (name, Field { source: self.source, path: self.path_of(name), span, node, secret: false })
        };
        self.table.map_or_else(Vec::new, |table| table.iter().map(of).collect())
    }

    /// The tables of `[[name]]`.
    pub(super) fn sections(&self, name: &'static str) -> Vec<Section<'a>> {
        let Some(field) = self.get(name) else { return Vec::new() };
        match field.item() {
            Some(Item::ArrayOfTables(tables)) => tables
                .iter()
                .map(|table| {
                    let span = table.span().or(field.span.clone());
                    Section::new(self.source, self.path_of(name), Some(table), span)
                })
                .collect(),
            _ => {
                field.fail(&format!("must be a list of tables, each under [[{name}]]"), None);
                Vec::new()
            }
        }
    }

    /// The tables of a list, inline or each under its own heading; `None` where it is no such list.
    pub(super) fn tables(&self, name: &'static str) -> Option<Vec<Section<'a>>> {
        let field = self.get(name)?;
        let tables: Option<Vec<(&'a dyn TableLike, _)>> = match (field.item(), field.value()) {
            (Some(Item::ArrayOfTables(tables)), _) => {
                Some(tables.iter().map(|table| (table as &dyn TableLike, table.span())).collect())
            }
            (_, Some(Value::Array(list))) => {
                let inline =
                    |value: &'a Value| Some((value.as_inline_table()? as &dyn TableLike, value.span()));
                list.iter().map(inline).collect()
            }
            _ => None,
        };
        let Some(tables) = tables else {
            field.fail("must be a list of tables", None);
            return None;
        };
        let of = |(number, (table, span)): (usize, (_, Option<Range<usize>>))| {
            let path = format!("{}[{number}]", self.path_of(name));
            Section::new(self.source, path, Some(table), span.or(field.span.clone()))
        };
        Some(tables.into_iter().enumerate().map(of).collect())
    }

    /// Refuses every field that nobody asked for: by name those of `unavailable`, which the product knows and this
    /// version does not have.
    pub(super) fn finish(self, unavailable: &[&str]) {
        let Some(table) = self.table else { return };
        let asked = self.asked.take();
        for (name, item) in table.iter().filter(|(name, _)| !asked.contains(name)) {
            let span = table.key(name).and_then(toml_edit::Key::span).or(item.span()).or(self.span.clone());
            let mut diagnostic = Diagnostic::at(self.source.text, span.as_ref(), self.path_of(name));
            diagnostic.allowed = Some(asked.join(", "));
            diagnostic.message = if unavailable.contains(&name) {
                NOT_AVAILABLE.to_owned()
            } else {
                match nearest(name, asked.iter().chain(unavailable).copied()) {
                    Some(meant) => format!("is not a field; did you mean {meant}?"),
                    None => "is not a field".to_owned(),
                }
            };
            self.source.problem(diagnostic);
        }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// A field that is there, or an element of its list.
#[derive(Clone)]
pub(super) struct Field<'a> {
    source: &'a Source<'a>,
    path: String,
    node: Node<'a>,
    span: Option<Range<usize>>,
    secret: bool,
}

#[derive(Clone, Copy)]
enum Node<'a> {
    Item(&'a Item),
    Value(&'a Value),
}

impl<'a> Field<'a> {
    /// Never show the value.
    pub(super) fn secret(self) -> Self {
        Field { secret: true, ..self }
    }

    pub(super) fn fail(&self, message: &str, allowed: Option<String>) {
        self.source.problem(self.diagnostic(message, allowed));
    }

    /// As [`Field::fail`] for a value of which the message says enough, and what it clashes with, if that is a tunnel.
    pub(super) fn clash(&self, message: String, tunnel: Option<&str>) {
        let diagnostic = Diagnostic { value: None, ..self.diagnostic(&message, None) };
        self.source.problem(Diagnostic { clashes_with: tunnel.map(str::to_owned), ..diagnostic });
    }

    /// As [`Field::fail`] for a value that is too long to be shown.
    pub(super) fn refuse_whole(&self, message: &str, allowed: &str) {
        let diagnostic = Diagnostic { value: None, ..self.diagnostic(message, Some(allowed.to_owned())) };
        self.source.problem(diagnostic);
    }

    pub(super) fn warn(&self, message: &str) {
        let diagnostic = self.diagnostic(message, None);
        self.source.warnings.borrow_mut().push(diagnostic);
    }

    /// The elements of a list, or the one value.
    pub(super) fn elements(&self) -> Vec<Field<'a>> {
        let of = |value: &'a Value| Field {
            source: self.source,
            path: self.path.clone(),
            span: value.span().or(self.span.clone()),
            node: Node::Value(value),
            secret: self.secret,
        };
        match self.value() {
            Some(Value::Array(list)) => {
                if list.is_empty() {
                    self.fail("must not be empty", None);
                }
                list.iter().map(of).collect()
            }
            Some(value) => vec![of(value)],
            None => {
                self.fail("must be a value or a list of values", None);
                Vec::new()
            }
        }
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        let text = self.value().and_then(Value::as_str);
        if text.is_none() {
            self.fail("must be text in quotes", None);
        }
        text
    }

    /// The value, where it is text.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        self.value().and_then(Value::as_str)
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let value = self.value().and_then(Value::as_bool);
        if value.is_none() {
            self.fail("must be a truth value", Some("true, false".into()));
        }
        value
    }

    /// A number, whole or not.
    pub(super) fn real(&self) -> Option<f64> {
        let value = self.value()?;
        value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
    }

    /// A whole number of `unit` within `range`.
    pub(super) fn number(&self, range: RangeInclusive<u32>, unit: &str) -> Option<u32> {
        let allowed = format!("{}..{} {unit}", range.start(), range.end());
        self.number_or(range, &allowed)
    }

    /// A whole number within `range`, where `allowed` says what else might be here.
    pub(super) fn number_or(&self, range: RangeInclusive<u32>, allowed: &str) -> Option<u32> {
        let value = self.value().and_then(Value::as_integer);
        let number = value.and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n));
        if number.is_none() {
            let message = if value.is_some() { "is out of range" } else { "must be a whole number" };
            self.fail(message, Some(allowed.to_owned()));
        }
        number
    }

    /// A whole number of `unit` from `least` on.
    pub(super) fn count(&self, least: u64, unit: &str) -> Option<u64> {
        let value = self.value().and_then(Value::as_integer);
        let number = value.and_then(|n| u64::try_from(n).ok()).filter(|n| *n >= least);
        if number.is_none() {
            let message = if value.is_some() { "is out of range" } else { "must be a whole number" };
            self.fail(message, Some(format!("{least} {unit} or more")));
        }
        number
    }

    /// Whether the value is this text.
    pub(super) fn is_text(&self, text: &str) -> bool {
        self.value().and_then(Value::as_str) == Some(text)
    }

    /// One of `known`; `unavailable` are words of the product that this version does not have.
    pub(super) fn word<T: Clone>(&self, known: &[(String, T)], unavailable: &[&str]) -> Option<T> {
        let word = match self.value() {
            Some(Value::String(s)) => s.value().clone(),
            Some(Value::Integer(n)) => n.value().to_string(),
            _ => String::new(),
        };
        if let Some((_, meaning)) = known.iter().find(|(name, _)| *name == word) {
            return Some(meaning.clone());
        }
        let allowed = known.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let message = if unavailable.contains(&word.as_str()) {
            NOT_AVAILABLE.to_owned()
        } else {
            let all = known.iter().map(|(name, _)| name.as_str()).chain(unavailable.iter().copied());
            match nearest(&word, all) {
                Some(meant) => format!("is unknown; did you mean {meant}?"),
                None => "is unknown".to_owned(),
            }
        };
        self.fail(&message, Some(allowed));
        None
    }

    /// One of `known`, or a list of them without repetition.
    pub(super) fn words<T: Clone + PartialEq>(&self, known: &[(String, T)], unavailable: &[&str]) -> Vec<T> {
        let mut out = Vec::new();
        for element in self.elements() {
            match element.word(known, unavailable) {
                Some(meaning) if out.contains(&meaning) => element.fail("is in the list twice", None),
                Some(meaning) => out.push(meaning),
                None => {}
            }
        }
        out
    }

    fn item(&self) -> Option<&'a Item> {
        match self.node {
            Node::Item(item) => Some(item),
            Node::Value(_) => None,
        }
    }

    fn value(&self) -> Option<&'a Value> {
        match self.node {
            Node::Item(item) => item.as_value(),
            Node::Value(value) => Some(value),
        }
    }

    fn diagnostic(&self, message: &str, allowed: Option<String>) -> Diagnostic {
        let diagnostic = Diagnostic::at(self.source.text, self.span.as_ref(), self.path.clone());
        let value = self.value().filter(|_| !self.secret).map(shown);
        Diagnostic { value, message: message.into(), allowed, ..diagnostic }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(s) => format!("{:?}", s.value()),
        Value::Integer(n) => n.value().to_string(),
        Value::Float(x) => x.value().to_string(),
        Value::Boolean(b) => b.value().to_string(),
        Value::Datetime(d) => d.value().to_string(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::InlineTable(_) => "a table".into(),
    }
}

/// The candidate that a slip of the finger turns into `word`; of two characters anything may be a slip of anything.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (1 + word.chars().count()) / 4;
    candidates
        .map(|c| (distance(word, c), c))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Levenshtein's distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
