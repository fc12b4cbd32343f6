//! TOML values as text, for the files that are written.

use std::fmt::Display;

/// Text between double quotes; what would end or change it is escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A list of texts.
pub(crate) fn list<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<_> = values.into_iter().map(|v| quoted(&v.to_string())).collect();
    format!("[{}]", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back(text in any::<String>()) {
            let document: toml_edit::DocumentMut = format!("text = {}", quoted(&text)).parse().unwrap();
            prop_assert_eq!(document["text"].as_str(), Some(text.as_str()));
        }
    }
}
