//! Tunnels to the same networks that back each other up.

use crate::config;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

super::resource! {
    /// Tunnels to the same networks that back each other up.
    Group, GroupSpec
}

/// What a connection group is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupSpec {
    /// `active-standby`: the first healthy member carries everything; `active-active`: flows are spread over the healthy ones.
    pub mode: String,
    /// The names of its tunnels, in the order of preference.
    #[schema(example = json!(["aws-1", "aws-2"]))]
    pub members: Vec<String>,
}

impl From<&config::Group> for GroupSpec {
    fn from(g: &config::Group) -> Self {
        GroupSpec { mode: g.mode.word().into(), members: g.members.clone() }
    }
}
