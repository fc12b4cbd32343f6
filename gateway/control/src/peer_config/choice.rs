//! Of what the tunnel offers, what the vendor has a word for.

use super::{PeerConfigError, script::Script};
use crate::config::Subnet;
use adit_ike::{Encryption, Group, Id, Integrity, Mode, Prf, Protocol, Version};
use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

/// Values and the vendor's words for them.
pub(super) type Words<T> = &'static [(T, &'static str)];

/// What a vendor knows of a version of IKE.
pub(super) struct Dialect {
    pub(super) ike_encryption: Words<Encryption>,
    pub(super) ike_integrity: Words<Integrity>,
    /// `None` where the PRF follows from the integrity algorithm.
    pub(super) prf: Option<Words<Prf>>,
    pub(super) dh: Words<Group>,
    pub(super) esp_encryption: Words<Encryption>,
    pub(super) esp_integrity: Words<Integrity>,
    /// Empty where there is no AH.
    pub(super) ah: Words<Integrity>,
    pub(super) pfs: Words<Group>,
    /// Seconds.
    pub(super) ike_lifetime: RangeInclusive<u64>,
    /// Seconds.
    pub(super) ipsec_lifetime: RangeInclusive<u64>,
    pub(super) has_esn: bool,
    pub(super) additional_ke: Words<Group>,
    pub(super) has_ppk: bool,
    /// IPv6 between the gateways.
    pub(super) ipv6_outside: bool,
    /// IPv6 in the tunnel.
    pub(super) ipv6_inside: bool,
    pub(super) has_ikev1: bool,
    pub(super) has_aggressive: bool,
    pub(super) ids: Ids,
}

/// Which identities a vendor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ids {
    /// All of ours.
    All,
    /// All but key IDs.
    Names,
    /// Each side's address, and no other.
    Addresses,
}

/// A value with the vendor's word for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<T> {
    pub(super) value: T,
    pub(super) word: &'static str,
}

/// What is left of a phase's policy, in the tunnel's order.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    /// Empty with AH.
    pub(super) encryption: Vec<Choice<Encryption>>,
    /// Empty where every encryption algorithm authenticates by itself.
    pub(super) integrity: Vec<Choice<Integrity>>,
    /// Empty in phase 2, and where the vendor has no word for it.
    pub(super) prf: Vec<Choice<Prf>>,
    /// Empty in phase 2 without PFS.
    pub(super) groups: Vec<Choice<Group>>,
    /// Empty in phase 2.
    pub(super) additional: Vec<Choice<Group>>,
    /// Seconds.
    pub(super) lifetime: u64,
}

impl Phase {
    /// Ciphers with authentication of their own and those without, which no proposal holds together; each with the
    /// integrity algorithms that go with it.
    pub(super) fn parts(&self) -> Vec<(Vec<&'static str>, Vec<&'static str>)> {
        let of = |aead: bool| words(self.encryption.iter().filter(|e| e.value.is_aead() == aead));
        let parts = [(of(true), Vec::new()), (of(false), words(&self.integrity))];
        parts.into_iter().filter(|(encryption, _)| !encryption.is_empty()).collect()
    }
}

/// The vendor's words.
pub(super) fn words<'a, T: 'a>(choices: impl IntoIterator<Item = &'a Choice<T>>) -> Vec<&'static str> {
    choices.into_iter().map(|c| c.word).collect()
}

/// Phase 1 and phase 2 as the vendor has them.
///
/// # Errors
/// Nothing is left of a list, or the tunnel needs what the vendor does not have.
pub(super) fn resolve(script: &mut Script<'_>, dialect: &Dialect) -> Result<(Phase, Phase), PeerConfigError> {
    let tunnel = script.view.tunnel;
    let (ike, ipsec) = (&tunnel.ike, &tunnel.ipsec);
    fits(script, dialect)?;
    let encryption = choose(script, "ike.encryption", &ike.encryption, dialect.ike_encryption)?;
    let integrity = match encryption.iter().all(|e| e.value.is_aead()) {
        true => Vec::new(),
        false => choose(script, "ike.integrity", &ike.integrity, dialect.ike_integrity)?,
    };
    let prf = match dialect.prf {
        _ if ike.version == Version::Ikev1 => Vec::new(),
        Some(known) => choose_by(script, "ike.prf", &ike.prf, known, |p| p.hash_name().to_owned())?,
        None => {
            follows(script, &ike.prf, &integrity)?;
            Vec::new()
        }
    };
    let groups = choose_by(script, "ike.dh", &ike.dh, dialect.dh, |g| g.word())?;
    let additional = match ike.additional_ke.is_empty() {
        true => Vec::new(),
        false => choose(script, "ike.additional_ke", &ike.additional_ke, dialect.additional_ke)?,
    };
    let lifetime = lifetime(script, "ike.lifetime", ike.lifetime, &dialect.ike_lifetime);
    let phase1 = Phase { encryption, integrity, prf, groups, additional, lifetime };

    let ah = ipsec.protocol == Protocol::Ah;
    if ah && dialect.ah.is_empty() {
        return Err(script.inexpressible("ipsec.protocol", "has ESP only, and the tunnel is of AH"));
    }
    let encryption = match ah {
        true => Vec::new(),
        false => choose(script, "ipsec.encryption", &ipsec.encryption, dialect.esp_encryption)?,
    };
    let integrity = match !ah && encryption.iter().all(|e| e.value.is_aead()) {
        true => Vec::new(),
        false => {
            let known = if ah { dialect.ah } else { dialect.esp_integrity };
            choose(script, "ipsec.integrity", &ipsec.integrity, known)?
        }
    };
    let groups = match ipsec.pfs.is_empty() {
        true => Vec::new(),
        false => choose_by(script, "ipsec.pfs", &ipsec.pfs, dialect.pfs, |g| g.word())?,
    };
    let lifetime = self::lifetime(script, "ipsec.lifetime", ipsec.lifetime, &dialect.ipsec_lifetime);
    if ipsec.esn && !dialect.has_esn {
        let vendor = script.vendor();
        script.note(format!(
            "ipsec.esn: {vendor} offers no extended sequence numbers here; Adit agrees to do without"
        ));
    }
    match &tunnel.ppk {
        Some(ppk) if !dialect.has_ppk && ppk.required => {
            return Err(script
                .inexpressible("ike.ppk", "has no post-quantum pre-shared key, and the tunnel requires it"));
        }
        Some(_) if !dialect.has_ppk => {
            script.note("ike.ppk: left out; the tunnel does not require it");
        }
        _ => {}
    }
    let phase2 = Phase { encryption, integrity, prf: Vec::new(), groups, additional: Vec::new(), lifetime };
    Ok((phase1, phase2))
}

/// Refuses what the vendor does not have at all.
fn fits(script: &Script<'_>, dialect: &Dialect) -> Result<(), PeerConfigError> {
    let (view, tunnel) = (&script.view, script.view.tunnel);
    if view.remote.is_ipv6() && !dialect.ipv6_outside {
        return Err(script.inexpressible("gateway.address", "has no IPv6 between gateways here"));
    }
    let ipv6 = |list: &[Subnet]| list.iter().any(|s| s.address().is_ipv6());
    if !dialect.ipv6_inside && (ipv6(view.local_subnets) || ipv6(view.remote_subnets)) {
        return Err(script.inexpressible("local_subnets, remote_subnets", "has no IPv6 in tunnels here"));
    }
    if tunnel.ike.version == Version::Ikev1 {
        if !dialect.has_ikev1 {
            return Err(script.inexpressible("ike.version", "has ikev2 only"));
        }
        if tunnel.ike.mode == Mode::Aggressive && !dialect.has_aggressive {
            return Err(script.inexpressible("ike.mode", "has no aggressive mode"));
        }
    }
    let is_address = |id: &Id, address: Option<IpAddr>| address.is_some_and(|a| *id == Id::from(a));
    for (field, id, address) in
        [("ike.peer_id", view.local_id, view.local_ip()), ("ike.local_id", view.remote_id, Some(view.remote))]
    {
        match (dialect.ids, id) {
            (Ids::Names, Id::KeyId(_)) => {
                return Err(script.inexpressible(field, "has no key IDs; use an address or a name"));
            }
            (Ids::Addresses, id) if !is_address(id, address) => {
                return Err(script.inexpressible(
                    field,
                    "knows each side by its public address alone, and the tunnel wants another identity",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The first of each list, for vendors that take one value; what is left out is said.
pub(super) fn single(script: &mut Script<'_>, phase: Phase, phase_2: bool) -> Phase {
    let names = match phase_2 {
        false => ["ike.encryption", "ike.integrity", "ike.prf", "ike.dh"],
        true => ["ipsec.encryption", "ipsec.integrity", "ipsec.prf", "ipsec.pfs"],
    };
    let encryption = first(script, names[0], phase.encryption);
    let integrity = match encryption.iter().any(|e| e.value.is_aead()) {
        true => Vec::new(),
        false => first(script, names[1], phase.integrity),
    };
    let prf = first(script, names[2], phase.prf);
    let groups = first(script, names[3], phase.groups);
    Phase { encryption, integrity, prf, groups, ..phase }
}

/// The first group of PFS, where the rest may be lists.
pub(super) fn one_group(script: &mut Script<'_>, phase2: &Phase) -> Vec<Choice<Group>> {
    first(script, "ipsec.pfs", phase2.groups.clone())
}

fn first<T: Copy>(script: &mut Script<'_>, field: &str, list: Vec<Choice<T>>) -> Vec<Choice<T>> {
    if let [one, _, ..] = list[..] {
        script.note(format!(
            "{field}: {} of the list, where one value goes; Adit takes each of them",
            one.word
        ));
    }
    list.into_iter().take(1).collect()
}

fn choose<T: Copy + PartialEq + ToString>(
    script: &mut Script<'_>,
    field: &'static str,
    values: &[T],
    known: Words<T>,
) -> Result<Vec<Choice<T>>, PeerConfigError> {
    choose_by(script, field, values, known, T::to_string)
}

fn choose_by<T: Copy + PartialEq>(
    script: &mut Script<'_>,
    field: &'static str,
    values: &[T],
    known: Words<T>,
    name: impl Fn(&T) -> String,
) -> Result<Vec<Choice<T>>, PeerConfigError> {
    let word = |value: &T| known.iter().find(|(v, _)| v == value).map(|(_, word)| *word);
    let list = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(", ");
    let chosen: Vec<_> = values.iter().filter_map(|v| Some(Choice { value: *v, word: word(v)? })).collect();
    let unknown = list(&mut values.iter().filter(|v| word(v).is_none()).map(&name));
    let vendor = script.vendor();
    if chosen.is_empty() {
        let known = list(&mut known.iter().map(|(v, _)| name(v)));
        let known = if known.is_empty() { "nothing".into() } else { known };
        return Err(PeerConfigError::Unknown { vendor, field, values: unknown, known });
    }
    if !unknown.is_empty() {
        script.note(format!("{field}: {vendor} has no {unknown}, which is left out"));
    }
    Ok(chosen)
}

/// Where the PRF cannot be said it is the integrity algorithm's.
fn follows(
    script: &mut Script<'_>,
    prf: &[Prf],
    integrity: &[Choice<Integrity>],
) -> Result<(), PeerConfigError> {
    let agrees = |i: &Choice<Integrity>| prf.iter().any(|p| p.hash_name() == i.value.to_string());
    if integrity.is_empty() || integrity.iter().any(agrees) {
        return Ok(());
    }
    Err(script.inexpressible("ike.prf", "takes the PRF from ike.integrity, and the tunnel wants another"))
}

/// Seconds within what the vendor takes.
fn lifetime(script: &mut Script<'_>, field: &str, wanted: Duration, range: &RangeInclusive<u64>) -> u64 {
    let wanted = wanted.as_secs();
    let taken = wanted.clamp(*range.start(), *range.end());
    if taken != wanted {
        let vendor = script.vendor();
        script.note(format!(
            "{field}: {vendor} takes {}..{} seconds, so {taken} instead of {wanted}; the two ends may differ",
            range.start(),
            range.end()
        ));
    }
    taken
}
