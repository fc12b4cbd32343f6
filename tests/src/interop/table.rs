//! The matrix as a table: a row for what is tried, a column for each version and role.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::interop::case::{Case, Role, Version};

/// What came of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All of it held: with what is worth knowing.
    Passed(String),
    /// Something did not.
    Failed(String),
    /// It could not be tried: why.
    Skipped(String),
}

/// A case that was run.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// [`Case::full_name`].
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
}

const COLUMNS: [(Version, Role, &str); 6] = [
    (Version::V2, Role::Initiates, "v2 →"),
    (Version::V2, Role::Responds, "v2 ←"),
    (Version::Main, Role::Initiates, "v1 main →"),
    (Version::Main, Role::Responds, "v1 main ←"),
    (Version::Aggressive, Role::Initiates, "v1 aggr. →"),
    (Version::Aggressive, Role::Responds, "v1 aggr. ←"),
];

/// Where the table is kept.
pub fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/interop.md")
}

/// The document: what every case shows, and each case's place in the matrix.
pub fn markdown(cases: &[Case]) -> String {
    let mut text = format!(
        "# Interoperability\n\n\
         `cargo xtask test interop` runs the {} cases of this matrix against real peers in network namespaces, and CI runs it \
         on every change. `--filter TEXT` selects cases by name, `--json FILE` keeps the results, `--write-docs` writes \
         this file when all cases have passed; a unit test fails when it is not what the matrix says.\n\n\
         The peers are strongSwan 5.9 (Debian 12; ESP in UDP), strongSwan 6.0 (Debian 13; ESP as protocol 50; ML-KEM from its OpenSSL by a small plugin), \
         and strongSwan 5.9 on a Linux 6.1 kernel of its own (User-Mode Linux; AH, ESN, the kernel's ESP as protocol 50).\n\n\
         Every case that connects sends datagrams of two sizes both ways with none lost, finds no packet in clear by the \
         router's counters, and at the end finds that the peer has taken Adit's DELETE. A case of a mismatch finds \
         the cause in words in `adit status` or the log, and no tunnel on either side. → Adit initiates, ← Adit responds.\n",
        cases.len()
    );
    for (group, about) in GROUPS {
        let of_group: Vec<&Case> = cases.iter().filter(|case| case.group == group).collect();
        if of_group.is_empty() {
            continue;
        }
        let _ = write!(text, "\n## {group}\n\n{about}\n\n| case |");
        let used = columns(&of_group);
        for (_, _, title) in &used {
            let _ = write!(text, " {title} |");
        }
        text += "\n|---|";
        text += &":-:|".repeat(used.len());
        text.push('\n');
        for (row, members) in rows(&of_group) {
            let _ = write!(text, "| {row} |");
            for (version, role, _) in &used {
                let here = members.iter().any(|case| case.adit.version == *version && case.role == *role);
                text += if here { " ✓ |" } else { "  |" };
            }
            text.push('\n');
        }
    }
    text
}

/// The results for a terminal: the matrix, and the failures and skips by name.
pub fn terminal(cases: &[Case], records: &[Record]) -> String {
    let by_name: BTreeMap<&str, &Record> =
        records.iter().map(|record| (record.name.as_str(), record)).collect();
    let ran: Vec<&Case> = cases.iter().filter(|case| by_name.contains_key(&*case.full_name())).collect();
    let mut text = String::new();
    for (group, _) in GROUPS {
        let of_group: Vec<&Case> = ran.iter().copied().filter(|case| case.group == group).collect();
        if of_group.is_empty() {
            continue;
        }
        let used = columns(&of_group);
        let rows = rows(&of_group);
        let width = rows.iter().map(|(row, _)| row.chars().count()).max().unwrap_or(0).max(group.len());
        let _ = write!(text, "\n{group:width$}");
        for (_, _, title) in &used {
            let _ = write!(text, "  {title:>10}");
        }
        text.push('\n');
        for (row, members) in rows {
            let _ = write!(text, "{row:width$}");
            for (version, role, _) in &used {
                let here = members.iter().find(|case| case.adit.version == *version && case.role == *role);
                let record = here.and_then(|case| by_name.get(&*case.full_name()));
                let cell = match record {
                    None => String::new(),
                    Some(record) => match &record.outcome {
                        Outcome::Passed(_) => format!("{:.1} s", record.seconds),
                        Outcome::Failed(_) => "FAILED".to_owned(),
                        Outcome::Skipped(_) => "skipped".to_owned(),
                    },
                };
                let _ = write!(text, "  {cell:>10}");
            }
            text.push('\n');
        }
    }
    let mut reasons: BTreeMap<&str, u32> = BTreeMap::new();
    for record in records {
        if let Outcome::Skipped(reason) = &record.outcome {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    for (reason, count) in reasons {
        let _ = writeln!(text, "\n{count} skipped: {reason}");
    }
    text
}

/// The results for a program.
pub fn json(records: &[Record]) -> Value {
    let one = |record: &Record| {
        let (outcome, note) = match &record.outcome {
            Outcome::Passed(note) => ("passed", note),
            Outcome::Failed(note) => ("failed", note),
            Outcome::Skipped(note) => ("skipped", note),
        };
        json!({"name": record.name, "outcome": outcome, "seconds": record.seconds, "note": note})
    };
    Value::Array(records.iter().map(one).collect())
}

/// Which version and role columns these cases need.
fn columns(cases: &[&Case]) -> Vec<(Version, Role, &'static str)> {
    let used = |version, role| cases.iter().any(|case| case.adit.version == version && case.role == role);
    COLUMNS.into_iter().filter(|(version, role, _)| used(*version, *role)).collect()
}

/// The cases that differ by version and role only, in their order.
fn rows<'c>(cases: &[&'c Case]) -> Vec<(String, Vec<&'c Case>)> {
    let mut rows: Vec<(String, Vec<&Case>)> = Vec::new();
    for case in cases {
        let row = row(case);
        match rows.iter_mut().find(|(there, _)| *there == row) {
            Some((_, members)) => members.push(case),
            None => rows.push((row, vec![case])),
        }
    }
    rows
}

/// What a case is called beside its version and role.
fn row(case: &Case) -> String {
    let name = case.full_name();
    let parts: Vec<&str> = name.splitn(4, '/').collect();
    let mut row = parts.get(3).copied().unwrap_or_default().replace('/', " ");
    if case.adit.version != case.swan.version {
        let _ = write!(row, " (peer: {})", case.swan.version);
    }
    row
}

const GROUPS: [(&str, &str); 10] = [
    ("proposals", "Phase 1 and the phase 2 that goes with it, as strongSwan writes them."),
    ("children", "Phase 2 by itself; a group is PFS, with IKEv2 shown by a rekey under traffic."),
    (
        "subnets",
        "Several subnets: Adit's × the peer's, every pair with traffic both ways; and a peer that takes part of what Adit has.",
    ),
    (
        "lives",
        "Rekeys and reauthentication under a stream of numbered datagrams both ways, none lost; a peer that deletes, and one \
         that is killed and comes back.",
    ),
    ("mismatches", "What the FAQs of VPN gateways are about: each told in words."),
    (
        "tunnels",
        "Two peers from anywhere: told apart by their IDs and, in aggressive mode, their keys. Two tunnels that share the \
         peer, the IDs and the key, and one connection of the peer's for both: told apart by their subnets, with traffic \
         both ways through each; a rekey of the one IKE SA leaves both.",
    ),
    ("extensions", "Extensions; of IKEv1 its fragmentation, forced by the peer for every message."),
    ("nat", "NAT that forwards IKE inward and gives outgoing packets random ports; ESP and AH do not pass."),
    ("protocol-50", "strongSwan 6: ESP without UDP, and a hybrid key exchange."),
    ("kernel", "A kernel's IPsec: AH, ESN, ESP as protocol 50."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interop::matrix::matrix;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_is_what_the_matrix_says() {
        let there = std::fs::read_to_string(document()).unwrap_or_default();
        assert!(
            there == markdown(&matrix()),
            "docs/interop.md is not what the matrix says; `cargo xtask test interop --write-docs` writes it"
        );
    }

    #[test]
    fn every_group_is_told_of() {
        let groups: BTreeSet<&str> = matrix().iter().map(|case| case.group).collect();
        let told: BTreeSet<&str> = GROUPS.iter().map(|(group, _)| *group).collect();
        assert!(groups.is_subset(&told), "{groups:?}");
    }

    #[test]
    fn the_table_shows_what_came_of_each_case() {
        let cases = matrix();
        let record = |at: usize, outcome| Record { name: cases[at].full_name(), outcome, seconds: 0.25 };
        let records = [
            record(0, Outcome::Passed("ESP".to_owned())),
            record(1, Outcome::Failed("no".to_owned())),
            record(2, Outcome::Skipped("no peer".to_owned())),
        ];
        let text = terminal(&cases, &records);
        for part in ["0.2 s", "FAILED", "skipped", "1 skipped: no peer"] {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
        assert_eq!(json(&records).pointer("/1/outcome"), Some(&Value::from("failed")));
    }
}
