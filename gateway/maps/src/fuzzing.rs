//! What is fuzzed: one function a target, each of which takes any octets and must not panic.
//!
//! `gateway/maps/fuzz` gives these functions to libFuzzer (`cargo xtask fuzz`); the tests here run them over the
//! committed corpus and over changed copies of it.

use crate::{
    decode::{self, Fragment, Headers},
    policy::{Flow, PortRange, Selector},
};

/// A function that is fuzzed.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 2] = [("frame", frame), ("inner_packet", inner_packet)];

/// An Ethernet frame, as the XDP program reads it.
pub fn frame(octets: &[u8]) {
    let Ok(headers) = decode::ethernet(octets) else { return };
    assert!(headers.ip >= decode::ETHERNET);
    check(octets, &headers);
    // What was read behind tags is the packet that is read at its place.
    assert!(decode::ip(octets, headers.ip) == Ok(headers));
}

/// A decrypted packet, and whether an SA's selectors let it in.
pub fn inner_packet(octets: &[u8]) {
    let Ok(headers) = decode::ip(octets, 0) else { return };
    let Some(flow) = check(octets, &headers) else { return };
    let (source, destination) = flow.ports().unzip();
    for (address, port) in [(flow.source, source), (flow.destination, destination)] {
        let ports = port.map_or(PortRange::ANY, |port| PortRange { first: port, last: port });
        let own =
            Selector { first: address, last: address, ports, protocol: flow.protocol, reserved: [0; 3] };
        assert!(own.admits(&address, flow.protocol, port));
        let narrow = Selector { ports: PortRange { first: 1, last: 1 }, ..own };
        assert!(port.is_some() || !narrow.admits(&address, flow.protocol, port));
    }
}

/// Headers lie one behind the other, within the frame; what a flow says was read in there.
fn check(octets: &[u8], headers: &Headers) -> Option<Flow> {
    let fixed = if headers.v6 { 40 } else { 20 };
    assert!(headers.ip + fixed <= headers.payload);
    assert!(headers.payload <= headers.end && headers.end <= octets.len());
    assert!(!decode::is_extension(headers.protocol) || !headers.v6 || headers.fragment == Fragment::Later);
    let flow = decode::flow(octets, headers).ok()?;
    assert_eq!(flow.protocol, headers.protocol);
    assert!(flow.source.is_v4() != headers.v6 && flow.destination.is_v4() != headers.v6);
    if let Some((source, destination)) = flow.ports() {
        assert!(headers.fragment != Fragment::Later && headers.payload + 4 <= headers.end);
        let at = &octets[headers.payload..headers.end];
        assert!(at.starts_with(&source.to_be_bytes()) && at[2..].starts_with(&destination.to_be_bytes()));
    }
    Some(flow)
}

#[cfg(test)]
mod tests;
