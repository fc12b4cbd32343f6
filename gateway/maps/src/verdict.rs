//! What the XDP program decides about a frame, and VERDICTS, the counter of each decision per port.

use crate::port::MAX_PORTS;

/// What the driver is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the kernel, untouched.
    Pass,
    /// To the AF_XDP socket of the port's queue.
    Redirect,
    /// Freed.
    Drop,
}

macro_rules! verdicts {
    ($($(#[doc = $doc:literal])+ $name:ident = $value:literal, $label:literal, $action:ident;)+) => {
        /// A decision. The numbers are indices into VERDICTS and stable within a layout version.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Verdict { $($(#[doc = $doc])+ $name = $value),+ }

        impl Verdict {
            /// Every verdict, in the order of its number.
            pub const ALL: &'static [Verdict] = &[$(Verdict::$name),+];

            /// The verdict in a metric's label: lower case, words joined by `_`.
            pub const fn label(self) -> &'static str {
                match self { $(Verdict::$name => $label),+ }
            }

            /// What becomes of the frame.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Verdict::$name => Action::$action),+ }
            }
        }
    };
}

verdicts! {
    /// Not IP: ARP, LLDP, a VLAN.
    NotIp = 0, "not_ip", Pass;
    /// IKE, or a NAT keepalive, for one of our addresses.
    Ike = 1, "ike", Pass;
    /// No policy covers it.
    Unprotected = 2, "unprotected", Pass;
    /// A policy says that it goes in clear.
    Bypass = 3, "bypass", Pass;
    /// For one of our own addresses, from the LAN side or not protected.
    Local = 4, "local", Pass;
    /// A policy protects it, and there is an SA.
    Seal = 5, "seal", Redirect;
    /// ESP or AH for one of our SAs.
    Open = 6, "open", Redirect;
    /// Headers that contradict themselves or end early.
    Malformed = 7, "malformed", Drop;
    /// A policy protects it, and there is no SA. `control` has heard of the flow within the interval.
    NoSa = 8, "no_sa", Drop;
    /// A policy says that it is discarded.
    Discard = 9, "discard", Drop;
    /// ESP or AH for one of our addresses whose SPI no SA has.
    UnknownSpi = 10, "unknown_spi", Drop;
    /// A packet of a protected flow, in either direction, that arrived in clear on the WAN side.
    ClearOnWan = 11, "clear_on_wan", Drop;
    /// To be sealed or opened, but no worker listens on this queue.
    NoWorker = 12, "no_worker", Drop;
    /// A fragment of an ESP or AH packet: the kernel puts it together, for the data plane to take it from a socket.
    EspFragment = 13, "esp_fragment", Pass;
    /// The driver leaves no room for metadata.
    NoMetadata = 14, "no_metadata", Drop;
    /// A policy protects it, and there is no SA: `control` hears of it, and the packet waits for the SA.
    Hold = 15, "hold", Redirect;
    /// A policy protects it, but the frame is for somebody else's MAC address: a promiscuous interface picked it up.
    ForeignMac = 16, "foreign_mac", Drop;
}

/// Counters of one port in VERDICTS; more than there are verdicts, to leave room within a layout version.
pub const PER_PORT: u32 = 32;
/// Entries of VERDICTS.
pub const ENTRIES: usize = (MAX_PORTS * PER_PORT) as usize;

const _: () = assert!(Verdict::ALL.len() <= PER_PORT as usize);

/// Index into VERDICTS.
#[inline(always)]
pub const fn counter_index(port_slot: u32, verdict: Verdict) -> u32 {
    port_slot * PER_PORT + verdict as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_order_and_labels_are_distinct() {
        for (i, v) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*v as usize, i);
            assert!(Verdict::ALL[..i].iter().all(|w| w.label() != v.label()));
        }
    }
}
