//! Which field a failure is about, and what each side has.

use adit_ike::*;

#[test]
fn the_field_and_both_values_are_named() {
    let first = "dh: modp2048 here, x25519 there".to_owned();
    let theirs = Some(vec!["x".to_owned()]);
    let cause = Cause::NoProposal { ours: vec!["o".into()], theirs, first_difference: Some(first.clone()) };
    let one = cause.advice(Phase::One);
    assert_eq!((one.fields, one.first_difference), (vec!["ike.dh"], Some(first)));
    assert_eq!(cause.advice(Phase::Two).fields, ["ipsec.pfs"]);
    let cause = Cause::VersionMismatch { ours: Version::Ikev2, theirs: Version::Ikev1 };
    let advice = cause.advice(Phase::One);
    assert_eq!((advice.ours, advice.theirs), (vec!["IKEv2".into()], Some(vec!["IKEv1".into()])));
    assert_eq!(advice.first_difference.unwrap(), "ike.version: IKEv2 here, IKEv1 there");
    let advice = Cause::ModeRefused { ours: Mode::Main }.advice(Phase::One);
    assert_eq!((advice.fields, advice.theirs), (vec!["ike.mode"], None));
    let cause = Cause::PfsMismatch { ours: vec![Group::Modp2048], theirs: Some(Vec::new()) };
    let advice = cause.advice(Phase::Two);
    assert_eq!((advice.ours, advice.theirs.unwrap()), (vec!["group 14".into()], vec!["disabled".into()]));
}

#[test]
fn subnets_are_told_with_both_lists() {
    let ts = |text: &str| TrafficSelector {
        protocol: 0,
        ports: 0..=u16::MAX,
        start: text.parse().unwrap(),
        end: text.parse().unwrap(),
    };
    let cause = Cause::TrafficSelectors {
        our_local: vec![ts("10.1.0.1")],
        our_remote: vec![ts("10.2.0.1"), ts("10.2.0.2")],
        theirs: Some((vec![ts("10.3.0.1")], vec![ts("10.2.0.1")])),
    };
    let advice = cause.advice(Phase::Two);
    assert_eq!(advice.fields, ["local_subnets", "remote_subnets"]);
    assert!(advice.ours[1].contains("10.2.0.2") && advice.theirs.unwrap()[0].contains("10.3.0.1"));
}
