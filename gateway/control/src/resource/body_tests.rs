//! The schemas of bodies against the reader: the same fields, words and bounds.

use super::*;
use crate::config::{Peer, PeerAddress, read_alarm, read_gateway, read_group, read_peer, read_tunnel};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use utoipa::PartialSchema;

type Given = Map<String, Value>;

const KINDS: [Kind; 5] = Kind::ALL;

fn schemas(kind: Kind) -> [Value; 2] {
    let [body, patch] = match kind {
        Kind::Gateway => [GatewayBody::schema(), GatewayPatch::schema()],
        Kind::Peer => [PeerBody::schema(), PeerPatch::schema()],
        Kind::Tunnel => [TunnelBody::schema(), TunnelPatch::schema()],
        Kind::Group => [GroupBody::schema(), GroupPatch::schema()],
        Kind::Alarm => [AlarmBody::schema(), AlarmPatch::schema()],
    };
    [body, patch].map(|schema| serde_json::to_value(schema).unwrap())
}

/// What is right, and leaves room for every other field.
fn right(kind: Kind) -> Value {
    match kind {
        Kind::Gateway => json!({"name": "a", "address": "192.0.2.1", "wan": "eth0", "lan": ["eth1"]}),
        Kind::Peer => json!({"name": "b", "address": "198.51.100.1"}),
        Kind::Group => json!({"name": "g", "members": ["t"]}),
        Kind::Alarm => json!({"name": "x", "rules": [{"figure": "health", "threshold": 1}]}),
        Kind::Tunnel => json!({
            "name": "t", "peer": "b", "local_subnets": ["10.1.0.0/16"], "remote_subnets": ["10.2.0.0/16"],
            "psk": "Sentinel-0f-the-secret-key",
        }),
    }
}

fn object(value: Value) -> Given {
    value.as_object().unwrap().clone()
}

/// What the reader has against something: the field from the resource on, and what it allows.
fn refusals(kind: Kind, given: &Value) -> Vec<Violation> {
    let given = object(given.clone());
    let problems = match kind {
        Kind::Gateway => read_gateway(&given).map(drop),
        Kind::Peer => read_peer(&given).map(drop),
        Kind::Group => read_group(&given).map(drop),
        Kind::Alarm => read_alarm(&given).map(drop),
        Kind::Tunnel => {
            let gateway = read_gateway(&object(right(Kind::Gateway))).unwrap().value;
            let address = PeerAddress::Ip([198, 51, 100, 1].into());
            let peer = ("b".to_owned(), Peer { address, asn: Some(64_512) });
            read_tunnel(&given, &gateway, Some(peer)).map(drop)
        }
    };
    problems.err().into_iter().flatten().map(Violation::from).collect()
}

/// The reader's fields of what is right with `value` at `path`.
fn refused_at(kind: Kind, path: &str, value: &Value) -> Vec<String> {
    refusals(kind, &with(kind, path, value)).into_iter().map(|v| v.field).collect()
}

fn with(kind: Kind, path: &str, value: &Value) -> Value {
    let mut whole = right(kind);
    if path.starts_with("ike.ppk") {
        whole["ike"]["ppk"] = json!({"id": "p", "key": "0x01"});
    }
    if path.starts_with("health_check") {
        whole["health_check"] = json!({"destination": "10.2.0.9", "source": "10.1.0.1"});
    }
    if path == "routes" || path.starts_with("bgp") {
        whole =
            json!({"name": "t", "peer": "b", "psk": "Sentinel-0f-the-secret-key", "routing_mode": "route"});
    }
    if path.starts_with("bgp") {
        whole["routes"] = json!(["10.2.0.0/16"]);
        whole["bgp"] =
            json!({"local_asn": 65_000, "inside_cidr": "169.254.10.0/30", "local_ip": "169.254.10.2"});
    }
    if let Some(room) = room_for(path) {
        whole["ike"] = room;
    }
    let mut at = &mut whole;
    for name in path.split('.') {
        at = &mut at[name];
    }
    *at = value.clone();
    whole
}

/// What leaves room for either of two bounds that are of each other.
fn room_for(path: &str) -> Option<Value> {
    match path {
        "ike.cookie_threshold" => Some(json!({"half_open_limit": 65_535})),
        "ike.half_open_limit" => Some(json!({"cookie_threshold": 0})),
        _ => None,
    }
}

/// Every field with its schema, those of objects by their way.
fn fields(schema: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (name, of) in schema["properties"].as_object().unwrap() {
        all.push((name.clone(), of.clone()));
        if of["properties"].is_object() {
            all.extend(fields(of).into_iter().map(|(inner, of)| (format!("{name}.{inner}"), of)));
        }
    }
    all
}

fn writable(kind: Kind) -> Vec<(String, Value)> {
    fields(&schemas(kind)[0]).into_iter().filter(|(_, of)| of["readOnly"] != true).collect()
}

#[test]
fn a_body_has_the_fields_that_the_reader_asks_for() {
    let mut tables = 0;
    for kind in KINDS {
        let all = writable(kind);
        let objects = all.iter().filter(|(_, of)| of["properties"].is_object());
        for table in [""].into_iter().chain(objects.map(|(path, _)| path.as_str())) {
            let path = if table.is_empty() { "fast".to_owned() } else { format!("{table}.fast") };
            let refused = refusals(kind, &with(kind, &path, &json!(1)));
            let unknown = refused.into_iter().find(|v| v.field == path).unwrap();
            let asked = unknown.allowed.unwrap();
            let asked: BTreeSet<_> = asked.split(", ").map(str::to_owned).collect();
            let within = |(name, _): &(String, Value)| match table {
                "" => (!name.contains('.')).then(|| name.clone()),
                table => name
                    .strip_prefix(table)?
                    .strip_prefix('.')
                    .filter(|n| !n.contains('.'))
                    .map(str::to_owned),
            };
            let described: BTreeSet<_> = all.iter().filter_map(within).collect();
            assert_eq!(described, asked, "{kind} {table}");
            tables += 1;
        }
    }
    assert_eq!(tables, 13);
}

#[test]
fn a_word_is_taken_if_it_is_one_of_the_schema() {
    let mut lists = 0;
    for kind in KINDS {
        for (path, of) in writable(kind) {
            let is_list = of["type"] == "array";
            let item = if is_list { &of["items"] } else { &of };
            let alternatives = item["anyOf"].as_array().cloned().unwrap_or_else(|| vec![item.clone()]);
            let known: Vec<_> =
                alternatives.iter().filter_map(|a| a["enum"].as_array().cloned()).flatten().collect();
            if known.is_empty() {
                continue;
            }
            let given = |word: &Value| if is_list { json!([word]) } else { word.clone() };
            for word in &known {
                let refused = refusals(kind, &with(kind, &path, &given(word)));
                // A word may need another beside it; it is known all the same.
                assert!(refused.iter().all(|v| !v.why.contains("unknown")), "{path} {word}: {refused:?}");
            }
            let refused = refusals(kind, &with(kind, &path, &given(&json!("acme"))));
            let unknown = refused.iter().find(|v| v.field == path).unwrap();
            let told: Vec<_> =
                known.iter().map(|word| word.as_str().map_or(word.to_string(), str::to_owned)).collect();
            let allowed = unknown.allowed.as_ref().unwrap();
            assert!(*allowed == told.join(", ") || allowed.starts_with("\"auto\" or"), "{path}: {allowed}");
            lists += 1;
        }
    }
    assert_eq!(lists, 20);
}

#[test]
fn a_number_is_taken_to_its_bounds_and_refused_beyond() {
    let mut table = Vec::new();
    for kind in KINDS {
        for (path, of) in writable(kind) {
            let alternatives = of["anyOf"].as_array().cloned().unwrap_or_else(|| vec![of.clone()]);
            let Some(number) = alternatives.iter().find(|a| a["minimum"].is_number()) else { continue };
            let [least, most] = ["minimum", "maximum"].map(|bound| number[bound].as_i64().unwrap());
            for inside in [least, most] {
                assert_eq!(refused_at(kind, &path, &json!(inside)), [""; 0], "{path} {inside}");
            }
            // One more than the last may be beyond what JSON's reader takes for a whole number.
            let above = most.checked_add(1).map_or(json!(u64::MAX), |above| json!(above));
            for outside in [json!(least - 1), above, json!(1e30), json!("9"), json!(true), json!([least])] {
                assert_eq!(refused_at(kind, &path, &outside), [path.as_str()], "{path} {outside}");
            }
            table.push((path, least, most));
        }
    }
    let table: Vec<_> = table.iter().map(|(path, least, most)| (path.as_str(), *least, *most)).collect();
    let wanted = [
        ("ike.attempts", 1, 20),
        ("ike.cookie_threshold", 0, 65_534),
        ("ike.fragment_size", 576, 65_535),
        ("ike.half_open_limit", 16, 65_535),
        ("ike.keepalive", 1, 3600),
        ("ike.retransmit_after", 100, 60_000),
        ("ike.retransmit_ceiling", 100, 60_000),
        ("asn", 1, u32::MAX.into()),
        ("bgp.hold_time", 3, 3600),
        ("bgp.local_asn", 1, u32::MAX.into()),
        ("bgp.peer_asn", 1, u32::MAX.into()),
        ("dpd.delay", 1, 3600),
        ("dpd.timeout", 1, 3600),
        ("health_check.interval", 1, 60),
        ("health_check.retries", 1, 10),
        ("ike.lifetime", 60, 86_400),
        ("ipsec.lifetime", 60, 86_400),
        ("ipsec.lifetime_bytes", 65_536, i64::MAX),
        ("ipsec.lifetime_packets", 100, i64::MAX),
        ("ipsec.replay_window", 0, 4096),
        ("mss_clamp", 88, 9156),
        ("mtu", 576, 9216),
    ];
    assert_eq!(table, wanted);
}

#[test]
fn a_text_is_taken_to_its_length_and_refused_beyond() {
    let (mut texts, mut others) = (0, 0);
    for kind in KINDS {
        for (path, of) in writable(kind) {
            let is_object = of["properties"].is_object() || of["additionalProperties"].is_object();
            // Nothing is each of these at a time.
            for wrong in [
                json!(7),
                json!(true),
                json!("seven words that name nothing at all"),
                json!({"a": 1}),
                json!([[]]),
            ] {
                let taken = match &wrong {
                    Value::Number(_) => of["type"] == "integer",
                    Value::Bool(_) => of["type"] == "boolean",
                    Value::String(_) => of["type"] == "string" && of["enum"].is_null(),
                    Value::Object(_) => false,
                    _ => false,
                };
                let is_name = ["members", "alarm_template"].contains(&path.as_str()) && wrong.is_string();
                if taken || is_name || ((path == "ipsec.pfs" || path.ends_with("asn")) && wrong.is_number()) {
                    continue;
                }
                let refused = refused_at(kind, &path, &wrong);
                let named =
                    refused.iter().any(|field| *field == path || (is_object && field.starts_with(&path)));
                assert!(named, "{kind} {path} {wrong}: {refused:?}");
                others += 1;
            }
            let Some(most) = of["maxLength"].as_u64() else { continue };
            let long = |n: u64| {
                let n = usize::try_from(n).unwrap();
                match path.as_str() {
                    "address" => "a.".repeat(125) + &"b".repeat(n - 250),
                    "ike.ppk.key" => format!("0x{}", "7".repeat(n - 2)),
                    id if id.ends_with("_id") => format!("keyid:{}", "7".repeat(n - 6)),
                    _ => "x".repeat(n),
                }
            };
            let in_pairs = path == "ike.ppk.key" || path.ends_with("_id");
            let beyond = if in_pairs { most + 2 } else { most + 1 };
            assert_eq!(refused_at(kind, &path, &json!(long(most))), [""; 0], "{path} of {most}");
            assert_eq!(refused_at(kind, &path, &json!(long(beyond))), [path.as_str()], "{path} of {beyond}");
            if of["minLength"].as_u64() == Some(1) {
                assert_eq!(refused_at(kind, &path, &json!("")), [path.as_str()]);
            }
            texts += 1;
        }
    }
    assert!(texts >= 10 && others > 100, "{texts} {others}");
}

#[test]
fn a_patch_needs_nothing_and_takes_null_for_what_has_a_default() {
    for kind in KINDS {
        let [body, patch] = schemas(kind);
        let needed: Vec<_> =
            body["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        for ((path, of), (_, in_body)) in fields(&patch).into_iter().zip(fields(&body)) {
            assert!(of["required"].is_null(), "{path}");
            let text = of.to_string();
            let takes_null = text.contains("\"null\"");
            let within = [
                "ike.ppk.id",
                "health_check.destination",
                "health_check.source",
                "bgp.local_asn",
                "bgp.inside_cidr",
                "bgp.local_ip",
            ];
            let is_needed = needed.contains(&path.as_str()) || within.contains(&path.as_str());
            let is_read_only = in_body["readOnly"] == true;
            assert_eq!(takes_null, !is_needed && !is_read_only, "{kind} {path}: {text}");
        }
        for name in needed {
            let mut without = right(kind);
            without.as_object_mut().unwrap().remove(name);
            let refused: Vec<_> = refusals(kind, &without).into_iter().map(|v| v.field).collect();
            assert_eq!(refused, [name], "{kind}");
        }
    }
}

/// The items of a list of tables are not among [`fields`].
#[test]
fn a_rule_has_the_fields_words_and_bounds_that_the_reader_asks_for() {
    let schema = &schemas(Kind::Alarm)[0]["properties"]["rules"];
    let rule = |name: &str, value: Value| {
        let mut rule = json!({"figure": "drops", "threshold": 1});
        rule[name] = value;
        refusals(Kind::Alarm, &json!({"name": "x", "rules": [rule]}))
    };
    let unknown = rule("fast", json!(1)).remove(0);
    assert_eq!(unknown.field, "rules[0].fast");
    let asked: BTreeSet<String> = unknown.allowed.unwrap().split(", ").map(str::to_owned).collect();
    let properties = schema["items"]["properties"].as_object().unwrap();
    assert_eq!(properties.keys().cloned().collect::<BTreeSet<_>>(), asked);
    let mut words = 0;
    for (name, of) in properties {
        let known = of["enum"].as_array().or(of["items"]["enum"].as_array());
        let Some(known) = known else { continue };
        for word in known {
            let refused = rule(name, word.clone());
            assert!(refused.is_empty(), "{name} {word}: {refused:?}");
            words += 1;
        }
        let told: Vec<_> = known.iter().map(|word| word.as_str().unwrap()).collect();
        let refused = rule(name, json!("seven words")).remove(0);
        assert_eq!((refused.field, refused.allowed.unwrap()), (format!("rules[0].{name}"), told.join(", ")));
    }
    assert_eq!(words, crate::alarm::FIGURES.len() + 2 + 3 + 13);
    for (name, right, wrong) in [
        ("threshold", vec![json!(0), json!(0.5), json!(1e12)], vec![json!(-0.1), json!("1"), json!(true)]),
        ("for", vec![json!(0), json!(86_400)], vec![json!(86_401), json!(-1), json!(0.5)]),
        ("summary", vec![json!("x".repeat(256))], vec![json!(""), json!("x".repeat(257)), json!("a\nb")]),
    ] {
        assert!(right.into_iter().all(|value| rule(name, value).is_empty()), "{name}");
        for value in wrong {
            let fields: Vec<_> = rule(name, value.clone()).into_iter().map(|v| v.field).collect();
            assert_eq!(fields, [format!("rules[0].{name}")], "{value}");
        }
    }
    let many = |count| json!({"name": "x", "rules": vec![json!({"figure": "mtu", "threshold": 1}); count]});
    let most = usize::try_from(schema["maxItems"].as_u64().unwrap()).unwrap();
    assert!(refusals(Kind::Alarm, &many(most)).is_empty() && refusals(Kind::Alarm, &many(0)).is_empty());
    assert_eq!(refusals(Kind::Alarm, &many(most + 1))[0].field, "rules");
}
