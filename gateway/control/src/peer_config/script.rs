//! The text of a configuration. Whoever writes it never holds a key: where one goes there is a mark, which is replaced when
//! all is written.

use super::{PeerConfigError, PeerFile, Request, view::View};
use adit_ike::{Encryption, Id, Mode, NatT, Protocol, Version};
use std::fmt::{self, Write as _};
use zeroize::Zeroizing;

/// Where the pre-shared key goes.
pub(super) const PSK: &str = "\u{1}";
/// Where the post-quantum pre-shared key goes, as `0x` and hexadecimal digits.
pub(super) const PPK: &str = "\u{2}";

/// Stands for a key that is not shown.
const HIDDEN: &str = "PUT-THE-PRE-SHARED-KEY-HERE";
const HIDDEN_PPK: &str = "PUT-THE-POST-QUANTUM-KEY-HERE";

/// How the vendor writes a key, in the quotes that it needs; or why it cannot have it, without showing it.
pub(super) type Quote = fn(&str) -> Result<Zeroizing<String>, &'static str>;

/// A configuration that is being written.
pub(super) struct Script<'a> {
    pub(super) view: View<'a>,
    request: Request,
    /// What begins a comment.
    comment: &'static str,
    quote: Quote,
    notes: Vec<String>,
    files: Vec<(String, String)>,
}

impl<'a> Script<'a> {
    pub(super) fn new(view: View<'a>, request: Request) -> Script<'a> {
        let mut script = Script {
            view,
            request,
            comment: "#",
            quote: |key| Ok(Zeroizing::new(key.to_owned())),
            notes: Vec::new(),
            files: Vec::new(),
        };
        script.note_weaknesses();
        script.note_address();
        script
    }

    /// What begins a comment, and how a key is written.
    pub(super) fn style(&mut self, comment: &'static str, quote: Quote) {
        (self.comment, self.quote) = (comment, quote);
    }

    /// What comments and errors call the vendor.
    pub(super) fn vendor(&self) -> &'static str {
        self.request.vendor.name()
    }

    /// Says something at the top.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Begins another file.
    pub(super) fn file(&mut self, name: &str) {
        self.files.push((name.to_owned(), String::new()));
    }

    /// Writes a line.
    pub(super) fn line(&mut self, line: impl fmt::Display) {
        if self.files.is_empty() {
            self.file(&format!("{}.txt", self.request.vendor));
        }
        if let Some((_, text)) = self.files.last_mut() {
            // Writing into a String does not fail.
            let _ = writeln!(text, "{line}");
        }
    }

    /// Writes lines that are wholly known.
    pub(super) fn lines(&mut self, lines: &[&str]) {
        lines.iter().for_each(|line| self.line(line));
    }

    /// Writes a comment between the lines.
    pub(super) fn remark(&mut self, text: impl fmt::Display) {
        let comment = self.comment;
        self.line(format_args!("{comment} {text}"));
    }

    /// The vendor cannot have what the field says; `why` goes on after its name.
    pub(super) fn inexpressible(&self, field: &'static str, why: impl Into<String>) -> PeerConfigError {
        PeerConfigError::Inexpressible { vendor: self.vendor(), field, why: why.into() }
    }

    /// An identity as text that needs no quotes anywhere.
    ///
    /// # Errors
    /// It has characters that would mean something else there.
    pub(super) fn id_text(&self, field: &'static str, id: &Id) -> Result<String, PeerConfigError> {
        let text = id.to_string();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-@:+/".contains(c);
        match text.chars().all(plain) {
            true => Ok(text),
            false => Err(self.inexpressible(field, "takes letters, digits and . _ - @ : + / in an identity")),
        }
    }

    /// The identities as text, the peer's first.
    ///
    /// # Errors
    /// As [`Script::id_text`].
    pub(super) fn ids(&self) -> Result<(String, String), PeerConfigError> {
        Ok((
            self.id_text("ike.peer_id", self.view.local_id)?,
            self.id_text("ike.local_id", self.view.remote_id)?,
        ))
    }

    /// The files, with what there is to say at the top of the first, and the keys in their places.
    pub(super) fn finish(self) -> Result<Vec<PeerFile>, PeerConfigError> {
        let (tunnel, comment) = (self.view.tunnel, self.comment);
        let psk = self.psk()?;
        let ppk = match &tunnel.ppk {
            Some(ppk) if self.request.with_psk => hexadecimal(ppk.key.reveal()),
            _ => Zeroizing::new(HIDDEN_PPK.to_owned()),
        };
        let title = self.request.vendor.title();
        let mut top = format!(
            "{comment} The other side of tunnel {:?} of gateway {:?}, for {title}; written by Adit {}.\n",
            tunnel.name,
            self.view.gateway,
            env!("CARGO_PKG_VERSION"),
        );
        let mut say = |note: &str| top.push_str(&format!("{comment} - {note}\n"));
        if !self.request.with_psk {
            say(&format!("{HIDDEN} stands for the key, which is shown to whoever asks for it (--with-psk)"));
        }
        self.notes.iter().for_each(|note| say(note));
        let mut files = Vec::new();
        for (name, body) in &self.files {
            let top = if files.is_empty() { top.as_str() } else { "" };
            let keys = body.matches(PSK).count() * psk.len() + body.matches(PPK).count() * ppk.len();
            // Exactly as much as it takes: a text that grows leaves copies of the keys behind.
            let mut text = String::with_capacity(top.len() + body.len() + keys);
            text.push_str(top);
            for c in body.chars() {
                match c {
                    '\u{1}' => text.push_str(&psk),
                    '\u{2}' => text.push_str(&ppk),
                    c => text.push(c),
                }
            }
            files.push(PeerFile { name: name.clone(), text });
        }
        Ok(files)
    }

    /// What stands for the key. One that the vendor cannot have is refused whether it is shown or not.
    fn psk(&self) -> Result<Zeroizing<String>, PeerConfigError> {
        let refused = |why: &str| self.inexpressible("psk", why);
        let key = std::str::from_utf8(self.view.tunnel.psk.reveal())
            .map_err(|_| refused("takes printable ASCII characters"))?;
        let quoted = (self.quote)(key).map_err(refused)?;
        if self.request.with_psk {
            return Ok(quoted);
        }
        // A vendor of short keys would refuse what only stands for one.
        (self.quote)(HIDDEN).or_else(|_| Ok(Zeroizing::new(HIDDEN.to_owned())))
    }

    /// What works and should not be used.
    fn note_weaknesses(&mut self) {
        let tunnel = self.view.tunnel;
        let (ike, ipsec) = (&tunnel.ike, &tunnel.ipsec);
        let mut weak: Vec<String> = Vec::new();
        let mut add = |field: &str, words: Vec<String>| {
            weak.extend(words.iter().map(|word| format!("{field}: {word} is broken or deprecated")));
        };
        let ciphers = |list: &[Encryption]| {
            list.iter().filter(|e| e.is_deprecated()).map(ToString::to_string).collect::<Vec<_>>()
        };
        add("ike.encryption", ciphers(&ike.encryption));
        if !ike.encryption.iter().all(|e| e.is_aead()) {
            add(
                "ike.integrity",
                ike.integrity.iter().filter(|i| i.is_deprecated()).map(ToString::to_string).collect(),
            );
        }
        add(
            "ike.dh",
            ike.dh.iter().filter(|g| g.is_deprecated()).map(|g| format!("group {}", g.word())).collect(),
        );
        let ah = ipsec.protocol == Protocol::Ah;
        if !ah {
            add("ipsec.encryption", ciphers(&ipsec.encryption));
        }
        if ah || !ipsec.encryption.iter().all(|e| e.is_aead()) {
            add(
                "ipsec.integrity",
                ipsec.integrity.iter().filter(|i| i.is_deprecated()).map(ToString::to_string).collect(),
            );
        }
        if !ah && ipsec.encryption.contains(&Encryption::Null) {
            weak.push("ipsec.encryption: null encrypts nothing".into());
        }
        if (ike.version, ike.mode) == (Version::Ikev1, Mode::Aggressive) {
            weak.push(
                "ike.mode: aggressive mode sends a hash of the key in clear; a weak key can be guessed"
                    .into(),
            );
        }
        if tunnel.psk.reveal().len() < 16 {
            weak.push("psk: the key is shorter than 16 characters and can be guessed".into());
        }
        if tunnel.nat_t == NatT::Off {
            weak.push("nat_t: this gateway refuses NAT on the way and packets in UDP; have the other side not insist on them".into());
        }
        self.notes.append(&mut weak);
    }

    /// A private address of ours is not where a peer elsewhere can reach us.
    fn note_address(&mut self) {
        let is_private = |ip: std::net::IpAddr| match ip {
            std::net::IpAddr::V4(v4) => v4.is_private(),
            std::net::IpAddr::V6(v6) => v6.is_unique_local(),
        };
        let remote = self.view.remote;
        if is_private(remote) && !self.view.local_ip().is_some_and(is_private) {
            self.note(format!(
                "{remote} is a private address: where a NAT is before this gateway, ask again with its public one (--address)"
            ));
        }
    }
}

/// Octets as `0x` and hexadecimal digits.
pub(super) fn hexadecimal(octets: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 + 2 * octets.len()));
    text.push_str("0x");
    for octet in octets {
        for digit in [octet >> 4, octet & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    text
}

/// A key between double quotes; as hexadecimal digits where `is_special` in it would mean something else, or where it looks
/// like an encoded one.
pub(super) fn quoted_or_hexadecimal(key: &str, special: &[char]) -> Zeroizing<String> {
    if key.contains(special) || key.starts_with("0x") || key.starts_with("0s") {
        return hexadecimal(key.as_bytes());
    }
    let mut text = Zeroizing::new(String::with_capacity(key.len() + 2));
    text.push('"');
    text.push_str(key);
    text.push('"');
    text
}
