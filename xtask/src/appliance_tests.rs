//! What the appliance's own scripts do with what they are answered.

use std::{path::Path, process::Command};

/// Runs the script's `main` twice with `adit` answering as `answer` says, as an expression of Python, and once more much later;
/// what it told `nft` the first time, and what it wrote for the console.
fn run(answer: &str) -> (String, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../images/appliance/root/usr/lib/adit/appliance");
    let dir = std::env::temp_dir().join(format!("adit-appliance-{}", std::process::id()));
    let test = format!(
        r#"
import runpy
script = runpy.run_path({script:?})
of = script["main"].__globals__
of["ISSUE"] = {issue:?}
def said(*words, told=None):
    if words[0] == "adit":
        return {answer}
    if words[0] == "nft":
        rules.append(" ".join(words[1:]) + " " + (told or ""))
    if words[0] == "agetty":
        reloads.append(1)
    return "[]"
of["said"] = said
rules, reloads = [], []
script["main"]()
script["main"]()
assert len(reloads) == 2, "an agetty that was starting is told again"
import os
os.utime(of["ISSUE"], (1, 1))
script["main"]()
assert len(reloads) == 2, "no console is drawn anew for nothing"
print(*rules[:1], end="\n" if rules else "")
"#,
        issue = dir.join("issue.d/adit.issue"),
    );
    let output = Command::new("python3").args(["-c", &test]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let console = std::fs::read_to_string(dir.join("issue.d/adit.issue")).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    (String::from_utf8(output.stdout).unwrap(), console)
}

#[test]
fn a_gateway_that_does_not_answer_keeps_its_lan() {
    let gateway = r#"'[{"name": "a", "wan": "eth0", "lan": ["eth0", "eth1", "eth2"]}]'"#;
    let (rules, console) = run(gateway);
    assert_eq!(
        rules, "-f - flush set inet adit lan\nadd element inet adit lan { \"eth1\", \"eth2\" }\n\n",
        "one transaction"
    );
    assert!(console.contains("Gateway a."), "{console}");
    let (rules, console) = run("None");
    assert!(rules.is_empty() && console.contains("does not answer") && !console.contains("gateway create"));
    let (rules, console) = run("'[]'");
    assert!(rules.starts_with("-f - flush") && !rules.contains("add") && console.contains("gateway create"));
}

/// A SIGHUP that comes before Prometheus listens to it ends it.
#[test]
fn prometheus_is_told_of_rules_when_it_is_ready_and_not_at_all_when_it_does_not_run() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../images/appliance/root/usr/lib/adit/reread-rules");
    let told = |runs: &str, ready: &str| {
        let test = format!(
            r#"
import runpy, subprocess, time
script = runpy.run_path({script:?})
of = script["main"].__globals__
runs, ready = iter({runs}), iter({ready})
of["runs"], of["ready"] = lambda: next(runs), lambda: next(ready)
time.sleep = lambda seconds: print("waits")
subprocess.run = lambda words, check: print(*words)
script["main"]()
"#
        );
        let output = Command::new("python3").args(["-c", &test]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    const RELOAD: &str = "systemctl try-reload-or-restart prometheus.service\n";
    assert_eq!(told("[True]", "[True]"), RELOAD);
    assert_eq!(told("[True, True, True]", "[False, False, True]"), format!("waits\nwaits\n{RELOAD}"));
    assert_eq!(told("[False]", "[]"), "");
    assert_eq!(told("[True, False]", "[False]"), "waits\n", "it starts again, and reads them by itself");
}

/// What comes out of a tunnel is another's: nothing of this machine but what it is told of here is for him.
#[test]
fn who_comes_through_a_tunnel_reaches_no_api_and_no_metrics() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/appliance/root/etc/nftables.conf");
    let rules = std::fs::read_to_string(rules).unwrap();
    let of_tunnels: Vec<_> = rules.lines().map(str::trim).filter(|line| line.contains("adit0")).collect();
    assert!(
        matches!(
            &of_tunnels[..],
            [vrrp, bgp]
                if vrrp.starts_with("iifname != adit0 meta l4proto 112 accept")
                    && bgp.starts_with("iifname adit0 tcp dport 179 accept")
        ),
        "{of_tunnels:?}"
    );
}
