//! Every case.

use crate::interop::case::{Case, End, Network, Peer, Role, Sa, Shows, Side, Version};

use Role::{Initiates, Responds};
use Version::{Aggressive, Main, V2};

const ROLES: [Role; 2] = [Initiates, Responds];
const VERSIONS: [Version; 3] = [V2, Main, Aggressive];

/// What both versions speak: phase 1, and the phase 2 that goes with it here.
const OLD: [(&str, &str); 15] = [
    ("des-md5-modp768", "des-md5"),
    ("3des-sha1-modp1024", "3des-sha1"),
    ("3des-md5-modp1536", "3des-md5"),
    ("aes128-sha1-modp1024", "aes128-sha1"),
    ("aes128-sha1-modp1536", "aes128-sha1"),
    ("aes128-sha256-modp2048", "aes128-sha256"),
    ("aes192-sha256-modp2048", "aes192-sha256"),
    ("aes256-sha256-modp3072", "aes256-sha256"),
    ("aes256-sha384-modp3072", "aes256-sha384"),
    ("aes256-sha512-modp4096", "aes256-sha512"),
    ("aes256-sha512-modp2048s256", "aes256-sha512"),
    ("aes128-sha256-ecp256", "aes128gcm16"),
    ("aes256-sha384-ecp384", "aes256gcm16"),
    ("aes256-sha512-ecp521", "aes192gcm16"),
    ("aes256-sha256-x25519", "aes256-sha1"),
];

/// What only IKEv2 speaks.
const NEW: [(&str, &str); 6] = [
    ("aes128gcm16-prfsha256-ecp256", "aes128gcm16"),
    ("aes256gcm16-prfsha256-x25519", "aes256gcm16"),
    ("aes256gcm16-prfsha384-ecp384", "aes256gcm16"),
    ("aes256gcm16-prfsha512-modp2048s256", "aes256-sha512"),
    ("aes128gcm16-prfsha1-modp1024", "aes128-sha1"),
    ("chacha20poly1305-prfsha256-x25519", "chacha20poly1305"),
];

/// Phase 2, with PFS and without.
const CHILDREN: [&str; 24] = [
    "null-sha1",
    "null-sha256-modp2048",
    "des-md5",
    "des-sha1-modp768",
    "3des-md5-modp1024",
    "3des-sha256",
    "aes128-md5",
    "aes128-sha1",
    "aes128-sha1-modp1536",
    "aes128-sha256-ecp256",
    "aes192-sha1",
    "aes192-sha384-modp3072",
    "aes256-sha1-modp1024",
    "aes256-sha256",
    "aes256-sha384-ecp384",
    "aes256-sha512",
    "aes256-sha512-modp4096",
    "aes128gcm16",
    "aes128gcm16-modp2048",
    "aes192gcm16-ecp521",
    "aes256gcm16",
    "aes256gcm16-modp2048s256",
    "chacha20poly1305",
    "chacha20poly1305-x25519",
];

/// Prefixes behind Adit whose selectors fill several fragments.
const MANY_SUBNETS: [&str; 40] = [
    "10.1.0.0/24",
    "10.1.100.0/24",
    "10.1.102.0/24",
    "10.1.104.0/24",
    "10.1.106.0/24",
    "10.1.108.0/24",
    "10.1.110.0/24",
    "10.1.112.0/24",
    "10.1.114.0/24",
    "10.1.116.0/24",
    "10.1.118.0/24",
    "10.1.120.0/24",
    "10.1.122.0/24",
    "10.1.124.0/24",
    "10.1.126.0/24",
    "10.1.128.0/24",
    "10.1.130.0/24",
    "10.1.132.0/24",
    "10.1.134.0/24",
    "10.1.136.0/24",
    "10.1.138.0/24",
    "10.1.140.0/24",
    "10.1.142.0/24",
    "10.1.144.0/24",
    "10.1.146.0/24",
    "10.1.148.0/24",
    "10.1.150.0/24",
    "10.1.152.0/24",
    "10.1.154.0/24",
    "10.1.156.0/24",
    "10.1.158.0/24",
    "10.1.160.0/24",
    "10.1.162.0/24",
    "10.1.164.0/24",
    "10.1.166.0/24",
    "10.1.168.0/24",
    "10.1.170.0/24",
    "10.1.172.0/24",
    "10.1.174.0/24",
    "10.1.176.0/24",
];

/// A connection of strongSwan that differs from the one that is wanted by its own ID and by its subnet.
const ANOTHER_IDENTITY: &str = "another {
version = 2
local_addrs = 198.51.100.1
remote_addrs = 192.0.2.1
proposals = aes256gcm16-prfsha256-x25519
local {
auth = psk
id = another.example
}
remote {
auth = psk
id = 192.0.2.1
}
children { another {
local_ts = 10.2.9.0/24
remote_ts = 10.1.0.0/24
esp_proposals = aes256gcm16
} }
}";

/// A second tunnel of Adit's, of another peer from anywhere with its own key: all but the mode.
macro_rules! another_peer {
    ($mode:literal, $psk:literal) => {
        concat!(
            "[[tunnel]]\nname = \"another\"\npeer = \"b\"\nlocal_subnets = [\"10.1.0.0/24\"]\n",
            "remote_subnets = [\"10.2.9.0/24\"]\nstart = \"respond\"\npsk = \"",
            $psk,
            "\"\n[tunnel.ike]\nversion = \"ikev1\"\nmode = \"",
            $mode,
            "\"\nlocal_id = \"192.0.2.1\"\npeer_id = \"another.example\"\nencryption = \"aes128\"\n",
            "integrity = \"sha256\"\ndh = 14\n[tunnel.ipsec]\nencryption = \"aes128\"\nintegrity = \"sha256\"\n",
            "pfs = \"disabled\"\nesn = false\n"
        )
    };
}

/// A second tunnel of Adit's with the same peer, identities and key, for other subnets of the peer's: all but the mode and who
/// begins.
macro_rules! sibling {
    ($mode:literal, $start:literal) => {
        concat!(
            "[[tunnel]]\nname = \"sibling\"\npeer = \"b\"\nlocal_subnets = [\"10.1.0.0/24\"]\n",
            "remote_subnets = [\"10.2.1.0/24\"]\npsk = \"open-sesame-with-32-characters-1\"\nstart = \"",
            $start,
            "\"\n[tunnel.ike]\nversion = \"ikev1\"\nmode = \"",
            $mode,
            "\"\nlocal_id = \"192.0.2.1\"\npeer_id = \"198.51.100.1\"\nencryption = \"aes128\"\n",
            "integrity = \"sha256\"\ndh = 14\n[tunnel.ipsec]\nencryption = \"aes128\"\nintegrity = \"sha256\"\n",
            "pfs = \"disabled\"\nesn = false\n"
        )
    };
}

/// Every case, in the order in which they run: those that share a station follow each other.
pub fn matrix() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(proposals());
    all.extend(children());
    all.extend(subnets());
    all.extend(lives());
    all.extend(mismatches());
    all.extend(tunnels());
    all.extend(extensions());
    all.extend(nat());
    all.extend(strongswan6());
    all.extend(kernel());
    all
}

/// A case with a name.
fn named(name: impl Into<String>, case: Case) -> Case {
    Case { name: name.into(), ..case }
}

/// An end that speaks what is usual for its version.
fn usual(version: Version) -> End {
    match version {
        V2 => End::new(V2, "aes256gcm16-prfsha256-x25519", "aes256gcm16"),
        _ => End::new(version, "aes128-sha256-modp2048", "aes128-sha256"),
    }
}

fn proposals() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in VERSIONS {
        let new = if version == V2 { &NEW[..] } else { &[] };
        for (number, (ike, esp)) in OLD.iter().chain(new).enumerate() {
            for role in ROLES {
                let shows = if number % 7 == 3 { Shows::Tcp } else { Shows::Traffic };
                let name = format!("{ike}+{esp}");
                cases.push(named(name, Case::new("proposals", role, End::new(version, ike, esp), shows)));
            }
        }
    }
    cases
}

/// Phase 2 by itself. The first Child SA of IKEv2 takes its keys from IKE_AUTH; PFS shows when it is rekeyed.
fn children() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, esp) in CHILDREN.into_iter().enumerate() {
        let pfs = esp.contains("modp") || esp.contains("ecp") || esp.ends_with("x25519");
        // Each in one role per version; the next one in the other.
        let (role, other) = if number % 2 == 0 { (Initiates, Responds) } else { (Responds, Initiates) };
        let side = if number % 2 == 0 { Side::Adit } else { Side::Peer };
        let v2 = if pfs { Shows::Rekey(side, Sa::Child) } else { Shows::Traffic };
        let end = End::new(V2, "aes128-sha256-ecp256", esp);
        cases.push(named(esp, Case::new("children", role, end, v2)));
        if esp.starts_with("chacha20") {
            // IKEv1 has no number for it.
            continue;
        }
        let end = End::new(Main, "aes128-sha256-ecp256", esp);
        cases.push(named(esp, Case::new("children", other, end, Shows::Traffic)));
    }
    cases
}

fn subnets() -> Vec<Case> {
    let mut cases = Vec::new();
    let sets: [(&str, &[&str], &[&str]); 3] = [
        ("1x2", &["10.1.0.0/24"], &["10.2.0.0/24", "10.2.1.0/24"]),
        ("2x2", &["10.1.0.0/24", "10.1.1.0/24"], &["10.2.0.0/24", "10.2.1.0/24"]),
        ("3x1", &["10.1.0.0/24", "10.1.1.0/24", "10.1.2.0/24"], &["10.2.0.0/24"]),
    ];
    for version in VERSIONS {
        for role in ROLES {
            for (name, a, b) in sets {
                let end = End { subnets_a: a.to_vec(), subnets_b: b.to_vec(), ..usual(version) };
                cases.push(named(name, Case::new("subnets", role, end, Shows::Subnets)));
            }
        }
    }
    for role in ROLES {
        let end = End { subnets_a: vec!["10.1.0.0/24", "10.1.1.0/24"], ..usual(V2) };
        let mut case = Case::new("subnets", role, end, Shows::Narrowed);
        case.swan.subnets_a = vec!["10.1.0.0/24"];
        cases.push(named("peer-takes-one-of-two", case));
    }
    cases
}

/// Rekeys, reauthentication, deletes and deaths.
fn lives() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in VERSIONS {
        for role in ROLES {
            let case = |name: &str, shows| named(name, Case::new("lives", role, usual(version), shows));
            if version != Aggressive {
                cases.push(case("adit-rekeys-child", Shows::Rekey(Side::Adit, Sa::Child)));
                cases.push(case("peer-rekeys-child", Shows::Rekey(Side::Peer, Sa::Child)));
                cases.push(case("adit-rekeys-ike", Shows::Rekey(Side::Adit, Sa::Ike)));
                cases.push(case("peer-rekeys-ike", Shows::Rekey(Side::Peer, Sa::Ike)));
            }
            cases.push(case("peer-deletes", Shows::PeerDeletes));
            let dying = End { more: vec![("dpd", "delay = 2"), ("dpd", "timeout = 4")], ..usual(version) };
            if version != Aggressive {
                cases.push(named("peer-dies", Case::new("lives", role, dying, Shows::PeerDies)));
            }
        }
    }
    for role in ROLES {
        let case = Case::new("lives", role, usual(V2), Shows::RekeyAll);
        cases.push(named("both-rekey-all", case));
    }
    let mut case = Case::new("lives", Initiates, usual(V2), Shows::Reauthenticate(Side::Adit));
    case.adit.more = vec![("ike", "reauthenticate = true")];
    cases.push(named("adit-reauthenticates", case));
    for role in ROLES {
        let case = Case::new("lives", role, usual(V2), Shows::Reauthenticate(Side::Peer));
        cases.push(named("peer-reauthenticates", case));
    }
    cases
}

fn mismatches() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in [V2, Main] {
        for role in ROLES {
            let end = usual(version);
            let mut push = |name: &str, swan: End, words: &'static [&'static str]| {
                let mut case = Case::new("mismatches", role, end.clone(), Shows::Mismatch(words));
                case.swan = swan;
                cases.push(named(name, case));
            };
            push(
                "psk",
                End { psk: "another-key-with-32-characters-02", ..usual(version) },
                &["psk", "pre-shared key"],
            );
            push(
                "peer-id",
                End { id: Some("other.example"), ..usual(version) },
                &["other.example", "id mismatch"],
            );
            push("proposal", End { ike: "aes192-sha1-modp2048", ..usual(version) }, &["proposal"]);
            push("group", End { ike: other_group(version), ..usual(version) }, &["group", "proposal"]);
            push("child-proposal", End { esp: "aes192-sha1", ..usual(version) }, &["proposal"]);
            // A peer that refuses does not say what it wants; one that offers does.
            let words: &[&str] = match (role, version) {
                (Responds, _) => &["ah"],
                (Initiates, V2) => &["we offer esp", "ipsec.protocol"],
                (Initiates, _) => &["proposal"],
            };
            push("ah-against-esp", End { ah: true, esp: "sha256", ..usual(version) }, words);
            let subnets = End { subnets_a: vec!["10.77.0.0/24"], ..usual(version) };
            push("subnets", subnets, &["subnet", "selector"]);
        }
    }
    for role in ROLES {
        for (adit, swan) in [(V2, Main), (Main, V2)] {
            let words: &[&str] =
                if (role, adit) == (Initiates, V2) { &["ike.version"] } else { &["version", "ikev1"] };
            let mut case = Case::new("mismatches", role, usual(adit), Shows::Mismatch(words));
            case.swan = usual(swan);
            cases.push(named("version", case));
        }
        for (adit, swan) in [(Main, Aggressive), (Aggressive, Main)] {
            let mut case = Case::new("mismatches", role, usual(adit), Shows::Mismatch(&["mode"]));
            case.swan = usual(swan);
            cases.push(named("mode", case));
        }
    }
    // A refusal does not tell the initiator what was missed.
    let mut case = Case::new("mismatches", Responds, usual(Main), Shows::Mismatch(&["pfs"]));
    case.swan = End { esp: "aes128-sha256-modp2048", ..usual(Main) };
    cases.push(named("pfs", case));
    cases
}

/// A peer from anywhere, and a tunnel of another peer from anywhere; and two tunnels of one peer.
fn tunnels() -> Vec<Case> {
    let mut cases = Vec::new();
    let anywhere =
        |version, another| End { more: vec![("address", "any"), ("after", another)], ..usual(version) };
    // Main mode from anywhere takes one key for all; Adit's configuration refuses another.
    for (version, another) in [
        (Main, another_peer!("main", "open-sesame-with-32-characters-1")),
        (Aggressive, another_peer!("aggressive", "another-key-with-32-characters-02")),
    ] {
        let mut case = Case::new("tunnels", Responds, usual(version), Shows::Traffic);
        case.adit = anywhere(version, another);
        cases.push(named("from-anywhere", case));
    }
    for (version, role, sibling) in [
        (Main, Initiates, sibling!("main", "immediate")),
        (Main, Responds, sibling!("main", "respond")),
        (Aggressive, Initiates, sibling!("aggressive", "immediate")),
        (Aggressive, Responds, sibling!("aggressive", "respond")),
    ] {
        let shows = [
            ("told-apart-by-subnets", Shows::Subnets),
            ("peer-rekeys-ike", Shows::Rekey(Side::Peer, Sa::Ike)),
            ("adit-rekeys-ike", Shows::Rekey(Side::Adit, Sa::Ike)),
        ];
        for (name, shows) in shows.into_iter().take(if version == Main { 3 } else { 1 }) {
            let mut case = Case::new("tunnels", role, usual(version), shows);
            case.adit.more = vec![("after", sibling)];
            case.swan.subnets_b = vec!["10.2.0.0/24", "10.2.1.0/24"];
            cases.push(named(name, case));
        }
    }
    cases
}

/// The usual phase 1 with another group.
fn other_group(version: Version) -> &'static str {
    if version == V2 { "aes256gcm16-prfsha256-modp4096" } else { "aes128-sha256-modp4096" }
}

fn extensions() -> Vec<Case> {
    let mut cases = Vec::new();
    for role in ROLES {
        // So many selectors make IKE_AUTH longer than the fragments.
        let long = End { subnets_a: MANY_SUBNETS.to_vec(), ..usual(V2) };
        let mut case = Case::new("extensions", role, long, Shows::PeerLogs(&["EF("]));
        case.swan.more = vec![("connection", "fragmentation = force")];
        case.settings = "fragment_size = 500";
        case.gateway = "ike = { fragment_size = 576 }";
        cases.push(named("fragmentation", case));
        let mut end = usual(V2);
        end.more = vec![("ike", "childless = true")];
        let mut case = Case::new("extensions", role, end, Shows::PeerLogs(&["CREATE_CHILD_SA"]));
        case.swan.more = vec![("connection", "childless = force")];
        cases.push(named("childless", case));
        let mut end = usual(V2);
        end.more = vec![(
            "ike",
            "ppk = { id = \"ppk-1\", key = \"a-shared-quantum-safe-key-0123456789\", required = true }",
        )];
        let mut case = Case::new("extensions", role, end, Shows::PeerLogs(&["PPK"]));
        case.swan.more = vec![
            ("connection", "ppk_id = ppk-1\nppk_required = yes"),
            ("secrets", "ppk-1 { id = ppk-1\nsecret = a-shared-quantum-safe-key-0123456789 }"),
        ];
        cases.push(named("ppk", case));
    }
    for version in [Main, Aggressive] {
        for role in ROLES {
            let end = End::new(version, "aes128-sha256-modp4096", "aes128-sha256-modp4096");
            let words = &["splitting IKE message", "received fragment #"];
            let mut case = Case::new("extensions", role, end, Shows::PeerLogs(words));
            case.swan.more = vec![("connection", "fragmentation = force")];
            case.settings = "fragment_size = 300";
            case.gateway = "ike = { fragment_size = 576 }";
            cases.push(named("fragmentation", case));
        }
    }
    // The peer has another identity at the same address, and finds it first.
    let mut case = Case::new("extensions", Initiates, usual(V2), Shows::Traffic);
    case.adit.peer_id = Some("gate.example");
    case.swan.id = Some("gate.example");
    case.swan.more = vec![("connections", ANOTHER_IDENTITY)];
    cases.push(named("one-of-two-identities", case));
    // Only who began may move (RFC 4555).
    cases.push(named("mobike", Case::new("extensions", Responds, usual(V2), Shows::Moves)));
    let mut case = Case::new("extensions", Initiates, usual(V2), Shows::Cookie);
    case.settings = "cookie_threshold = 1";
    cases.push(named("cookie", case));
    let mut case = Case::new("extensions", Responds, usual(V2), Shows::PeerLogs(&["N(COOKIE)"]));
    case.gateway = "ike = { cookie_threshold = 0 }";
    cases.push(named("cookie", case));
    cases
}

fn nat() -> Vec<Case> {
    let mut cases = Vec::new();
    for network in [Network::NatAdit, Network::NatPeer, Network::NatBoth] {
        for version in VERSIONS {
            for role in ROLES {
                let case = Case::new("nat", role, usual(version), Shows::Traffic);
                cases.push(Case { network, ..case });
            }
        }
    }
    cases
}

fn strongswan6() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |name: &str, role, end: End, shows, network| {
        let case = Case { peer: Peer::Swan6, network, ..Case::new("protocol-50", role, end, shows) };
        cases.push(named(name, case));
    };
    for role in ROLES {
        for version in VERSIONS {
            for esp in ["aes128-sha1", "aes256-sha512", "3des-md5", "aes256gcm16", "chacha20poly1305"] {
                if esp == "chacha20poly1305" && version != V2 {
                    continue;
                }
                let end = End { esp, ..usual(version) };
                push(esp, role, end, Shows::Traffic, Network::Direct);
            }
        }
        let hybrid = End { ike: "aes256gcm16-prfsha256-x25519-ke1_mlkem768", ..usual(V2) };
        push(
            "x25519-mlkem768",
            role,
            hybrid.clone(),
            Shows::PeerLogs(&["IKE_INTERMEDIATE"]),
            Network::Direct,
        );
        push("rekey-x25519-mlkem768", role, hybrid, Shows::RekeyAll, Network::Direct);
        push("rekey-all", role, usual(V2), Shows::RekeyAll, Network::Direct);
        push("aes256gcm16", role, usual(V2), Shows::Traffic, Network::NatAdit);
    }
    cases
}

fn kernel() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |name: String, role, end: End, shows| {
        let case = Case { peer: Peer::Kernel, ..Case::new("kernel", role, end, shows) };
        cases.push(named(name, case));
    };
    for role in ROLES {
        for version in VERSIONS {
            for hash in ["md5", "sha1", "sha256", "sha384", "sha512"] {
                // Aggressive mode differs in phase 1 only.
                if version == Aggressive && hash != "sha1" {
                    continue;
                }
                let end = End { ah: true, esp: hash, ..usual(version) };
                push(format!("ah-{hash}"), role, end, Shows::Traffic);
            }
            let esps: &[&'static str] = match version {
                V2 => &["aes128-sha256", "aes256gcm16", "aes128-sha1-esn", "aes256gcm16-esn"],
                Main => &["aes128-sha1", "3des-sha1", "aes256-sha512", "aes128gcm16"],
                Aggressive => &["aes128-sha256"],
            };
            for esp in esps {
                let end = End { esp, ..usual(version) };
                push(format!("esp-{esp}"), role, end, Shows::Traffic);
            }
        }
        push(
            "ah-sha256-esn".to_owned(),
            role,
            End { ah: true, esp: "sha256-esn", ..usual(V2) },
            Shows::Traffic,
        );
        push("rekey-all".to_owned(), role, usual(V2), Shows::RekeyAll);
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interop::proposal::Proposal;
    use std::collections::BTreeSet;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let cases = matrix();
        let names: BTreeSet<String> = cases.iter().map(Case::full_name).collect();
        assert_eq!(names.len(), cases.len());
        assert!(cases.len() >= 150, "{}", cases.len());
    }

    #[test]
    fn every_proposal_has_words_in_adits_configuration() {
        for case in matrix() {
            for text in [case.adit.ike, case.adit.esp] {
                let proposal = Proposal::parse(text).unwrap();
                let aead = proposal.encryption.contains("gcm") || proposal.encryption.contains("chacha");
                assert_eq!(proposal.integrity.is_none(), aead, "{text} of {}", case.full_name());
            }
            assert!(Proposal::parse(case.adit.ike).unwrap().group.is_some(), "{}", case.full_name());
        }
    }
}
