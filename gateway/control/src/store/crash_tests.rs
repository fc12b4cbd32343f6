use super::{tests::*, *};
use crate::resource::Peer;
use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

const DIRECTORY: &str = "ADIT_STORE_CRASH";
/// Peers of one batch.
const BATCH: usize = 3;

/// The process that is killed: it says which batches have been acknowledged, and does not end by itself.
#[test]
#[ignore = "runs as a process of its own, which a_kill_loses_nothing_and_leaves_no_half starts"]
fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let store = Store::open(dir.as_ref(), None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for batch in runtime.block_on(store.list::<Peer>()).unwrap().len() / BATCH.. {
        let peer = |i| format!("[[peer]]\nname = \"{batch}-{i}\"\naddress = \"any\"\n");
        let text =
            include_str!("../config/tests/good.toml").to_owned() + &(1..BATCH).map(peer).collect::<String>();
        let text = text.replace("\"b\"", &format!("\"{batch}-0\""));
        let document = Document {
            text: text.into(),
            name: "t".into(),
            prune: false,
            dry_run: false,
            digest: None,
            is_own: false,
        };
        runtime.block_on(store.apply(document, nobody())).unwrap();
        writeln!(std::io::stderr(), "acknowledged {batch}").unwrap();
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_and_leaves_no_half() {
    let dir = Dir::new();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["store::crash_tests::writes_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, &dir.0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
        let last: usize = said.take(4 + round).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let peers = dir.open().list::<Peer>().await.unwrap();
        // What is acknowledged is there, and nothing by halves; another batch may have come just before the end.
        assert!(
            peers.len() >= (last + 1) * BATCH && peers.len().is_multiple_of(BATCH),
            "{last}: {}",
            peers.len()
        );
    }
}
