//! What the command lines of the clouds have in common.

use super::{PeerConfigError, script::Script};
use crate::config::Subnet;
use zeroize::Zeroizing;

/// A key between single quotes for a POSIX shell.
pub(super) fn shell_quoted(key: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(4 * key.len() + 2));
    text.push('\'');
    for c in key.chars() {
        match c {
            '\'' => text.push_str("'\\''"),
            c => text.push(c),
        }
    }
    text.push('\'');
    text
}

/// Prefixes with `between` between them.
pub(super) fn joined(subnets: &[Subnet], between: &str) -> String {
    subnets.iter().map(Subnet::to_string).collect::<Vec<_>>().join(between)
}

/// The cloud gives its gateway an address of its own choice.
pub(super) fn note_its_address(script: &mut Script<'_>) {
    let local = script.view.local.to_string();
    script.note(format!(
        "the cloud gives its gateway the address: where it is not {local}, set the peer's address (and ike.peer_id) to it"
    ));
}

/// Refuses a tunnel that takes everything in.
///
/// # Errors
/// Routing mode `route`.
pub(super) fn has_subnets(script: &Script<'_>) -> Result<(), PeerConfigError> {
    match script.view.is_by_route() {
        true => Err(script.inexpressible(
            "routing_mode",
            "has to be told the networks behind this gateway, which a tunnel by destination does not know; use protected",
        )),
        false => Ok(()),
    }
}
