use super::{image::TooLarge, *};
use crate::address::Prefix;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SIDES: [Side; 2] = [Side::Source, Side::Destination];

/// Addresses of both families of which only few bits vary, so that prefixes nest and meet; IPv6 also around the place
/// where IPv4 is mapped.
fn address() -> impl Strategy<Value = Address> {
    let scattered = any::<[u8; 16]>().prop_map(Address);
    let v4 = any::<[bool; 4]>().prop_map(|bits| Address::v4(bits.map(|bit| 10 + u8::from(bit))));
    let v6 = prop::collection::vec((0usize..16, 0u32..8), 0..3).prop_map(|bits| {
        let mut octets = [0; 16];
        (octets[0], octets[1]) = (0x20, 1);
        bits.into_iter().for_each(|(octet, bit)| octets[octet] ^= 1 << bit);
        Address(octets)
    });
    let near_v4 = (0u32..64).prop_map(|bit| {
        let mapped = u128::from_be_bytes(Address::v4([10, 0, 0, 1]).0);
        Address((mapped ^ 1 << (bit + 20)).to_be_bytes())
    });
    prop_oneof![1 => scattered, 4 => v4, 4 => v6, 2 => near_v4]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let edges = prop::sample::select(vec![0u8, 1, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 64, 65, 127, 128]);
    (address(), prop_oneof![edges, 0u8..=128]).prop_map(|(address, len)| {
        let ip = std::net::IpAddr::from(address);
        Prefix::new(ip, if ip.is_ipv4() { len % 33 } else { len }).unwrap()
    })
}

fn side() -> impl Strategy<Value = BTreeMap<Prefix, u32>> {
    let class = prop_oneof![0u32..4, Just(MAX_CLASSES - 1)];
    prop::collection::btree_map(prefix(), class, 0..24)
}

/// The class of the longest prefix that holds the address, looked for one by one.
fn longest(prefixes: &BTreeMap<Prefix, u32>, address: &Address) -> Option<u32> {
    prefixes.iter().filter(|(p, _)| p.holds(address)).max_by_key(|(p, _)| p.len).map(|(_, class)| *class)
}

/// The first and last address of a prefix, and those beside it.
fn around(prefix: &Prefix) -> [Address; 4] {
    let [first, last] = [prefix.address, prefix.last()].map(|a| u128::from_be_bytes(a.0));
    [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|a| Address(a.to_be_bytes()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn the_longest_prefix_decides_as_in_a_list(
        sources in side(),
        destinations in side(),
        addresses in prop::collection::vec(address(), 32),
    ) {
        let image = Image::new(&sources, &destinations).unwrap();
        for (side, prefixes) in SIDES.into_iter().zip([&sources, &destinations]) {
            for address in prefixes.keys().flat_map(around).chain(addresses.iter().copied()) {
                prop_assert_eq!(class(&image, 0, side, &address), Ok(longest(prefixes, &address)), "{:?}", address);
            }
        }
        prop_assert_eq!(prefixes(&image, 0), Ok((sources, destinations)));
    }

    #[test]
    fn whatever_the_array_holds_a_look_up_ends(
        sources in side(),
        wounds in prop::collection::vec((any::<prop::sample::Index>(), any::<Cell>()), 1..64),
        addresses in prop::collection::vec(address(), 16),
    ) {
        let image = Image::new(&sources, &BTreeMap::new()).unwrap();
        let mut cells = Damageable(image.cells().to_vec());
        // Where an address leads, and behind the tables: elsewhere nobody looks.
        let read: Vec<usize> = sources
            .keys()
            .map(|p| Key::new(Side::Source, p.address)).map(|key| (key.table as usize + (key.high >> 48) as usize) / 4)
            .chain(4 << 14..cells.0.len())
            .collect();
        for (at, cell) in wounds {
            cells.0[*at.get(&read)] = cell;
        }
        for address in sources.keys().flat_map(around).chain(addresses) {
            if let Ok(Some(found)) = class(&cells, 0, Side::Source, &address) {
                prop_assert!(found < MAX_CLASSES);
            }
        }
        if let Ok((sources, destinations)) = prefixes(&cells, 0) {
            prop_assert!(Image::new(&sources, &destinations).is_ok());
        }
    }
}

/// An image whose cells can be overwritten.
struct Damageable(Vec<Cell>);

impl Cells for Damageable {
    fn cell(&self, index: u32) -> Option<Cell> {
        self.0.get(index as usize).copied()
    }
    fn word(&self, index: u32, word: u32) -> u64 {
        self.cell(index).map_or(BEYOND, |cell| cell[word as usize & 1])
    }
}

#[test]
fn a_path_without_an_end_or_out_of_the_array_is_damage() {
    let sources: BTreeMap<_, _> =
        [("2001:db8::1", 128), ("2001:db8::2", 128)].map(|(a, len)| (of(a, len), 1)).into();
    let mut cells = Damageable(Image::new(&sources, &BTreeMap::new()).unwrap().cells().to_vec());
    let table = 0x2001 / 4;
    let slot = cells.0[table][0] >> 32;
    assert_eq!(slot >> KIND_SHIFT, u64::from(NODE));
    // Every slot of every quarter is the first after the table's, which is the node's own.
    let node = value(slot as u32) as usize;
    for quarter in 0..4 {
        cells.0[node + quarter] = [1, (table * 4) as u64];
    }
    let found = |cells: &Damageable| class(cells, 0, Side::Source, &of("2001:db8::1", 128).address);
    assert_eq!(found(&cells), Err(Damaged));
    // A node whose slots lie beyond the end, and a tail that does.
    for quarter in 0..4 {
        cells.0[node + quarter] = [1, 0x7fff_ffff];
    }
    assert_eq!(found(&cells), Err(Damaged));
    cells.0[table][0] |= u64::MAX << 32;
    assert_eq!(found(&cells), Err(Damaged));
}

#[test]
fn an_empty_array_has_no_class() {
    let zeros = Damageable(vec![[0; 2]; 4 << 14]);
    assert_eq!(class(&zeros, 0, Side::Destination, &Address::v4([10, 0, 0, 1])), Ok(None));
    assert_eq!(class(&zeros, 4 << 14, Side::Source, &Address::v4([10, 0, 0, 1])), Err(Damaged));
}

/// What ten thousand tunnels take, in cells: each with as many subnets of its own on the far side.
#[test]
fn ten_thousand_tunnels_fit() {
    let sources: BTreeMap<_, _> = [(of("10.0.0.0", 8), 0)].into();
    let area = AREA_CELLS as usize;
    let cells =
        |destinations: BTreeMap<Prefix, u32>| Image::new(&sources, &destinations).map(|i| i.cells().len());
    let v4 = (0..20_000u32).map(|i| (of(&format!("172.{}.{}.0", i >> 8, i & 255), 24), i)).collect();
    assert!(cells(v4).unwrap() < area / 8);
    // One /64 for each out of a /48 of its own.
    let v6 = (0..10_000u32).map(|i| (of(&format!("2001:db8:{i:x}:{i:x}::"), 64), i)).collect();
    assert!(cells(v6).unwrap() < area / 4);
    let hosts = (0..10_000u32)
        .flat_map(|i| [1, 2].map(|host| (of(&format!("2001:db8:{i:x}:{i:x}::{host}"), 128), i)));
    assert!(cells(hosts.collect()).unwrap() < area);
}

#[test]
fn what_does_not_fit_is_refused() {
    let host = |i: u32| (of(&format!("2001:{:x}:{:x}::{}", i >> 14, i >> 1 & 0x1fff, 1 + (i & 1)), 128), 0);
    let hosts: BTreeMap<_, _> = (0..40_000).map(host).collect();
    assert_eq!(Image::new(&hosts, &BTreeMap::new()), Err(TooLarge));
    let no_number = [(of("10.0.0.0", 8), MAX_CLASSES)].into();
    assert_eq!(Image::new(&no_number, &BTreeMap::new()), Err(TooLarge));
}

fn of(address: &str, len: u8) -> Prefix {
    Prefix::new(address.parse().unwrap(), len).unwrap()
}
