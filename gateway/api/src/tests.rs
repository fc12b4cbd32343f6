mod api;
mod resources;

use crate::{CONTENT_TYPE, Client, ClientError, Identity, Listen, ServeError, Server, render};
use adit_control::{
    Action, Config, Control, Options, Rekey, own_document,
    peer_config::{Request, Vendor},
    status::{LogEntry, ResourceStatus, State},
    store::{Store, nobody},
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SECRET: &str = "Sentinel-0f-the-secret-key";

/// Has a clock that stands go on, ten times as fast as others, until `work` is done: tokio does not move it itself while
/// control has a thread of its own.
async fn aged<T>(work: impl Future<Output = T>) -> T {
    let ages = async {
        for _ in 0..3000 {
            tokio::time::advance(Duration::from_millis(100)).await;
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(10))).await.unwrap();
        }
    };
    tokio::select! {
        done = work => done,
        () = ages => panic!("nothing has come of it in five minutes"),
    }
}

/// A control without a data plane, on a loopback address of its own, with a server before it.
struct Gateway {
    dir: PathBuf,
    control: Control,
    server: Server,
}

impl Gateway {
    async fn start(host: u8) -> Gateway {
        Gateway::of(host, true).await
    }

    /// One whose store says what its file does, and which has that file or none.
    async fn of(host: u8, has_file: bool) -> Gateway {
        let dir = std::env::temp_dir().join(format!("adit-api-{}-{host}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("adit.toml");
        fs::write(&file, config(host, &["a-b"])).unwrap();
        let config = Config::load(&file).unwrap();
        // Nothing can be kept there, and nothing has to be.
        let state_dir = "/dev/null/sas".into();
        let store = Store::open(&dir.join("data"), None).unwrap();
        let adopted = store.adopt(own_document(&file).await.unwrap(), nobody()).await.unwrap();
        let adopted = Some(adopted).filter(|_| has_file);
        let options = Options { adopted, store, config, bpf_dir: dir.join("bpf"), state_dir };
        let (control, _) = Control::start(options).await.unwrap();
        let server = Server::start(control.clone(), &listen(&dir, "adit.sock")).await.unwrap();
        Gateway { dir, control, server }
    }

    fn client(&self) -> Client {
        Client::new(self.dir.join("adit.sock"))
    }

    fn rewrite(&self, text: &str) {
        fs::write(self.dir.join("adit.toml"), text).unwrap();
    }

    async fn stop(self) {
        self.control.shutdown().await;
        drop(self.server);
        assert!(!self.dir.join("adit.sock").exists());
        fs::remove_dir_all(self.dir).unwrap();
    }
}

/// Everything that can be listened on, on ports that are free.
fn listen(dir: &Path, socket: &str) -> Listen {
    let any = "127.0.0.1:0".parse().unwrap();
    let identity =
        Identity::Own { directory: dir.join("data"), addresses: vec!["127.0.0.1".parse().unwrap()] };
    Listen {
        socket: dir.join(socket),
        metrics: Some(any),
        https: Some((any, identity)),
        tokens_of_old: dir.join("data/tokens.json"),
    }
}

fn config(host: u8, tunnels: &[&str]) -> String {
    let mut text = format!(
        "[gateway]\nname = \"a\"\naddress = \"127.83.17.{host}\"\nwan = \"lo\"\nlan = [\"lo\"]\n\
         [[peer]]\nname = \"b\"\naddress = \"198.51.100.1\"\n"
    );
    for (i, name) in tunnels.iter().enumerate() {
        text += &format!(
            "[[tunnel]]\nname = \"{name}\"\npeer = \"b\"\nlocal_subnets = \"10.1.0.0/16\"\n\
             remote_subnets = \"10.{}.0.0/16\"\npsk = \"{SECRET}\"\n",
            i + 2
        );
    }
    text
}

/// The words of a refusal.
fn words<T>(answer: Result<T, ClientError>) -> Result<T, String> {
    answer.map_err(|e| match e {
        ClientError::Refused(problem) => problem.detail,
        e => panic!("{e}"),
    })
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_tunnel_that_is_down_is_in_the_metrics_with_zeros() {
    let gateway = Gateway::start(1).await;
    let text = gateway.client().metrics().await.unwrap();
    for line in [
        "adit_tunnel_bytes_total{tunnel=\"a-b\",direction=\"in\"} 0",
        "adit_tunnel_bytes_total{tunnel=\"a-b\",direction=\"out\"} 0",
        "adit_tunnel_packets_total{tunnel=\"a-b\",direction=\"in\"} 0",
        "adit_tunnel_health{tunnel=\"a-b\"} 0",
        "adit_tunnel_state{tunnel=\"a-b\",state=\"connecting\"} 1",
        "adit_tunnel_state{tunnel=\"a-b\",state=\"connected\"} 0",
        "adit_tunnel_drops_total{tunnel=\"a-b\",cause=\"replay\"} 0",
        "adit_tunnel_drops_total{tunnel=\"a-b\",cause=\"authentication\"} 0",
        "adit_ike_datagrams_dropped_total{cause=\"malformed\"} 0",
        "adit_ike_exchanges_total{exchange=\"ike_sa_init\",result=\"done\"} 0",
        "adit_tunnel_rekeys_total{tunnel=\"a-b\",sa=\"ike\"} 0",
        "adit_tunnel_rekeys_total{tunnel=\"a-b\",sa=\"child\"} 0",
        "adit_data_plane_up 0",
        "# TYPE adit_tunnel_bytes_total counter",
        "# TYPE adit_tunnel_health gauge",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn metrics_alone_are_served_over_tcp() {
    let gateway = Gateway::start(2).await;
    let address = gateway.server.metrics_address().unwrap();
    let answer = get(address, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains("adit_build_info"), "{answer}");
    assert!(answer.contains(&format!("content-type: {CONTENT_TYPE}")), "{answer}");
    assert_eq!(CONTENT_TYPE, "text/plain; version=0.0.4");
    assert!(get(address, "/v1/status").await.starts_with("HTTP/1.0 404"));
    gateway.stop().await;
}

#[tokio::test]
async fn whoever_holds_connections_open_does_not_shut_the_scraper_out() {
    let gateway = Gateway::start(7).await;
    let address = gateway.server.metrics_address().unwrap();
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    tokio::time::pause();
    let answer = aged(get(address, "/metrics")).await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let mut closed = [0];
    assert_eq!(aged(idle[0].read(&mut closed)).await.unwrap(), 0, "the first to come was let go");
    tokio::time::resume();
    gateway.stop().await;
}

#[tokio::test]
async fn a_file_of_a_process_that_died_is_no_obstacle() {
    let gateway = Gateway::start(8).await;
    let socket = gateway.dir.join("other.sock");
    for stale in [socket.clone(), gateway.dir.join(format!(".{}", std::process::id()))] {
        drop(std::os::unix::net::UnixListener::bind(stale).unwrap());
    }
    let second = Server::start(gateway.control.clone(), &listen(&gateway.dir, "other.sock")).await.unwrap();
    assert!(Client::new(&socket).status().await.is_ok());
    drop(second);
    gateway.stop().await;
}

#[tokio::test]
async fn another_name_of_the_peer_touches_nothing() {
    let gateway = Gateway::start(9).await;
    gateway.rewrite(&config(9, &["a-b"]).replace("\"b\"", "\"berlin\""));
    let done = gateway.client().reload().await.unwrap();
    assert_eq!((done.changed.len(), done.unchanged), (0, 1));
    assert_eq!(gateway.client().status().await.unwrap().tunnels[0].peer, "berlin");
    gateway.stop().await;
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_for_one_gateway() {
    let gateway = Gateway::start(3).await;
    let socket = gateway.dir.join("adit.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let second = Server::start(gateway.control.clone(), &listen(&gateway.dir, "adit.sock")).await;
    assert!(matches!(second, Err(ServeError::Taken(_))));
    gateway.stop().await;
}

#[tokio::test]
async fn a_reload_applies_what_differs_or_nothing() {
    let gateway = Gateway::start(4).await;
    let client = gateway.client();
    gateway.rewrite(&config(4, &["a-b", "a-c"]));
    let done = client.reload().await.unwrap();
    assert_eq!(
        (done.added, done.changed, done.removed, done.unchanged),
        (vec!["a-c".into()], vec![], vec![], 1)
    );

    gateway.rewrite(&config(4, &["a-b"]).replace("10.2.0.0/16", "10.2.0.0/33"));
    let Err(why) = words(client.reload().await) else { panic!() };
    assert!(why.contains("adit.toml:13:18: tunnel \"a-b\".remote_subnets: \"10.2.0.0/33\""), "{why}");
    let status = client.status().await.unwrap();
    assert_eq!(status.tunnels.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a-b", "a-c"]);
    assert_eq!(status.gateway.refused_reload, Some(why));

    gateway.rewrite(&config(4, &["a-b"]).replace("127.83.17.4", "192.0.2.77"));
    let Err(why) = words(client.reload().await) else { panic!() };
    assert!(why.contains("192.0.2.77") && why.ends_with("everything goes on as it was"), "{why}");

    gateway.rewrite(&config(4, &["a-c"]));
    let done = client.reload().await.unwrap();
    assert_eq!((done.added, done.changed, done.removed), (vec![], vec!["a-c".into()], vec!["a-b".into()]));
    assert_eq!(client.status().await.unwrap().gateway.refused_reload, None);
    gateway.stop().await;
}

#[tokio::test]
async fn a_reload_says_where_no_file_says_what_there_is() {
    let gateway = Gateway::of(44, false).await;
    let client = gateway.client();
    let done = client.reload().await.unwrap();
    assert_eq!(done.note.as_deref(), Some("there is no file to read: what is stored is what runs"));
    assert_eq!((done.unchanged, client.status().await.unwrap().gateway.refused_reload), (1, None));
    assert!(client.metrics().await.unwrap().contains("adit_config_reload_refused 0\n"));
    gateway.stop().await;

    let gateway = Gateway::of(46, true).await;
    let client = gateway.client();
    let begun = client.gateway_log().await.unwrap();
    let applied = |entry: &LogEntry| entry.text.contains("adit.toml is applied: gateway \"a\" created; ");
    assert!(begun.iter().any(applied), "{begun:?}");
    assert_eq!(client.reload().await.unwrap().note, None);
    gateway.rewrite("[api]\nreveal_secrets = true\n");
    let done = client.reload().await.unwrap();
    let note = done.note.unwrap();
    assert!(
        note.ends_with("adit.toml is read: it names no resource, so what is stored stays as it is"),
        "{note}"
    );
    assert_eq!((done.removed.len(), done.unchanged), (0, 1));
    assert!(gateway.control.reveals_secrets().await.unwrap());
    gateway.stop().await;
}

#[tokio::test]
async fn a_tunnel_is_taken_down_and_up_by_hand() {
    let gateway = Gateway::start(10).await;
    let client = gateway.client();
    let state = async || client.status().await.unwrap().tunnels[0].state;
    let done = client.act("a-b", Action::Down).await.unwrap();
    assert_eq!(
        (done.as_str(), state().await),
        ("tunnel \"a-b\" is down, until `adit tunnel up`", State::Disabled)
    );
    let done = client.act("a-b", Action::Up).await.unwrap();
    assert_eq!(
        (done.as_str(), state().await),
        ("tunnel \"a-b\" waits for the data plane", State::Connecting)
    );
    for what in [Rekey::All, Rekey::Ike, Rekey::Child] {
        let Err(why) = words(client.act("a-b", Action::Rekey(what)).await) else { panic!() };
        assert_eq!(why, "tunnel \"a-b\" is not up: there is nothing to renew");
    }
    let Err(why) = words(client.act("none", Action::Up).await) else { panic!() };
    assert_eq!(why, "there is no tunnel \"none\"");
    gateway.rewrite(&config(10, &["a-b"]).replace("psk = ", "enabled = false\npsk = "));
    client.reload().await.unwrap();
    let Err(why) = words(client.act("a-b", Action::Up).await) else { panic!() };
    assert_eq!(why, "tunnel \"a-b\" is disabled in the configuration");
    gateway.stop().await;
}

#[tokio::test]
async fn the_other_side_is_told_the_key_only_where_that_is_allowed() {
    let gateway = Gateway::start(11).await;
    let client = gateway.client();
    let ask = async |tunnel: &str, with_psk| {
        let request = Request { vendor: Vendor::Strongswan, with_psk, address: "203.0.113.9".parse().ok() };
        client.peer_files(tunnel, request).await
    };
    let files = ask("a-b", false).await.unwrap();
    assert_eq!(files[0].name, "swanctl.conf");
    assert!(files[0].text.contains("remote_addrs = 203.0.113.9") && !files[0].text.contains(SECRET));
    let Err(why) = words(ask("a-b", true).await) else { panic!() };
    assert!(why.contains("reveal_secrets = true") && !why.contains(SECRET), "{why}");
    let Err(why) = words(ask("none", false).await) else { panic!() };
    assert_eq!(why, "there is no tunnel \"none\"");

    gateway.rewrite(&config(11, &["a-b"]).replace("[[peer]]", "[api]\nreveal_secrets = true\n[[peer]]"));
    client.reload().await.unwrap();
    assert!(ask("a-b", true).await.unwrap()[0].text.contains(SECRET));
    assert!(!ask("a-b", false).await.unwrap()[0].text.contains(SECRET));
    gateway.stop().await;
}

#[tokio::test]
async fn no_answer_holds_a_secret() {
    let gateway = Gateway::start(6).await;
    let client = gateway.client();
    gateway.rewrite(&config(6, &["odd name/ä"]));
    client.reload().await.unwrap();
    let log = client.log("odd name/ä").await.unwrap();
    let status = client.status().await.unwrap();
    assert_eq!(status.tunnels[0].state, State::Connecting);
    gateway.rewrite(&config(6, &["odd name/ä"]).replace("psk = ", "pks = "));
    let refused = client.reload().await.unwrap_err();
    let everything = [
        serde_json::to_string(&status).unwrap(),
        format!("{status:?} {log:?} {refused} {refused:?}"),
        render(&status),
    ];
    assert!(everything.iter().all(|text| !text.contains(SECRET)));
    let Err(why) = words(client.log("none").await) else { panic!() };
    assert_eq!(why, "there is no tunnel \"none\"");
    gateway.stop().await;
}

#[tokio::test]
async fn without_a_gateway_the_client_says_what_to_do() {
    let e = Client::new(Path::new("/nonexistent/adit.sock")).status().await.unwrap_err();
    assert!(e.to_string().contains("is `adit run` running?"), "{e}");
}

/// Asks for the first tunnel and the last of many that come or go, until it is over: how often one was as it will be and the
/// other as it was, and what was told of them.
async fn ask(control: Control, over: Arc<AtomicBool>, come: bool) -> (u32, BTreeSet<&'static str>) {
    let (mut partial, mut seen) = (0, BTreeSet::new());
    while !over.load(Relaxed) {
        // Who is seen first is as it will be, who is seen after that as it was.
        for (first, then) in [("t0", "t1999"), ("t1999", "t0")] {
            let first = control.tunnel_status(first).await.unwrap();
            let then = control.tunnel_status(then).await.unwrap();
            partial += u32::from(first.is_some() == come && then.is_some() != come);
            seen.extend([first, then].into_iter().flatten().map(|t| t.status.label()));
        }
    }
    (partial, seen)
}

/// Counts what IKE's task is at: of two thousand tunnels that come and go it does some, answers, and does some more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ike_has_its_turn_while_thousands_of_tunnels_come_and_go() {
    const ALL: u32 = 2000;
    let gateway = Gateway::start(12).await;
    let base = config(12, &["a-b"]);
    let mut text = base.clone();
    for number in 0..ALL {
        let (x, y) = (number / 250 + 100, number % 250);
        text += &format!(
            "[[tunnel]]\nname = \"t{number}\"\npeer = \"b\"\nlocal_subnets = \"10.1.0.0/16\"\n\
             remote_subnets = \"10.{x}.{y}.0/24\"\npsk = \"{SECRET}\"\nstart = \"respond\"\n"
        );
    }
    // Whether anybody is scheduled in the few milliseconds that it takes is not for this test to say: it tries again.
    let mut wanting = BTreeSet::from([true, false]);
    for _ in 0..40 {
        for (text, come) in [(&text, true), (&base, false)] {
            gateway.rewrite(text);
            let over = Arc::new(AtomicBool::new(false));
            // Some always wait to be answered.
            let asking: Vec<_> =
                (0..8).map(|_| tokio::spawn(ask(gateway.control.clone(), over.clone(), come))).collect();
            gateway.control.reload("the test").await.unwrap();
            over.store(true, Relaxed);
            let (mut partial, mut seen) = (0, BTreeSet::new());
            for asker in asking {
                let (answered, statuses) = asker.await.unwrap();
                partial += answered;
                seen.extend(statuses);
            }
            if partial > 0 && seen.contains(if come { "creating" } else { "deleting" }) {
                wanting.remove(&come);
            }
            let status = gateway.control.status().await.unwrap();
            assert_eq!(status.tunnels.len() as u32, if come { ALL + 1 } else { 1 });
            assert!(status.tunnels.iter().all(|t| t.status == ResourceStatus::Running));
        }
        if wanting.is_empty() {
            break;
        }
    }
    assert!(wanting.is_empty(), "nobody was answered between the first tunnel and the last: {wanting:?}");
    gateway.stop().await;
}
