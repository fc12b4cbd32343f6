//! Phase 1, phase 2 and dead peer detection of a tunnel, field by field.

use super::{
    DpdAction,
    reader::{Field, Section},
    sections::id,
};
use adit_ike::{
    Dpd, Encryption, Group, Id, IkePolicy, Integrity, IpsecPolicy, Mode, Ppk, Prf, Protocol, Psk, Version,
};
use std::time::Duration;
use zeroize::Zeroizing;

const OF_IKEV2: &str = "is of IKEv2 only";

/// What the file says of phase 1.
pub(super) struct Phase1 {
    pub(super) version: Version,
    pub(super) dh: Vec<Group>,
    pub(super) policy: Option<IkePolicy>,
    /// `None` where the file has none, `Some(None)` where it has a wrong one.
    pub(super) local_id: Option<Option<Id>>,
    pub(super) peer_id: Option<Option<Id>>,
    pub(super) childless: bool,
    pub(super) ppk: Option<Ppk>,
}

/// What the file says of phase 2.
pub(super) struct Phase2 {
    pub(super) policy: IpsecPolicy,
    pub(super) replay_window: u16,
    pub(super) lifetime_packets: Option<u64>,
}

pub(super) fn ike(s: Section<'_>, ppk_key: impl Fn() -> Option<Zeroizing<String>>) -> Phase1 {
    let default = IkePolicy::default();
    let version = s.get("version").map_or(Some(default.version), |f| {
        f.word(&[("ikev2".into(), Version::Ikev2), ("ikev1".into(), Version::Ikev1)], &[])
    });
    // A version that is wrong is said once; the rest is read as if it were the default.
    let ikev1 = version == Some(Version::Ikev1);
    let mode = s.get("mode").map_or(Some(default.mode), |f| {
        let mode = f.word(&[("main".into(), Mode::Main), ("aggressive".into(), Mode::Aggressive)], &[]);
        if mode == Some(Mode::Aggressive) {
            match ikev1 {
                true => f.warn("sends a hash of the key in clear: whoever sees it can guess a weak key"),
                false => f.fail("is of IKEv1 only", Some("main, or version ikev1".into())),
            }
        }
        mode
    });
    let preset = if ikev1 { vec![Encryption::Aes256] } else { default.encryption };
    let encryption = s.get("encryption").map_or(preset, |f| {
        let list = words(&f, &Encryption::FOR_IKE, Encryption::to_string);
        warn_of(&f, &list, |e| e.is_deprecated(), Encryption::to_string, "aes256gcm16");
        if ikev1 {
            // The ciphers of its phase 1 know no AEAD (RFC 2409 appendix A).
            unknown_to_ikev1(&f, &list, &Encryption::FOR_IKE, |e| e.is_aead());
        }
        list
    });
    let integrity = integrities(&s, !encryption.is_empty() && encryption.iter().all(|e| e.is_aead()));
    // IKEv1 negotiates one hash for both (RFC 2409 section 4).
    let hashes = || integrity.iter().filter_map(|i| i.to_string().parse().ok()).collect();
    let preset = if ikev1 { hashes() } else { default.prf };
    let prf = s.get("prf").map_or(preset, |f| {
        let list = words(&f, &Prf::ALL, |p| p.hash_name().to_owned());
        warn_of(&f, &list, |p| p.is_deprecated(), |p| p.hash_name().to_owned(), "sha256");
        if ikev1 && !integrity.is_empty() && list != hashes() {
            f.fail("must be as integrity: IKEv1 has one hash for both", None);
        }
        list
    });
    let aggressive = ikev1 && mode == Some(Mode::Aggressive);
    // The first message of aggressive mode holds a public value: there is one group (RFC 2409 section 5.4).
    let preset = if aggressive { vec![Group::Modp2048] } else { default.dh };
    let dh = s.get("dh").map_or(preset, |f| {
        let list = groups(&f, &[]);
        if aggressive && list.len() > 1 {
            f.fail("are several, where aggressive mode knows one", Some("one group".into()));
        }
        list.into_iter().flatten().collect()
    });
    let additional_ke = s.get("additional_ke").map_or_else(Vec::new, |f| {
        if ikev1 {
            f.fail(OF_IKEV2, None);
        }
        words(&f, &Group::ADDITIONAL, |g| g.word())
    });
    let lifetime = s.get("lifetime").map_or(Some(86400), |f| f.number(60..=86400, "seconds"));
    let reauthenticate = s.get("reauthenticate").map_or(Some(false), |f| {
        if ikev1 {
            f.warn("says nothing: IKEv1 authenticates every IKE SA");
        }
        f.boolean()
    });
    let childless = s.get("childless").map_or(Some(false), |f| {
        let childless = f.boolean();
        if ikev1 && childless == Some(true) {
            f.fail(OF_IKEV2, None);
        }
        childless
    });
    let ppk = s.get("ppk").map(|f| {
        if ikev1 {
            f.secret().fail(OF_IKEV2, None);
        }
        post_quantum_key(s.section("ppk"), ppk_key())
    });
    let local_id = s.get("local_id").map(|f| id(&f));
    let peer_id = s.get("peer_id").map(|f| id(&f));
    s.finish(&[]);
    let lists = (encryption, integrity, prf, additional_ke);
    let policy =
        version.zip(mode).zip(lifetime.zip(reauthenticate)).map(|((version, mode), (lifetime, again))| {
            let (encryption, integrity, prf, additional_ke) = lists;
            IkePolicy {
                version,
                mode,
                encryption,
                integrity,
                prf,
                dh: dh.clone(),
                additional_ke,
                lifetime: Duration::from_secs(lifetime.into()),
                reauthenticate: again,
            }
        });
    Phase1 {
        version: version.unwrap_or_default(),
        dh,
        policy,
        local_id,
        peer_id,
        childless: childless.unwrap_or_default(),
        ppk: ppk.flatten(),
    }
}

pub(super) fn ipsec(s: Section<'_>, version: Version, dh: &[Group]) -> Option<Phase2> {
    let default = IpsecPolicy::default();
    let ikev1 = version == Version::Ikev1;
    let protocol = s.get("protocol").map_or(Some(default.protocol), |f| {
        f.word(&[("esp".into(), Protocol::Esp), ("ah".into(), Protocol::Ah)], &[])
    });
    let ah = protocol == Some(Protocol::Ah);
    let encryption = s.get("encryption").map_or(default.encryption, |f| {
        if ah {
            f.fail("cannot be with protocol ah, which encrypts nothing", None);
        }
        let list = words(&f, &Encryption::FOR_IPSEC, Encryption::to_string);
        if ikev1 {
            // It has no number there (RFC 7634 section 5).
            unknown_to_ikev1(&f, &list, &Encryption::FOR_IPSEC, |e| *e == Encryption::ChaCha20Poly1305);
        }
        warn_of(&f, &list, |e| e.is_deprecated(), Encryption::to_string, "aes256gcm16");
        if list.contains(&Encryption::Null) {
            f.warn("null encrypts nothing: who sees the packets can read them");
        }
        list
    });
    let integrity = integrities(&s, !ah && !encryption.is_empty() && encryption.iter().all(|e| e.is_aead()));
    let pfs = s.get("pfs").map_or_else(
        || dh.to_vec(),
        |f| {
            let list = groups(&f, &["disabled"]);
            if list.len() > 1 && list.contains(&None) {
                f.fail("cannot be together", Some("disabled, or groups".into()));
            }
            list.into_iter().flatten().collect()
        },
    );
    let lifetime = s.get("lifetime").map_or(Some(3600), |f| f.number(60..=86400, "seconds"));
    let lifetime_bytes = s.get("lifetime_bytes").map_or(Some(None), |f| f.count(1 << 16, "bytes").map(Some));
    let lifetime_packets =
        s.get("lifetime_packets").map_or(Some(None), |f| f.count(100, "packets").map(Some));
    let esn = s.get("esn").map_or(Some(!ikev1), |f| {
        let esn = f.boolean();
        if ikev1 && esn == Some(true) {
            f.fail(OF_IKEV2, Some("false".into()));
        }
        esn
    });
    let replay_window = s.get("replay_window").map_or(Some(1024), |f| {
        let packets = f.number(0..=4096, "packets")?;
        if packets == 0 {
            f.warn("0 turns protection against replays off");
        }
        u16::try_from(packets).ok()
    });
    s.finish(&["mode", "tfc"]);
    Some(Phase2 {
        policy: IpsecPolicy {
            protocol: protocol?,
            encryption,
            integrity,
            pfs,
            esn: esn?,
            lifetime: Duration::from_secs(lifetime?.into()),
            lifetime_bytes: lifetime_bytes?,
        },
        replay_window: replay_window?,
        lifetime_packets: lifetime_packets?,
    })
}

pub(super) fn dead_peer_detection(s: Section<'_>) -> (Option<Option<Dpd>>, Option<DpdAction>) {
    let enabled = s.get("enabled").map_or(Some(true), |f| f.boolean());
    let delay = s.get("delay").map_or(Some(8), |f| f.number(1..=3600, "seconds"));
    let timeout = s.get("timeout").map_or(Some(13), |f| f.number(1..=3600, "seconds"));
    let action = s.get("action").map_or(Some(DpdAction::Restart), |f| {
        let words = [("restart", DpdAction::Restart), ("clear", DpdAction::Clear), ("hold", DpdAction::Hold)];
        f.word(&words.map(|(w, m)| (w.to_owned(), m)), &[])
    });
    s.finish(&[]);
    let seconds = |n: u32| Duration::from_secs(n.into());
    let dpd = enabled.zip(delay.zip(timeout)).map(|(enabled, (delay, timeout))| {
        enabled.then_some(Dpd { delay: seconds(delay), timeout: seconds(timeout) })
    });
    (dpd, action)
}

/// A post-quantum pre-shared key (RFC 8784): hexadecimal digits behind `0x`, or text.
fn post_quantum_key(s: Section<'_>, known: Option<Zeroizing<String>>) -> Option<Ppk> {
    let id = s.require("id").and_then(|f| {
        let text = f.text()?;
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            f.fail(
                "is not the name of a key",
                Some("1..128 printable ASCII characters without space".into()),
            );
        }
        fits.then(|| text.as_bytes().to_vec())
    });
    let field = match known.is_some() {
        true => s.get("key"),
        false => s.require("key"),
    };
    let key = field.map(Field::secret).map(|f| {
        let octets = octets_of_key(f.text()?);
        match &octets {
            None => f.fail(
                "is not a key",
                Some("0x and up to 512 hexadecimal digits, or 1..256 printable characters".into()),
            ),
            // RFC 8784 section 6: as strong against a quantum computer as 128 bits are today.
            Some(octets) if octets.len() < 32 => {
                f.warn("is shorter than 32 octets: too weak for what it is for")
            }
            Some(_) => {}
        }
        octets
    });
    let key = match key {
        Some(given) => given,
        None => known.and_then(|known| octets_of_key(&known)),
    };
    let required = s.get("required").map_or(Some(true), |f| f.boolean());
    s.finish(&[]);
    Some(Ppk { id: id?, key: Psk::new(key?), required: required? })
}

fn octets_of_key(text: &str) -> Option<Vec<u8>> {
    let octets = match text.strip_prefix("0x") {
        Some(digits) => octets(digits),
        None => Some(text.as_bytes().to_vec()).filter(|t| t.iter().all(u8::is_ascii_graphic)),
    };
    octets.filter(|o| (1..=256).contains(&o.len()))
}

fn octets(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.len().is_multiple_of(2) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    if pairs { (0..digits.len()).step_by(2).map(octet).collect() } else { None }
}

fn unknown_to_ikev1(
    f: &Field<'_>,
    list: &[Encryption],
    all: &[Encryption],
    is_unknown: impl Fn(&Encryption) -> bool,
) {
    if let Some(unknown) = list.iter().find(|e| is_unknown(e)) {
        let known = all.iter().filter(|e| !is_unknown(e)).map(Encryption::to_string).collect::<Vec<_>>();
        f.fail(&format!("cannot be with ikev1, which has no {unknown} here"), Some(known.join(", ")));
    }
}

fn integrities(s: &Section<'_>, says_nothing: bool) -> Vec<Integrity> {
    let Some(f) = s.get("integrity") else { return vec![Integrity::Sha256] };
    let list = words(&f, &Integrity::ALL, Integrity::to_string);
    warn_of(&f, &list, |i| i.is_deprecated(), Integrity::to_string, "sha256");
    if says_nothing {
        f.warn("says nothing: every encryption algorithm of the list authenticates by itself");
    }
    list
}

/// Groups by their numbers; a word of `others` is `None`.
fn groups(f: &Field<'_>, others: &[&str]) -> Vec<Option<Group>> {
    let known: Vec<_> = Group::ALL
        .into_iter()
        .map(|g| (g.word(), Some(g)))
        .chain(others.iter().map(|word| ((*word).to_owned(), None)))
        .collect();
    let list = f.words(&known, &[]);
    for group in list.iter().flatten().filter(|g| g.is_deprecated()) {
        f.warn(&format!(
            "group {} is broken or deprecated; use 31, 19 or 14 where the peer can",
            group.word()
        ));
    }
    list
}

/// One word or a list of words that name `known`.
fn words<T: Copy + PartialEq>(f: &Field<'_>, known: &[T], name: impl Fn(&T) -> String) -> Vec<T> {
    let known: Vec<_> = known.iter().map(|k| (name(k), *k)).collect();
    f.words(&known, &[])
}

fn warn_of<T>(
    f: &Field<'_>,
    list: &[T],
    is_deprecated: impl Fn(&T) -> bool,
    name: impl Fn(&T) -> String,
    better: &str,
) {
    for algorithm in list.iter().filter(|a| is_deprecated(a)) {
        f.warn(&format!("{} is broken or deprecated; use {better} where the peer can", name(algorithm)));
    }
}
