use super::*;
use crate::{
    address::{Address, Prefix},
    policy::{MAX_RULES, action, look_up},
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU32},
};

fn prefix(text: &str) -> Prefix {
    let (ip, len) = text.split_once('/').unwrap();
    Prefix::new(ip.parse().unwrap(), len.parse().unwrap()).unwrap()
}

fn image(prefixes: &[&str], class: u32) -> Image {
    let side: BTreeMap<_, _> = prefixes.iter().map(|p| (prefix(p), class)).collect();
    Image::new(&side, &side).unwrap()
}

/// The classes in memory, and rules for the pairs of a class with itself: anything else is nobody's flow.
struct InMemory(Classes);

impl Spd for InMemory {
    fn generation(&self) -> u64 {
        self.0.generation()
    }
    fn is_still(&self, generation: u64) -> bool {
        self.0.is_still(generation)
    }
    fn classes(&self, generation: u64, flow: &Flow) -> Result<Option<ClassPair>, Damaged> {
        self.0.pair(generation, flow)
    }
    fn with_rules(&self, pair: &ClassPair, f: impl FnOnce(&RuleList) -> Option<Rule>) -> Option<Rule> {
        let rule = Rule { action: action::PROTECT, policy: pair.source, ..Rule::NONE };
        (pair.source == pair.destination).then(|| f(&RuleList { len: 1, rules: [rule; MAX_RULES] })).flatten()
    }
}

fn flow(source: &str, destination: &str) -> Flow {
    let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
    Flow::new(address(source), address(destination), 6, Some((1, 2)))
}

#[test]
fn the_prefixes_of_the_current_area_are_read_back() {
    let classes = Classes(Mapped::anonymous(CELLS));
    assert_eq!(classes.prefixes(), Ok((BTreeMap::new(), BTreeMap::new())));
    for (i, text) in ["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"].into_iter().enumerate() {
        classes.replace(&image(&[text], i as u32));
        assert_eq!(classes.generation(), i as u64 + 1);
        let expected: BTreeMap<_, _> = [(prefix(text), i as u32)].into();
        assert_eq!(classes.prefixes(), Ok((expected.clone(), expected)));
    }
}

#[test]
fn damaged_tables_discard() {
    let spd = InMemory(Classes(Mapped::anonymous(CELLS)));
    spd.0.replace(&image(&["10.0.0.0/8", "10.1.0.0/17", "10.1.128.0/18"], 1));
    let flow = flow("10.1.0.1", "10.1.200.1");
    assert_eq!(look_up(&spd, &flow).map(|rule| rule.policy), Some(1));
    for index in classes::area(1)..classes::area(1) + (4 << 14) {
        spd.0.0.get(index).unwrap().iter().for_each(|word| word.store(u64::MAX, Relaxed));
    }
    assert_eq!(look_up(&spd, &flow), Some(Rule::DISCARD));
}

/// Each set of tables has other ways to the same addresses, and all of its classes have its own number.
#[test]
fn readers_see_one_set_of_tables_or_another() {
    let spd = InMemory(Classes(Mapped::anonymous(CELLS)));
    let sets: Vec<Image> = [
        &["10.0.0.0/8", "2001:db8::/32"][..],
        &["10.1.0.0/16", "10.1.2.0/24", "10.1.3.0/24", "2001:db8:1::/48", "2001:db8:1:2::/64"],
        &["0.0.0.0/0", "10.1.2.3/32", "10.1.2.4/32", "::/0", "2001:db8:1:2::3/128", "2001:db8:1:2::4/128"],
    ]
    .iter()
    .zip(0..)
    .map(|(prefixes, class)| image(prefixes, class))
    .collect();
    let flows = [flow("10.1.2.3", "10.1.3.4"), flow("2001:db8:1:2::3", "2001:db8:1:3::4")];
    spd.0.replace(&sets[0]);
    let (done, seen) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|threads| {
        for flow in &flows {
            let (spd, done, seen) = (&spd, &done, &seen);
            threads.spawn(move || {
                while !done.load(Relaxed) {
                    let rule = look_up(spd, flow).expect("every set has a class for both ends");
                    // Where it was replaced twice under it, a look-up gives up.
                    assert!(rule == Rule::DISCARD || rule.action == action::PROTECT, "{rule:?}");
                    seen.fetch_add(1, Relaxed);
                }
            });
        }
        for round in 0..60 {
            spd.0.replace(&sets[round % sets.len()]);
        }
        while seen.load(Relaxed) == 0 {
            std::thread::yield_now();
        }
        done.store(true, Relaxed);
    });
    assert_eq!(spd.0.generation(), 61);
}
