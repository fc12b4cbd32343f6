//! Where what the process has to say goes: to stderr as text or as JSON, or to the journal with its fields.

use clap::ValueEnum;
use std::{
    fs::File,
    io::{IsTerminal, stderr},
    os::{fd::AsFd, unix::fs::MetadataExt},
};
use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// To the journal where stderr leads there, as under systemd; as text to stderr elsewhere.
    Auto,
    /// To stderr, for people.
    Text,
    /// To stderr, an object a line.
    Json,
    /// To the journal (systemd-journald), each value as a field of its own: `ADIT_TUNNEL` and so on.
    Journald,
}

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logging {
    /// To stderr as text.
    Text,
    /// To stderr as JSON.
    Json,
    /// To the journal.
    Journal {
        /// Whether stderr ends there as well.
        with_stderr: bool,
    },
}

impl Logging {
    /// Begins to log what `filter` lets pass. A journal that does not answer is told of on stderr, and the log goes there.
    pub(crate) fn begin(filter: &str, format: LogFormat) -> Self {
        let filter = EnvFilter::try_new(filter).unwrap_or_else(|e| {
            eprintln!("adit: the log filter {filter:?} is not understood ({e}); info it is");
            EnvFilter::new("info")
        });
        let stream = std::env::var("JOURNAL_STREAM").ok();
        let with_stderr = leads_to_journal(stream.as_deref());
        let wants_journal = format == LogFormat::Journald || format == LogFormat::Auto && with_stderr;
        let journal = wants_journal.then(tracing_journald::layer).and_then(|journal| {
            journal
                .inspect_err(|e| eprintln!("adit: the journal does not answer ({e}): the log goes to stderr"))
                .ok()
        });
        let to_stderr = || {
            tracing_subscriber::fmt::layer()
                .with_writer(stderr)
                .with_ansi(stderr().is_terminal())
                .with_target(false)
        };
        let (logging, layer) = match (journal, format) {
            (Some(journal), _) => {
                let journal = journal.with_field_prefix(Some("ADIT".into()));
                let journal = journal.with_syslog_identifier("adit".into());
                let journal = journal.with_priority_mappings(PriorityMappings {
                    info: Priority::Informational,
                    debug: Priority::Debug,
                    ..PriorityMappings::new()
                });
                (Logging::Journal { with_stderr }, journal.boxed())
            }
            (None, LogFormat::Json) => (Logging::Json, to_stderr().json().flatten_event(true).boxed()),
            (None, _) => (Logging::Text, to_stderr().boxed()),
        };
        tracing_subscriber::registry().with(layer.with_filter(filter)).init();
        logging
    }

    /// Tells why the process ends: in the log, and `in_text` to whoever has started it by hand.
    pub(crate) fn ends(self, why: &str, in_text: &str) {
        let is_logged = self != Logging::Text && LevelFilter::current() >= LevelFilter::ERROR;
        if is_logged {
            tracing::error!("{why}");
        }
        if !is_logged || self == (Logging::Journal { with_stderr: false }) {
            eprintln!("{in_text}");
        }
    }
}

/// Whether stderr is the stream to the journal that systemd has told of, by its device and inode (systemd.exec(5)).
fn leads_to_journal(stream: Option<&str>) -> bool {
    let told = stream.and_then(|stream| stream.split_once(':'));
    let told = told.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    told.is_some() && told == identity_of_stderr()
}

fn identity_of_stderr() -> Option<(u64, u64)> {
    let file = File::from(stderr().as_fd().try_clone_to_owned().ok()?);
    file.metadata().map(|found| (found.dev(), found.ino())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_the_stream_that_stderr_is() {
        let (device, inode) = identity_of_stderr().unwrap();
        assert!(leads_to_journal(Some(&format!("{device}:{inode}"))));
        for other in [None, Some(""), Some("8"), Some("a:b"), Some("0:0")] {
            assert!(!leads_to_journal(other), "{other:?}");
        }
    }
}
