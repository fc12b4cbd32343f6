//! First steps. docs/quickstart.md does what it says: its commands are executed as they stand there, and write what is
//! shown. And what a gateway is may change while it runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use adit_tests::adit::binary;
use adit_tests::document::{Block, blocks, execute};
use adit_tests::namespace::wait_for;
use adit_tests::pair::{PATIENCE, Pair};
use adit_tests::run::Run;
use adit_tests::scenario::{self, Scenario};
use adit_tests::topology::{GATEWAY_A, HOST_B};
use adit_tests::traffic::ping_until_answered;
use anyhow::{Context, Result, ensure};

/// Gives the page a machine of its own as far as it could meet another: processes, and what is below /run. All of it goes
/// with its first process, however the page ends.
const OWN: &str = "mount -t tmpfs tmpfs /run && exec timeout 60 bash -c \"$1\"";

fn main() -> std::process::ExitCode {
    scenario::main(vec![
        Scenario::new("the_quickstart_works_line_by_line", quickstart),
        Scenario::new("status_and_watch_fit_a_terminal", terminals),
        Scenario::new("a_gateway_moves_to_other_interfaces_and_addresses_and_goes", moves),
    ])
}

fn quickstart() -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/quickstart.md");
    let text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    let mut blocks = blocks(&text)?;
    // What the page makes it takes away.
    blocks.push(Block {
        line: text.lines().count(),
        commands: "ip netns list\n".into(),
        shown: String::new(),
    });
    let run = Run::begin()?;
    let sources = run.directory().join("sources");
    fs::create_dir_all(sources.join("target/release"))?;
    symlink(binary()?, sources.join("target/release/adit"))?;
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    shell.args(["sh", "-c", OWN, "sh"]);
    shell.current_dir(&sources).env("TMPDIR", run.directory()).stdin(Stdio::null());
    execute(&blocks, shell)?;
    run.end()
}

/// What `adit` writes to a terminal of this size, into which `keys` are typed a second later.
fn on_terminal(pair: &Pair, (columns, rows): (u16, u16), arguments: &str, keys: &str) -> Result<String> {
    let socket = pair.a.configuration().with_file_name("adit.sock");
    let inner = format!(
        "stty columns {columns} rows {rows}; '{}' {arguments} --socket '{}'; echo ended with $?",
        binary()?.display(),
        socket.display()
    );
    let script =
        "(sleep 1; printf '%s' \"$2\"; sleep 1) | TERM=xterm timeout 20 script -qefc \"$1\" /dev/null";
    let output = Command::new("sh").args(["-c", script, "sh", &inner, keys]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn terminals() -> Result<()> {
    let (topology, pair) = Pair::up()?;
    for size in [(80, 24), (40, 12)] {
        let text = on_terminal(&pair, size, "status", "")?;
        let lines: Vec<&str> = text.lines().collect();
        ensure!(text.contains("1 of 1 tunnels") && text.contains("ended with 0"), "{text}");
        ensure!(
            lines.len() <= size.1.into() && lines.iter().all(|l| l.chars().count() <= size.0.into()),
            "{text}"
        );
    }
    let screen = on_terminal(&pair, (100, 20), "tunnel watch", "q")?;
    ensure!(
        screen.contains(pair.a.tunnel()) && screen.contains("bit/s") && screen.contains("ended with 0"),
        "{screen}"
    );
    // The alternate screen is left again.
    ensure!(screen.contains("\u{1b}[?1049h") && screen.contains("\u{1b}[?1049l"), "{screen}");
    let lines = pair.a.done(&["tunnel", "watch", "--json", "--count", "2"])?;
    ensure!(
        lines.lines().count() == 2 && lines.lines().all(|l| l.contains("\"state\":\"connected\"")),
        "{lines}"
    );
    let unknown = pair.a.command(&["tunnel", "watch", "nobody"])?;
    ensure!(unknown.status.code() == Some(5), "{}", String::from_utf8_lossy(&unknown.stderr));
    drop(pair);
    topology.end()
}

fn moves() -> Result<()> {
    let (topology, mut pair) = Pair::up()?;
    let tunnel = pair.a.tunnel().to_owned();
    let gateway = &topology.gateway_a;

    // Another data plane takes over: with one more interface, and every SA as it was.
    gateway.ip(&["link", "add", "more", "type", "veth", "peer", "name", "more-peer"])?;
    gateway.ip(&["link", "set", "more", "up"])?;
    gateway.ip(&["link", "set", "more-peer", "up"])?;
    let spis = pair.a.spis_of(&tunnel)?;
    pair.a.done(&["gateway", "edit", "a", "lan=lan,more"])?;
    wait_for("the data plane to be on the new interface", PATIENCE, || {
        Ok(pair.a.done(&["status"])?.lines().any(|line| line.starts_with("  more: ")))
    })?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;
    ensure!(pair.a.spis_of(&tunnel)? == spis, "SAs went with the data plane");

    // What cannot be is refused, and everything goes on.
    let refused = pair.a.command(&["gateway", "edit", "a", "address=192.0.2.77"])?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.status.success() && words.contains("192.0.2.77") && words.contains("goes on as it was"),
        "{words}"
    );
    ensure!(pair.a.spis_of(&tunnel)? == spis, "a change that was refused took SAs away");

    // The tunnel is closed at the old address, and there at the new one.
    gateway.ip(&["address", "add", "192.0.2.9/24", "dev", "wan"])?;
    pair.b.done(&["peer", "edit", "a", "address=192.0.2.9"])?;
    pair.a.done(&["gateway", "edit", "a", "address=192.0.2.9"])?;
    pair.a.done(&["tunnel", "up", &tunnel])?;
    pair.a.wait_connected(PATIENCE)?;
    pair.b.wait_connected(PATIENCE)?;
    ping_until_answered(&topology.host_a, HOST_B, PATIENCE)?;
    let shown = pair.a.done(&["tunnel", "show", &tunnel])?;
    ensure!(shown.contains("from 192.0.2.9") && pair.a.spis_of(&tunnel)? != spis, "{shown}");
    let listening = gateway.run("ss", &["-Hlnu"])?;
    ensure!(
        listening.contains("192.0.2.9:500") && !listening.contains(&format!("{GATEWAY_A}:500")),
        "{listening}"
    );

    // One that tunnels need stays; one that nobody needs goes, and another can come.
    let refused = pair.a.command(&["gateway", "delete", "a"])?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && words.contains(&tunnel), "{words}");
    pair.a.done(&["tunnel", "delete", &tunnel])?;
    pair.a.done(&["gateway", "delete", "a"])?;
    let shown = pair.a.done(&["status"])?;
    ensure!(shown.starts_with("no gateway yet") && shown.contains("adit gateway create"), "{shown}");
    ensure!(!gateway.run("ss", &["-Hlnu"])?.contains(":500"), "IKE is still listened for");
    pair.a.done(&["gateway", "create", "again", "address=192.0.2.1", "wan=wan", "lan=lan"])?;
    wait_for("the data plane of another gateway", PATIENCE, || {
        Ok(pair.a.done(&["status"])?.contains("\ndata plane: "))
    })?;
    drop(pair);
    topology.end()
}
