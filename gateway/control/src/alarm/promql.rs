//! Texts as PromQL, Prometheus' templates and YAML have them, whatever is in them.

use std::fmt::Write;

/// A string of PromQL.
pub(super) fn text(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The matcher of a label that has one of some values.
pub(super) fn one_of(label: &str, values: &[impl AsRef<str>]) -> String {
    matcher(label, ["=", "=~"], values)
}

/// The matcher of a label that has none of some values.
pub(super) fn none_of(label: &str, values: &[impl AsRef<str>]) -> String {
    matcher(label, ["!=", "!~"], values)
}

fn matcher(label: &str, [equal, like]: [&str; 2], values: &[impl AsRef<str>]) -> String {
    match values {
        [one] => format!("{label}{equal}{}", text(one.as_ref())),
        several => {
            let all: Vec<String> = several.iter().map(|value| literal(value.as_ref())).collect();
            format!("{label}{like}{}", text(&all.join("|")))
        }
    }
}

/// A regular expression (RE2) of one text alone.
fn literal(value: &str) -> String {
    let escaped = |c: char| {
        let special = "\\.+*?()|[]{}^$".contains(c);
        special.then_some('\\').into_iter().chain([c])
    };
    value.chars().flat_map(escaped).collect()
}

/// What a label or an annotation has to be for Prometheus, which reads both as templates of Go, to make this text of it.
pub(super) fn plain(value: &str) -> String {
    value.replace("{{", "{{\"{{\"}}")
}

/// A scalar of YAML 1.2 in double quotes. What is no letter, digit or sign of ASCII is escaped: some of it YAML refuses, and
/// some it takes for the end of a line.
pub(super) fn scalar(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            c => {
                // A string takes whatever is written.
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_gets_out_of_its_quotes() {
        assert_eq!(text("a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(one_of("tunnel", &["a.b"]), r#"tunnel="a.b""#);
        assert_eq!(none_of("tunnel", &["a.b", "c|\"d\""]), r#"tunnel!~"a\\.b|c\\|\"d\"""#);
        assert_eq!(plain("{{{ $x }} {"), "{{\"{{\"}}{ $x }} {");
        assert_eq!(
            scalar("é \"\u{2028}\u{feff}\u{1f600}\\"),
            "\"é \\\"\\U00002028\\U0000feff\\U0001f600\\\\\""
        );
    }
}
