//! `/metrics`: the status as Prometheus reads it.
//!
//! Labels are tunnels, interfaces and fixed words, so the number of series is bounded by the configuration. A tunnel is
//! there as long as it is configured: one that is down has health 0 and its counters stand still.
//!
//! With thousands of tunnels the text is tens of megabytes: it is made page by page, while it is sent.

use adit_control::status::{RoundsStatus, State, Status, Traffic, TunnelStatus, WorkerStatus};
use prometheus::{
    TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};
use std::borrow::Borrow;

/// Content type of the text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Bytes of a page, about.
const PAGE: usize = 64 << 10;
/// Tunnels whose samples are there at a time before they are text: they take ten times as much memory.
const TUNNELS: usize = 64;

/// The metrics in Prometheus' text format, whole.
pub fn render(status: &Status) -> String {
    Pages::new(status).collect()
}

/// The metrics in Prometheus' text format, page by page.
pub(crate) struct Pages<S> {
    status: S,
    /// Where the next page begins: the number of the family, and that of the tunnel in it.
    family: usize,
    tunnel: usize,
    /// Whether the family has a sample yet.
    begun: bool,
}

impl<S: Borrow<Status>> Pages<S> {
    pub(crate) fn new(status: S) -> Self {
        Pages { status, family: 0, tunnel: 0, begun: false }
    }
}

impl<S: Borrow<Status>> Iterator for Pages<S> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let status = self.status.borrow();
        let mut text = String::new();
        while text.len() < PAGE
            && let Some(family) = FAMILIES.get(self.family)
        {
            let mut samples = Samples { kind: family.kind, metrics: Vec::new() };
            let is_whole = match family.source {
                Source::Status(collect) => {
                    collect(status, &mut samples);
                    true
                }
                Source::Tunnel(collect) => {
                    let rest = status.tunnels.get(self.tunnel..).unwrap_or_default();
                    let some = &rest[..rest.len().min(TUNNELS)];
                    some.iter().for_each(|tunnel| collect(tunnel, &mut samples));
                    self.tunnel += some.len();
                    some.len() == rest.len()
                }
            };
            self.begun |= samples.encode(family, self.begun, &mut text);
            if is_whole {
                (self.family, self.tunnel, self.begun) = (self.family + 1, 0, false);
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

/// Samples of one name.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    source: Source,
}

/// What a family's samples are made of.
#[derive(Clone, Copy)]
enum Source {
    Status(fn(&Status, &mut Samples)),
    /// Tunnel after tunnel.
    Tunnel(fn(&TunnelStatus, &mut Samples)),
}

/// Some samples of a family.
struct Samples {
    kind: MetricType,
    metrics: Vec<Metric>,
}

impl Samples {
    fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let pairs = labels.iter().map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    fn add_histogram(&mut self, rounds: &RoundsStatus) {
        let buckets = rounds.within.iter().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(rounds.count);
        histogram.set_sample_sum(rounds.seconds);
        let mut metric = Metric::from_label(Vec::new());
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    /// Adds the samples to `text`, after the family's head unless that has `begun`; whether there were any. The format
    /// has no place for a family without samples.
    fn encode(self, family: &Family, begun: bool, text: &mut String) -> bool {
        if self.metrics.is_empty() {
            return false;
        }
        let mut encoded = MetricFamily::default();
        encoded.set_name(family.name.to_owned());
        encoded.set_help(family.help.to_owned());
        encoded.set_field_type(family.kind);
        encoded.set_metric(self.metrics);
        let start = text.len();
        TextEncoder::new()
            .encode_utf8(&[encoded], text)
            .expect("a family with a name, samples and a string to write to");
        if begun {
            // Its head, HELP and TYPE, is in an earlier page.
            let head: usize = text[start..].split_inclusive('\n').take(2).map(str::len).sum();
            text.replace_range(start..start + head, "");
        }
        true
    }
}

const COUNTER: MetricType = MetricType::COUNTER;
const GAUGE: MetricType = MetricType::GAUGE;

/// Whether somebody handles packets: maps outlive the process that made them, and drop what is protected then.
fn carries_packets(status: &Status) -> bool {
    let all_run = |workers: &[WorkerStatus]| !workers.is_empty() && workers.iter().all(|w| w.running);
    status.gateway.waiting_for.is_none() && status.data_plane.as_ref().is_some_and(|d| all_run(&d.workers))
}

/// Adds a sample for each of the data plane's threads.
fn of_workers(status: &Status, out: &mut Samples, figure: fn(&WorkerStatus) -> f64) {
    for worker in status.data_plane.iter().flat_map(|d| &d.workers) {
        out.add(&[("worker", &worker.id.to_string())], figure(worker));
    }
}

/// Adds a sample for each direction of each interface that the kernel tells of.
fn of_nics(status: &Status, out: &mut Samples, figure: fn(Traffic) -> u64) {
    for port in &status.ports {
        if let Some(nic) = &port.nic {
            for (direction, traffic) in [("in", nic.received), ("out", nic.sent)] {
                out.add(&[("interface", &port.interface), ("direction", direction)], figure(traffic) as f64);
            }
        }
    }
}

/// Every family, in the order of the text.
static FAMILIES: [Family; 44] = [
    Family {
        name: "adit_build_info",
        help: "The build that runs; always 1.",
        kind: GAUGE,
        source: Source::Status(|status, out| {
            let gateway = &status.gateway;
            out.add(&[("version", &gateway.version), ("gateway", &gateway.name)], 1.0);
        }),
    },
    Family {
        name: "adit_start_time_seconds",
        help: "When control started, in seconds since 1970.",
        kind: GAUGE,
        source: Source::Status(|status, out| out.add(&[], status.gateway.started_at as f64)),
    },
    Family {
        name: "adit_data_plane_up",
        help: "Whether the data plane carries packets: it answers, each of its workers runs, and control has its maps.",
        kind: GAUGE,
        source: Source::Status(|status, out| out.add(&[], f64::from(carries_packets(status)))),
    },
    Family {
        name: "adit_config_reload_refused",
        help: "Whether the last reload of the configuration was refused.",
        kind: GAUGE,
        source: Source::Status(|status, out| {
            out.add(&[], f64::from(status.gateway.refused_reload.is_some()))
        }),
    },
    Family {
        name: "adit_tunnel_bytes_total",
        help: "Bytes of inner packets that were opened (in) or sealed (out).",
        kind: COUNTER,
        source: Source::Tunnel(|t, out| {
            out.add(&[("tunnel", &t.name), ("direction", "in")], t.inbound.bytes as f64);
            out.add(&[("tunnel", &t.name), ("direction", "out")], t.outbound.bytes as f64);
        }),
    },
    Family {
        name: "adit_tunnel_packets_total",
        help: "Inner packets that were opened (in) or sealed (out).",
        kind: COUNTER,
        source: Source::Tunnel(|t, out| {
            out.add(&[("tunnel", &t.name), ("direction", "in")], t.inbound.packets as f64);
            out.add(&[("tunnel", &t.name), ("direction", "out")], t.outbound.packets as f64);
        }),
    },
    Family {
        name: "adit_tunnel_health",
        help: "1 when packets can pass: it is connected, and its health check gets answers. 0 when not.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| out.add(&[("tunnel", &t.name)], f64::from(t.healthy))),
    },
    Family {
        name: "adit_tunnel_health_check_round_trip_seconds",
        help: "How long the last answer to the tunnel's health check took.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| {
            if let Some(ms) = t.health_check.as_ref().and_then(|check| check.round_trip_ms) {
                out.add(&[("tunnel", &t.name)], ms / 1e3);
            }
        }),
    },
    Family {
        name: "adit_tunnel_bgp_up",
        help: "1 when the tunnel's session of BGP is established, 0 when not; only where there is BGP.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| {
            if let Some(bgp) = &t.bgp {
                out.add(&[("tunnel", &t.name)], f64::from(bgp.up));
            }
        }),
    },
    Family {
        name: "adit_tunnel_bgp_received_prefixes",
        help: "Prefixes that the peer teaches by BGP within the tunnel's routes.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| {
            if let Some(bgp) = &t.bgp {
                out.add(&[("tunnel", &t.name)], bgp.received as f64);
            }
        }),
    },
    Family {
        name: "adit_tunnel_bgp_routes",
        help: "Prefixes that are sent through the tunnel because of BGP.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| {
            if let Some(bgp) = &t.bgp {
                out.add(&[("tunnel", &t.name)], bgp.routes.len() as f64);
            }
        }),
    },
    Family {
        name: "adit_tunnel_state",
        help: "1 for the state the tunnel is in, 0 for the others.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| {
            for state in State::ALL {
                out.add(&[("tunnel", &t.name), ("state", state.label())], f64::from(t.state == state));
            }
        }),
    },
    Family {
        name: "adit_tunnel_drops_total",
        help: "Packets of the tunnel that were dropped, by cause.",
        kind: COUNTER,
        source: Source::Tunnel(|t, out| {
            t.drops
                .iter()
                .for_each(|(cause, n)| out.add(&[("tunnel", &t.name), ("cause", cause)], *n as f64));
        }),
    },
    Family {
        name: "adit_tunnel_handshake_seconds",
        help: "How long the last negotiation took; absent while no IKE SA is up.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| {
            t.handshake_ms.into_iter().for_each(|ms| out.add(&[("tunnel", &t.name)], ms / 1e3));
        }),
    },
    Family {
        name: "adit_tunnel_dpd_round_trip_seconds",
        help: "How long the peer took when it was last asked for a sign of life; absent until it has been asked.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| {
            t.dpd_round_trip_ms.into_iter().for_each(|ms| out.add(&[("tunnel", &t.name)], ms / 1e3));
        }),
    },
    Family {
        name: "adit_tunnel_last_error_timestamp_seconds",
        help: "When something went wrong last, in seconds since 1970; absent since a negotiation has succeeded.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| {
            if let Some(error) = &t.last_error {
                let phase = match error.phase {
                    Some(1) => "1",
                    Some(2) => "2",
                    _ => "none",
                };
                out.add(&[("tunnel", &t.name), ("phase", phase)], error.at as f64);
            }
        }),
    },
    Family {
        name: "adit_tunnel_child_sas",
        help: "Pairs of Child SAs that are installed.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| out.add(&[("tunnel", &t.name)], t.children.len() as f64)),
    },
    Family {
        name: "adit_tunnel_mtu_bytes",
        help: "Longest packet that fits into the tunnel, the least of its Child SAs; absent while it is not known.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| {
            let least = t.children.iter().filter_map(|c| c.mtu).min();
            least.into_iter().for_each(|mtu| out.add(&[("tunnel", &t.name)], f64::from(mtu)));
        }),
    },
    Family {
        name: "adit_tunnel_path_mtu_bytes",
        help: "Longest sealed packet that fits the path to the peer; absent while it is not known.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| {
            let least = t.children.iter().filter_map(|c| c.path_mtu).min();
            least.into_iter().for_each(|mtu| out.add(&[("tunnel", &t.name)], f64::from(mtu)));
        }),
    },
    Family {
        name: "adit_tunnel_ike_sa_start_timestamp_seconds",
        help: "Since when the IKE SA is up, in seconds since 1970; absent while there is none.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| {
            t.ike_since.into_iter().for_each(|since| out.add(&[("tunnel", &t.name)], since as f64));
        }),
    },
    Family {
        name: "adit_tunnel_rekeys_total",
        help: "SAs that others have taken the place of.",
        kind: COUNTER,
        source: Source::Tunnel(|t, out| {
            out.add(&[("tunnel", &t.name), ("sa", "ike")], t.rekeys.ike as f64);
            out.add(&[("tunnel", &t.name), ("sa", "child")], t.rekeys.child as f64);
        }),
    },
    Family {
        name: "adit_tunnel_sa_expiry_timestamp_seconds",
        help: "When the last Child SA ends at the latest, in seconds since 1970; absent while there is none.",
        kind: GAUGE,
        source: Source::Tunnel(|t, out| {
            let last = t.children.iter().map(|c| c.expires_at).max();
            last.into_iter().for_each(|at| out.add(&[("tunnel", &t.name)], at as f64));
        }),
    },
    Family {
        name: "adit_group_share_ratio",
        help: "Which part of a connection group's flows a member carries, 0 to 1.",
        kind: GAUGE,
        source: Source::Status(|status, out| {
            for group in &status.groups {
                for member in &group.members {
                    out.add(&[("group", &group.name), ("tunnel", &member.tunnel)], member.share);
                }
            }
        }),
    },
    Family {
        name: "adit_port_verdicts_total",
        help: "Frames that came in by an interface, by what the XDP program decided.",
        kind: COUNTER,
        source: Source::Status(|status, out| {
            for port in &status.ports {
                let interface = port.interface.as_str();
                port.verdicts
                    .iter()
                    .for_each(|(v, n)| out.add(&[("interface", interface), ("verdict", v)], *n as f64));
            }
        }),
    },
    Family {
        name: "adit_port_bytes_total",
        help: "Bytes of the frames that came in by an interface (in) or went out by it (out), as the kernel counts.",
        kind: COUNTER,
        source: Source::Status(|status, out| of_nics(status, out, |traffic| traffic.bytes)),
    },
    Family {
        name: "adit_port_packets_total",
        help: "Frames that came in by an interface (in) or went out by it (out), as the kernel counts.",
        kind: COUNTER,
        source: Source::Status(|status, out| of_nics(status, out, |traffic| traffic.packets)),
    },
    Family {
        name: "adit_port_speed_bytes_per_second",
        help: "What the link of an interface can carry in one direction; absent where it has no speed.",
        kind: GAUGE,
        source: Source::Status(|status, out| {
            for port in &status.ports {
                if let Some(bits) = port.nic.and_then(|nic| nic.speed_bits) {
                    out.add(&[("interface", &port.interface)], bits as f64 / 8.0);
                }
            }
        }),
    },
    Family {
        name: "adit_port_info",
        help: "How packets come and go by an interface, and why so; always 1. Absent while no data plane runs.",
        kind: GAUGE,
        source: Source::Status(|status, out| {
            for port in &status.ports {
                if let (Some(mode), Some(reason)) = (&port.mode, &port.reason) {
                    out.add(&[("interface", &port.interface), ("mode", mode), ("reason", reason)], 1.0);
                }
            }
        }),
    },
    Family {
        name: "adit_data_plane_info",
        help: "What the cryptography of packets runs on; always 1.",
        kind: GAUGE,
        source: Source::Status(|status, out| {
            status.data_plane.iter().for_each(|d| out.add(&[("crypto", &d.crypto)], 1.0));
        }),
    },
    Family {
        name: "adit_data_plane_packets_total",
        help: "Packets of no SA, by what became of them.",
        kind: COUNTER,
        source: Source::Status(|status, out| {
            let counters = status.data_plane.iter().flat_map(|d| &d.counters);
            counters.for_each(|(event, n)| out.add(&[("event", event)], *n as f64));
        }),
    },
    Family {
        name: "adit_data_plane_drops_total",
        help: "Packets of all SAs that were dropped since the maps were made, by cause.",
        kind: COUNTER,
        source: Source::Status(|status, out| {
            let drops = status.data_plane.iter().flat_map(|d| &d.drops);
            drops.for_each(|(cause, n)| out.add(&[("cause", cause)], *n as f64));
        }),
    },
    Family {
        name: "adit_worker_up",
        help: "Whether the worker's thread lives.",
        kind: GAUGE,
        source: Source::Status(|status, out| of_workers(status, out, |w| f64::from(w.running))),
    },
    Family {
        name: "adit_worker_packets_total",
        help: "Packets that came to the worker.",
        kind: COUNTER,
        source: Source::Status(|status, out| of_workers(status, out, |w| w.packets as f64)),
    },
    Family {
        name: "adit_worker_batches_total",
        help: "Rounds that had packets in them.",
        kind: COUNTER,
        source: Source::Status(|status, out| of_workers(status, out, |w| w.batches as f64)),
    },
    Family {
        name: "adit_worker_busy_seconds_total",
        help: "Time spent on packets.",
        kind: COUNTER,
        source: Source::Status(|status, out| of_workers(status, out, |w| w.busy_ns as f64 / 1e9)),
    },
    Family {
        name: "adit_worker_held_packets",
        help: "Packets that wait for a neighbour or an SA.",
        kind: GAUGE,
        source: Source::Status(|status, out| of_workers(status, out, |w| w.held as f64)),
    },
    Family {
        name: "adit_worker_ring_fill_ratio",
        help: "What part of the worker's fullest ring waited when a round began, looked at once a second.",
        kind: GAUGE,
        source: Source::Status(|status, out| {
            for worker in status.data_plane.iter().flat_map(|d| &d.workers) {
                let id = worker.id.to_string();
                for (ring, fill) in [("receive", worker.receive_fill), ("transmit", worker.transmit_fill)] {
                    out.add(&[("worker", &id), ("ring", ring)], fill as f64 / 1e6);
                }
            }
        }),
    },
    Family {
        name: "adit_ike_datagrams_received_total",
        help: "IKE datagrams that came in.",
        kind: COUNTER,
        source: Source::Status(|status, out| out.add(&[], status.ike.received as f64)),
    },
    Family {
        name: "adit_ike_datagrams_sent_total",
        help: "IKE datagrams that went out.",
        kind: COUNTER,
        source: Source::Status(|status, out| out.add(&[], status.ike.sent as f64)),
    },
    Family {
        name: "adit_ike_retransmissions_total",
        help: "IKE requests that were sent again.",
        kind: COUNTER,
        source: Source::Status(|status, out| out.add(&[], status.ike.retransmissions as f64)),
    },
    Family {
        name: "adit_ike_datagrams_dropped_total",
        help: "IKE datagrams that were not acted upon, by cause.",
        kind: COUNTER,
        source: Source::Status(|status, out| {
            status.ike.dropped.iter().for_each(|(cause, n)| out.add(&[("cause", cause)], *n as f64));
        }),
    },
    Family {
        name: "adit_ike_exchanges_total",
        help: "IKE exchanges that ended, by kind and result.",
        kind: COUNTER,
        source: Source::Status(|status, out| {
            for e in &status.ike.exchanges {
                out.add(&[("exchange", &e.exchange), ("result", &e.result)], e.count as f64);
            }
        }),
    },
    Family {
        name: "adit_ike_loop_seconds",
        help: "How long the task that serves IKE was busy with one thing: as long wait datagrams and timers.",
        kind: MetricType::HISTOGRAM,
        source: Source::Status(|status, out| out.add_histogram(&status.ike.rounds)),
    },
    Family {
        name: "adit_ike_loop_longest_seconds",
        help: "The longest of these times since control met the data plane.",
        kind: GAUGE,
        source: Source::Status(|status, out| out.add(&[], status.ike.rounds.longest_seconds)),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use adit_control::status::{DataPlaneStatus, GatewayStatus, IkeStatus};

    fn status(names: impl IntoIterator<Item = String>) -> Status {
        let tunnel = |name: String| {
            let fields = serde_json::json!({
                "name": name, "id": 1, "state": "connected", "since": 1, "peer": "b", "peer_address": "any",
                "local": "192.0.2.1", "local_subnets": [], "remote_subnets": [], "version": "ikev2",
                "children": [], "healthy": true, "rekeys": {"ike": 1, "child": 2}, "drops": {"replay": 3},
                "inbound": {"packets": 4, "bytes": 5}, "outbound": {"packets": 6, "bytes": 7},
            });
            serde_json::from_value(fields).unwrap()
        };
        Status {
            gateway: GatewayStatus {
                name: "g".into(),
                addresses: Vec::new(),
                version: "1".into(),
                started_at: 8,
                waiting_for: None,
                refused_reload: None,
            },
            tunnels: names.into_iter().map(tunnel).collect(),
            groups: Vec::new(),
            ike: IkeStatus::default(),
            ports: Vec::new(),
            data_plane: None,
            api: None,
        }
    }

    #[test]
    fn a_value_that_needs_it_is_escaped() {
        let text = render(&status(["a\"b\\c\nd".to_owned()]));
        assert!(text.contains("adit_tunnel_health{tunnel=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
        assert!(
            text.contains("# HELP adit_start_time_seconds When control started, in seconds since 1970.\n")
        );
        assert!(text.contains("# TYPE adit_start_time_seconds gauge\nadit_start_time_seconds 8\n"), "{text}");
    }

    #[test]
    fn a_family_without_samples_is_not_there() {
        let text = render(&status([]));
        assert!(!text.contains("adit_tunnel_") && !text.contains("adit_port_"), "{text}");
        let text = render(&status(["a".to_owned()]));
        assert!(text.contains("adit_tunnel_bytes_total{tunnel=\"a\",direction=\"out\"} 7\n"), "{text}");
        assert!(!text.contains("adit_tunnel_handshake_seconds"), "{text}");
    }

    #[test]
    fn a_data_plane_is_up_while_every_worker_runs_and_control_has_its_maps() {
        let mut of = status([]);
        let up = |of: &Status| render(of).contains("\nadit_data_plane_up 1\n");
        assert!(!up(&of), "there are maps, and nobody answers");
        let worker = |id, running| {
            let fields = serde_json::json!({"id": id, "cpu": null, "running": running, "batches": 0, "packets": 0,
                "busy_ns": 0, "held": 0});
            serde_json::from_value(fields).unwrap()
        };
        let with = |workers| DataPlaneStatus {
            crypto: "portable".into(),
            workers,
            counters: Default::default(),
            drops: Default::default(),
        };
        of.data_plane = Some(with(vec![worker(0, true), worker(1, true)]));
        assert!(up(&of));
        of.gateway.waiting_for = Some("maps".into());
        assert!(!up(&of));
        of.gateway.waiting_for = None;
        for workers in [vec![], vec![worker(0, true), worker(1, false)]] {
            of.data_plane = Some(with(workers));
            assert!(!up(&of));
        }
    }

    #[test]
    fn pages_are_the_whole_text_with_one_head_for_each_family() {
        let status = status((0..2000).map(|id| format!("tunnel-{id}")));
        let pages: Vec<_> = Pages::new(&status).collect();
        assert!(pages.len() > 10 && pages.iter().all(|page| page.len() < 2 * PAGE));
        let text = pages.concat();
        assert_eq!(text, render(&status));
        for family in &FAMILIES {
            let head = format!("# TYPE {} ", family.name);
            let is_of = |name: &str| {
                let suffix = name.strip_prefix(family.name);
                suffix
                    .is_some_and(|s| s.is_empty() || (s == "_count" && family.kind == MetricType::HISTOGRAM))
            };
            let samples = text.lines().filter(|l| l.split(['{', ' ']).next().is_some_and(is_of)).count();
            assert_eq!(text.matches(&head).count(), usize::from(samples > 0), "{}", family.name);
            if matches!(family.source, Source::Tunnel(_)) {
                assert_eq!(samples % 2000, 0, "{}", family.name);
            }
        }
    }
}
