use super::*;
use adit_ike::{DirectionKeys, Encryption, TrafficSelector};
use adit_maps::sa::{DropCause, SadConfig, auth, cipher, direction, flags};
use zeroize::Zeroizing;

#[derive(Default)]
struct Fake {
    sas: BTreeMap<u32, (SaRef, SadConfig)>,
    generations: HashMap<u32, u32>,
    sequences: HashMap<u32, u64>,
    counters: HashMap<u32, Counters>,
    spis: HashMap<SpiKey, SaRef>,
    outbound: HashMap<u32, SaRef>,
    selectors: HashMap<u32, Selector>,
    steps: Vec<&'static str>,
}

impl SaMaps for Fake {
    fn sa_capacity(&self) -> u32 {
        6
    }
    fn selector_capacity(&self) -> u32 {
        8
    }
    fn install(&mut self, index: u32, config: &SadConfig) -> Option<SaRef> {
        self.steps.push(if config.direction == direction::INBOUND {
            "install inbound"
        } else {
            "install outbound"
        });
        let generation = self.generations.entry(index).and_modify(|g| *g += 1).or_insert(1);
        let sa = SaRef { index, generation: *generation };
        self.sas.insert(index, (sa, *config));
        self.counters.insert(index, Counters::default());
        Some(sa)
    }
    fn relocate(
        &mut self,
        sa: SaRef,
        local: Address,
        peer: Address,
        encapsulation: Option<(u16, u16)>,
    ) -> bool {
        let Some((known, config)) = self.sas.get_mut(&sa.index).filter(|(known, _)| *known == sa) else {
            return false;
        };
        (config.local, config.peer) = (local, peer);
        (config.local_port, config.peer_port) = encapsulation.unwrap_or_default();
        known.generation == sa.generation
    }
    fn entry(&self, sa: SaRef) -> Option<SadConfig> {
        self.sas.get(&sa.index).filter(|(known, _)| *known == sa).map(|(_, config)| *config)
    }
    fn free(&mut self, index: u32) {
        self.steps.push("free");
        self.sas.remove(&index);
    }
    fn sequence(&self, index: u32) -> u64 {
        self.sequences.get(&index).copied().unwrap_or_default()
    }
    fn counters(&self, index: u32) -> Counters {
        self.counters.get(&index).copied().unwrap_or_default()
    }
    fn insert_spi(&mut self, key: SpiKey, sa: SaRef) -> Result<(), user::Error> {
        self.steps.push("insert spi");
        self.spis.insert(key, sa);
        Ok(())
    }
    fn remove_spi(&mut self, key: &SpiKey) -> Result<(), user::Error> {
        self.steps.push("remove spi");
        self.spis.remove(key);
        Ok(())
    }
    fn outbound(&self, slot: u32) -> Option<SaRef> {
        self.outbound.get(&slot).copied().filter(|sa| sa.generation != 0)
    }
    fn set_outbound(&mut self, slot: u32, sa: SaRef) {
        self.steps.push("set outbound");
        self.outbound.insert(slot, sa);
    }
    fn set_selector(&mut self, index: u32, selector: Selector) {
        self.selectors.insert(index, selector);
    }
}

const TUNNEL: TunnelId = TunnelId(3);
const SLOT: u32 = 5;
const LIMITS: Limits =
    Limits { replay_window: 1024, mtu: 0, mss: 1360, lifetime_bytes: None, lifetime_packets: None };

pub(crate) fn child(spi: u32) -> ChildSa {
    let keys = |spi, fill| DirectionKeys {
        spi,
        encryption_key: Zeroizing::new(vec![fill; 32]),
        salt: [fill; 4],
        integrity_key: Zeroizing::default(),
    };
    let prefix = |a: [u8; 4]| TrafficSelector::from_prefix(a.into(), 16);
    ChildSa {
        inbound: keys(spi, 1),
        outbound: keys(spi + 1, 2),
        switch_outbound: true,
        replaces: None,
        protocol: adit_ike::Protocol::Esp,
        encryption: Some(Encryption::Aes256Gcm16),
        integrity: None,
        pfs: None,
        esn: true,
        local_ts: vec![prefix([10, 1, 0, 0]), prefix([10, 3, 0, 0])],
        remote_ts: vec![prefix([10, 2, 0, 0])],
        local: [192, 0, 2, 1].into(),
        peer: [198, 51, 100, 1].into(),
        encapsulation: None,
        lifetime: Duration::from_secs(3600),
        lifetime_bytes: None,
        initiator: true,
    }
}

fn set_up() -> (Fake, Sadb, Instant) {
    let fake = Fake::default();
    let mut sadb = Sadb::new(&fake, HashMap::new());
    sadb.begin(TUNNEL);
    (fake, sadb, Instant::now())
}

#[test]
fn a_pair_comes_up_inbound_first_and_goes_down_outbound_first() {
    let (mut maps, mut sadb, now) = set_up();
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS, vec![SLOT]).unwrap();
    assert_eq!(maps.steps, ["install inbound", "install outbound", "insert spi", "set outbound"]);
    let [(_, inbound), (_, outbound)] = [maps.sas[&0], maps.sas[&1]];
    assert_eq!(
        (inbound.spi, inbound.key, inbound.salt, inbound.replay_window),
        (0x100, [1; 32], [1; 4], 1024)
    );
    assert_eq!((outbound.spi, outbound.key, outbound.replay_window), (0x101, [2; 32], 0));
    assert_eq!((outbound.local_selectors, outbound.remote_selectors, outbound.mss), (2, 1, 1360));
    assert_eq!((outbound.flags, outbound.protocol), (flags::ESN, 50));
    assert_eq!(maps.selectors.len(), 3);
    maps.steps.clear();
    sadb.remove(&mut maps, now, TUNNEL, 0x100).unwrap();
    assert_eq!(maps.steps, ["set outbound", "free", "free", "remove spi"]);
    assert_eq!((maps.outbound(SLOT), maps.sas.len(), maps.spis.len()), (None, 0, 0));
}

#[test]
fn an_older_pair_that_goes_does_not_take_the_newer_ones_slot() {
    let (mut maps, mut sadb, now) = set_up();
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS, vec![SLOT]).unwrap();
    sadb.install(&mut maps, now, TUNNEL, &child(0x200), LIMITS, vec![SLOT]).unwrap();
    let newer = maps.outbound(SLOT);
    sadb.remove(&mut maps, now, TUNNEL, 0x100).unwrap();
    assert_eq!(maps.outbound(SLOT), newer);
    sadb.remove(&mut maps, now, TUNNEL, 0x200).unwrap();
    assert_eq!(maps.outbound(SLOT), None);
}

#[test]
fn where_the_newer_pair_goes_first_the_older_one_seals_again() {
    let (mut maps, mut sadb, now) = set_up();
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS, vec![SLOT]).unwrap();
    let older = maps.outbound(SLOT);
    sadb.install(&mut maps, now, TUNNEL, &child(0x200), LIMITS, vec![SLOT]).unwrap();
    sadb.remove(&mut maps, now, TUNNEL, 0x200).unwrap();
    assert_eq!(maps.outbound(SLOT), older);
}

#[test]
fn what_was_freed_rests_before_it_is_used_again() {
    let (mut maps, mut sadb, now) = set_up();
    for spi in [0x100, 0x200] {
        sadb.install(&mut maps, now, TUNNEL, &child(spi), LIMITS, vec![SLOT]).unwrap();
    }
    let full = sadb.install(&mut maps, now, TUNNEL, &child(0x300), LIMITS, vec![SLOT]);
    assert!(matches!(full, Err(SadbError::Full("selector"))));
    sadb.remove(&mut maps, now, TUNNEL, 0x100).unwrap();
    assert!(sadb.install(&mut maps, now + REST / 2, TUNNEL, &child(0x300), LIMITS, vec![SLOT]).is_err());
    sadb.install(&mut maps, now + REST, TUNNEL, &child(0x300), LIMITS, vec![SLOT]).unwrap();
    assert_eq!(sadb.free.len(), 2);
}

#[test]
fn totals_never_go_back() {
    let (mut maps, mut sadb, mut now) = set_up();
    let mut last = 0;
    for round in 0..12u32 {
        let spi = 0x100 + round;
        sadb.install(&mut maps, now, TUNNEL, &child(spi), LIMITS, vec![SLOT]).unwrap();
        let sa = sadb.pairs[&(TUNNEL, spi)].inbound.index;
        maps.counters
            .insert(sa, Counters { packets: 5, bytes: 500, drops: [1; DropCause::ALL.len()], mtu: None });
        let before = sadb.ended(TUNNEL).inbound.packets;
        sadb.remove(&mut maps, now, TUNNEL, spi).unwrap();
        assert_eq!(
            sadb.ended(TUNNEL).inbound.packets,
            before + 5,
            "at once, for whoever goes on after this process"
        );
        // A packet that was on its way is still counted.
        maps.counters.get_mut(&sa).unwrap().packets += 1;
        now += Duration::from_secs(1);
        sadb.reap(&maps, now);
        let total = sadb.totals(&maps)[&TUNNEL].inbound.packets;
        assert!(total > last);
        last = total;
    }
    assert_eq!(last, 12 * 6);
    assert_eq!(sadb.totals(&maps)[&TUNNEL].inbound.drops[0], 12);
}

#[test]
fn totals_go_on_over_other_maps() {
    let (mut maps, mut sadb, now) = set_up();
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS, vec![SLOT]).unwrap();
    let sa = sadb.pairs[&(TUNNEL, 0x100)].inbound.index;
    maps.counters.insert(sa, Counters { packets: 7, ..Counters::default() });
    let (other, earlier) = (Fake::default(), sadb.totals(&maps));
    let mut sadb = Sadb::new(&other, earlier);
    sadb.begin(TUNNEL);
    assert_eq!(sadb.totals(&other)[&TUNNEL].inbound.packets, 7);
}

#[test]
fn what_an_earlier_process_carried_counts_also_where_its_pair_does_not_go_on() {
    let (mut maps, mut sadb, now) = set_up();
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS, vec![SLOT]).unwrap();
    let kept = sadb.kept(TUNNEL).remove(0);
    maps.counters.insert(kept.inbound.0, Counters { packets: 7, ..Counters::default() });
    maps.counters.insert(kept.outbound.0, Counters { bytes: 9, ..Counters::default() });
    let ended = Totals { inbound: Counters { packets: 1, ..Counters::default() }, ..Totals::default() };
    let mut later = Sadb::new(&maps, HashMap::from([(TUNNEL, ended)]));
    later.count_lost(&maps, TUNNEL, &kept);
    let totals = later.totals(&maps)[&TUNNEL];
    assert_eq!((totals.inbound.packets, totals.outbound.bytes), (8, 9));
    // What is in its place by now is another SA's.
    let other = KeptPair { inbound: (kept.inbound.0, kept.inbound.1 + 1), outbound: (999, 1), ..kept };
    later.count_lost(&maps, TUNNEL, &other);
    assert_eq!(later.totals(&maps)[&TUNNEL], totals);
}

#[test]
fn a_move_changes_where_and_nothing_else() {
    let (mut maps, mut sadb, now) = set_up();
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS, vec![SLOT]).unwrap();
    let before = maps.outbound(SLOT).unwrap();
    let peer = [203, 0, 113, 9].into();
    sadb.relocate(&mut maps, (TUNNEL, 0x100), peer, Some((4500, 1024))).unwrap();
    assert_eq!(maps.outbound(SLOT), Some(before));
    for (_, config) in maps.sas.values() {
        assert_eq!((config.peer, config.peer_port), (Address::from(peer), 1024));
        assert_eq!(config.local, Address::v4([192, 0, 2, 1]));
    }
    maps.sas.clear();
    let moved = sadb.relocate(&mut maps, (TUNNEL, 0x100), peer, None);
    assert!(matches!(moved, Err(SadbError::Moved)));
}

#[test]
fn a_pair_that_the_peer_is_not_ready_for_waits() {
    let (mut maps, mut sadb, now) = set_up();
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS, vec![SLOT]).unwrap();
    let older = maps.outbound(SLOT);
    let next = ChildSa { switch_outbound: false, replaces: Some(0x100), ..child(0x200) };
    sadb.install(&mut maps, now, TUNNEL, &next, LIMITS, vec![SLOT]).unwrap();
    assert_eq!((maps.outbound(SLOT), maps.spis.len()), (older, 2));
    sadb.switch(&mut maps, TUNNEL, 0x200);
    let newer = maps.outbound(SLOT);
    assert!(newer.is_some() && newer != older);
    sadb.remove(&mut maps, now, TUNNEL, 0x100).unwrap();
    assert_eq!((maps.outbound(SLOT), maps.spis.len()), (newer, 1));
}

#[test]
fn pairs_of_a_tunnel_seal_each_for_its_own_flows() {
    let (mut maps, mut sadb, now) = set_up();
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS, vec![SLOT, 6]).unwrap();
    let wide = maps.outbound(SLOT);
    sadb.install(&mut maps, now, TUNNEL, &child(0x200), LIMITS, vec![6]).unwrap();
    let narrow = maps.outbound(6);
    assert!(maps.outbound(SLOT) == wide && narrow != wide);
    assert!(sadb.serves(TUNNEL, 6) && !sadb.serves(TUNNEL, 7));
    sadb.remove(&mut maps, now, TUNNEL, 0x200).unwrap();
    assert_eq!((maps.outbound(SLOT), maps.outbound(6)), (wide, wide));
    sadb.remove(&mut maps, now, TUNNEL, 0x100).unwrap();
    assert_eq!((maps.outbound(SLOT), maps.outbound(6)), (None, None));
}

#[test]
fn a_pair_that_is_nearly_used_up_is_said_until_another_is_there() {
    let (mut maps, mut sadb, now) = set_up();
    let limits = Limits { lifetime_bytes: Some(1000), ..LIMITS };
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), limits, vec![SLOT]).unwrap();
    let index = maps.outbound(SLOT).unwrap().index;
    let carried = |maps: &mut Fake, bytes| {
        maps.counters.insert(index, Counters { packets: 1, bytes, ..Counters::default() });
    };
    let pair = vec![(TUNNEL, 0x100)];
    carried(&mut maps, 500);
    assert_eq!(sadb.look(&maps, now), Look::default());
    carried(&mut maps, 960);
    assert_eq!(sadb.look(&maps, now), Look { low: pair.clone(), ..Look::default() });
    assert_eq!(sadb.look(&maps, now), Look::default());
    assert_eq!(sadb.look(&maps, now + REMIND).low, pair);
    let next = ChildSa { replaces: Some(0x100), ..child(0x200) };
    sadb.install(&mut maps, now, TUNNEL, &next, limits, vec![SLOT]).unwrap();
    assert_eq!(sadb.look(&maps, now + REMIND * 2), Look::default());
    carried(&mut maps, 1000);
    assert_eq!(sadb.look(&maps, now), Look { empty: pair, ..Look::default() });
    assert_eq!(sadb.look(&maps, now), Look::default());
}

#[test]
fn who_is_heard_is_told_by_pair() {
    let (mut maps, mut sadb, now) = set_up();
    for spi in [0x100, 0x200] {
        sadb.install(&mut maps, now, TUNNEL, &child(spi), LIMITS, vec![SLOT]).unwrap();
    }
    let sa = sadb.pairs[&(TUNNEL, 0x200)].inbound.index;
    maps.counters.insert(sa, Counters { packets: 3, ..Counters::default() });
    assert_eq!(sadb.look(&maps, now).heard, [(TUNNEL, 0x200)]);
    assert_eq!(sadb.look(&maps, now).heard, []);
}

/// What a later process finds of pairs that were installed: the maps as they are, and where the pairs are in them.
fn left(spis: &[u32]) -> (Fake, Vec<KeptPair>) {
    let (mut maps, mut sadb, now) = set_up();
    for spi in spis {
        sadb.install(&mut maps, now, TUNNEL, &child(*spi), LIMITS, vec![SLOT]).unwrap();
    }
    let kept = sadb.kept(TUNNEL);
    (maps, kept)
}

#[test]
fn a_pair_that_is_adopted_stays_as_it_is_in_the_maps() {
    let (mut maps, kept) = left(&[0x100]);
    let before = maps.outbound(SLOT).unwrap();
    maps.counters.insert(0, Counters { packets: 7, ..Counters::default() });
    maps.spis.clear();
    maps.steps.clear();
    let mut later = Sadb::new(&maps, HashMap::new());
    later.begin(TUNNEL);
    assert!(later.adopt(&mut maps, TUNNEL, &child(0x100), LIMITS, &kept[0]));
    assert_eq!(later.adopted(&mut maps), HashSet::from([(SLOT, before)]));
    // Nothing is written but where the inbound SA is found, which may not have been yet.
    assert_eq!(maps.steps, ["insert spi"]);
    assert_eq!(maps.spis.values().next(), Some(&SaRef { index: 0, generation: 1 }));
    assert_eq!(later.kept(TUNNEL), kept);
    assert_eq!((later.free.len(), later.selectors.take(6)), (4, None));
    assert_eq!(later.owned(), HashSet::from([SaRef { index: 0, generation: 1 }, before]));
    // What was opened before is not heard now, and still counts.
    assert_eq!(later.look(&maps, Instant::now()).heard, []);
    assert_eq!(later.totals(&maps)[&TUNNEL].inbound.packets, 7);
    later.remove(&mut maps, Instant::now(), TUNNEL, 0x100).unwrap();
    assert_eq!((maps.outbound(SLOT), maps.sas.len(), maps.spis.len()), (None, 0, 0));
}

#[test]
fn a_pair_whose_entries_are_anothers_is_not_adopted() {
    let adopts = |change: fn(&mut Fake, &mut KeptPair, &mut ChildSa)| {
        let (mut maps, mut kept) = left(&[0x100]);
        let mut child = child(0x100);
        change(&mut maps, &mut kept[0], &mut child);
        maps.steps.clear();
        let mut later = Sadb::new(&maps, HashMap::new());
        let adopted = later.adopt(&mut maps, TUNNEL, &child, LIMITS, &kept[0]);
        assert!(adopted || (later.owned().is_empty() && later.selectors.take(8) == Some(0)));
        assert!(adopted || maps.steps.is_empty());
        adopted
    };
    assert!(adopts(|_, _, _| ()));
    assert!(!adopts(|_, kept, _| kept.inbound.1 += 1));
    assert!(!adopts(|_, kept, _| kept.outbound = (5, 1)));
    assert!(!adopts(|_, kept, _| std::mem::swap(&mut kept.inbound, &mut kept.outbound)));
    assert!(!adopts(|maps, _, _| assert!(maps.sas.remove(&1).is_some())));
    assert!(!adopts(|maps, _, _| maps.sas.get_mut(&0).unwrap().1.spi += 1));
    assert!(!adopts(|maps, _, _| maps.sas.get_mut(&1).unwrap().1.selectors += 1));
    assert!(!adopts(|maps, _, _| {
        maps.sas.values_mut().for_each(|(_, config)| config.selectors = 7);
    }));
    assert!(!adopts(|_, _, child| child.esn = false));
    assert!(!adopts(|_, _, child| child.encryption = Some(Encryption::Aes128Gcm16)));
    assert!(!adopts(|_, _, child| child.local = [192, 0, 2, 2].into()));
}

#[test]
fn a_slot_goes_on_with_the_pair_it_had_or_with_the_youngest_that_the_peer_is_ready_for() {
    let adopted = |change: fn(&mut Fake, &mut [KeptPair])| {
        let (mut maps, mut kept) = left(&[0x100, 0x200]);
        change(&mut maps, &mut kept);
        let mut later = Sadb::new(&maps, HashMap::new());
        for (spi, kept) in [0x100, 0x200].into_iter().zip(&kept) {
            assert!(later.adopt(&mut maps, TUNNEL, &child(spi), LIMITS, kept));
        }
        later.adopted(&mut maps);
        maps.outbound(SLOT).unwrap().index
    };
    let (older, younger) = (1, 3);
    let elsewhere = SaRef { index: 5, generation: 9 };
    assert_eq!(adopted(|_, _| ()), younger);
    assert_eq!(adopted(|maps, _| maps.set_outbound(SLOT, SaRef { index: 1, generation: 1 })), older);
    for nobody in [SaRef::default(), elsewhere] {
        let (mut maps, kept) = left(&[0x100]);
        maps.set_outbound(SLOT, nobody);
        let mut later = Sadb::new(&maps, HashMap::new());
        assert!(later.adopt(&mut maps, TUNNEL, &child(0x100), LIMITS, &kept[0]));
        later.adopted(&mut maps);
        assert_eq!(maps.outbound(SLOT), Some(SaRef { index: older, generation: 1 }));
    }
    assert_eq!(
        adopted(|maps, kept| {
            maps.outbound.clear();
            kept[1].sends = false;
        }),
        older
    );
    assert_eq!(
        adopted(|maps, kept| {
            maps.outbound.clear();
            kept[1].done = true;
        }),
        older
    );
}

#[test]
fn ah_is_found_by_its_own_protocol() {
    let (mut maps, mut sadb, now) = set_up();
    let mut ah = child(0x100);
    (ah.protocol, ah.encryption, ah.integrity) =
        (adit_ike::Protocol::Ah, None, Some(adit_ike::Integrity::Sha256));
    for keys in [&mut ah.inbound, &mut ah.outbound] {
        keys.integrity_key = std::mem::take(&mut keys.encryption_key);
    }
    sadb.install(&mut maps, now, TUNNEL, &ah, LIMITS, vec![SLOT]).unwrap();
    let (_, config) = maps.sas[&0];
    assert_eq!((config.protocol, config.cipher, config.auth), (51, cipher::NONE, auth::HMAC_SHA256_128));
    assert_eq!(
        (config.auth_key[..32].to_vec(), maps.spis.keys().next().unwrap().protocol),
        (vec![1; 32], 51)
    );
}

#[test]
fn keys_of_a_wrong_length_are_refused_and_nothing_stays() {
    let (mut maps, mut sadb, now) = set_up();
    let mut bad = child(0x100);
    bad.outbound.encryption_key = Zeroizing::new(vec![0; 16]);
    assert!(matches!(sadb.install(&mut maps, now, TUNNEL, &bad, LIMITS, vec![SLOT]), Err(SadbError::Keys)));
    assert_eq!((maps.sas.len(), maps.spis.len(), sadb.free.len()), (0, 0, 6));
}

#[test]
fn ranges_join_when_they_are_given_back() {
    let mut ranges = Ranges::new(10);
    let taken: Vec<u32> = (0..5).map(|_| ranges.take(2).unwrap()).collect();
    assert_eq!((taken.as_slice(), ranges.take(1)), ([0, 2, 4, 6, 8].as_slice(), None));
    for start in [2, 6, 4, 0, 8] {
        ranges.give_back((start, 2));
    }
    assert_eq!(ranges.take(10), Some(0));
}
