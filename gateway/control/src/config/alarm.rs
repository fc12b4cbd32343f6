//! `[[alarm]]`: what of a gateway and its tunnels somebody is to be told.

use super::{
    ConfigError,
    reader::{Field, Section, Source},
    sections::{GENERATED, remark_and_labels, unique_name},
};
use crate::alarm::{Alarm, Comparison, FIGURES, Figure, Rule, Severity, Threshold};
use adit_maps::sa::DropCause;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};
use toml_edit::Document;

/// Rules of a template, at most.
pub(crate) const MAX_RULES: usize = 64;
/// Characters of a rule's summary, at most.
pub(crate) const SUMMARY: usize = 256;
/// How long something has to be so, unless a rule says otherwise, in seconds.
const HOLD: u32 = 60;

/// The templates by their names, where they are known: by itself, a resource may name any.
pub(super) type Known<'a> = Option<&'a BTreeMap<String, Alarm>>;

/// Reads a template.
pub(super) fn alarm(mut s: Section<'_>, names: &mut BTreeSet<String>) -> Option<Alarm> {
    let name = unique_name(&mut s, "alarm", names);
    let mut rules = Vec::new();
    let tables = s.require("rules").and_then(|field| Some((s.tables("rules")?, field)));
    if let Some((tables, field)) = &tables
        && tables.len() > MAX_RULES
    {
        field.refuse_whole(&format!("are {}", tables.len()), &format!("at most {MAX_RULES}"));
    }
    let whole = tables.map(|(tables, _)| {
        let count = tables.len();
        rules.extend(tables.into_iter().filter_map(rule));
        rules.len() == count
    });
    remark_and_labels(&s);
    s.finish(&GENERATED);
    whole?.then_some(())?;
    Some(Alarm { name: name?, rules })
}

fn rule(s: Section<'_>) -> Option<Rule> {
    let words = FIGURES.iter().map(|figure| (figure.word.to_owned(), figure)).collect::<Vec<_>>();
    let figure = s.require("figure").and_then(|f| f.word(&words, &[]));
    let usual = figure.map_or(Comparison::Above, |figure| figure.comparison);
    let comparison = s.get("comparison").map_or(Some(usual), |f| {
        f.word(&Comparison::ALL.map(|comparison| (comparison.word().to_owned(), comparison)), &[])
    });
    let threshold = s.require("threshold").and_then(|f| threshold(&f, figure));
    let hold = s.get("for").map_or(Some(HOLD), |f| f.number(0..=86_400, "seconds"));
    let severity = s.get("severity").map_or(Some(Severity::Warning), |f| {
        f.word(&Severity::ALL.map(|severity| (severity.word().to_owned(), severity)), &[])
    });
    let causes = s.get("causes").map_or_else(Vec::new, |f| {
        if figure.is_some_and(|figure| !figure.has_causes) {
            f.fail("is of figures that count by causes", Some(of_causes()));
        }
        let known: Vec<_> = DropCause::ALL.iter().map(|cause| (cause.label().to_owned(), *cause)).collect();
        f.words(&known, &[])
    });
    let summary = s.get("summary").map_or(Some(None), |f| summary(&f).map(Some));
    s.finish(&[]);
    Some(Rule {
        figure: figure?,
        comparison: comparison?,
        threshold: threshold?,
        hold: Duration::from_secs(hold?.into()),
        severity: severity?,
        causes,
        summary: summary?,
    })
}

fn threshold(f: &Field<'_>, figure: Option<&'static Figure>) -> Option<Threshold> {
    let most = figure.and_then(|figure| figure.most);
    let unit = figure.map_or("the figure's unit", |figure| figure.unit);
    let allowed = match most {
        Some(most) => format!("0..{most}, {unit}"),
        None => format!("0 or more, {unit}"),
    };
    let Some(value) = f.real() else {
        f.fail("must be a number", Some(allowed));
        return None;
    };
    let threshold = Threshold::new(value, most);
    if threshold.is_none() {
        f.fail("is out of range", Some(allowed));
    }
    threshold
}

fn summary(f: &Field<'_>) -> Option<String> {
    let text = f.text()?;
    let fits = (1..=SUMMARY).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if !fits {
        f.refuse_whole("is not a summary", &format!("1..{SUMMARY} printable characters"));
    }
    fits.then(|| text.to_owned())
}

fn of_causes() -> String {
    let words = FIGURES.iter().filter(|figure| figure.has_causes).map(|figure| figure.word);
    words.collect::<Vec<_>>().join(", ")
}

/// The template that a gateway names.
pub(super) fn of_gateway(s: &Section<'_>, known: Known<'_>) -> Option<String> {
    named(s, known).map(|(_, name)| name)
}

/// The template that a tunnel names: one whose figures it has.
pub(super) fn of_tunnel(s: &Section<'_>, known: Known<'_>) -> Option<String> {
    let (field, name) = named(s, known)?;
    if let Some(figure) = known.and_then(|known| known.get(&name)?.of_gateway()) {
        field.fail(&not_of_a_tunnel(figure), None);
    }
    Some(name)
}

fn named<'a>(s: &Section<'a>, known: Known<'_>) -> Option<(Field<'a>, String)> {
    let field = s.get("alarm_template")?;
    let name = field.text()?.to_owned();
    if let Some(known) = known
        && !known.contains_key(&name)
    {
        field.fail(NO_TEMPLATE, Some(listed(known.keys())).filter(|names| !names.is_empty()));
    }
    Some((field, name))
}

/// What is said of a name that no template has.
pub(crate) const NO_TEMPLATE: &str = "is no alarm template";

/// Those that might have been meant.
pub(crate) fn listed<'n>(names: impl Iterator<Item = &'n String>) -> String {
    names.take(super::sections::SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// What is said of a template that a tunnel cannot have.
pub(crate) fn not_of_a_tunnel(figure: &Figure) -> String {
    format!(
        "has a rule for {}, which is a figure of a gateway: a tunnel's template has tunnels' figures alone",
        figure.word
    )
}

/// The templates of a document, whatever else is in it.
///
/// # Errors
/// [`ConfigError::Invalid`] with everything that is wrong with them.
pub(crate) fn read_alarms(text: &str) -> Result<Vec<Alarm>, ConfigError> {
    let invalid = |problems| ConfigError::Invalid { file: "alarms".into(), problems };
    let document = super::document(Path::new("alarms"), text)?;
    let source = Source::new(text);
    let mut names = BTreeSet::new();
    let alarms = {
        let root = Section::new(&source, "", Some(Document::as_table(&document)), Some(0..0));
        root.sections("alarm").into_iter().filter_map(|s| alarm(s, &mut names)).collect()
    };
    let (problems, _) = source.into_diagnostics();
    if problems.is_empty() { Ok(alarms) } else { Err(invalid(problems)) }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use std::path::Path;

    const TOP: &str = "[gateway]\nname = \"g\"\naddress = \"192.0.2.1\"\nwan = \"w\"\nlan = [\"l\"]\nGATEWAY\n\
                       [[peer]]\nname = \"b\"\naddress = \"198.51.100.1\"\n\
                       [[tunnel]]\nname = \"t\"\npeer = \"b\"\npsk = \"0123456789abcdef\"\n\
                       local_subnets = \"10.1.0.0/16\"\nremote_subnets = \"10.2.0.0/16\"\nTUNNEL\n";

    fn read(gateway: &str, tunnel: &str, alarms: &str) -> Result<Config, String> {
        let text = format!("{TOP}{alarms}").replace("GATEWAY", gateway).replace("TUNNEL", tunnel);
        Config::parse(Path::new("t"), &text).map_err(|e| e.to_string())
    }

    fn rules(of: &str) -> String {
        format!("[[alarm]]\nname = \"x\"\nrules = [{of}]\n")
    }

    #[test]
    fn a_template_is_read_and_named() {
        let x = "alarm_template = \"x\"";
        let one = rules("{ figure = \"sa-expiry\", threshold = 30.5 }");
        let config = read(x, x, &one).unwrap();
        let rule = &config.alarms[0].rules[0];
        assert_eq!(
            (rule.figure.word, rule.comparison.word(), rule.threshold.to_string(), rule.hold.as_secs()),
            ("sa-expiry", "below", "30.5".into(), 60)
        );
        assert_eq!((rule.severity.word(), &rule.summary), ("warning", &None));
        let named = [&config.gateway.alarm_template, &config.tunnels[0].alarm_template];
        assert_eq!(named, [&Some("x".to_owned()); 2]);
        let tables = "[[alarm]]\nname = \"x\"\n[[alarm.rules]]\nfigure = \"sa-expiry\"\nthreshold = 30.5\n";
        assert_eq!(read(x, x, tables).unwrap().alarms, config.alarms);
        assert_eq!(read(x, x, &rules("")).unwrap().alarms[0].rules, []);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let x = "alarm_template = \"x\"";
        let health = rules("{ figure = \"health\", threshold = 1 }");
        let of_gateway = rules("{ figure = \"worker-up\", threshold = 1 }");
        assert!(read(x, "", &of_gateway).is_ok());
        for (gateway, tunnel, alarms, words) in [
            ("", x, of_gateway.as_str(), "tunnel \"t\".alarm_template: \"x\" has a rule for worker-up"),
            (
                "alarm_template = \"y\"",
                "",
                &health,
                "gateway.alarm_template: \"y\" is no alarm template; allowed: x",
            ),
            (
                "",
                "alarm_template = \"y\"",
                &health,
                "tunnel \"t\".alarm_template: \"y\" is no alarm template; allowed: x",
            ),
            (
                "",
                "",
                &rules("{ figure = \"helth\", threshold = 1 }"),
                "rules[0].figure: \"helth\" is unknown; did you mean health?",
            ),
            (
                "",
                "",
                &rules("{ figure = \"health\", threshold = 1.5 }"),
                "rules[0].threshold: 1.5 is out of range; allowed: 0..1, 1 for yes, 0 for no",
            ),
            ("", "", &rules("{ figure = \"mtu\", threshold = -1 }"), "allowed: 0 or more, bytes"),
            ("", "", &rules("{ figure = \"mtu\", threshold = nan }"), "is out of range"),
            ("", "", &rules("{ figure = \"mtu\", threshold = \"9\" }"), "must be a number"),
            ("", "", &rules("{ figure = \"mtu\" }"), "rules[0].threshold: is required"),
            ("", "", &rules("{ figure = \"mtu\", threshold = 1, for = 100000 }"), "0..86400 seconds"),
            (
                "",
                "",
                &rules("{ figure = \"mtu\", threshold = 1, causes = \"replay\" }"),
                "allowed: drops, gateway-drops",
            ),
            (
                "",
                "",
                &rules("{ figure = \"drops\", threshold = 1, causes = [\"rain\"] }"),
                "\"rain\" is unknown",
            ),
            ("", "", &rules("{ figure = \"mtu\", threshold = 1, summary = \"\" }"), "is not a summary"),
            (
                "",
                "",
                &rules("{ figure = \"mtu\", threshold = 1, severity = \"high\" }"),
                "info, warning, critical",
            ),
            ("", "", &rules("7"), "rules: [7] must be a list of tables"),
            ("", "", "[[alarm]]\nname = \"x\"\n", "alarm \"x\".rules: is required"),
            ("", "", &(health.clone() + &health), "is the name of another alarm above"),
        ] {
            let said = read(gateway, tunnel, alarms).unwrap_err();
            assert!(said.contains(words), "{words}\n{said}");
        }
    }
}
