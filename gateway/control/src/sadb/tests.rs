use super::*;
use adit_ike::{DirectionKeys, Encryption, TrafficSelector};
use adit_maps::sa::{DropCause, SadConfig, direction, flags};
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
    fn config(&self, index: u32) -> Option<SadConfig> {
        self.sas.get(&index).map(|(_, c)| *c)
    }
    fn free(&mut self, index: u32) {
        self.steps.push("free");
        self.sas.remove(&index);
    }
    fn sequence(&self, index: u32) -> u64 {
        self.sequences.get(&index).copied().unwrap_or_default()
    }
    fn set_sequence(&mut self, index: u32, sequence: u64) {
        self.steps.push("set sequence");
        self.sequences.insert(index, sequence);
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
const LIMITS: Limits = Limits { replay_window: 1024, mtu: 0, mss: 1360 };

fn child(spi: u32) -> ChildSa {
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
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS).unwrap();
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
    assert_eq!((maps.outbound(TUNNEL.0), maps.sas.len(), maps.spis.len()), (None, 0, 0));
}

#[test]
fn an_older_pair_that_goes_does_not_take_the_newer_ones_slot() {
    let (mut maps, mut sadb, now) = set_up();
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS).unwrap();
    sadb.install(&mut maps, now, TUNNEL, &child(0x200), LIMITS).unwrap();
    let newer = maps.outbound(TUNNEL.0);
    sadb.remove(&mut maps, now, TUNNEL, 0x100).unwrap();
    assert_eq!(maps.outbound(TUNNEL.0), newer);
    sadb.remove(&mut maps, now, TUNNEL, 0x200).unwrap();
    assert_eq!(maps.outbound(TUNNEL.0), None);
}

#[test]
fn where_the_newer_pair_goes_first_the_older_one_seals_again() {
    let (mut maps, mut sadb, now) = set_up();
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS).unwrap();
    let older = maps.outbound(TUNNEL.0);
    sadb.install(&mut maps, now, TUNNEL, &child(0x200), LIMITS).unwrap();
    sadb.remove(&mut maps, now, TUNNEL, 0x200).unwrap();
    assert_eq!(maps.outbound(TUNNEL.0), older);
}

#[test]
fn what_was_freed_rests_before_it_is_used_again() {
    let (mut maps, mut sadb, now) = set_up();
    for spi in [0x100, 0x200] {
        sadb.install(&mut maps, now, TUNNEL, &child(spi), LIMITS).unwrap();
    }
    let full = sadb.install(&mut maps, now, TUNNEL, &child(0x300), LIMITS);
    assert!(matches!(full, Err(SadbError::Full("selector"))));
    sadb.remove(&mut maps, now, TUNNEL, 0x100).unwrap();
    assert!(sadb.install(&mut maps, now + REST / 2, TUNNEL, &child(0x300), LIMITS).is_err());
    sadb.install(&mut maps, now + REST, TUNNEL, &child(0x300), LIMITS).unwrap();
    assert_eq!(sadb.free.len(), 2);
}

#[test]
fn totals_never_go_back() {
    let (mut maps, mut sadb, mut now) = set_up();
    let mut last = 0;
    for round in 0..12u32 {
        let spi = 0x100 + round;
        sadb.install(&mut maps, now, TUNNEL, &child(spi), LIMITS).unwrap();
        let sa = sadb.pairs[&(TUNNEL, spi)].inbound.index;
        maps.counters.insert(sa, Counters { packets: 5, bytes: 500, drops: [1; DropCause::ALL.len()] });
        sadb.remove(&mut maps, now, TUNNEL, spi).unwrap();
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
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS).unwrap();
    let sa = sadb.pairs[&(TUNNEL, 0x100)].inbound.index;
    maps.counters.insert(sa, Counters { packets: 7, ..Counters::default() });
    let (other, earlier) = (Fake::default(), sadb.totals(&maps));
    let mut sadb = Sadb::new(&other, earlier);
    sadb.begin(TUNNEL);
    assert_eq!(sadb.totals(&other)[&TUNNEL].inbound.packets, 7);
}

#[test]
fn a_move_skips_sequence_numbers_and_keeps_the_keys() {
    let (mut maps, mut sadb, now) = set_up();
    sadb.install(&mut maps, now, TUNNEL, &child(0x100), LIMITS).unwrap();
    let before = maps.outbound(TUNNEL.0).unwrap();
    maps.sequences.insert(before.index, 77);
    let peer = [203, 0, 113, 9].into();
    sadb.relocate(&mut maps, now, (TUNNEL, 0x100), peer, Some((4500, 1024))).unwrap();
    let after = maps.outbound(TUNNEL.0).unwrap();
    assert_ne!(after.index, before.index);
    let entry = maps.config(after.index).unwrap();
    assert_eq!((entry.peer, entry.peer_port, entry.key), (Address::from(peer), 1024, [2; 32]));
    assert_eq!(entry.flags, flags::ESN | flags::UDP);
    assert!(maps.sequence(after.index) > 77);
    assert!(maps.config(before.index).is_none());
    let order: Vec<_> = maps.steps.iter().rev().take(3).copied().collect();
    assert_eq!(order, ["free", "set outbound", "set sequence"]);
    sadb.remove(&mut maps, now, TUNNEL, 0x100).unwrap();
    assert_eq!((maps.outbound(TUNNEL.0), maps.sas.len()), (None, 0));
}

#[test]
fn keys_of_a_wrong_length_are_refused_and_nothing_stays() {
    let (mut maps, mut sadb, now) = set_up();
    let mut bad = child(0x100);
    bad.outbound.encryption_key = Zeroizing::new(vec![0; 16]);
    assert!(matches!(sadb.install(&mut maps, now, TUNNEL, &bad, LIMITS), Err(SadbError::Keys)));
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
