//! Another file of Adit, or part of one: its peers, tunnels, groups and alarm templates, as they are written there.

use super::{
    ImportError, Imported,
    draft::{NO_KEY, NO_PPK, no_key},
};
use crate::config::{ConfigError, Keys, Objects, read_document};
use adit_ike::Psk;
use toml_edit::{DocumentMut, Item, TableLike, value};
use zeroize::Zeroizing;

/// Stands for each missing key as long as the file is checked.
const ANY_KEY: &str = "0123456789abcdef0123456789abcdef";

/// The peers, tunnels, groups and alarm templates, which tunnels may name, with their comments; what else is in the file is this
/// gateway's own affair. A word that is no key stands for each that is missing, as in what `adit export` writes, or that was
/// hidden, as in what `adit tunnel config` writes.
///
/// # Errors
/// The file is not what Adit takes: the first that is wrong with it.
pub(super) fn read(text: &str) -> Result<Imported, ImportError> {
    // Without the message's quotes: they may hold a key.
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| {
        let before = text.get(..e.span().map_or(0, |s| s.start)).unwrap_or_default();
        let message = e.message().lines().next().unwrap_or_default().to_owned();
        ImportError::new(before.matches('\n').count() + 1, format!("not TOML: {message}"))
    })?;
    let names = |table: &str| -> Vec<String> {
        let tables = document.get(table).and_then(Item::as_array_of_tables).into_iter().flatten();
        tables.filter_map(|t| Some(t.get("name")?.as_str()?.to_owned())).collect()
    };
    let tunnels = names("tunnel");
    // It goes at the end, so that lines are those of the file.
    let gateway = "\n[gateway]\nname = \"import\"\naddress = [\"192.0.0.8\", \"100::8\"]\nwan = \"wan\"\nlan = [\"lan\"]\n";
    let whole = match document.contains_key("gateway") {
        true => Zeroizing::new(text.to_owned()),
        false => Zeroizing::new(format!("{text}{gateway}")),
    };
    let keys = Keys { psk: &|_| Some(Psk::new(ANY_KEY)), ppk: &|_| Some(Zeroizing::new(ANY_KEY.to_owned())) };
    match read_document("import".as_ref(), &whole, &Objects::default(), &keys) {
        Ok((config, _)) if config.tunnels.is_empty() => {
            return Err(ImportError::new(1, "there is no [[tunnel]] in it"));
        }
        Ok(_) => {}
        Err(ConfigError::Invalid { problems, .. }) => {
            let first = problems.into_iter().next();
            return Err(first.map_or_else(
                || ImportError::new(1, "is not a configuration of Adit"),
                |p| {
                    let allowed = p.allowed.map_or_else(String::new, |a| format!("; allowed: {a}"));
                    let value = p.value.map_or_else(String::new, |v| format!("{v} "));
                    ImportError::new(p.line, format!("{}: {value}{}{allowed}", p.field, p.message))
                },
            ));
        }
        Err(e) => return Err(ImportError::new(1, e.to_string())),
    }
    let ours = ["peer", "tunnel", "group", "alarm"];
    let others: Vec<String> = document
        .iter()
        .map(|(name, _)| name.to_owned())
        .filter(|name| !ours.contains(&name.as_str()))
        .collect();
    others.iter().for_each(|name| drop(document.remove(name)));
    let tables = document.get_mut("tunnel").and_then(Item::as_array_of_tables_mut);
    for tunnel in tables.into_iter().flat_map(|tables| tables.iter_mut()) {
        mark(tunnel, "psk", NO_KEY);
        let ppk = tunnel.get_mut("ike").and_then(Item::as_table_like_mut).and_then(|ike| ike.get_mut("ppk"));
        ppk.and_then(Item::as_table_like_mut).into_iter().for_each(|ppk| mark(ppk, "key", NO_PPK));
    }
    Ok(Imported { text: Zeroizing::new(document.to_string()), tunnels })
}

/// Has a word that is no key stand where there is none, or only the word that hides it.
fn mark(table: &mut dyn TableLike, field: &str, hidden: &str) {
    match table.get_mut(field) {
        None => drop(table.insert(field, value(no_key(hidden)))),
        Some(Item::Value(there)) if there.as_str() == Some(hidden) => {
            let comment = there.decor().clone();
            *there = no_key(hidden).into();
            *there.decor_mut() = comment;
        }
        Some(_) => {}
    }
}
