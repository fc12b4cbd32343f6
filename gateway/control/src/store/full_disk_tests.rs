use super::{tests::*, *};
use crate::resource::{Kind, Peer};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

const DIRECTORY: &str = "ADIT_STORE_FULL";

/// The process whose disk is small: it fills it, and looks what is left.
#[tokio::test]
#[ignore = "runs in a mount namespace of its own, which a_full_disk_is_told_and_loses_nothing makes"]
async fn fills_its_disk() {
    let Some(dir) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![0; 128 << 10]).unwrap();
    let data = dir.join("data");
    let store = Store::open(&data, None).unwrap();
    let mut given = peer("", "any");
    given.insert("remark".into(), "x".repeat(256).into());
    let mut acknowledged = Vec::new();
    let refused = loop {
        let name = format!("peer-{}", acknowledged.len());
        given.insert("name".into(), name.clone().into());
        match store.create::<Peer>(given.clone(), nobody()).await {
            Ok(_) => acknowledged.push(name),
            Err(refused) => break refused,
        }
        assert!(acknowledged.len() < 100_000, "the disk is not small");
    };
    assert!(matches!(refused, StoreError::Database { .. }), "{refused}");
    assert!(refused.to_string().contains("adit.db refuses: database or disk is full"), "{refused}");
    let names = async |store: &Store| -> Vec<String> {
        store.list::<Peer>().await.unwrap().into_iter().map(|peer| peer.meta.name).collect()
    };
    assert!(acknowledged.len() > 20 && names(&store).await == acknowledged, "{}", acknowledged.len());
    // Where there is room again, it goes on; and another process finds all of it.
    fs::remove_file(ballast).unwrap();
    store.create::<Peer>(given.clone(), nobody()).await.unwrap();
    acknowledged.push(given["name"].as_str().unwrap().to_owned());
    store.delete::<Peer>(vec![(acknowledged.remove(0), None)], nobody()).await.unwrap();
    drop(store);
    let store = Store::open(&data, None).unwrap();
    assert_eq!(names(&store).await, acknowledged);
    let last = store.get::<Peer>(acknowledged.last().unwrap()).await.unwrap();
    assert_eq!((last.meta.remark.len(), <Peer as Resource>::KIND), (256, Kind::Peer));
    println!("{} peers", acknowledged.len());
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let dir = Dir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let test = std::env::current_exe().unwrap();
    let is_root = fs::metadata("/proc/self").is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).args((!is_root).then_some("--map-root-user"));
    command.args(["sh", "-ec", "mount -t tmpfs -o size=640k none \"$1\"; shift; exec \"$@\"", "sh"]);
    command.arg(&dir.0).arg(test);
    command.args(["store::full_disk_tests::fills_its_disk", "--exact", "--ignored", "--nocapture"]);
    let output = command.env(DIRECTORY, &dir.0).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !is_root && said.contains("unshare failed") {
        println!("skipped: a mount namespace takes root here");
        return;
    }
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
