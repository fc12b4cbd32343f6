//! One resource read by itself, by the rules of the file.

use super::{
    Diagnostic, Gateway, Group, Peer, Tunnel, alarm, group,
    reader::{Section, Source},
    sections::{self, AmongTunnels, Around, NO_KEYS, Peers},
    tree,
};
use crate::alarm::Alarm;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};

/// What has been read, with what works and should not be used.
pub(crate) struct Read<T> {
    pub(crate) value: T,
    pub(crate) warnings: Vec<Diagnostic>,
}

/// Reads a gateway, whatever alarm template it names.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read_gateway(object: &Map<String, Value>) -> Result<Read<Gateway>, Vec<Diagnostic>> {
    read(object, |section| sections::gateway(section, None))
}

/// Reads a peer.
///
/// # Errors
/// As [`read_gateway`].
pub(crate) fn read_peer(object: &Map<String, Value>) -> Result<Read<(String, Peer)>, Vec<Diagnostic>> {
    read(object, |section| sections::peer(section, &mut BTreeSet::new()))
}

/// Reads a connection group, whatever its members are.
///
/// # Errors
/// As [`read_gateway`].
pub(crate) fn read_group(object: &Map<String, Value>) -> Result<Read<Group>, Vec<Diagnostic>> {
    read(object, |section| group::group(section, &mut BTreeSet::new()).map(|drafted| drafted.group))
}

/// Reads an alarm template.
///
/// # Errors
/// As [`read_gateway`].
pub(crate) fn read_alarm(object: &Map<String, Value>) -> Result<Read<Alarm>, Vec<Diagnostic>> {
    read(object, |section| alarm::alarm(section, &mut BTreeSet::new()))
}

/// Reads a tunnel of `gateway` with the one peer that it may name, if there is such a one, whatever alarm template it
/// names.
///
/// # Errors
/// As [`read_gateway`]: whatever can be told without other tunnels.
pub(crate) fn read_tunnel(
    object: &Map<String, Value>,
    gateway: &Gateway,
    peer: Option<(String, Peer)>,
) -> Result<Read<Tunnel>, Vec<Diagnostic>> {
    let peers: Peers = peer.into_iter().collect();
    let around = Around { gateway: Some(gateway), peers: &peers, alarms: None, keys: &NO_KEYS };
    read(object, |section| {
        let mut beside = AmongTunnels::default();
        let tunnel = sections::tunnel(section, &around, &mut BTreeSet::new(), &mut beside);
        beside.check(&HashMap::new());
        tunnel
    })
}

fn read<T>(
    object: &Map<String, Value>,
    with: impl FnOnce(Section<'_>) -> Option<T>,
) -> Result<Read<T>, Vec<Diagnostic>> {
    let table = tree::table(object);
    let source = Source::new("");
    let read = with(Section::new(&source, "", Some(&table), None));
    let (problems, warnings) = source.into_diagnostics();
    match read {
        Some(value) if problems.is_empty() => Ok(Read { value, warnings }),
        _ => Err(problems),
    }
}
