//! Which IKE SAs are of a tunnel, and which are between the same two identities: INITIAL_CONTACT is about all of these
//! (RFC 7296 section 2.4). Both are asked with every handshake, so neither may look at all IKE SAs.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::config::{Id, TunnelConfig, TunnelId};

/// IKE SAs of a tunnel that others have taken the place of, and as many that are closed: more than honest peers bring
/// about, few enough to hold however often a peer makes a new one.
pub(crate) const MAX_REPLACED: usize = 8;

/// IKE SAs by our SPI, from when their tunnel is known.
#[derive(Debug, Default)]
pub(crate) struct OfTunnel {
    by_number: BTreeSet<(TunnelId, u64)>,
    /// By a digest of both identities: eight octets where the identities would take a hundred.
    by_identities: BTreeSet<(u64, u64)>,
}

impl OfTunnel {
    /// Adds an IKE SA of this tunnel, as the IKE SA knows it.
    pub(crate) fn insert(&mut self, tunnel: &TunnelConfig, spi: u64) {
        self.by_number.insert((tunnel.id, spi));
        self.by_identities.insert((digest(tunnel), spi));
    }

    /// Takes out one that was added with this tunnel.
    pub(crate) fn remove(&mut self, tunnel: &TunnelConfig, spi: u64) {
        self.by_number.remove(&(tunnel.id, spi));
        self.by_identities.remove(&(digest(tunnel), spi));
    }

    /// Those of a tunnel, whatever became of its configuration.
    pub(crate) fn of(&self, tunnel: TunnelId) -> impl Iterator<Item = u64> {
        self.by_number.range((tunnel, 0)..=(tunnel, u64::MAX)).map(|(_, spi)| *spi)
    }

    /// Those that may be between the same identities as a tunnel's; all that are, and seldom another.
    pub(crate) fn between(&self, tunnel: &TunnelConfig) -> impl Iterator<Item = u64> {
        let digest = digest(tunnel);
        self.by_identities.range((digest, 0)..=(digest, u64::MAX)).map(|(_, spi)| *spi)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty() && self.by_identities.is_empty()
    }
}

/// The same for all tunnels between identities that match each other.
fn digest(tunnel: &TunnelConfig) -> u64 {
    let mut hasher = DefaultHasher::new();
    for id in [&tunnel.local_id, &tunnel.peer_id] {
        std::mem::discriminant(id).hash(&mut hasher);
        match id {
            Id::V4(address) => address.hash(&mut hasher),
            Id::V6(address) => address.hash(&mut hasher),
            Id::Fqdn(name) | Id::UserFqdn(name) => {
                name.len().hash(&mut hasher);
                name.bytes().for_each(|octet| octet.to_ascii_lowercase().hash(&mut hasher));
            }
            Id::KeyId(octets) => octets.hash(&mut hasher),
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sa::tests::tunnel;

    const NAMES: [&str; 6] =
        ["a.example", "A.Example", "b@example.net", "B@example.NET", "192.0.2.1", "keyid:0a"];

    fn between(number: u32, local: usize, peer: usize) -> TunnelConfig {
        let id = |name: usize| NAMES[name].parse().unwrap();
        TunnelConfig { id: TunnelId(number), local_id: id(local), peer_id: id(peer), ..tunnel(0) }
    }

    proptest! {
        #[test]
        fn it_finds_what_a_scan_finds(
            tunnels in prop::collection::vec((0..4u32, 0..NAMES.len(), 0..NAMES.len()), 1..40),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let mut plain: Vec<_> =
                tunnels.iter().map(|(number, local, peer)| between(*number, *local, *peer)).enumerate().collect();
            let mut index = OfTunnel::default();
            plain.iter().for_each(|(spi, tunnel)| index.insert(tunnel, *spi as u64));
            for at in gone {
                if !plain.is_empty() {
                    let (spi, tunnel) = plain.remove(at.index(plain.len()));
                    index.remove(&tunnel, spi as u64);
                }
            }
            prop_assert_eq!(index.len(), plain.len());
            for (_, wanted) in &plain {
                let scan = |same: &dyn Fn(&TunnelConfig) -> bool| {
                    plain.iter().filter(|(_, t)| same(t)).map(|(spi, _)| *spi as u64).collect::<Vec<_>>()
                };
                let matching = scan(&|t| {
                    t.local_id.matches(&wanted.local_id) && t.peer_id.matches(&wanted.peer_id)
                });
                prop_assert_eq!(index.between(wanted).collect::<Vec<_>>(), matching);
                prop_assert_eq!(index.of(wanted.id).collect::<Vec<_>>(), scan(&|t| t.id == wanted.id));
            }
            plain.iter().for_each(|(spi, tunnel)| index.remove(tunnel, *spi as u64));
            prop_assert!(index.is_empty());
        }
    }
}
