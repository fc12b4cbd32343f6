//! What works and should not be used.

use super::{Finding, Severity};
use crate::{config, status::TunnelStatus};
use adit_ike::{Encryption, Group, Integrity, Mode, Prf, Version};

/// Characters of a pre-shared key that nobody guesses.
const ENOUGH: usize = 16;

/// Algorithms in use that are broken or deprecated, and keys that can be guessed.
pub(super) fn findings(tunnel: &TunnelStatus, config: &config::Tunnel) -> Vec<Finding> {
    let mut findings = Vec::new();
    let weak = |about: &str, words: String| Finding::new(Severity::Warning, about, words);
    let phases = [("phase 1", "ike", tunnel.ike_suite.as_deref())].into_iter();
    let children = tunnel.children.last().map(|c| ("phase 2", "ipsec", Some(c.suite.as_str())));
    for (phase, table, suite) in phases.chain(children) {
        for word in suite.into_iter().flat_map(|suite| suite.split('-')) {
            if let Some((field, better)) = deprecated(word) {
                let words = format!(
                    "{phase} uses {word}, which is broken or deprecated: use {better} where the peer can"
                );
                let field = if (table, field) == ("ipsec", "dh") { "pfs" } else { field };
                findings.push(weak("weak", words).field(&format!("{table}.{field}"), word));
            }
        }
    }
    let group = tunnel.children.last().and_then(|c| c.pfs.as_deref()).filter(|g| deprecated(g).is_some());
    findings.extend(group.map(|group| {
        let words = format!("perfect forward secrecy with {group}, which is too small");
        weak("weak", words).field("ipsec.pfs", group)
    }));
    if (config.ike.version, config.ike.mode) == (Version::Ikev1, Mode::Aggressive) {
        let words = "aggressive mode sends a hash of the key in clear: whoever sees it can guess a weak key";
        findings.push(weak("weak", words.to_owned()).field("ike.mode", "aggressive"));
    }
    let length = config.psk.reveal().len();
    if length < ENOUGH {
        let words = format!("the pre-shared key is shorter than {ENOUGH} characters: it can be guessed");
        findings.push(weak("weak", words).field("psk", format!("{length} characters")));
    }
    findings
}

/// The field that an algorithm is of and a better one, where it should not be used.
fn deprecated(word: &str) -> Option<(&'static str, &'static str)> {
    let prf = word.strip_prefix("prf").unwrap_or(word);
    if word.parse::<Encryption>().is_ok_and(|e| e.is_deprecated() || e == Encryption::Null) {
        Some(("encryption", "aes256gcm16"))
    } else if word.parse::<Integrity>().is_ok_and(|i| i.is_deprecated()) {
        Some(("integrity", "sha256"))
    } else if prf != word && prf.parse::<Prf>().is_ok_and(|p| p.is_deprecated()) {
        Some(("prf", "sha256"))
    } else if Group::ALL.into_iter().any(|g| g.is_deprecated() && g.to_string() == word) {
        Some(("dh", "31, 19 or 14"))
    } else {
        None
    }
}
