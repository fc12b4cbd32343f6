//! What is wrong with a configuration, and where.

use std::{fmt, ops::Range, path::PathBuf};

/// One thing to say about a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line in the file, from 1; 0 where it was not read from a file.
    pub line: usize,
    /// Column in the line, in characters, from 1.
    pub column: usize,
    /// The field by its way from the top: `tunnel "a-b".ike.dh`.
    pub field: String,
    /// The value as written; `None` where there is none to show, and always for a secret.
    pub value: Option<String>,
    /// What is the matter.
    pub message: String,
    /// What would be taken.
    pub allowed: Option<String>,
    /// The tunnel that it cannot be together with.
    pub clashes_with: Option<String>,
}

impl Diagnostic {
    /// At a place in a text; nowhere, where the field is of no text.
    pub(super) fn at(text: &str, span: Option<&Range<usize>>, field: impl Into<String>) -> Self {
        let before = span.map(|span| text.get(..span.start).unwrap_or(text));
        let line_start = before.and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        Diagnostic {
            line: before.map_or(0, |before| before.matches('\n').count() + 1),
            column: before.map_or(0, |before| before[line_start..].chars().count() + 1),
            field: field.into(),
            value: None,
            message: String::new(),
            allowed: None,
            clashes_with: None,
        }
    }
}

/// `12:6: tunnel "a-b".ike.dh: 17 is unknown; allowed: 2, 14, 19, 31`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        if let Some(value) = &self.value {
            write!(f, "{value} ")?;
        }
        f.write_str(&self.message)?;
        match &self.allowed {
            Some(allowed) => write!(f, "; allowed: {allowed}"),
            None => Ok(()),
        }
    }
}

/// Why a configuration file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file says something that cannot be.
    #[error("{}", lines(file, problems))]
    Invalid {
        /// Which.
        file: PathBuf,
        /// Everything that is wrong with it, in the order of the file.
        problems: Vec<Diagnostic>,
    },
}

/// One line for each diagnostic, led by the file's name.
pub(super) fn lines(file: &std::path::Path, problems: &[Diagnostic]) -> String {
    let line = |p: &Diagnostic| match p.line {
        0 => p.to_string(),
        _ => format!("{}:{p}", file.display()),
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}
