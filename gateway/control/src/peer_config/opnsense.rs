//! OPNsense: a swanctl.conf beside those that its pages make.

use super::{PeerConfigError, script::Script, strongswan};

/// A file for `/usr/local/etc/swanctl/conf.d`.
///
/// # Errors
/// Of the tunnel's fields that strongSwan cannot express.
pub(super) fn write(script: &mut Script<'_>) -> Result<(), PeerConfigError> {
    script.note("goes to /usr/local/etc/swanctl/conf.d, which OPNsense reads beside what its pages make; then `swanctl --load-all`");
    script.note("Firewall > Rules > IPsec has to allow the traffic, and those of WAN UDP 500, 4500 and ESP");
    let name = format!("adit-{}.conf", script.view.slug(32));
    strongswan::write_as(script, &name)
}
