//! What is wrong with a configuration, and where.

use std::{fmt, ops::Range, path::PathBuf};

/// One thing to say about a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line in the file, from 1.
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
}

impl Diagnostic {
    pub(super) fn at(text: &str, span: &Range<usize>, field: impl Into<String>) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Diagnostic {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            field: field.into(),
            value: None,
            message: String::new(),
            allowed: None,
        }
    }
}

/// `12:6: tunnel "a-b".ike.dh: 17 is unknown; allowed: 2, 14, 19, 31`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
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
    problems.iter().map(|p| format!("{}:{p}", file.display())).collect::<Vec<_>>().join("\n")
}
