//! Resources as text.

use super::{Output, sheet};
use crate::table;
use adit_control::resource::Kind;
use serde_json::Value;

/// Some of a kind.
pub(super) fn list(found: &[Value], kind: Kind, output: Output) -> anyhow::Result<Vec<u8>> {
    rows(found, &format!("{kind}s"), output, || shown(found, kind))
}

/// Whatever there are several of, in a workbook below `title`; `table` is how people see it.
pub(super) fn rows(
    found: &[Value],
    title: &str,
    output: Output,
    table: impl FnOnce() -> String,
) -> anyhow::Result<Vec<u8>> {
    let text = match output {
        Output::Xlsx => return Ok(sheet::workbook(found, title)?),
        Output::Table => table(),
        Output::Json => serde_json::to_string_pretty(found)?,
        Output::Yaml => found.iter().map(|one| format!("- {}", block(one, 2).trim_start())).collect(),
        Output::Csv => separated(found),
    };
    Ok(ended(&text))
}

/// One.
pub(super) fn one(found: &Value, kind: Kind, output: Output) -> anyhow::Result<Vec<u8>> {
    let rows = std::slice::from_ref(found);
    whole(found, rows, &format!("{kind}s"), output, || shown(rows, kind))
}

/// Something that is one, as the `found` of [`rows`] where rows are what is wanted of it.
pub(super) fn whole(
    one: &Value,
    found: &[Value],
    title: &str,
    output: Output,
    table: impl FnOnce() -> String,
) -> anyhow::Result<Vec<u8>> {
    match output {
        Output::Json => Ok(ended(&serde_json::to_string_pretty(one)?)),
        Output::Yaml => Ok(ended(&block(one, 0))),
        Output::Table | Output::Csv | Output::Xlsx => rows(found, title, output, table),
    }
}

/// A text with one line break at its end.
fn ended(text: &str) -> Vec<u8> {
    format!("{}\n", text.trim_end()).into_bytes()
}

/// What a table has room for.
fn shown(found: &[Value], kind: Kind) -> String {
    let (header, fields): (&[&str], &[&str]) = match kind {
        Kind::Gateway => {
            (&["NAME", "ADDRESS", "WAN", "LAN", "REMARK"], &["name", "address", "wan", "lan", "remark"])
        }
        Kind::Peer => (&["NAME", "ADDRESS", "REMARK"], &["name", "address", "remark"]),
        Kind::Group => (&["NAME", "MODE", "MEMBERS", "REMARK"], &["name", "mode", "members", "remark"]),
        Kind::Alarm => (&["NAME", "FIGURES", "REMARK"], &["name", "rules", "remark"]),
        Kind::Tunnel => (
            &["NAME", "PEER", "LOCAL", "REMOTE", "IKE", "START", "ENABLED", "REMARK"],
            &["name", "peer", "local_subnets", "remote_subnets", "ike.version", "start", "enabled", "remark"],
        ),
    };
    let found_in =
        |one: &Value, field: &str| match (one.pointer(&format!("/{}", field.replace('.', "/"))), field) {
            (Some(Value::Array(rules)), "rules") => {
                rules.iter().map(|rule| word(rule.get("figure"))).collect::<Vec<_>>().join(",")
            }
            (found, _) => word(found),
        };
    // What others have written is no command to a terminal.
    let cell = |one: &Value, field: &str| found_in(one, field).replace(char::is_control, "?");
    let rows = found.iter().map(|one| fields.iter().map(|field| cell(one, field)).collect());
    table::fitted(header, rows)
}

/// A value in one cell.
pub(super) fn word(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => list.iter().map(|v| word(Some(v))).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}

/// Comma-separated values (RFC 4180): a column for each field that one of them has. A text that a spreadsheet would take for
/// a formula has an apostrophe before it, which spreadsheets take for the sign of a text.
fn separated(found: &[Value]) -> String {
    let leaves: Vec<Vec<(String, &Value)>> = found.iter().map(leaves).collect();
    let columns = columns(&leaves);
    let harmless = |text: String| match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text,
    };
    let quoted = |text: &str| {
        let special = text.contains([',', '"', '\n', '\r']);
        if special { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
    };
    let line = |cells: Vec<String>| cells.join(",") + "\r\n";
    let header = line(columns.iter().map(|name| quoted(name)).collect());
    let row = |one: &Vec<(String, &Value)>| {
        let value = |name: &&str| one.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
        let cell = |name: &&str| {
            quoted(&match value(name) {
                Some(number @ Value::Number(_)) => word(Some(number)),
                other => harmless(word(other)),
            })
        };
        line(columns.iter().map(cell).collect())
    };
    header + &leaves.iter().map(row).collect::<String>()
}

/// The fields of one, those within others too, each by its path.
pub(super) fn leaves(one: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    add_leaves(one, "", &mut found);
    found
}

fn add_leaves<'v>(value: &'v Value, path: &str, into: &mut Vec<(String, &'v Value)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                add_leaves(value, &path, into);
            }
        }
        other => into.push((path.to_owned(), other)),
    }
}

/// Every field that one of them has, once.
pub(super) fn columns<'l>(leaves: &'l [Vec<(String, &Value)>]) -> Vec<&'l str> {
    let mut columns: Vec<&str> = Vec::new();
    for (name, _) in leaves.iter().flatten() {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    columns
}

/// YAML 1.2 in block style, indented by so much. Every string is quoted, as in JSON: none is taken for something else.
fn block(value: &Value, indent: usize) -> String {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let field = |(name, value): (&String, &Value)| {
                let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", ""];
                let name = if plain && !reserved.contains(&name.as_str()) {
                    name.clone()
                } else {
                    Value::from(name.as_str()).to_string()
                };
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        format!("{pad}{name}:\n{}", block(value, indent + 2))
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        format!("{pad}{name}:\n{}", block(value, indent + 2))
                    }
                    scalar => format!("{pad}{name}: {scalar}\n"),
                }
            };
            fields.iter().map(field).collect()
        }
        Value::Array(list) if !list.is_empty() => {
            list.iter().map(|item| format!("{pad}- {}", block(item, indent + 2).trim_start())).collect()
        }
        scalar => format!("{pad}{scalar}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tunnel() -> Value {
        json!({
            "name": "a-b", "remark": "say \"no\", twice", "labels": {"no": "1"}, "routes": [], "enabled": true,
            "remote_subnets": ["10.2.0.0/16", "10.3.0.0/16"], "ike": {"version": "ikev2", "dh": [31, 14]},
            "pairs": [{"a": 1, "b": [2]}],
        })
    }

    fn text(octets: anyhow::Result<Vec<u8>>) -> String {
        String::from_utf8(octets.unwrap()).unwrap()
    }

    #[test]
    fn yaml_is_in_blocks_with_quoted_strings() {
        let text = text(one(&tunnel(), Kind::Tunnel, Output::Yaml));
        for part in [
            "name: \"a-b\"\n",
            "remark: \"say \\\"no\\\", twice\"\n",
            "labels:\n  \"no\": \"1\"\n",
            "routes: []\n",
            "enabled: true\n",
            "remote_subnets:\n  - \"10.2.0.0/16\"\n  - \"10.3.0.0/16\"\n",
            "ike:\n  dh:\n    - 31\n    - 14\n  version: \"ikev2\"\n",
            "pairs:\n  - a: 1\n    b:\n      - 2\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let two = [json!({"a": 1, "b": {"c": 2}}), json!({"a": 3})];
        let listed = super::tests::text(list(&two, Kind::Tunnel, Output::Yaml));
        assert_eq!(listed, "- a: 1\n  b:\n    c: 2\n- a: 3\n");
    }

    #[test]
    fn what_is_one_is_whole_but_for_spreadsheets() {
        let status = json!({"gateway": {"name": "a"}, "tunnels": [{"name": "x"}, {"name": "y"}]});
        let shown = |output| {
            let rows = status["tunnels"].as_array().unwrap();
            text(whole(&status, rows, "tunnels", output, || "a table".to_owned()))
        };
        assert_eq!(shown(Output::Table), "a table\n");
        assert_eq!(serde_json::from_str::<Value>(&shown(Output::Json)).unwrap(), status);
        assert!(
            shown(Output::Yaml).starts_with("gateway:\n  name: \"a\"\ntunnels:\n"),
            "{}",
            shown(Output::Yaml)
        );
        assert_eq!(shown(Output::Csv), "name\r\nx\r\ny\n");
    }

    #[test]
    fn a_spreadsheet_has_a_column_for_each_field() {
        let other = json!({"name": "c", "mtu": 1400});
        let text = text(list(&[tunnel(), other], Kind::Tunnel, Output::Csv));
        let lines: Vec<_> = text.split("\r\n").collect();
        assert_eq!(lines.len(), 3, "{text}");
        let header: Vec<_> = lines[0].split(',').collect();
        assert!(header.contains(&"ike.version") && header.contains(&"labels.no") && header.contains(&"mtu"));
        assert!(
            lines[1].contains("\"say \"\"no\"\", twice\"")
                && lines[1].contains("\"10.2.0.0/16,10.3.0.0/16\"")
        );
        assert!(lines[2].contains("c,") && lines[2].contains("1400"));
    }

    #[test]
    fn what_others_wrote_is_no_formula_and_no_command() {
        let evil =
            json!({"name": "=1+2", "remark": "@SUM(A1)", "labels": {"x": "-1", "y": "a=b"}, "mtu": -1});
        let csv = text(list(std::slice::from_ref(&evil), Kind::Tunnel, Output::Csv));
        let cells: Vec<_> = csv.lines().nth(1).unwrap().split(',').collect();
        let mut wanted = ["'=1+2", "'@SUM(A1)", "'-1", "a=b", "-1"];
        wanted.sort_unstable();
        let mut found = cells;
        found.sort_unstable();
        assert_eq!(found, wanted);
        let evil = json!({"name": "a", "remark": "\u{1b}]0;x\u{7}\nb"});
        let table = text(list(&[evil], Kind::Peer, Output::Table));
        assert!(table.lines().count() == 2 && table.contains("?]0;x??b"), "{table:?}");
    }

    #[test]
    fn a_table_has_what_matters() {
        let text = text(list(&[tunnel()], Kind::Tunnel, Output::Table));
        assert!(
            text.starts_with("NAME") && text.contains("10.2.0.0/16,10.3.0.0/16") && text.contains("ikev2")
        );
        let rules = json!([{"figure": "health", "threshold": 1}, {"figure": "mtu", "threshold": 1200}]);
        let text =
            super::tests::text(list(&[json!({"name": "x", "rules": rules})], Kind::Alarm, Output::Table));
        assert!(text.contains("FIGURES") && text.contains("x     health,mtu"), "{text}");
    }
}
