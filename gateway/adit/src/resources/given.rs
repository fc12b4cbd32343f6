//! What `FIELD=VALUE` gives: what belongs into the field, by the schema of its resource.

use super::text_of;
use crate::wrong_usage;
use serde_json::{Map, Value};

/// Puts what `text` says where `path` says, below a resource's `schema`.
///
/// # Errors
/// A file cannot be read, or something of the field was given already as a whole.
pub(super) fn put(
    given: &mut Map<String, Value>,
    path: &str,
    text: &str,
    schema: &Value,
) -> anyhow::Result<()> {
    let (name, rest) = match path.split_once('.') {
        // Words of one's own may have dots.
        Some(_) if schema["properties"].is_null() && !schema["additionalProperties"].is_null() => {
            (path, None)
        }
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let known = match &schema["properties"][name] {
        Value::Null => &schema["additionalProperties"],
        known => known,
    };
    let Some(rest) = rest else {
        given.insert(name.to_owned(), value(text, known)?);
        return Ok(());
    };
    let inner = given.entry(name).or_insert_with(|| Map::new().into());
    let whole = || wrong_usage(format!("{name} is given as a whole already"));
    put(inner.as_object_mut().ok_or_else(whole)?, rest, text, known)
}

/// What a text says in the place of what `schema` describes, or what the file says that it names.
fn value(text: &str, schema: &Value) -> anyhow::Result<Value> {
    if let Some(file) = text.strip_prefix('@') {
        let text = text_of(file)?;
        let text = text.trim_end_matches(['\r', '\n']);
        return Ok(read(text, schema).unwrap_or_else(|| text.into()));
    }
    if text == "null" {
        return Ok(Value::Null);
    }
    Ok(quoted(text).or_else(|| read(text, schema)).unwrap_or_else(|| text.into()))
}

/// A text of JSON.
fn quoted(text: &str) -> Option<Value> {
    text.starts_with('"').then(|| serde_json::from_str(text).ok()).flatten()
}

/// What `schema` describes, as `text` has it; `None` where it has none: the gateway says then what it would take.
fn read(text: &str, schema: &Value) -> Option<Value> {
    let json = || serde_json::from_str::<Value>(text).ok();
    if let Some(several) = schema["anyOf"].as_array() {
        // Any text is a text: the other ways come first.
        let (texts, others): (Vec<_>, Vec<_>) = several.iter().partition(|one| one["type"] == "string");
        return others.into_iter().chain(texts).find_map(|one| read(text, one));
    }
    match schema["type"].as_str()? {
        "string" => Some(text.into()),
        "integer" => json().filter(|v| v.is_u64() || v.is_i64()),
        "number" => json().filter(Value::is_number),
        "boolean" => json().filter(Value::is_boolean),
        "object" => json().filter(Value::is_object),
        "array" => {
            let items = &schema["items"];
            let item = |item: &str| quoted(item).or_else(|| read(item, items)).unwrap_or_else(|| item.into());
            Some(match json().filter(|v| v.is_array() || v.is_object()) {
                Some(whole) => whole,
                None if text.contains(',') => text.split(',').map(|part| item(part.trim())).collect(),
                None => item(text),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_control::resource::Kind;
    use serde_json::json;

    fn given(kind: Kind, fields: &[&str]) -> Value {
        let (mut given, schema) = (Map::new(), kind.body());
        for field in fields {
            let (path, text) = field.split_once('=').unwrap();
            put(&mut given, path, text, &schema).unwrap();
        }
        given.into()
    }

    /// Every field by its path, those within others too, with its schema.
    fn fields(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match field["properties"].is_object() {
                true => fields(field, &path, found),
                false => found.push((path, field.clone())),
            }
        }
    }

    fn at<'v>(given: &'v Value, path: &str) -> &'v Value {
        given.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or_else(|| panic!("{path} in {given}"))
    }

    #[test]
    fn fields_are_given_in_words() {
        let given = given(
            Kind::Tunnel,
            &[
                "ike.version=ikev1",
                "ike.dh=14,19",
                "ipsec.pfs=disabled",
                "mtu=1400",
                "mss_clamp=auto",
                "enabled=false",
                "remote_subnets=10.2.0.0/16, fd00::/64",
                "local_subnets=[\"10.1.0.0/16\"]",
                "remark=Berlin, main",
                "psk=1234567890123456",
                "labels.rack=12",
                "labels.example.net/site=[1]",
                "health_check={\"source\": \"10.1.0.1\"}",
                "routes=null",
            ],
        );
        let wanted = json!({
            "ike": {"version": "ikev1", "dh": [14, 19]}, "ipsec": {"pfs": "disabled"}, "mtu": 1400, "mss_clamp": "auto",
            "enabled": false, "remote_subnets": ["10.2.0.0/16", "fd00::/64"], "local_subnets": ["10.1.0.0/16"],
            "remark": "Berlin, main", "psk": "1234567890123456", "labels": {"rack": "12", "example.net/site": "[1]"},
            "health_check": {"source": "10.1.0.1"}, "routes": null,
        });
        assert_eq!(given, wanted);
        assert_eq!(self::given(Kind::Peer, &["asn=1.10"]), json!({"asn": "1.10"}));
        assert_eq!(self::given(Kind::Peer, &["asn=65000"]), json!({"asn": 65000}));
        assert_eq!(self::given(Kind::Group, &["members=1,2"]), json!({"members": ["1", "2"]}));
        let rules = self::given(Kind::Alarm, &["rules=[{\"figure\": \"health\", \"threshold\": 0.5}]"]);
        assert_eq!(rules, json!({"rules": [{"figure": "health", "threshold": 0.5}]}));
    }

    #[test]
    fn every_field_takes_what_belongs_into_it() {
        const TEXTS: [&str; 12] =
            ["12", "1.10", "1e5", "-1", "true", "[1]", "{}", "a, b", " a ", "", "a=b", "\"a"];
        let mut counts = [0; 5];
        for kind in Kind::ALL {
            let mut all = Vec::new();
            fields(&kind.body(), "", &mut all);
            for (path, schema) in all {
                let of = |text: &str| at(&given(kind, &[&format!("{path}={text}")]), &path).clone();
                assert_eq!(of("null"), Value::Null, "{path}");
                assert_eq!(of("\"@null\""), json!("@null"), "{path}");
                match (schema["type"].as_str(), schema["items"]["type"].as_str()) {
                    (Some("string"), _) => {
                        counts[0] += 1;
                        TEXTS.iter().for_each(|text| assert_eq!(of(text), json!(text), "{path}"));
                    }
                    (Some("integer"), _) => {
                        counts[1] += 1;
                        assert_eq!((of("1400"), of("1.5"), of("a")), (json!(1400), json!("1.5"), json!("a")));
                    }
                    (Some("boolean"), _) => {
                        counts[2] += 1;
                        assert_eq!(
                            (of("true"), of("false"), of("1")),
                            (json!(true), json!(false), json!("1"))
                        );
                    }
                    (Some("array"), Some("string")) => {
                        counts[3] += 1;
                        assert_eq!((of("1.10"), of("true")), (json!("1.10"), json!("true")), "{path}");
                        assert_eq!(of("1, b,true"), json!(["1", "b", "true"]), "{path}");
                        assert_eq!(of("[\"a,b\", \"c\"]"), json!(["a,b", "c"]), "{path}");
                        assert_eq!(of("\"a,b\""), json!("a,b"), "{path}");
                    }
                    _ => counts[4] += 1,
                }
            }
        }
        // What is left over: labels, numbers that may be words, groups, and rules.
        assert!(counts[..4].iter().all(|count| *count > 5) && counts[4] == LEFT, "{counts:?}");
    }

    /// Of which there are tests by name.
    const LEFT: usize = 13;

    #[test]
    fn a_file_is_what_is_in_it() {
        let file = std::env::temp_dir().join(format!("adit-given-{}", std::process::id()));
        let of = |kind, field: &str, content: &str| {
            std::fs::write(&file, content).unwrap();
            given(kind, &[&format!("{field}=@{}", file.display())])
        };
        for text in ["1234567890123456", "@at", "\"quoted\"", "null", "a,b"] {
            assert_eq!(of(Kind::Tunnel, "psk", &format!("{text}\r\n")), json!({"psk": text}));
        }
        assert_eq!(of(Kind::Tunnel, "ike.ppk.key", "12\n"), json!({"ike": {"ppk": {"key": "12"}}}));
        assert_eq!(of(Kind::Alarm, "rules", "[\n]\n"), json!({"rules": []}));
        std::fs::remove_file(&file).unwrap();
        let missing = put(&mut Map::new(), "psk", "@/nonexistent", &Kind::Tunnel.body());
        assert!(missing.unwrap_err().to_string().contains("/nonexistent"));
    }

    #[test]
    fn what_is_no_field_is_for_the_gateway_to_refuse() {
        assert_eq!(
            given(Kind::Peer, &["nonsense=1.10", "address.x=1"]),
            json!({"nonsense": "1.10", "address": {"x": "1"}})
        );
        let mut given = Map::new();
        put(&mut given, "mtu", "1400", &Kind::Tunnel.body()).unwrap();
        assert!(put(&mut given, "mtu.x", "1", &Kind::Tunnel.body()).is_err());
    }
}
