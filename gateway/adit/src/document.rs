//! `adit apply` and `adit export`: the configuration as one document.

use crate::{ask, cli::Access, print};
use adit_api::Application;
use adit_control::store::{Differs, Plan, Planned, Verb};
use anyhow::Context;
use std::{
    io::{BufRead, IsTerminal, Read, Write},
    path::Path,
};

/// Shows what a document changes, and changes it once somebody has agreed.
pub(crate) fn apply(
    file: &Path,
    (dry_run, prune, yes): (bool, bool, bool),
    access: Access,
) -> anyhow::Result<()> {
    let document = match file == Path::new("-") {
        true => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        false => std::fs::read_to_string(file),
    };
    let document = document.with_context(|| file.display().to_string())?;
    let name = file.display().to_string();
    let client = access.client()?;
    let tried = Application { document, name, dry_run: true, prune, digest: None };
    let plan = run(async { client.apply(&tried).await })?;
    plan.warnings.iter().for_each(|line| eprintln!("warning: {line}"));
    print(&words(&plan))?;
    if dry_run || plan.changes.is_empty() || !(yes || agreed()?) {
        return Ok(());
    }
    let digest = Some(plan.digest).filter(|digest| !digest.is_empty());
    run(async { client.apply(&Application { dry_run: false, digest, ..tried }).await })?;
    print("done")
}

/// Writes the configuration to stdout.
pub(crate) fn export(with_psk: bool, access: Access) -> anyhow::Result<()> {
    let exported = ask(access, async |client| client.export(with_psk).await)?;
    print(exported.document.trim_end())
}

fn run<T>(question: impl Future<Output = Result<T, adit_api::ClientError>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(question)?)
}

/// Asks whoever sits there. Where nobody does, nobody agrees.
fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("nothing is done: --yes agrees to it, and nobody is there to be asked");
    }
    write!(std::io::stdout(), "Do it? [y/N] ")?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn words(plan: &Plan) -> String {
    let mut lines: Vec<String> = plan.changes.iter().flat_map(of).collect();
    let unchanged = plan.unchanged;
    lines.push(match lines.is_empty() {
        true => format!("nothing to do: {unchanged} unchanged"),
        false => format!("{} to change, {unchanged} unchanged", plan.changes.len()),
    });
    lines.join("\n")
}

fn of(planned: &Planned) -> Vec<String> {
    let sign = match planned.action {
        Verb::Create => '+',
        Verb::Change => '~',
        Verb::Delete => '-',
    };
    let mut lines = vec![format!("{sign} {} {:?}", planned.kind, planned.name)];
    lines.extend(planned.fields.iter().map(|Differs { field, old, new }| match (old, new) {
        (None, None) => format!("    {field}: changed"),
        (old, new) => {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
            format!("    {field}: {} -> {}", shown(old), shown(new))
        }
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_control::resource::Kind;

    #[test]
    fn a_plan_reads_field_by_field() {
        let differs = |field: &str, old: Option<&str>, new: Option<&str>| Differs {
            field: field.into(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        };
        let planned =
            |action, name: &str, fields| Planned { action, kind: Kind::Tunnel, name: name.into(), fields };
        let fields = vec![
            differs("ike.dh", Some("[14]"), Some("[31]")),
            differs("psk", None, None),
            differs("remark", None, Some("\"x\"")),
        ];
        let changes = vec![
            planned(Verb::Delete, "a", Vec::new()),
            planned(Verb::Change, "b", fields),
            planned(Verb::Create, "c", Vec::new()),
        ];
        let plan = Plan { changes, unchanged: 4, ..Plan::default() };
        assert_eq!(
            words(&plan),
            "- tunnel \"a\"\n~ tunnel \"b\"\n    ike.dh: [14] -> [31]\n    psk: changed\n    remark: none -> \"x\"\n\
             + tunnel \"c\"\n3 to change, 4 unchanged"
        );
        assert_eq!(words(&Plan { unchanged: 2, ..Plan::default() }), "nothing to do: 2 unchanged");
    }
}
