//! The figures: tables for people, rows for programs, and the machine they were taken on.

use std::fmt::Write as _;
use std::fs;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// All figures of one run.
pub(crate) struct Report {
    machine: Value,
    rows: Vec<Value>,
}

impl Report {
    /// An empty report about this machine.
    pub(crate) fn new() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let flags = field("flags").unwrap_or_default();
        let of_interest = ["aes", "avx2", "avx512f", "vaes", "vpclmulqdq", "sha_ni"];
        let features: Vec<&str> =
            of_interest.into_iter().filter(|f| flags.split(' ').any(|flag| flag == *f)).collect();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let machine = json!({
            "cpu": field("model name").unwrap_or_default(),
            "cores": std::thread::available_parallelism().map_or(1, usize::from),
            "features": features,
            "kernel": kernel.trim(),
            "load": fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next(),
        });
        Self { machine, rows: Vec::new() }
    }

    /// The machine in one line.
    pub(crate) fn machine(&self) -> String {
        let text = |key: &str| self.machine[key].as_str().unwrap_or_default().to_owned();
        let features: Vec<&str> =
            self.machine["features"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let cores = &self.machine["cores"];
        let (cpu, kernel, load) = (text("cpu"), text("kernel"), text("load"));
        format!("{cpu}, {cores} cores, Linux {kernel}; {}; load at the start {load}", features.join(" "))
    }

    /// Prints rows as one table under `title` and keeps them. All have the columns of the first.
    pub(crate) fn table(&mut self, bench: &str, title: &str, rows: Vec<Row>) {
        let Some(first) = rows.first() else { return };
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(first.iter().map(|(column, _)| column.replace('_', " ")));
        for row in &rows {
            table.add_row(row.iter().map(|(_, value)| in_words(value)));
        }
        for (index, (_, value)) in first.iter().enumerate() {
            if value.is_number()
                && let Some(column) = table.column_mut(index)
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("\n{title}\n{table}");
        for row in rows {
            let about = [("bench", bench.into()), ("table", title.into())];
            let fields = about.into_iter().chain(row).map(|(key, value)| (key.to_owned(), value));
            self.rows.push(Value::Object(fields.collect()));
        }
    }

    /// All rows so far, each with the name of its bench.
    pub(crate) fn rows(&self) -> &[Value] {
        &self.rows
    }

    /// The whole report as one JSON document.
    pub(crate) fn to_json(&self) -> String {
        let mut text = json!({ "machine": self.machine, "rows": self.rows }).to_string();
        text.push('\n');
        text
    }
}

/// One row: its columns and what is in them.
pub(crate) type Row = Vec<(&'static str, Value)>;

/// A figure with as many digits as it is good for.
pub(crate) fn figure(value: f64) -> Value {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let factor = 10f64.powi(digits);
    json!((value * factor).round() / factor)
}

fn in_words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".to_owned(),
        Value::Object(ratios) => ratios.iter().fold(String::new(), |mut words, (name, ratio)| {
            let space = if words.is_empty() { "" } else { " " };
            let _ = write!(words, "{space}{name} {ratio}×");
            words
        }),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(figure(1234.56), json!(1235.0));
        assert_eq!(figure(12.345), json!(12.3));
        assert_eq!(figure(1.2345), json!(1.23));
    }

    #[test]
    fn rows_are_kept_with_the_name_of_their_bench() {
        let mut report = Report::new();
        report.table("ike", "a table", vec![vec![("group", "x25519".into()), ("us", figure(1.0))]]);
        let all: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(all["rows"][0]["bench"], "ike");
        assert_eq!(all["rows"][0]["us"], 1.0);
        assert!(all["machine"]["cores"].as_u64().unwrap() > 0);
    }
}
