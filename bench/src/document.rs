//! Figures in a document: tables between two comments, of which the first says what is in them.
//!
//! ```text
//! <!-- figures crypto suite=aes128gcm16 batch=256 | op size ns_per_packet ratios.ipsec-mb -->
//! <!-- end of figures -->
//! ```
//!
//! Before the bar stand the bench and what a row's columns have to be, several values with commas between, or that there is
//! such a column; behind it the columns, those within another by a dot. Spaces in names are underscores.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::Value;

const BEGIN: &str = "<!-- figures ";
const CLOSE: &str = "-->";
const END: &str = "<!-- end of figures -->";

/// The document with the tables anew that have rows among `rows`; all else as it was. `about` stands above each.
///
/// # Errors
/// A comment is not closed, or has no columns.
pub(crate) fn fill(document: &str, about: &str, rows: &[Value]) -> Result<String> {
    let (mut filled, mut rest) = (String::new(), document);
    while let Some((before, from)) = rest.split_once(BEGIN) {
        let (what, from) = from.split_once(CLOSE).context("a comment of figures is not closed")?;
        let (old, behind) = from.split_once(END).with_context(|| format!("no end of the figures{what}"))?;
        let (selection, columns) = what.split_once('|').with_context(|| format!("no columns in{what}"))?;
        let rows: Vec<&Value> = rows.iter().filter(|row| is_selected(row, selection)).collect();
        let _ = write!(filled, "{before}{BEGIN}{what}{CLOSE}");
        match rows.is_empty() {
            true => filled.push_str(old),
            false => {
                let _ = write!(filled, "\n*{about}*\n\n{}\n", table(&rows, columns));
            }
        }
        filled.push_str(END);
        rest = behind;
    }
    Ok(filled + rest)
}

fn is_selected(row: &Value, selection: &str) -> bool {
    let mut words = selection.split_whitespace();
    let is_of_bench = words.next() == row["bench"].as_str();
    is_of_bench
        && words.all(|word| {
            let Some((column, values)) = word.split_once('=') else { return !row[word].is_null() };
            values.split(',').any(|value| in_words(row, column) == value)
        })
}

fn table(rows: &[&Value], columns: &str) -> String {
    let columns: Vec<&str> = columns.split_whitespace().collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(columns.iter().map(|name| name.replace('_', " ").replace("ratios.", "× ")).collect());
    text += &line(columns.iter().map(|_| "---".to_owned()).collect());
    for row in rows {
        text += &line(columns.iter().map(|column| in_words(row, column)).collect());
    }
    text
}

/// What a row has in a column, without the mark of a fraction where there is none.
fn in_words(row: &Value, column: &str) -> String {
    let value = match column.split_once('.') {
        Some((column, key)) => &row[column][key.replace('_', " ")],
        None => &row[column],
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            let text = number.to_string();
            text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
        }
        _ => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_are_filled_with_the_rows_they_ask_for() {
        let rows = [
            json!({"bench": "crypto", "op": "seal", "size": 64, "ns": 12.0, "ratios": {"ipsec-mb": 2.5}}),
            json!({"bench": "crypto", "op": "seal", "size": "imix", "ns": 20.5, "ratios": {}}),
            json!({"bench": "crypto", "op": "open", "size": 64, "ns": 13.0, "ratios": {}}),
        ];
        let document = "A\n<!-- figures crypto op=seal ns size=64,imix | size ns ratios.ipsec-mb -->old<!-- end of figures -->\n\
                        B\n<!-- figures ike | group -->\nkept\n<!-- end of figures -->\nC\n";
        let filled = fill(document, "a machine", &rows).unwrap();
        let expected = "A\n<!-- figures crypto op=seal ns size=64,imix | size ns ratios.ipsec-mb -->\n*a machine*\n\n\
                        | size | ns | × ipsec-mb |\n| --- | --- | --- |\n| 64 | 12 | 2.5 |\n| imix | 20.5 | – |\n\n\
                        <!-- end of figures -->\nB\n<!-- figures ike | group -->\nkept\n<!-- end of figures -->\nC\n";
        assert_eq!(filled, expected);
        assert_eq!(fill(&filled, "a machine", &rows).unwrap(), expected);
        assert!(fill("<!-- figures crypto | op -->", "", &rows).is_err());
        assert!(fill("<!-- figures crypto op -->x<!-- end of figures -->", "", &rows).is_err());
    }
}
