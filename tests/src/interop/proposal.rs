//! Proposals as strongSwan writes them, told in the words of Adit's configuration.

use anyhow::{Context, Result, bail};

/// What one proposal asks for. A cipher with authentication of its own has no integrity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// `encryption`; empty for AH.
    pub encryption: String,
    /// `integrity`.
    pub integrity: Option<String>,
    /// `prf`; that of the integrity algorithm where nothing else is said.
    pub prf: Option<String>,
    /// `dh` of phase 1, `pfs` of phase 2.
    pub group: Option<u16>,
    /// `additional_ke`.
    pub additional: Option<String>,
    /// `esn`, where it is said.
    pub esn: Option<bool>,
}

const CIPHERS: [&str; 10] = [
    "null",
    "des",
    "3des",
    "aes128",
    "aes192",
    "aes256",
    "aes128gcm16",
    "aes192gcm16",
    "aes256gcm16",
    "chacha20poly1305",
];

const HASHES: [&str; 5] = ["md5", "sha1", "sha256", "sha384", "sha512"];

const GROUPS: [(&str, u16); 11] = [
    ("modp768", 1),
    ("modp1024", 2),
    ("modp1536", 5),
    ("modp2048", 14),
    ("modp3072", 15),
    ("modp4096", 16),
    ("ecp256", 19),
    ("ecp384", 20),
    ("ecp521", 21),
    ("modp2048s256", 24),
    ("x25519", 31),
];

impl Proposal {
    /// Reads one proposal, as `aes128-sha1-modp1024`.
    ///
    /// # Errors
    /// A word of it has no counterpart in Adit's configuration.
    pub fn parse(text: &str) -> Result<Proposal> {
        let mut proposal = Proposal::default();
        for word in text.split('-') {
            proposal.take(word).with_context(|| format!("in the proposal {text:?}"))?;
        }
        if proposal.prf.is_none() {
            proposal.prf.clone_from(&proposal.integrity);
        }
        Ok(proposal)
    }

    fn take(&mut self, word: &str) -> Result<()> {
        let group = GROUPS.iter().find(|(name, _)| *name == word);
        if CIPHERS.contains(&word) {
            word.clone_into(&mut self.encryption);
        } else if HASHES.contains(&word) {
            self.integrity = Some(word.to_owned());
        } else if let Some(prf) = word.strip_prefix("prf").filter(|prf| HASHES.contains(prf)) {
            self.prf = Some(prf.to_owned());
        } else if let Some((_, number)) = group {
            self.group = Some(*number);
        } else if let Some(additional) = word.strip_prefix("ke1_") {
            self.additional = Some(additional.to_owned());
        } else if word == "esn" || word == "noesn" {
            self.esn = Some(word == "esn");
        } else {
            bail!("there is no {word:?}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ike_proposal_names_all_four_algorithms() {
        let proposal = Proposal::parse("aes256gcm16-prfsha384-ecp384-ke1_mlkem768").unwrap();
        assert_eq!(proposal.encryption, "aes256gcm16");
        assert_eq!((proposal.integrity, proposal.prf.as_deref()), (None, Some("sha384")));
        assert_eq!((proposal.group, proposal.additional.as_deref()), (Some(20), Some("mlkem768")));
    }

    #[test]
    fn the_prf_follows_the_integrity_algorithm() {
        let proposal = Proposal::parse("3des-md5-modp768").unwrap();
        assert_eq!((proposal.integrity.as_deref(), proposal.prf.as_deref()), (Some("md5"), Some("md5")));
        assert_eq!((proposal.group, proposal.esn), (Some(1), None));
    }

    #[test]
    fn what_adit_has_no_word_for_is_refused() {
        let error = Proposal::parse("aes128-blake2").unwrap_err();
        assert!(format!("{error:#}").contains("blake2"), "{error:#}");
    }
}
