//! Alarm templates as Prometheus takes them: every figure that fires and is silent, names of every kind, and a tunnel that goes
//! and comes back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use adit_tests::adit::Adit;
use adit_tests::namespace::{Namespace, wait_for};
use adit_tests::pair::Pair;
use adit_tests::prometheus::{lacking, scrapes, start, value};
use adit_tests::roots;
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::site::Site;
use adit_tests::topology::{HOST_B, Topology};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> std::process::ExitCode {
    let lacking = lacking();
    scenario::main(vec![
        Scenario::new("every_figure_fires_and_is_silent_as_it_should", every_figure).lacking(lacking),
        Scenario::new("names_of_every_kind_are_what_is_told", odd_names).lacking(lacking),
        Scenario::new("a_tunnel_that_goes_is_told_until_it_is_back", goes_and_comes).lacking(lacking),
    ])
}

/// A figure with what it is compared to, and the series that it is made of: the metric with its labels, what it is where the
/// alarm has to fire, and where it must not.
struct Case {
    figure: &'static str,
    than: (&'static str, f64),
    series: &'static [(&'static str, &'static str, &'static str)],
}

/// The time at which the alerts are looked at, in minutes, and so the samples that each series has.
const AT: u32 = 70;

const fn case(
    figure: &'static str,
    than: (&'static str, f64),
    series: &'static [(&'static str, &'static str, &'static str)],
) -> Case {
    Case { figure, than, series }
}

/// Samples are a minute apart: `0+60` counts one a second. `time()` is 4,200 s where it is looked at.
const CASES: [Case; 42] = [
    case(
        "health",
        ("below", 1.0),
        &[
            ("adit_tunnel_health{tunnel=\"t\"}", "0+0", "1+0"),
            ("adit_tunnel_state{tunnel=\"t\",state=\"idle\"}", "0+0", "0+0"),
            // One that waits for traffic is not missed.
            ("adit_tunnel_health{tunnel=\"waits\"}", "0+0", "0+0"),
            ("adit_tunnel_state{tunnel=\"waits\",state=\"idle\"}", "1+0", "1+0"),
        ],
    ),
    case(
        "negotiation-failed",
        ("above", 0.0),
        &[
            ("adit_tunnel_state{tunnel=\"t\",state=\"phase1-failed\"}", "0+0", "0+0"),
            ("adit_tunnel_state{tunnel=\"t\",state=\"phase2-failed\"}", "1+0", "0+0"),
            ("adit_tunnel_state{tunnel=\"t\",state=\"connecting\"}", "0+0", "1+0"),
        ],
    ),
    case(
        "in-bandwidth",
        ("above", 1e6),
        &[
            ("adit_tunnel_bytes_total{tunnel=\"t\",direction=\"in\"}", "0+66000000", "0+54000000"),
            ("adit_tunnel_bytes_total{tunnel=\"t\",direction=\"out\"}", "0+0", "0+66000000"),
        ],
    ),
    case(
        "out-bandwidth",
        ("below", 1e6),
        &[
            ("adit_tunnel_bytes_total{tunnel=\"t\",direction=\"out\"}", "0+54000000", "0+66000000"),
            ("adit_tunnel_bytes_total{tunnel=\"t\",direction=\"in\"}", "0+66000000", "0+0"),
        ],
    ),
    case(
        "in-packets",
        ("above", 10.0),
        &[("adit_tunnel_packets_total{tunnel=\"t\",direction=\"in\"}", "0+660", "0+540")],
    ),
    case(
        "out-packets",
        ("above", 10.0),
        &[("adit_tunnel_packets_total{tunnel=\"t\",direction=\"out\"}", "0+660", "0+540")],
    ),
    case(
        "drops",
        ("above", 1.5),
        &[
            ("adit_tunnel_drops_total{tunnel=\"t\",cause=\"replay\"}", "0+60", "0+60"),
            ("adit_tunnel_drops_total{tunnel=\"t\",cause=\"selector\"}", "0+60", "0+6"),
            ("adit_tunnel_drops_total{tunnel=\"t\",cause=\"dummy\"}", "0+0", "0+6000"),
        ],
    ),
    case(
        "dpd-round-trip",
        ("above", 0.25),
        &[("adit_tunnel_dpd_round_trip_seconds{tunnel=\"t\"}", "0.3+0", "0.2+0")],
    ),
    case(
        "health-check-round-trip",
        ("above", 0.25),
        &[("adit_tunnel_health_check_round_trip_seconds{tunnel=\"t\"}", "0.3+0", "0.2+0")],
    ),
    case("handshake", ("above", 2.0), &[("adit_tunnel_handshake_seconds{tunnel=\"t\"}", "3+0", "1+0")]),
    case(
        "rekeys",
        ("above", 30.0),
        &[
            ("adit_tunnel_rekeys_total{tunnel=\"t\",sa=\"child\"}", "0+1", "0+0"),
            ("adit_tunnel_rekeys_total{tunnel=\"t\",sa=\"ike\"}", "0+0", "7+0"),
        ],
    ),
    case(
        "sa-expiry",
        ("below", 60.0),
        &[("adit_tunnel_sa_expiry_timestamp_seconds{tunnel=\"t\"}", "4230+0", "5000+0")],
    ),
    case(
        "last-error",
        ("below", 60.0),
        &[("adit_tunnel_last_error_timestamp_seconds{tunnel=\"t\",phase=\"1\"}", "4190+0", "4000+0")],
    ),
    case("child-sas", ("below", 1.0), &[("adit_tunnel_child_sas{tunnel=\"t\"}", "0+0", "1+0")]),
    case("mtu", ("below", 1280.0), &[("adit_tunnel_mtu_bytes{tunnel=\"t\"}", "1200+0", "1400+0")]),
    case("path-mtu", ("below", 1400.0), &[("adit_tunnel_path_mtu_bytes{tunnel=\"t\"}", "1300+0", "1500+0")]),
    case(
        "group-share",
        ("above", 0.0),
        &[("adit_group_share_ratio{tunnel=\"t\",group=\"g\"}", "0.5+0", "0+0")],
    ),
    case(
        "bgp-up",
        ("below", 1.0),
        &[
            ("adit_tunnel_bgp_up{tunnel=\"t\"}", "0+0", "1+0"),
            ("adit_tunnel_state{tunnel=\"t\",state=\"disabled\"}", "0+0", "0+0"),
            // One that is not to be up has no session to miss.
            ("adit_tunnel_bgp_up{tunnel=\"disabled\"}", "0+0", "0+0"),
            ("adit_tunnel_state{tunnel=\"disabled\",state=\"disabled\"}", "1+0", "1+0"),
        ],
    ),
    case(
        "bgp-received",
        ("below", 2.0),
        &[("adit_tunnel_bgp_received_prefixes{tunnel=\"t\"}", "1+0", "2+0")],
    ),
    case("bgp-routes", ("below", 1.0), &[("adit_tunnel_bgp_routes{tunnel=\"t\"}", "0+0", "1+0")]),
    // The gateway that is looked for is not there; the one of the other cases is.
    case("scraped", ("below", 1.0), &[]),
    case("data-plane-up", ("below", 1.0), &[("adit_data_plane_up", "0+0", "1+0")]),
    case("worker-up", ("below", 1.0), &[("adit_worker_up{worker=\"0\"}", "0+0", "1+0")]),
    case("worker-busy", ("above", 0.9), &[("adit_worker_busy_seconds_total{worker=\"0\"}", "0+58", "0+30")]),
    case("worker-held", ("above", 100.0), &[("adit_worker_held_packets{worker=\"0\"}", "101+0", "100+0")]),
    case(
        "ring-fill",
        ("above", 0.9),
        &[
            ("adit_worker_ring_fill_ratio{worker=\"0\",ring=\"receive\"}", "0.5+0", "0.9+0"),
            ("adit_worker_ring_fill_ratio{worker=\"0\",ring=\"transmit\"}", "0.95+0", "0.5+0"),
        ],
    ),
    case(
        "batch-size",
        ("above", 32.0),
        &[
            ("adit_worker_packets_total{worker=\"0\"}", "0+6000", "0+6000"),
            ("adit_worker_batches_total{worker=\"0\"}", "0+100", "0+1000"),
        ],
    ),
    case(
        "ring-full",
        ("above", 10.0),
        &[
            ("adit_data_plane_packets_total{event=\"ring_full\"}", "0+660", "0+540"),
            ("adit_data_plane_packets_total{event=\"handled\"}", "0+0", "0+6600"),
        ],
    ),
    case(
        "gateway-drops",
        ("above", 10.0),
        &[
            ("adit_data_plane_drops_total{cause=\"queue_full\"}", "0+600", "0+300"),
            ("adit_data_plane_drops_total{cause=\"no_route\"}", "0+600", "0+200"),
        ],
    ),
    case(
        "no-sa",
        ("above", 10.0),
        &[
            ("adit_port_verdicts_total{interface=\"lan\",verdict=\"no_sa\"}", "0+660", "0+540"),
            ("adit_port_verdicts_total{interface=\"lan\",verdict=\"seal\"}", "0+0", "0+66000"),
        ],
    ),
    case(
        "clear-on-wan",
        ("above", 0.0),
        &[("adit_port_verdicts_total{interface=\"wan\",verdict=\"clear_on_wan\"}", "0+60", "9+0")],
    ),
    case(
        "unknown-spi",
        ("above", 10.0),
        &[("adit_port_verdicts_total{interface=\"wan\",verdict=\"unknown_spi\"}", "0+660", "0+540")],
    ),
    case(
        "port-in-bandwidth",
        ("above", 1e6),
        &[("adit_port_bytes_total{interface=\"wan\",direction=\"in\"}", "0+66000000", "0+54000000")],
    ),
    case(
        "port-out-bandwidth",
        ("above", 1e6),
        &[("adit_port_bytes_total{interface=\"wan\",direction=\"out\"}", "0+66000000", "0+54000000")],
    ),
    case(
        "port-in-packets",
        ("above", 10.0),
        &[("adit_port_packets_total{interface=\"wan\",direction=\"in\"}", "0+660", "0+540")],
    ),
    case(
        "port-out-packets",
        ("above", 10.0),
        &[("adit_port_packets_total{interface=\"wan\",direction=\"out\"}", "0+660", "0+540")],
    ),
    case(
        "out-utilisation",
        ("above", 0.9),
        &[
            ("adit_port_bytes_total{interface=\"wan\",direction=\"out\"}", "0+7200000000", "0+3600000000"),
            ("adit_port_speed_bytes_per_second{interface=\"wan\"}", "125000000+0", "125000000+0"),
        ],
    ),
    case(
        "rekey-failures",
        ("above", 10.0),
        &[
            ("adit_ike_exchanges_total{exchange=\"create_child_sa\",result=\"refused\"}", "0+1", "0+0"),
            ("adit_ike_exchanges_total{exchange=\"quick mode\",result=\"timed_out\"}", "0+1", "0+0"),
            ("adit_ike_exchanges_total{exchange=\"create_child_sa\",result=\"done\"}", "0+0", "0+9"),
            ("adit_ike_exchanges_total{exchange=\"ike_sa_init\",result=\"timed_out\"}", "0+0", "0+9"),
        ],
    ),
    case(
        "ike-failures",
        ("above", 10.0),
        &[
            ("adit_ike_exchanges_total{exchange=\"ike_sa_init\",result=\"timed_out\"}", "0+1", "0+0"),
            ("adit_ike_exchanges_total{exchange=\"ike_sa_init\",result=\"done\"}", "0+0", "0+9"),
        ],
    ),
    case(
        "ike-drops",
        ("above", 1.0),
        &[
            ("adit_ike_datagrams_dropped_total{cause=\"malformed\"}", "0+40", "0+20"),
            ("adit_ike_datagrams_dropped_total{cause=\"overloaded\"}", "0+40", "0+20"),
        ],
    ),
    case("reload-refused", ("above", 0.0), &[("adit_config_reload_refused", "1+0", "0+0")]),
    case("restarts", ("above", 5.0), &[("adit_start_time_seconds", "0+1", "7+0")]),
];

/// The figures that there are, as the API's document has them.
fn figures() -> Result<Vec<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let document: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let rules = &document["components"]["schemas"]["AlarmBody"]["properties"]["rules"];
    let words = rules["items"]["properties"]["figure"]["enum"].as_array().context("it has no figures")?;
    Ok(words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect())
}

/// One gateway that runs, without a peer.
fn alone() -> Result<(Topology, Adit)> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let a = Adit::start(&topology.gateway_a, &Site::a(&topology))?;
    Ok((topology, a))
}

/// Runs promtool, and has it find nothing.
fn promtool(namespace: &Namespace, arguments: &[&str], file: &Path) -> Result<String> {
    let root = roots::prometheus().context("Prometheus is not here")?;
    let mut command = namespace.command(&root.join("usr/bin/promtool").to_string_lossy());
    let output = command.args(arguments).arg(file).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "promtool {} says:\n{said}", arguments.join(" "));
    Ok(said)
}

fn every_figure() -> Result<()> {
    let known: Vec<&str> = CASES.iter().map(|case| case.figure).collect();
    ensure!(figures()? == known, "there are {:?}, and tried are {known:?}", figures()?);
    let (topology, mut a) = alone()?;
    let rule = |case: &Case| {
        let (comparison, threshold) = case.than;
        json!({"figure": case.figure, "comparison": comparison, "threshold": threshold, "for": 0})
    };
    let rules: Vec<Value> = CASES.iter().map(rule).collect();
    a.done(&["alarm", "create", "every", &format!("rules={}", Value::from(rules))])?;
    a.done(&["gateway", "edit", "a", "alarm_template=every"])?;
    let rules = a.alarm_rules();
    let file = rules.with_file_name("every.yml");
    a.done(&["alarm", "rules", "--out", &file.to_string_lossy()])?;
    let said = promtool(&topology.gateway_a, &["check", "rules"], &file)?;
    ensure!(said.contains(&format!("{} rules found", CASES.len())), "{said}");
    // What is kept is the same.
    wait_for("the rules to be written", PATIENCE, || Ok(fs::read(&rules)? == fs::read(&file)?))?;

    let mut tests = format!("rule_files: [{}]\nevaluation_interval: 10m\ntests:\n", json!(file));
    for case in &CASES {
        let build = |instance: &str, gateway: &str| json!({"series": format!("adit_build_info{{instance={instance:?},gateway={gateway:?}}}"), "values": format!("1+0x{AT}")});
        let place = |series: &str, instance: &str| match series.strip_suffix('}') {
            Some(open) => format!("{open},instance=\"{instance}\"}}"),
            None => format!("{series}{{instance=\"{instance}\"}}"),
        };
        let mut series = vec![build("other", "b")];
        for (metric, fires, silent) in case.series {
            // Whatever another gateway has is its own affair.
            for (instance, values) in [("fires", fires), ("silent", silent), ("other", fires)] {
                series.push(json!({"series": place(metric, instance), "values": format!("{values}x{AT}")}));
            }
        }
        let name =
            case.figure.split('-').map(|part| part[..1].to_uppercase() + &part[1..]).collect::<String>();
        let labels = |instance: &str| {
            let instance =
                if instance.is_empty() { String::new() } else { format!(", instance={instance:?}") };
            format!("{{alertname=\"Adit{name}\", alertstate=\"firing\"{instance}}}")
        };
        let expected = if case.series.is_empty() {
            labels("")
        } else {
            series.extend([build("fires", "a"), build("silent", "a")]);
            labels("fires")
        };
        // Alerts of the metrics that this case has; without any, that of none being there.
        let expression =
            format!("count by (alertname, alertstate, instance) (ALERTS{{figure={:?}}})", case.figure);
        let test = |series: &[Value], expected: Value| {
            json!({
                "interval": "1m", "input_series": series,
                "promql_expr_test": [{"expr": expression, "eval_time": format!("{AT}m"), "exp_samples": expected}],
            })
        };
        tests += &format!("- {}\n", test(&series, json!([{"labels": expected, "value": 1}])));
        if case.series.is_empty() {
            series.push(build("fires", "a"));
            tests += &format!("- {}\n", test(&series, json!([])));
        }
    }
    let test = file.with_file_name("tests.yml");
    fs::write(&test, tests)?;
    promtool(&topology.gateway_a, &["test", "rules"], &test)?;
    a.process().stop()?;
    topology.end()
}

/// What may be in a name, and what it must not be taken for: quotes, what ends a matcher, operators of regular expressions,
/// templates of Go and letters of others.
const ODD: &str = "x\"} or 1 # \\ 'y' {{ $labels.tunnel }} {{{ \u{2028}?.*|(é) ${z}";

fn odd_names() -> Result<()> {
    let (topology, mut a) = alone()?;
    let quoted = |text: &str| json!(text).to_string();
    let of = |what: &str| format!("{what} {ODD}");
    let (tunnel, template, gateway) = (of("t"), of("m"), of("g"));
    for (name, remote) in [(tunnel.as_str(), 77), ("plain", 78)] {
        let remote = format!("remote_subnets=10.{remote}.0.0/16");
        a.done(&["tunnel", "create", name, "peer=b", "local_subnets=10.1.0.0/16", &remote, "enabled=false"])?;
    }
    let rules = json!([{"figure": "child-sas", "threshold": 1, "for": 120, "summary": ODD}]);
    a.done(&["alarm", "create", &template, &format!("rules={rules}")])?;
    for name in [tunnel.as_str(), "plain"] {
        a.done(&["tunnel", "edit", name, &format!("alarm_template={}", quoted(&template))])?;
    }
    a.done(&["gateway", "edit", "a", &format!("name={}", quoted(&gateway))])?;
    let file = a.alarm_rules().with_file_name("odd.yml");
    a.done(&["alarm", "rules", "--out", &file.to_string_lossy()])?;
    promtool(&topology.gateway_a, &["check", "rules"], &file)?;

    // As Prometheus' notation of series takes a label's value.
    let series = |metric: &str, labels: &[(&str, &str)], values: &str| {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
        json!({"series": format!("{metric}{{{}}}", labels.join(",")), "values": values})
    };
    let sas = |tunnel: &str, values: &str| {
        series("adit_tunnel_child_sas", &[("instance", "i"), ("tunnel", tunnel)], values)
    };
    let alert = json!({
        "exp_labels": {
            "alarm": template, "figure": "child-sas", "gateway": gateway, "instance": "i", "rule": "1",
            "severity": "warning", "tunnel": tunnel,
        },
        "exp_annotations": {
            "summary": format!("tunnel {tunnel} of {gateway}: {ODD}"),
            "description": format!(
                "pairs of Child SAs that are installed (pairs): 0. `adit tunnel diagnose {tunnel}` says more."
            ),
        },
    });
    let at = |time: &str, alerts: Value| json!({"alertname": "AditChildSas", "eval_time": time, "exp_alerts": alerts});
    let tests = json!({
        "rule_files": [file], "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": [
                series("adit_build_info", &[("instance", "i"), ("gateway", &gateway)], "1+0x9"),
                sas(&tunnel, "0+0x4 1+0x4"), sas("plain", "1+0x9"),
                // Of no template.
                sas("x", "0+0x9"), sas("t", "0+0x9"),
            ],
            // Once it has been so for long enough, and no longer than it is so.
            "alert_rule_test": [at("1m", json!([])), at("3m", json!([alert])), at("6m", json!([]))],
        }],
    });
    let test = file.with_file_name("odd-tests.yml");
    // YAML takes it for the end of a line.
    fs::write(&test, tests.to_string().replace('\u{2028}', "\\u2028"))?;
    promtool(&topology.gateway_a, &["test", "rules"], &test)?;
    a.process().stop()?;
    topology.end()
}

/// With the template of a file, then with one that is edited; and the rules that a restart finds missing.
fn goes_and_comes() -> Result<()> {
    let topology = Topology::two_sites(Run::begin()?)?;
    let template = "[[alarm]]\nname = \"x\"\nrules = [{ figure = \"health\", threshold = 1, for = 1, severity = \"critical\" }]\n";
    let sites = [Site::a(&topology), Site::b(&topology)];
    let mut pair = Pair::with(&topology, &sites, HOST_B.into(), |name, text| match name {
        "a" => text.replacen("[gateway]", "[gateway]\nalarm_template = \"x\"", 1) + template,
        _ => text,
    })?;
    let rules = pair.a.alarm_rules();
    let mode = fs::metadata(&rules)?.permissions().mode() & 0o777;
    ensure!(mode == 0o644, "the rules have the mode {mode:o}");
    let directory = rules.parent().context("they lie somewhere")?;
    let at = &topology.gateway_a;
    let mut prometheus = start(at, directory, &[&rules])?;
    let firing =
        |alert: &str| value(at, &format!("count(ALERTS{{alertname={alert:?},alertstate=\"firing\"}})"));
    let before = scrapes(at)?;
    wait_for("three scrapes", PATIENCE, || Ok(scrapes(at)? >= before + 3.0))?;
    ensure!(firing("AditHealth")?.is_none(), "it fires while the tunnel is connected");

    pair.b.process().stop()?;
    wait_for("the alarm of a tunnel that is gone", PATIENCE, || Ok(firing("AditHealth")? == Some(1.0)))
        .with_context(|| prometheus.log_tail(20))?;
    let critical =
        value(at, "count(ALERTS{severity=\"critical\",gateway=\"a\",alarm=\"x\",tunnel=\"a-b\"})")?;
    ensure!(critical == Some(1.0), "its labels are others");
    pair.b.start_again()?;
    pair.b.wait_started()?;
    pair.a.wait_connected(PATIENCE)?;
    wait_for("the alarm to end", PATIENCE, || Ok(firing("AditHealth")?.is_none()))?;

    let listed = pair.a.done(&["alarm", "list"])?;
    ensure!(listed.contains("x     health"), "{listed}");
    let refused = pair.a.command(&["alarm", "delete", "x"])?;
    let words = String::from_utf8_lossy(&refused.stderr);
    ensure!(words.contains("alarm \"x\" is in use by gateway \"a\""), "{words}");
    let edited = json!([{"figure": "child-sas", "comparison": "above", "threshold": 0, "for": 0}]);
    pair.a.done(&["alarm", "edit", "x", &format!("rules={edited}")])?;
    wait_for("the rules to follow", PATIENCE, || Ok(fs::read_to_string(&rules)?.contains("AditChildSas")))?;
    prometheus.signal(libc::SIGHUP)?;
    wait_for("the alarm of the edited template", PATIENCE, || Ok(firing("AditChildSas")? == Some(1.0)))?;
    let shown: Value = serde_json::from_str(&pair.a.done(&["alarm", "show", "x", "-o", "json"])?)?;
    ensure!(shown["rules"][0]["comparison"] == "above" && shown["revision"] == 2, "{shown}");
    let state = pair.a.state()?;
    ensure!(state == "connected", "an edited template has the tunnel {state}");

    let edited = fs::read_to_string(&rules)?;
    fs::write(&rules, "what somebody else wrote")?;
    pair.a.restart()?;
    wait_for("the rules after a restart", PATIENCE, || {
        let now = fs::read_to_string(&rules)?;
        // As the file of configuration says again.
        Ok(now != edited && now.contains("AditHealth") && !now.contains("AditChildSas"))
    })?;
    prometheus.stop()?;
    pair.end(topology)
}
