//! What can be watched: each figure as an expression of PromQL over the names of `/metrics`.

use super::promql::{one_of, text};
use Comparison::{Above, Below};

/// What a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each tunnel.
    Tunnel,
    /// The gateway, its interfaces or its workers.
    Gateway,
}

/// On which side of a threshold somebody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// While the figure is more.
    Above,
    /// While it is less.
    Below,
}

impl Comparison {
    pub(crate) const ALL: [Comparison; 2] = [Comparison::Above, Comparison::Below];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Comparison::Above => "above",
            Comparison::Below => "below",
        }
    }

    pub(super) fn operator(self) -> char {
        match self {
            Comparison::Above => '>',
            Comparison::Below => '<',
        }
    }
}

/// One figure that can be watched.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// The word for it.
    pub word: &'static str,
    /// Of what it is.
    pub scope: Scope,
    /// In what a threshold is given, as in `seconds`.
    pub unit: &'static str,
    /// The most that it can be, where that is known.
    pub most: Option<u32>,
    /// The side that tells, unless a rule says otherwise.
    pub comparison: Comparison,
    /// Whether it counts by causes, of which a rule may choose.
    pub has_causes: bool,
    /// What it is, in words.
    pub says: &'static str,
    /// The labels of its series beside those that every series of a gateway has.
    pub(super) labels: &'static [&'static str],
    pub(super) expression: fn(&Series<'_>) -> String,
}

/// There is one of each word.
impl PartialEq for Figure {
    fn eq(&self, other: &Self) -> bool {
        self.word == other.word
    }
}

impl Eq for Figure {}

impl Figure {
    /// The one of a word.
    pub fn of(word: &str) -> Option<&'static Figure> {
        FIGURES.iter().find(|figure| figure.word == word)
    }

    /// What its alerts are called: `AditWorkerBusy` of `worker-busy`.
    pub(super) fn alert(&self) -> String {
        let part = |part: &str| {
            let (first, rest) = part.split_at(part.len().min(1));
            first.to_uppercase() + rest
        };
        format!("Adit{}", self.word.split('-').map(part).collect::<String>())
    }
}

/// Which series of a metric are meant.
pub(super) struct Series<'a> {
    /// The gateway's name.
    pub(super) gateway: &'a str,
    /// A matcher of tunnels; none for all of them.
    pub(super) tunnels: Option<&'a str>,
    /// The causes of drops; none for all that are no drops by design.
    pub(super) causes: &'a [&'static str],
}

impl Series<'_> {
    /// Those of a metric that have further labels.
    fn of(&self, metric: &str, matchers: &[&str]) -> String {
        let all: Vec<&str> = matchers.iter().copied().chain(self.tunnels).collect();
        if all.is_empty() { metric.to_owned() } else { format!("{metric}{{{}}}", all.join(",")) }
    }

    /// Those of the tunnels that are neither idle nor disabled.
    fn of_wanted(&self, metric: &str) -> String {
        let value = self.of(metric, &[]);
        let waits = self.of("adit_tunnel_state", &["state=~\"idle|disabled\""]);
        format!("({value} unless on (instance, tunnel) {waits} == 1)")
    }

    fn causes(&self) -> String {
        match self.causes {
            // A dummy packet is dropped as it should be.
            [] => "cause!=\"dummy\"".to_owned(),
            causes => one_of("cause", causes),
        }
    }

    fn rate(&self, metric: &str, matchers: &[&str]) -> String {
        format!("rate({}[5m])", self.of(metric, matchers))
    }
}

/// Exchanges by which SAs are renewed, as `adit_ike_exchanges_total` calls them.
const REKEYS: &str = "exchange=~\"create_child_sa|ike_followup_ke|quick mode\"";

const fn tunnel(
    word: &'static str,
    says: &'static str,
    unit: &'static str,
    comparison: Comparison,
    expression: fn(&Series<'_>) -> String,
) -> Figure {
    let (scope, labels): (_, &[_]) = (Scope::Tunnel, &["tunnel"]);
    Figure { word, scope, unit, most: None, comparison, has_causes: false, says, labels, expression }
}

const fn gateway(
    word: &'static str,
    says: &'static str,
    unit: &'static str,
    comparison: Comparison,
    labels: &'static [&'static str],
    expression: fn(&Series<'_>) -> String,
) -> Figure {
    let scope = Scope::Gateway;
    Figure { word, scope, unit, most: None, comparison, has_causes: false, says, labels, expression }
}

/// One that is at most 1.
const fn up_to_one(figure: Figure) -> Figure {
    Figure { most: Some(1), ..figure }
}

const fn by_cause(figure: Figure) -> Figure {
    Figure { has_causes: true, ..figure }
}

const BYTES: &str = "bytes per second";
const PACKETS: &str = "packets per second";
const YES: &str = "1 for yes, 0 for no";
const RATIO: &str = "a ratio";
const PREFIXES: &str = "prefixes";

/// Every figure, those of tunnels first. Rates are over the last five minutes.
pub static FIGURES: [Figure; 42] = [
    up_to_one(tunnel(
        "health",
        "packets can pass; of tunnels that are neither idle nor disabled",
        YES,
        Below,
        |s| s.of_wanted("adit_tunnel_health"),
    )),
    up_to_one(tunnel("negotiation-failed", "phase 1 or phase 2 has failed", YES, Above, |s| {
        let failed = s.of("adit_tunnel_state", &["state=~\"phase1-failed|phase2-failed\""]);
        format!("max by (instance, tunnel) ({failed})")
    })),
    tunnel("in-bandwidth", "bytes of inner packets that come in", BYTES, Above, |s| {
        s.rate("adit_tunnel_bytes_total", &["direction=\"in\""])
    }),
    tunnel("out-bandwidth", "bytes of inner packets that go out", BYTES, Above, |s| {
        s.rate("adit_tunnel_bytes_total", &["direction=\"out\""])
    }),
    tunnel("in-packets", "inner packets that come in", PACKETS, Above, |s| {
        s.rate("adit_tunnel_packets_total", &["direction=\"in\""])
    }),
    tunnel("out-packets", "inner packets that go out", PACKETS, Above, |s| {
        s.rate("adit_tunnel_packets_total", &["direction=\"out\""])
    }),
    by_cause(tunnel("drops", "packets that are dropped, by `causes`", PACKETS, Above, |s| {
        let drops = s.rate("adit_tunnel_drops_total", &[&s.causes()]);
        format!("sum by (instance, tunnel) ({drops})")
    })),
    tunnel("dpd-round-trip", "how long the peer takes for a sign of life", "seconds", Above, |s| {
        s.of("adit_tunnel_dpd_round_trip_seconds", &[])
    }),
    tunnel("health-check-round-trip", "how long a health check's answer takes", "seconds", Above, |s| {
        s.of("adit_tunnel_health_check_round_trip_seconds", &[])
    }),
    tunnel("handshake", "how long the last negotiation took", "seconds", Above, |s| {
        s.of("adit_tunnel_handshake_seconds", &[])
    }),
    tunnel("rekeys", "SAs that were renewed", "SAs in an hour", Above, |s| {
        let rekeys = s.of("adit_tunnel_rekeys_total", &[]);
        format!("sum by (instance, tunnel) (increase({rekeys}[1h]))")
    }),
    tunnel("sa-expiry", "time until the last Child SA ends", "seconds", Below, |s| {
        format!("{} - time()", s.of("adit_tunnel_sa_expiry_timestamp_seconds", &[]))
    }),
    tunnel("last-error", "time since something went wrong last", "seconds", Below, |s| {
        let at = s.of("adit_tunnel_last_error_timestamp_seconds", &[]);
        format!("time() - max by (instance, tunnel) ({at})")
    }),
    tunnel("child-sas", "pairs of Child SAs that are installed", "pairs", Below, |s| {
        s.of("adit_tunnel_child_sas", &[])
    }),
    tunnel("mtu", "the longest packet that fits into the tunnel", "bytes", Below, |s| {
        s.of("adit_tunnel_mtu_bytes", &[])
    }),
    tunnel("path-mtu", "the longest sealed packet that fits the path", "bytes", Below, |s| {
        s.of("adit_tunnel_path_mtu_bytes", &[])
    }),
    up_to_one(tunnel(
        "group-share",
        "which part of a connection group's flows it carries",
        RATIO,
        Above,
        |s| s.of("adit_group_share_ratio", &[]),
    )),
    up_to_one(tunnel(
        "bgp-up",
        "its session of BGP is established; of tunnels that are neither idle nor disabled",
        YES,
        Below,
        |s| s.of_wanted("adit_tunnel_bgp_up"),
    )),
    tunnel("bgp-received", "prefixes that the peer teaches by BGP", PREFIXES, Below, |s| {
        s.of("adit_tunnel_bgp_received_prefixes", &[])
    }),
    tunnel("bgp-routes", "prefixes that are sent through it because of BGP", PREFIXES, Below, |s| {
        s.of("adit_tunnel_bgp_routes", &[])
    }),
    // What is not there cannot be joined with anything.
    up_to_one(gateway("scraped", "Prometheus has metrics of the gateway", YES, Below, &[], |s| {
        format!("(count(adit_build_info{{gateway={}}}) or vector(0))", text(s.gateway))
    })),
    up_to_one(gateway("data-plane-up", "the data plane carries packets", YES, Below, &[], |_| {
        "adit_data_plane_up".into()
    })),
    up_to_one(gateway("worker-up", "a worker's thread lives", YES, Below, &["worker"], |_| {
        "adit_worker_up".into()
    })),
    up_to_one(gateway(
        "worker-busy",
        "time that a worker spends on packets",
        RATIO,
        Above,
        &["worker"],
        |s| s.rate("adit_worker_busy_seconds_total", &[]),
    )),
    gateway(
        "worker-held",
        "packets that wait for a neighbour or an SA",
        "packets",
        Above,
        &["worker"],
        |_| "adit_worker_held_packets".into(),
    ),
    up_to_one(gateway(
        "ring-fill",
        "which part of a worker's fullest ring waits when a round begins",
        RATIO,
        Above,
        &["ring", "worker"],
        |_| "adit_worker_ring_fill_ratio".into(),
    )),
    gateway("batch-size", "packets of a worker's round", "packets", Above, &["worker"], |s| {
        let [packets, batches] =
            ["packets", "batches"].map(|of| s.rate(&format!("adit_worker_{of}_total"), &[]));
        format!("{packets} / {batches}")
    }),
    gateway("ring-full", "packets that found a receive ring full", PACKETS, Above, &[], |s| {
        s.rate("adit_data_plane_packets_total", &["event=\"ring_full\""])
    }),
    by_cause(gateway(
        "gateway-drops",
        "packets of all SAs that are dropped, by `causes`",
        PACKETS,
        Above,
        &[],
        |s| format!("sum by (instance) ({})", s.rate("adit_data_plane_drops_total", &[&s.causes()])),
    )),
    gateway("no-sa", "packets that came for a tunnel that is not up", PACKETS, Above, &["interface"], |s| {
        s.rate("adit_port_verdicts_total", &["verdict=\"no_sa\""])
    }),
    gateway(
        "clear-on-wan",
        "packets of a protected flow that came in clear",
        PACKETS,
        Above,
        &["interface"],
        |s| s.rate("adit_port_verdicts_total", &["verdict=\"clear_on_wan\""]),
    ),
    gateway(
        "unknown-spi",
        "packets of ESP with an SPI that no SA has",
        PACKETS,
        Above,
        &["interface"],
        |s| s.rate("adit_port_verdicts_total", &["verdict=\"unknown_spi\""]),
    ),
    gateway("port-in-bandwidth", "bytes that come in by an interface", BYTES, Above, &["interface"], |s| {
        s.rate("adit_port_bytes_total", &["direction=\"in\""])
    }),
    gateway("port-out-bandwidth", "bytes that go out by an interface", BYTES, Above, &["interface"], |s| {
        s.rate("adit_port_bytes_total", &["direction=\"out\""])
    }),
    gateway("port-in-packets", "frames that come in by an interface", PACKETS, Above, &["interface"], |s| {
        s.rate("adit_port_packets_total", &["direction=\"in\""])
    }),
    gateway("port-out-packets", "frames that go out by an interface", PACKETS, Above, &["interface"], |s| {
        s.rate("adit_port_packets_total", &["direction=\"out\""])
    }),
    up_to_one(gateway(
        "out-utilisation",
        "part of its link that an interface sends with; none where it has no speed",
        RATIO,
        Above,
        &["interface"],
        |s| {
            let sent = s.rate("adit_port_bytes_total", &["direction=\"out\""]);
            format!("{sent} / on (instance, interface) adit_port_speed_bytes_per_second")
        },
    )),
    gateway(
        "rekey-failures",
        "rekeys that were refused or not answered",
        "exchanges in an hour",
        Above,
        &[],
        |_| failures(&[REKEYS]),
    ),
    gateway(
        "ike-failures",
        "IKE exchanges that were refused or not answered",
        "exchanges in an hour",
        Above,
        &[],
        |_| failures(&[]),
    ),
    gateway("ike-drops", "IKE datagrams that were not acted upon", "datagrams per second", Above, &[], |s| {
        format!("sum by (instance) ({})", s.rate("adit_ike_datagrams_dropped_total", &[]))
    }),
    up_to_one(gateway("reload-refused", "the last reload was refused", YES, Above, &[], |_| {
        "adit_config_reload_refused".into()
    })),
    gateway("restarts", "starts of control", "in an hour", Above, &[], |_| {
        "changes(adit_start_time_seconds[1h])".into()
    }),
];

fn failures(matchers: &[&str]) -> String {
    let all: Vec<&str> = matchers.iter().copied().chain(["result!=\"done\""]).collect();
    format!("sum by (instance) (increase(adit_ike_exchanges_total{{{}}}[1h]))", all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_figure_has_a_word_and_an_alert_of_its_own() {
        let words: BTreeSet<_> = FIGURES.iter().map(|figure| figure.word).collect();
        let alerts: BTreeSet<_> = FIGURES.iter().map(Figure::alert).collect();
        assert_eq!((words.len(), alerts.len()), (FIGURES.len(), FIGURES.len()));
        assert_eq!(Figure::of("sa-expiry").unwrap().alert(), "AditSaExpiry");
        assert!(Figure::of("none").is_none());
    }

    /// `ADIT_UPDATE_GOLDEN` writes the table anew.
    #[test]
    fn the_table_for_people_has_every_figure() {
        let row = |figure: &Figure| {
            let of = if figure.scope == Scope::Tunnel { "tunnel" } else { "gateway" };
            let Figure { word, says, unit, .. } = figure;
            format!("| `{word}` | {of} | {says} | {unit} | {} |\n", figure.comparison.word())
        };
        let head = "| figure | of | is | in | its side |\n|---|---|---|---|---|\n";
        let table: String = FIGURES.iter().map(row).collect();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/alarms.md");
        let text = std::fs::read_to_string(file).unwrap();
        let (before, rest) = text.split_once(head).unwrap();
        let (found, after) = rest.split_once("\n## ").unwrap();
        if std::env::var_os("ADIT_UPDATE_GOLDEN").is_some() {
            return std::fs::write(file, format!("{before}{head}{table}\n## {after}")).unwrap();
        }
        assert_eq!(found, table);
    }

    #[test]
    fn a_tunnels_figures_are_of_the_tunnels_that_are_meant() {
        let series = Series { gateway: "a", tunnels: Some("tunnel=\"x\""), causes: &["replay"] };
        for figure in FIGURES.iter().filter(|figure| figure.scope == Scope::Tunnel) {
            let expression = (figure.expression)(&series);
            let (metrics, matched) =
                (expression.matches("{").count(), expression.matches("tunnel=\"x\"}").count());
            assert!(metrics > 0 && metrics == matched, "{expression}");
        }
    }
}
