//! Another file of Adit, or part of one: its peers, tunnels, groups and alarm templates, as they are written there.

use super::{ImportError, Imported};
use crate::config::{Config, ConfigError};
use toml_edit::{DocumentMut, Item};
use zeroize::Zeroizing;

/// The peers, tunnels, groups and alarm templates, which tunnels may name, with their comments; what else is in the file is this gateway's own affair.
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
    match Config::parse("import".as_ref(), &whole) {
        Ok(config) if config.tunnels.is_empty() => {
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
    Ok(Imported { text: Zeroizing::new(document.to_string()), tunnels })
}
