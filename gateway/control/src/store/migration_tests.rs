//! Databases of earlier versions: `version_1` holds one as the first Adit with a store wrote it, with its key.

use super::{tests::*, *};
use crate::resource::{Gateway, Peer, Tunnel};
use std::{fs, os::unix::fs::PermissionsExt};

/// A directory as the process of that version left it.
fn version_1() -> Dir {
    let dir = Dir::new();
    fs::create_dir_all(&dir.0).unwrap();
    for (name, octets) in [
        ("adit.db", &include_bytes!("version_1/adit.db")[..]),
        ("adit.key", &include_bytes!("version_1/adit.key")[..]),
    ] {
        let file = dir.0.join(name);
        fs::write(&file, octets).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    dir
}

fn version(dir: &Dir) -> i64 {
    let connection = rusqlite::Connection::open(dir.0.join("adit.db")).unwrap();
    connection.query_row("PRAGMA user_version", (), |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_database_of_version_1_becomes_one_of_today_with_all_that_is_in_it() {
    let dir = version_1();
    assert_eq!(version(&dir), 1);
    let store = dir.open();
    assert!(version(&dir) >= 2);
    assert_eq!(store.list::<Gateway>().await.unwrap()[0].meta.name, "a");
    let peers: Vec<_> = store.list::<Peer>().await.unwrap().into_iter().map(|p| p.meta.name).collect();
    assert_eq!(peers, ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]);
    let tunnel = store.get::<Tunnel>("a-b").await.unwrap();
    assert_eq!((tunnel.meta.revision, tunnel.spec.peer.as_str()), (2, "1-0"));
    assert_eq!(store.reveal("a-b").await.unwrap().psk.reveal(), SECRET.as_bytes());
    assert_eq!(store.tokens().await.unwrap(), []);
    assert_eq!(store.config(config::Api::default()).await.unwrap().unwrap().tunnels.len(), 1);
    // What references what has come along.
    let in_use = store.delete::<Peer>(vec![("1-0".into(), None)], nobody()).await.unwrap_err();
    assert_eq!(in_use.to_string(), "peer \"1-0\" is in use by tunnel \"a-b\"");
    store.create::<Peer>(peer("new", "any"), nobody()).await.unwrap();
    drop(store);
    assert_eq!(dir.open().list::<Peer>().await.unwrap().len(), 7);
}

/// An earlier version took line breaks in remarks, and identities of which no message can be made.
#[tokio::test]
async fn a_gateway_runs_on_with_what_is_refused_today() {
    let dir = version_1();
    let connection = rusqlite::Connection::open(dir.0.join("adit.db")).unwrap();
    let sql = "UPDATE resource SET given = json_set(given, '$.remark', ?1, '$.ike', json_object('local_id', ?2)) \
               WHERE name = 'a-b'";
    let long = "x".repeat(70_000);
    assert_eq!(connection.execute(sql, ("\u{1b}[2J\n", &long)).unwrap(), 1);
    drop(connection);
    let store = dir.open();
    assert_eq!(store.get::<Tunnel>("a-b").await.unwrap().meta.remark, " [2J ");
    let config = store.config(config::Api::default()).await.unwrap().unwrap();
    assert!(config.tunnels[0].local_id.fits() && long.starts_with(&config.tunnels[0].local_id.to_string()));
    let patch = given(serde_json::json!({"enabled": false}));
    store.update::<Tunnel>("a-b", None, Edit::Merge(patch), nobody()).await.unwrap();
}
