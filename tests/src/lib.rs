//! The lab: sites, gateways and the Internet between them, made of network namespaces on one machine, and what it
//! takes to start real peers in them, send traffic, damage it, and look at the wire.
//!
//! | module | holds |
//! |---|---|
//! | [`run`] | one run: its name, its temporary files, and the promise that nothing is left behind |
//! | [`namespace`] | network namespaces, the links between them, programs in them |
//! | [`topology`] | the ready-made networks: two sites, and two sites with NAT in between |
//! | [`capture`] | tcpdump on a link, and what each packet was |
//! | [`wire`] | counters of what crosses the router |
//! | [`traffic`] | ping and TCP streams, with their figures |
//! | [`stream`] | numbered datagrams both ways, every loss counted |
//! | [`inject`] | packets nobody should send: random, forged, replayed |
//! | [`metrics`] | scraping and reading `/metrics` |
//! | [`prometheus`] | a real Prometheus in a namespace |
//! | [`site`] | the two ends of the tunnel, told once for every kind of peer |
//! | [`adit`] | an Adit in a namespace |
//! | [`pair`] | two Adits that are connected |
//! | [`strongswan`] | a strongSwan: in a namespace, in another Debian, in a guest with its own kernel |
//! | [`starter`] | a strongSwan that reads ipsec.conf |
//! | [`roots`] | the Debian systems and the kernel that some peers need |
//! | [`interop`] | the matrix of cases against real peers |
//! | [`soak`] | minutes of traffic, faults and loss, every packet accounted for |
//! | [`demo`] | the main job from end to end, as `cargo xtask demo` shows it |
//! | [`document`] | a document whose commands are executed |
//! | [`scenario`] | what the scenario binaries share |
//!
//! Everything happens in namespaces that the lab makes itself; the machine's own interfaces are never touched.

pub mod adit;
pub mod bird;
pub mod capture;
pub mod demo;
pub mod diagnosis;
pub mod document;
pub mod inject;
pub mod interop;
pub mod metrics;
pub mod namespace;
pub mod pair;
pub mod prometheus;
pub mod roots;
pub mod run;
pub mod scenario;
pub mod site;
pub mod soak;
pub mod starter;
pub mod stream;
pub mod strongswan;
mod sys;
pub mod topology;
pub mod traffic;
pub mod wire;
