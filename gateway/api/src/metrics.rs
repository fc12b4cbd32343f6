//! `/metrics`: the status as Prometheus reads it.
//!
//! Labels are tunnels, interfaces and fixed words, so the number of series is bounded by the configuration. A tunnel is
//! there as long as it is configured: one that is down has health 0 and its counters stand still.

use adit_control::status::{State, Status, TunnelStatus};
use prometheus::{
    TextEncoder,
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

/// Content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The metrics in Prometheus' text format.
///
/// # Errors
/// When the encoder refuses, which it does for a family without metrics.
pub fn render(status: &Status) -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&families(status))
}

fn families(status: &Status) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let mut out = Families(Vec::new());
    let gateway = &status.gateway;
    out.add(
        "adit_build_info",
        "The build that runs; always 1.",
        GAUGE,
        [(vec![("version", gateway.version.as_str()), ("gateway", &gateway.name)], 1.0)],
    );
    out.add(
        "adit_start_time_seconds",
        "When control started, in seconds since 1970.",
        GAUGE,
        [(vec![], gateway.started_at as f64)],
    );
    out.add(
        "adit_data_plane_up",
        "Whether control has found the maps of the data plane.",
        GAUGE,
        [(vec![], f64::from(gateway.waiting_for.is_none()))],
    );
    out.add(
        "adit_config_reload_refused",
        "Whether the last reload of the configuration was refused.",
        GAUGE,
        [(vec![], f64::from(gateway.refused_reload.is_some()))],
    );

    let tunnels = &status.tunnels;
    let directions = |t: &TunnelStatus| [("in", t.inbound), ("out", t.outbound)];
    out.add(
        "adit_tunnel_bytes_total",
        "Bytes of inner packets that were opened (in) or sealed (out).",
        COUNTER,
        tunnels.iter().flat_map(|t| {
            directions(t).map(|(d, n)| (vec![("tunnel", t.name.as_str()), ("direction", d)], n.bytes as f64))
        }),
    );
    out.add(
        "adit_tunnel_packets_total",
        "Inner packets that were opened (in) or sealed (out).",
        COUNTER,
        tunnels.iter().flat_map(|t| {
            directions(t)
                .map(|(d, n)| (vec![("tunnel", t.name.as_str()), ("direction", d)], n.packets as f64))
        }),
    );
    out.add(
        "adit_tunnel_health",
        "1 when packets can pass, 0 when not.",
        GAUGE,
        tunnels.iter().map(|t| (vec![("tunnel", t.name.as_str())], f64::from(t.state == State::Connected))),
    );
    let states = State::ALL.map(|s| (s, s.to_string()));
    out.add(
        "adit_tunnel_state",
        "1 for the state the tunnel is in, 0 for the others.",
        GAUGE,
        tunnels.iter().flat_map(|t| {
            states.iter().map(move |(s, word)| {
                (vec![("tunnel", t.name.as_str()), ("state", word.as_str())], f64::from(t.state == *s))
            })
        }),
    );
    out.add(
        "adit_tunnel_drops_total",
        "Packets of the tunnel that were dropped, by cause.",
        COUNTER,
        tunnels.iter().flat_map(|t| {
            t.drops
                .iter()
                .map(|(cause, n)| (vec![("tunnel", t.name.as_str()), ("cause", cause.as_str())], *n as f64))
        }),
    );
    out.add(
        "adit_tunnel_handshake_seconds",
        "How long the last negotiation took; absent while no IKE SA is up.",
        GAUGE,
        tunnels.iter().filter_map(|t| Some((vec![("tunnel", t.name.as_str())], t.handshake_ms? / 1e3))),
    );
    out.add(
        "adit_tunnel_child_sas",
        "Pairs of Child SAs that are installed.",
        GAUGE,
        tunnels.iter().map(|t| (vec![("tunnel", t.name.as_str())], t.children.len() as f64)),
    );
    out.add(
        "adit_tunnel_mtu_bytes",
        "Longest packet that fits into the tunnel, the least of its Child SAs; absent while it is not known.",
        GAUGE,
        tunnels.iter().filter_map(|t| {
            let least = t.children.iter().filter_map(|c| c.mtu).min()?;
            Some((vec![("tunnel", t.name.as_str())], f64::from(least)))
        }),
    );
    out.add(
        "adit_tunnel_path_mtu_bytes",
        "Longest sealed packet that fits the path to the peer; absent while it is not known.",
        GAUGE,
        tunnels.iter().filter_map(|t| {
            let least = t.children.iter().filter_map(|c| c.path_mtu).min()?;
            Some((vec![("tunnel", t.name.as_str())], f64::from(least)))
        }),
    );
    let ike_since = |t: &TunnelStatus| t.ike_since.map(|since| since as f64);
    out.add(
        "adit_tunnel_ike_sa_start_timestamp_seconds",
        "Since when the IKE SA is up, in seconds since 1970; absent while there is none.",
        GAUGE,
        tunnels.iter().filter_map(|t| Some((vec![("tunnel", t.name.as_str())], ike_since(t)?))),
    );
    out.add(
        "adit_tunnel_rekeys_total",
        "SAs that others have taken the place of.",
        COUNTER,
        tunnels.iter().flat_map(|t| {
            [("ike", t.rekeys.ike), ("child", t.rekeys.child)]
                .map(|(sa, n)| (vec![("tunnel", t.name.as_str()), ("sa", sa)], n as f64))
        }),
    );
    out.add(
        "adit_tunnel_sa_expiry_timestamp_seconds",
        "When the last Child SA ends at the latest, in seconds since 1970; absent while there is none.",
        GAUGE,
        tunnels.iter().filter_map(|t| {
            let last = t.children.iter().map(|c| c.expires_at).max()?;
            Some((vec![("tunnel", t.name.as_str())], last as f64))
        }),
    );

    out.add(
        "adit_port_verdicts_total",
        "Frames that came in by an interface, by what the XDP program decided.",
        COUNTER,
        status.ports.iter().flat_map(|p| {
            p.verdicts
                .iter()
                .map(|(v, n)| (vec![("interface", p.interface.as_str()), ("verdict", v.as_str())], *n as f64))
        }),
    );

    let ike = &status.ike;
    out.add(
        "adit_ike_datagrams_received_total",
        "IKE datagrams that came in.",
        COUNTER,
        [(vec![], ike.received as f64)],
    );
    out.add(
        "adit_ike_datagrams_sent_total",
        "IKE datagrams that went out.",
        COUNTER,
        [(vec![], ike.sent as f64)],
    );
    out.add(
        "adit_ike_retransmissions_total",
        "IKE requests that were sent again.",
        COUNTER,
        [(vec![], ike.retransmissions as f64)],
    );
    out.add(
        "adit_ike_datagrams_dropped_total",
        "IKE datagrams that were not acted upon, by cause.",
        COUNTER,
        ike.dropped.iter().map(|(cause, n)| (vec![("cause", cause.as_str())], *n as f64)),
    );
    out.add(
        "adit_ike_exchanges_total",
        "IKE exchanges that ended, by kind and result.",
        COUNTER,
        ike.exchanges.iter().map(|e| {
            (vec![("exchange", e.exchange.as_str()), ("result", e.result.as_str())], e.count as f64)
        }),
    );
    out.0
}

struct Families(Vec<MetricFamily>);

impl Families {
    /// Adds a family, unless nothing is in it: the format has no place for an empty one.
    fn add<'a>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
    ) {
        let metrics: Vec<Metric> =
            samples.into_iter().map(|(labels, value)| metric(kind, labels, value)).collect();
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}

fn metric(kind: MetricType, labels: Vec<(&str, &str)>, value: f64) -> Metric {
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    let mut metric = Metric::default();
    metric.set_label(labels.into_iter().map(pair).collect());
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}
