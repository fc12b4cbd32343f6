//! What is configured, one by one: resources with an id, a name, a revision and a specification.
//!
//! A resource is shown with every default filled in. What somebody gave is kept as it was given, so that a default that
//! follows another field goes on following it. Whether something can be given is decided by [`crate::config`]'s reader
//! alone, for JSON and TOML alike.

mod alarm;
mod body;
#[cfg(test)]
mod body_tests;
mod gateway;
mod group;
mod peer;
mod tunnel;

pub use alarm::{Alarm, AlarmSpec, RuleSpec};
pub use body::{
    AlarmBody, AlarmPatch, GatewayBody, GatewayPatch, GroupBody, GroupPatch, PeerBody, PeerPatch, TunnelBody,
    TunnelPatch,
};
pub use gateway::{BirdSpec, Gateway, GatewayIke, GatewaySpec};
pub use group::{Group, GroupSpec};
pub use peer::{Peer, PeerSpec};
pub use tunnel::{
    BgpSpec, DpdSpec, HealthCheckSpec, IkeSpec, IpsecSpec, PpkSpec, Secrets, Tunnel, TunnelSpec,
};

use crate::config::Diagnostic;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt};
use utoipa::ToSchema;

/// What there is to configure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// [`Gateway`].
    Gateway,
    /// [`Peer`].
    Peer,
    /// [`Tunnel`].
    Tunnel,
    /// [`Group`].
    Group,
    /// [`Alarm`].
    Alarm,
}

impl Kind {
    /// All, each before those that name it.
    pub const ALL: [Kind; 5] = [Kind::Alarm, Kind::Gateway, Kind::Peer, Kind::Tunnel, Kind::Group];

    /// The word for one, as in a message.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Gateway => "gateway",
            Kind::Peer => "peer",
            Kind::Tunnel => "tunnel",
            Kind::Group => "group",
            Kind::Alarm => "alarm",
        }
    }

    /// What its ids begin with.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Kind::Gateway => "gw",
            Kind::Peer => "peer",
            Kind::Tunnel => "tun",
            Kind::Group => "grp",
            Kind::Alarm => "alm",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What every resource has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Meta {
    /// Never changes, and is never given to another. Generated.
    #[schema(read_only, example = "tun-4kq2m7x3nb5tzc6h")]
    pub id: String,
    /// Unique among its kind: 1..64 printable characters.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    /// 0..256 printable characters for people.
    #[serde(default)]
    #[schema(max_length = 256, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    pub remark: String,
    /// Words of one's own, by which resources are found.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// RFC 3339, in UTC.
    #[schema(read_only, example = "2026-11-21T19:00:00.000Z")]
    pub created_at: String,
    /// RFC 3339, in UTC.
    #[schema(read_only, example = "2026-11-21T19:00:00.000Z")]
    pub updated_at: String,
    /// Counts the changes from 1.
    #[schema(read_only)]
    pub revision: u64,
}

/// One kind of resource, as it is shown.
pub trait Resource: Serialize + DeserializeOwned + Send + 'static {
    /// Which.
    const KIND: Kind;
    /// What shows of it beside [`Meta`].
    type Spec: Serialize + DeserializeOwned;

    /// Puts the two together.
    fn new(meta: Meta, spec: Self::Spec) -> Self;

    /// What every resource has.
    fn meta(&self) -> &Meta;
}

/// Defines a kind of resource: [`Meta`] and a specification side by side.
macro_rules! resource {
    ($(#[$doc:meta])* $name:ident, $spec:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        pub struct $name {
            /// What every resource has.
            #[serde(flatten)]
            pub meta: crate::resource::Meta,
            /// What is configured.
            #[serde(flatten)]
            pub spec: $spec,
        }

        impl crate::resource::Resource for $name {
            const KIND: crate::resource::Kind = crate::resource::Kind::$name;
            type Spec = $spec;

            fn new(meta: crate::resource::Meta, spec: $spec) -> Self {
                $name { meta, spec }
            }

            fn meta(&self) -> &crate::resource::Meta {
                &self.meta
            }
        }
    };
}
pub(crate) use resource;

/// A word, or a number where numbers stand for words: `"auto"` or 1400, `"disabled"` or 14.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Word {
    /// A number.
    Number(u32),
    /// A word.
    Text(String),
}

/// Names a resource to somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reference {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its id; none where it is of the same request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.name)
    }
}

/// One thing that is wrong with what was given, or that had better be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Violation {
    /// The field by its way from the top of the resource: `ike.dh`.
    pub field: String,
    /// The value as it was given; none where there is none to show, and always for a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What is the matter.
    pub why: String,
    /// What would be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// The resource that it cannot be together with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clashes_with: Option<Reference>,
}

impl Violation {
    /// Of a field.
    pub(crate) fn new(field: &str, why: impl Into<String>) -> Self {
        let (field, why) = (field.to_owned(), why.into());
        Violation { field, value: None, why, allowed: None, clashes_with: None }
    }
}

/// Fields are named from the resource on: `tunnel "a".ike.dh` is `ike.dh` of the tunnel. Of an object, nothing stands before
/// them but that.
impl From<Diagnostic> for Violation {
    fn from(d: Diagnostic) -> Self {
        let within = match d.field.rfind("\".") {
            Some(at) => d.field[at + 2..].to_owned(),
            None => d.field,
        };
        let clash = |name| Reference { kind: Kind::Tunnel, name, id: None };
        Violation {
            field: within,
            value: d.value,
            why: d.message,
            allowed: d.allowed,
            clashes_with: d.clashes_with.map(clash),
        }
    }
}

/// `ike.dh: 17 is unknown; allowed: 2, 14`.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        self.value.iter().try_for_each(|value| write!(f, "{value} "))?;
        f.write_str(&self.why)?;
        self.allowed.iter().try_for_each(|allowed| write!(f, "; allowed: {allowed}"))
    }
}
