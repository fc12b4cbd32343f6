//! Templates as a rule file of Prometheus: a group for each, the same text for the same templates.

use super::{
    Alarm, Rule, Scope,
    figure::Series,
    promql::{none_of, one_of, plain, scalar, text},
    usual,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Which templates are whose.
#[derive(Default)]
pub(crate) struct Attached {
    /// The gateway's name with the template that it names.
    pub(crate) gateway: Option<(String, Option<String>)>,
    /// The templates by their names.
    pub(crate) alarms: BTreeMap<String, Alarm>,
    /// The tunnels that name one, by its name.
    pub(crate) tunnels: BTreeMap<String, BTreeSet<String>>,
}

impl Attached {
    /// The rule file.
    pub(crate) fn render(&self) -> String {
        let mut out =
            "# Written by Adit of its alarm templates, and again whenever they change.\n".to_owned();
        let Some((gateway, own)) = &self.gateway else {
            return out + "groups: []\n";
        };
        out.push_str("groups:\n");
        // Those that name the gateway's template themselves have it anyway.
        let others = |name: &&String| Some(*name) != own.as_ref();
        let apart: Vec<&String> =
            self.tunnels.iter().filter(|(name, _)| others(name)).flat_map(|(_, of)| of).collect();
        let rest = (!apart.is_empty()).then(|| none_of("tunnel", &apart));
        let of_gateway = own.as_ref().map_or(Some(usual()), |name| self.alarms.get(name));
        if let Some(alarm) = of_gateway {
            let name = own.as_ref().map_or("adit".to_owned(), |name| format!("adit: {name}"));
            group(&mut out, &name, gateway, alarm, rest.as_deref());
        }
        for (name, tunnels) in self.tunnels.iter().filter(|(name, _)| others(name)) {
            if let Some(alarm) = self.alarms.get(name) {
                let tunnels: Vec<&String> = tunnels.iter().collect();
                group(&mut out, &format!("adit: {name}"), gateway, alarm, Some(&one_of("tunnel", &tunnels)));
            }
        }
        out
    }
}

/// The rules of a template for the tunnels that match.
fn group(out: &mut String, name: &str, gateway: &str, alarm: &Alarm, tunnels: Option<&str>) {
    let mut line = |indent: usize, words: &str| {
        // A string takes whatever is written.
        let _ = writeln!(out, "{:indent$}{words}", "");
    };
    line(2, &format!("- name: {}", scalar(name)));
    if alarm.rules.is_empty() {
        return line(4, "rules: []");
    }
    line(4, "rules:");
    for (number, rule) in (1..).zip(&alarm.rules) {
        line(6, &format!("- alert: {}", rule.figure.alert()));
        line(8, &format!("expr: {}", scalar(&expression(rule, gateway, tunnels))));
        line(8, &format!("for: {}s", rule.hold.as_secs()));
        line(8, "labels:");
        for (label, value) in [
            ("alarm", alarm.name.as_str()),
            ("figure", rule.figure.word),
            ("gateway", gateway),
            ("rule", &number.to_string()),
            ("severity", rule.severity.word()),
        ] {
            line(10, &format!("{label}: {}", scalar(&plain(value))));
        }
        line(8, "annotations:");
        line(10, &format!("summary: {}", scalar(&summary(rule, gateway))));
        line(10, &format!("description: {}", scalar(&description(rule))));
    }
}

fn expression(rule: &Rule, gateway: &str, tunnels: Option<&str>) -> String {
    let figure = rule.figure;
    let causes: Vec<&'static str> = rule.causes.iter().map(|cause| cause.label()).collect();
    let tunnels = tunnels.filter(|_| figure.scope == Scope::Tunnel);
    let value = (figure.expression)(&Series { gateway, tunnels, causes: &causes });
    let told = format!("{value} {} {}", rule.comparison.operator(), rule.threshold);
    // Whoever scrapes this gateway may scrape others. What says that it is not scraped names it itself.
    match figure.word {
        "scraped" => told,
        _ => format!("{told} and on (instance) adit_build_info{{gateway={}}}", text(gateway)),
    }
}

/// Of what it is, by the labels of the figure's series.
fn summary(rule: &Rule, gateway: &str) -> String {
    let gateway = plain(gateway);
    let label = |name: &str| format!("{name} {{{{ $labels.{name} }}}} of ");
    let subject: String = rule.figure.labels.iter().map(|name| label(name)).collect();
    match &rule.summary {
        Some(words) => format!("{subject}{gateway}: {}", plain(words)),
        None => format!(
            "{subject}{gateway}: {} is {} {}",
            rule.figure.word,
            rule.comparison.word(),
            rule.threshold
        ),
    }
}

fn description(rule: &Rule) -> String {
    let figure = rule.figure;
    let hint = match figure.scope {
        Scope::Tunnel => "`adit tunnel diagnose {{ $labels.tunnel }}` says more.",
        Scope::Gateway => "`adit status` says more.",
    };
    format!("{} ({}): {{{{ $value }}}}. {hint}", figure.says, figure.unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read_alarms;

    fn attached(template: Option<&str>, document: &str, tunnels: &[(&str, &[&str])]) -> Attached {
        let alarms = read_alarms(document).unwrap();
        let names = |of: &[&str]| of.iter().map(|name| (*name).to_owned()).collect();
        Attached {
            gateway: Some(("a".into(), template.map(str::to_owned))),
            alarms: alarms.into_iter().map(|alarm| (alarm.name.clone(), alarm)).collect(),
            tunnels: tunnels.iter().map(|(name, of)| ((*name).to_owned(), names(of))).collect(),
        }
    }

    const TWO: &str = "[[alarm]]\nname = \"x\"\n[[alarm.rules]]\nfigure = \"drops\"\nthreshold = 1.5\n\
                       summary = \"{{ is }} \\\"odd\\\"\"\n\
                       [[alarm]]\nname = \"y\"\nrules = [{ figure = \"health\", threshold = 1, for = 0 }, \
                       { figure = \"mtu\", threshold = 1200, severity = \"info\" }]\n";

    #[test]
    fn a_tunnels_own_template_takes_the_place_of_the_gateways() {
        let text = attached(Some("x"), TWO, &[("y", &["t1", "t.2"]), ("x", &["t3"])]).render();
        let wanted = r#"  - name: "adit: x"
    rules:
      - alert: AditDrops
        expr: "sum by (instance, tunnel) (rate(adit_tunnel_drops_total{cause!=\"dummy\",tunnel!~\"t\\\\.2|t1\"}[5m])) > 1.5 and on (instance) adit_build_info{gateway=\"a\"}"
        for: 60s
        labels:
          alarm: "x"
          figure: "drops"
          gateway: "a"
          rule: "1"
          severity: "warning"
        annotations:
          summary: "tunnel {{ $labels.tunnel }} of a: {{\"{{\"}} is }} \"odd\""
"#;
        let wanted = wanted.replace(
            "summary: \"tunnel {{ $labels.tunnel }} of a: {{\"{{\"}} is }} \"odd\"\"",
            "summary: \"tunnel {{ $labels.tunnel }} of a: {{\\\"{{\\\"}} is }} \\\"odd\\\"\"",
        );
        assert!(text.contains(&wanted), "{text}\n{wanted}");
        assert!(text.contains("adit_tunnel_mtu_bytes{tunnel=~\\\"t\\\\\\\\.2|t1\\\"} < 1200"), "{text}");
        assert_eq!(text.matches("- name: ").count(), 2);
    }

    #[test]
    fn who_names_none_has_the_usual_one_and_who_is_gone_has_none() {
        let text = attached(None, "", &[]).render();
        assert_eq!(text.matches("- alert: ").count(), usual().rules.len());
        assert!(text.contains("(adit_tunnel_health unless on (instance, tunnel)"), "{text}");
        let text = attached(Some("silent"), "[[alarm]]\nname = \"silent\"\nrules = []\n", &[]).render();
        assert!(text.ends_with("groups:\n  - name: \"adit: silent\"\n    rules: []\n"), "{text}");
        assert!(Attached::default().render().ends_with("groups: []\n"));
    }
}
