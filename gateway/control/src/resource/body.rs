//! What is given of a resource that is made or changed, as schemas of the OpenAPI document: what clients are generated
//! from. Whether something can be given is for [`crate::config`]'s reader to say; a test holds one against the other.
//!
//! A body is what a resource is made of, or replaced by. A patch has the same fields, none of them needed, and takes null
//! for the default of each that has one (RFC 7396).

use super::{Kind, Meta};
use crate::{
    alarm::{Comparison, FIGURES, Severity},
    config::{GroupMode, MAX_ANNOUNCED, MAX_MEMBERS, MAX_RULES, SUMMARY, Xdp},
};
use adit_ike::{Encryption, Group, Id, Integrity, Prf};
use adit_maps::sa::DropCause;
use serde_json::Value;
use std::{fmt::Display, ops::RangeInclusive};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AdditionalProperties, AnyOfBuilder, ArrayBuilder, Object, ObjectBuilder, SchemaType, Type},
    },
};

/// Defines the two schemas of a kind.
macro_rules! bodies {
    ($($body:ident, $patch:ident: $fields:ident;)*) => {$(
        #[doc = concat!("What is given of a resource: ", stringify!($fields), ".")]
        #[derive(Clone, Copy, Debug)]
        pub struct $body;

        impl ToSchema for $body {}

        impl PartialSchema for $body {
            fn schema() -> RefOr<Schema> {
                Schema::Object($fields()).into()
            }
        }

        #[doc = concat!("What of a resource is to change: ", stringify!($fields), ".")]
        #[derive(Clone, Copy, Debug)]
        pub struct $patch;

        impl ToSchema for $patch {}

        impl PartialSchema for $patch {
            fn schema() -> RefOr<Schema> {
                Schema::Object(patched($fields())).into()
            }
        }
    )*};
}

bodies! {
    GatewayBody, GatewayPatch: gateway;
    PeerBody, PeerPatch: peer;
    TunnelBody, TunnelPatch: tunnel;
    GroupBody, GroupPatch: connection_group;
    AlarmBody, AlarmPatch: alarm_template;
}

impl Kind {
    /// What is given of one, as a schema: that of its body in the OpenAPI document.
    pub fn body(self) -> Value {
        let schema = match self {
            Kind::Gateway => gateway(),
            Kind::Peer => peer(),
            Kind::Tunnel => tunnel(),
            Kind::Group => connection_group(),
            Kind::Alarm => alarm_template(),
        };
        serde_json::to_value(schema).expect("a schema has no keys but texts")
    }
}

fn gateway() -> Object {
    resource()
        .needs(
            "address",
            list(
                text(),
                1..=2,
                "Its public addresses: one, or one of each family. One may stand without a list.",
            ),
        )
        .needs(
            "wan",
            text()
                .min_length(Some(1))
                .max_length(Some(15))
                .description(Some("The interface that faces the peers.")),
        )
        .needs(
            "lan",
            list(
                text().min_length(Some(1)).max_length(Some(15)),
                1..=usize::MAX,
                "The interfaces that face the protected networks; \
                the same as `wan` on a one-armed gateway. One may stand without a list.",
            ),
        )
        .has("local_id", identity("What it calls itself unless a tunnel says otherwise: its address."))
        .has(
            "alarm_template",
            text().description(Some("The alarm template that it and its tunnels have: the usual one.")),
        )
        .has("model", words(["standalone"]).description(Some("Whether it is one of a pair.")))
        .has("xdp", words(Xdp::WORDS.map(|(word, _)| word)).description(Some("How packets come and go.")))
        .has(
            "ike",
            fields("IKE as a whole.")
                .has(
                    "cookie_threshold",
                    number(0..=65_534, "Half-open IKE SAs from which on strangers have to show a cookie."),
                )
                .has(
                    "half_open_limit",
                    number(
                        16..=65_535,
                        "Half-open IKE SAs from which on strangers are ignored; above `cookie_threshold`.",
                    ),
                )
                .has("fragment_size", number(576..=65_535, "Largest IP packet of an IKE message in bytes."))
                .has("retransmit_after", number(100..=60_000, "Milliseconds until a request is sent again."))
                .has("retransmit_ceiling", number(100..=60_000, "Milliseconds between two sendings at most."))
                .has("attempts", number(1..=20, "How often a request is sent in all."))
                .has("keepalive", number(1..=3600, "Seconds between NAT keepalives.")),
        )
        .has(
            "bird",
            fields("BIRD, which speaks BGP.")
                .has(
                    "file",
                    text().description(Some(
                        "The file that is written for it, which its own configuration includes.",
                    )),
                )
                .has("socket", text().description(Some("Its control socket."))),
        )
        .build()
}

fn peer() -> Object {
    let address = "An IPv4 or IPv6 address, a host name, or `any`: it comes to us.";
    resource()
        .needs("address", text().max_length(Some(253)).description(Some(address)))
        .has("asn", asn("Its autonomous system."))
        .build()
}

fn tunnel() -> Object {
    let prefixes = |words: &str| {
        list(text(), 1..=255, &format!("{words}, as CIDR prefixes. One may stand without a list."))
    };
    resource()
        .needs("peer", text().description(Some("The peer's name.")))
        .has("routing_mode", words(["protected", "route"]).description(Some(
            "`protected`: both lists of subnets, which are needed, say what goes through; `route`: everything may, and \
             `routes`, which is needed, says what is sent.",
        )))
        .has("local_subnets", prefixes("What is protected on our side"))
        .has("remote_subnets", prefixes("What is protected on the peer's side"))
        .has("routes", prefixes("What is sent through it in routing mode `route`"))
        .has("psk", secret(128, "The pre-shared key: printable ASCII characters without space. Generated where none is given, kept \
            where a change gives none."))
        .has("enabled", truth("Whether it is to be up at all."))
        .has("start", words(["immediate", "on-demand", "respond"]).description(Some("Who begins.")))
        .has("nat_t", words(["auto", "force", "off"]).description(Some("UDP encapsulation.")))
        .has("mtu", automatic(576..=9216, "Largest outer packet in bytes."))
        .has("mss_clamp", automatic(88..=9156, "Largest inner TCP segment in bytes."))
        .has("alarm_template", text().description(Some("Its own alarm template: the gateway's.")))
        .has("ike", phase_one())
        .has("ipsec", phase_two())
        .has(
            "dpd",
            fields("Dead peer detection.")
                .has("enabled", truth("Whether it is on."))
                .has("delay", number(1..=3600, "Seconds of silence after which the peer is asked."))
                .has("timeout", number(1..=3600, "Seconds without an answer after which it is dead."))
                .has("action", words(["restart", "clear", "hold"]).description(Some("What is done then."))),
        )
        .has(
            "health_check",
            fields("Echo requests through the tunnel, by which its health is known. None without it.")
                .needs("destination", text().description(Some("Who is asked: an address on the peer's side.")))
                .needs("source", text().description(Some("Where they come from: an address on our side.")))
                .has("interval", number(1..=60, "Seconds from one to the next."))
                .has("retries", number(1..=10, "How many in a row decide."))
                .has("switch_route", truth("Whether the tunnel's routes are withdrawn while nothing answers.")),
        )
        .has("bgp", bgp())
        .build()
}

fn bgp() -> ObjectBuilder {
    let announced = "What is announced, as CIDR prefixes of IPv4: the networks of the LAN ports. One may stand without a list.";
    fields("BGP with the peer, which says what is sent through the tunnel, within its `routes`. None without it.")
        .needs("local_asn", asn("Our autonomous system."))
        .has("peer_asn", asn("The peer's: its `asn`, which it needs then."))
        .needs(
            "inside_cidr",
            text().description(Some("The network of both ends, inside the tunnel: a /30 within 169.254.0.0/16.")),
        )
        .needs("local_ip", text().description(Some("Our end.")))
        .has("hold_time", number(3..=3600, "Seconds that the peer may be silent."))
        .has("announce", list(text(), 1..=MAX_ANNOUNCED, announced))
}

/// The number of an autonomous system, in either notation.
fn asn(description: &str) -> AnyOfBuilder {
    AnyOfBuilder::new()
        .item(number(1..=u32::MAX.into(), "").description(None::<String>))
        .item(text().pattern(Some(r"^[0-9]{1,5}\.[0-9]{1,5}$")))
        .description(Some(description))
}

fn connection_group() -> Object {
    let members = "The names of its tunnels, in the order of preference. One may stand without a list.";
    resource()
        .has(
            "mode",
            words(GroupMode::ALL.map(GroupMode::word)).description(Some(
                "`active-standby`: the first healthy member carries everything; `active-active`: flows are spread over \
                 the healthy ones.",
            )),
        )
        .needs("members", list(text(), 1..=MAX_MEMBERS, members))
        .build()
}

fn alarm_template() -> Object {
    let threshold = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0));
    let rule = fields("When somebody is to be told.")
        .needs(
            "figure",
            words(FIGURES.iter().map(|figure| figure.word)).description(Some("What is watched.")),
        )
        .needs("threshold", threshold.description(Some("In the figure's unit; up to 1 for what is at most 1.")))
        .has(
            "comparison",
            words(Comparison::ALL.map(Comparison::word)).description(Some(
                "Whether it tells while the figure is more than the threshold, or less: the figure's own side.",
            )),
        )
        .has("for", number(0..=86_400, "Seconds that it has to be so."))
        .has("severity", words(Severity::ALL.map(Severity::word)).description(Some("How urgent it is.")))
        .has(
            "causes",
            list(
                words(DropCause::ALL.iter().map(|cause| cause.label())),
                1..=DropCause::ALL.len(),
                "With `drops` and `gateway-drops`: which count. One may stand without a list.",
            ),
        )
        .has(
            "summary",
            text()
                .min_length(Some(1))
                .max_length(Some(SUMMARY))
                .description(Some("What it says, in words of one's own.")),
        );
    let rules = ArrayBuilder::new().items(RefOr::T(Schema::Object(rule.build()))).max_items(Some(MAX_RULES));
    resource()
        .needs("rules", rules.description(Some("When somebody is to be told. Without any, nothing is.")))
        .build()
}

fn phase_one() -> ObjectBuilder {
    let ppk = fields("A post-quantum pre-shared key (RFC 8784).")
        .needs(
            "id",
            text().min_length(Some(1)).max_length(Some(128)).description(Some("Its name on both sides.")),
        )
        .has(
            "key",
            secret(514, "The key: `0x` and hexadecimal digits, or text. Kept where a change gives none."),
        )
        .has("required", truth("Whether a peer without it is refused."));
    fields("Phase 1.")
        .has("version", words(["ikev2", "ikev1"]).description(Some("The version that is spoken.")))
        .has("mode", words(["main", "aggressive"]).description(Some("With `ikev1`.")))
        .has("encryption", choices(&Encryption::FOR_IKE, "Ciphers in the order of preference."))
        .has("integrity", choices(&Integrity::ALL, "Integrity algorithms in the order of preference."))
        .has(
            "prf",
            choices(&Prf::ALL.map(Prf::hash_name), "Pseudo-random functions in the order of preference."),
        )
        .has("dh", list(groups(), 1..=Group::ALL.len(), "Diffie-Hellman groups in the order of preference."))
        .has(
            "additional_ke",
            choices(&Group::ADDITIONAL.map(Group::word), "Additional key exchanges (RFC 9370)."),
        )
        .has("lifetime", number(60..=86_400, "Seconds."))
        .has("reauthenticate", truth("Whether a new IKE SA takes the place of a rekey."))
        .has("childless", truth("Whether the IKE SA is begun without a Child SA (RFC 6023)."))
        .has("ppk", ppk)
        .has("local_id", identity("What we call ourselves."))
        .has("peer_id", identity("What the peer must call itself."))
}

fn phase_two() -> ObjectBuilder {
    let group = AnyOfBuilder::new().item(groups()).item(words(["disabled"]));
    let pfs = "Diffie-Hellman groups of each Child SA's own exchange, or `disabled`.";
    fields("Phase 2.")
        .has("protocol", words(["esp", "ah"]).description(Some("Its protocol.")))
        .has(
            "encryption",
            choices(&Encryption::FOR_IPSEC, "Ciphers in the order of preference; none with `ah`."),
        )
        .has("integrity", choices(&Integrity::ALL, "Integrity algorithms in the order of preference."))
        .has("pfs", list(group, 1..=Group::ALL.len(), pfs))
        .has("lifetime", number(60..=86_400, "Seconds."))
        .has("lifetime_bytes", number(1 << 16..=MOST, "Bytes after which a Child SA ends."))
        .has("lifetime_packets", number(100..=MOST, "Packets after which a Child SA ends."))
        .has("esn", truth("Whether extended sequence numbers are offered."))
        .has("replay_window", number(0..=4096, "Packets; 0 is off."))
}

/// The largest number that the reader can tell.
const MOST: u64 = i64::MAX as u64;

/// The fields of an object, one by one.
trait Fields: Sized {
    /// One with a default.
    fn has(self, name: &str, schema: impl Into<Schema>) -> Self;
    /// One without.
    fn needs(self, name: &str, schema: impl Into<Schema>) -> Self;
}

impl Fields for ObjectBuilder {
    fn has(self, name: &str, schema: impl Into<Schema>) -> Self {
        self.property(name, schema.into())
    }

    fn needs(self, name: &str, schema: impl Into<Schema>) -> Self {
        self.has(name, schema).required(name)
    }
}

/// What every resource has. What only Adit gives may be left in what it has shown.
fn resource() -> ObjectBuilder {
    let label = text().max_length(Some(64));
    let labels = ObjectBuilder::new()
        .additional_properties(Some(Schema::Object(label.build())))
        .max_properties(Some(64))
        .description(Some("Words of one's own, by which resources are found."));
    let mut built = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(false)));
    if let RefOr::T(Schema::Object(meta)) = Meta::schema() {
        for (name, schema) in meta.properties {
            let is_read_only = matches!(&schema, RefOr::T(Schema::Object(o)) if o.read_only == Some(true));
            if is_read_only || name == "name" || name == "remark" {
                built = built.property(name, schema);
            }
        }
    }
    built.required("name").has("labels", labels)
}

fn fields(words: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        .description(Some(words))
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// Of up to 255 octets: the longest text for so many is in hexadecimal digits.
fn identity(words: &str) -> ObjectBuilder {
    let longest = "keyid:".len() + 2 * Id::LONGEST;
    let bounds = format!(
        "{words} An address, a host name, user@host, or `keyid:` and hexadecimal digits: up to 255 octets."
    );
    text().min_length(Some(1)).max_length(Some(longest)).description(Some(bounds))
}

fn secret(longest: usize, words: &str) -> ObjectBuilder {
    text().min_length(Some(1)).max_length(Some(longest)).write_only(true).description(Some(words))
}

fn truth(words: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Boolean).description(Some(words))
}

fn number(range: RangeInclusive<u64>, words: &str) -> ObjectBuilder {
    let (least, most) = range.into_inner();
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least));
    number.maximum(Some(most)).description(Some(words))
}

fn words<T: Display>(known: impl IntoIterator<Item = T>) -> ObjectBuilder {
    text().enum_values(Some(known.into_iter().map(|word| word.to_string())))
}

fn groups() -> ObjectBuilder {
    let numbers = Group::ALL.map(|group| Value::from(group.number()));
    ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some(numbers))
}

fn automatic(range: RangeInclusive<u64>, description: &str) -> AnyOfBuilder {
    AnyOfBuilder::new()
        .item(words(["auto"]))
        .item(number(range, "").description(None::<String>))
        .description(Some(description))
}

fn list(item: impl Into<Schema>, count: RangeInclusive<usize>, words: &str) -> ArrayBuilder {
    let (least, most) = count.into_inner();
    let list = ArrayBuilder::new().items(RefOr::T(item.into())).unique_items(true).min_items(Some(least));
    list.max_items((most < usize::MAX).then_some(most)).description(Some(words))
}

fn choices<T: Display>(known: &[T], description: &str) -> ArrayBuilder {
    list(words(known), 1..=known.len(), &format!("{description} One may stand without a list."))
}

/// The same fields, none of them needed, with null for each that has a default.
fn patched(mut object: Object) -> Object {
    let needed = std::mem::take(&mut object.required);
    for (name, schema) in &mut object.properties {
        if let RefOr::T(schema) = schema
            && !needed.contains(name)
        {
            *schema = nullable(std::mem::take(schema));
        }
    }
    object
}

fn nullable(schema: Schema) -> Schema {
    let or_null = |of: &SchemaType| match of {
        SchemaType::Type(one) => SchemaType::from_iter([one.clone(), Type::Null]),
        other => other.clone(),
    };
    match schema {
        Schema::Object(object) if object.read_only == Some(true) => Schema::Object(object),
        Schema::Object(object) => {
            let mut object = patched(object);
            object.schema_type = or_null(&object.schema_type);
            if let Some(values) = &mut object.enum_values {
                values.push(Value::Null);
            }
            Schema::Object(object)
        }
        Schema::Array(mut array) => {
            array.schema_type = or_null(&array.schema_type);
            Schema::Array(array)
        }
        Schema::AnyOf(mut any) => {
            any.items.push(RefOr::T(ObjectBuilder::new().schema_type(Type::Null).into()));
            Schema::AnyOf(any)
        }
        other => other,
    }
}
