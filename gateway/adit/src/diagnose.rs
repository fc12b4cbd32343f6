//! `adit tunnel diagnose`: what is wrong with a tunnel, in words.

use adit_control::diagnose::{Diagnosis, Finding};

/// A diagnosis as text without a final line break.
pub(crate) fn text(diagnosis: &Diagnosis) -> String {
    let mut out = vec![format!("tunnel {}: {}", diagnosis.tunnel, diagnosis.state)];
    for (number, finding) in diagnosis.findings.iter().enumerate() {
        out.push(format!("\n{}. {}: {}", number + 1, finding.severity.label(), finding.cause));
        out.extend(details(finding).into_iter().map(|(what, words)| format!("   {what:<7} {words}")));
    }
    out.join("\n")
}

fn details(finding: &Finding) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let list = |values: &[String]| if values.is_empty() { "none".into() } else { values.join("; ") };
    if !finding.fields.is_empty() {
        lines.push(("fields", finding.fields.join(", ")));
    }
    if !finding.ours.is_empty() {
        lines.push(("ours", list(&finding.ours)));
    }
    lines.extend(finding.theirs.as_deref().map(|theirs| ("peer's", list(theirs))));
    lines.extend(finding.first_difference.clone().map(|first| ("differ", first)));
    lines.extend(finding.remedy.clone().map(|words| ("do", words)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_stand_below_each_other() {
        let diagnosis: Diagnosis = serde_json::from_str(
            r#"{"tunnel": "a-b", "state": "phase1-failed", "findings": [{"severity": "error", "about": "mode",
                "cause": "different modes", "remedy": "set one", "fields": ["ike.mode"], "ours": ["main mode"],
                "theirs": [], "first_difference": "x"}, {"severity": "note", "about": "nat", "cause": "NAT"}]}"#,
        )
        .unwrap();
        assert_eq!(
            text(&diagnosis),
            "tunnel a-b: phase1-failed\n\n1. error: different modes\n   fields  ike.mode\n   ours    main mode\n   peer's  \
             none\n   differ  x\n   do      set one\n\n2. note: NAT"
        );
    }
}
