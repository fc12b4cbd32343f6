//! The server as other machines find it: over TLS, by whoever comes, in octets.

use super::{Gateway, aged};
use crate::{
    Client, ClientError, Events, NewToken, Problem, Remote, Scope, Trust, openapi, server::fingerprint,
};
use adit_control::{
    Action,
    peer_config::{Request, Vendor},
    resource::Kind,
    status::{Event, State},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use zeroize::Zeroizing;

impl Gateway {
    fn remote(&self, token: &str) -> Client {
        let (address, fingerprint) = self.server.https().unwrap();
        let trust = Trust::Fingerprint(fingerprint.to_owned());
        let token = Zeroizing::new(token.to_owned());
        Client::Remote(Remote::new(&format!("https://{address}"), token, &trust).unwrap())
    }

    async fn token(&self, scopes: &[Scope]) -> String {
        let name = scopes.iter().map(|s| s.word()).collect::<Vec<_>>().join("+");
        let new = NewToken { name, scopes: scopes.to_vec(), lifetime: None };
        self.client().create_token(&new).await.unwrap().token.to_string()
    }

    /// A connection over TLS, by the certificate that the server made.
    async fn tls(&self) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(self.dir.join("data/api.crt")).unwrap();
        assert_eq!(fingerprint(&certificate), self.server.https().unwrap().1);
        roots.add(certificate).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.server.https().unwrap().0).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    pub(super) async fn local(&self) -> UnixStream {
        UnixStream::connect(self.dir.join("adit.sock")).await.unwrap()
    }
}

/// Sends one request of these octets; the status, the header and the body of the answer.
pub(super) async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> (u16, String, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses a body may close before it has read it.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (header, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (header[9..12].parse().unwrap(), header.to_lowercase(), body.to_owned())
}

pub(super) fn request(method: &str, path: &str, header: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{header}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Every operation of the document: its method and a path that it has.
fn operations() -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    for (path, item) in &openapi().paths.paths {
        let path = path.replace("{name}", "a-b");
        let methods = [
            ("GET", item.get.is_some()),
            ("POST", item.post.is_some()),
            ("PUT", item.put.is_some()),
            ("PATCH", item.patch.is_some()),
            ("DELETE", item.delete.is_some()),
        ];
        all.extend(methods.into_iter().filter(|(_, there)| *there).map(|(method, _)| (method, path.clone())));
    }
    assert!(all.len() > 10, "{all:?}");
    all
}

#[tokio::test]
async fn each_route_is_opened_by_its_scope_and_by_nothing_less() {
    let gateway = Gateway::start(20).await;
    let [read, write] = [gateway.token(&[Scope::Read]).await, gateway.token(&[Scope::Write]).await];
    let status = async |method: &str, path: &str, token: &str| {
        // A stream has no end that a reader could wait for; what refuses it has.
        let path = if path == "/v1/events" { "/v1/events?tunnel=none" } else { path };
        let header =
            if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let (code, header, body) = ask(gateway.tls().await, &request(method, path, &header, "")).await;
        if code >= 400 {
            assert!(header.contains("content-type: application/problem+json"), "{method} {path}: {header}");
            assert_eq!(serde_json::from_str::<Problem>(&body).unwrap().status, code);
        }
        assert_eq!(header.contains("www-authenticate: bearer"), code == 401, "{method} {path}: {header}");
        code
    };
    for (method, path) in operations() {
        assert_eq!(status(method, &path, "").await, 401, "{method} {path}");
        let (enough, too_little) = if method == "GET" { (&read, &write) } else { (&write, &read) };
        assert_eq!(status(method, &path, too_little).await, 403, "{method} {path}");
        let code = status(method, &path, enough).await;
        assert!(code != 401 && code != 403 && code < 500, "{method} {path}: {code}");
    }
    for (wrong, _) in [("adit_0000000000000000.00", ()), ("nonsense", ()), (&read[..read.len() - 1], ())] {
        assert_eq!(status("GET", "/v1/status", wrong).await, 401);
    }
    assert_eq!(status("GET", "/v1/nothing", "").await, 401, "strangers do not learn what there is");
    assert_eq!(status("GET", "/v1/nothing", &read).await, 404);
    gateway.stop().await;
}

#[tokio::test]
async fn keys_take_a_scope_of_their_own() {
    let gateway = Gateway::start(21).await;
    gateway
        .rewrite(&super::config(21, &["a-b"]).replace("[[peer]]", "[api]\nreveal_secrets = true\n[[peer]]"));
    gateway.client().reload().await.unwrap();
    let ask = async |token: &str| {
        let request = Request { vendor: Vendor::Strongswan, with_psk: true, address: None };
        gateway.remote(token).peer_files("a-b", request).await
    };
    let Err(ClientError::Refused(problem)) = ask(&gateway.token(&[Scope::Read, Scope::Write]).await).await
    else {
        panic!()
    };
    assert_eq!((problem.status, problem.detail.contains("reveal-secrets")), (403, true));
    let revealing = gateway.token(&[Scope::Read, Scope::RevealSecrets]).await;
    assert!(ask(&revealing).await.unwrap()[0].text.contains(super::SECRET));
    // Nobody gives what he does not have.
    let writer = gateway.remote(&gateway.token(&[Scope::Write]).await);
    let new = NewToken { name: "more".into(), scopes: vec![Scope::RevealSecrets], lifetime: None };
    let Err(ClientError::Refused(problem)) = writer.create_token(&new).await else { panic!() };
    assert_eq!(problem.status, 403);
    // Nor takes it from others; itself it may end.
    for others in ["read+write", "read+reveal-secrets"] {
        let Err(ClientError::Refused(problem)) = writer.delete_token(others).await else {
            panic!("{others}")
        };
        assert_eq!(problem.status, 403);
    }
    writer.delete_token("write").await.unwrap();
    let left: Vec<_> = gateway.client().tokens().await.unwrap().into_iter().map(|t| t.name).collect();
    assert_eq!(left, ["read+write", "read+reveal-secrets"]);
    gateway.stop().await;
}

#[tokio::test]
async fn a_token_that_is_deleted_opens_nothing_and_who_goes_on_guessing_is_not_heard() {
    let gateway = Gateway::start(22).await;
    let token = gateway.token(&[Scope::Read]).await;
    let remote = gateway.remote(&token);
    assert_eq!(remote.status().await.unwrap().tunnels.len(), 1);
    let listed = gateway.client().tokens().await.unwrap();
    assert!(listed[0].last_used_at.is_some() && !format!("{listed:?}").contains(&token[22..]));
    gateway.client().delete_token("read").await.unwrap();
    let mut codes = Vec::new();
    while codes.last() != Some(&429) && codes.len() < 100 {
        let Err(ClientError::Refused(problem)) = remote.status().await else { panic!() };
        codes.push(problem.status);
    }
    assert_eq!(codes.len(), 11, "{codes:?}");
    assert!(codes[..10].iter().all(|code| *code == 401));
    let (_, header, _) = ask(gateway.tls().await, &request("GET", "/v1/status", "", "")).await;
    assert!(header.contains("retry-after: "), "{header}");
    assert!(gateway.client().status().await.is_ok(), "the socket is not strangers' business");
    gateway.stop().await;
}

#[tokio::test]
async fn another_certificate_is_not_talked_to() {
    let gateway = Gateway::start(23).await;
    let (address, fingerprint) = gateway.server.https().unwrap();
    let swapped: String = fingerprint.chars().rev().collect();
    let token = || Zeroizing::new("adit_0.0".to_owned());
    let remote = Remote::new(&format!("https://{address}"), token(), &Trust::Fingerprint(swapped)).unwrap();
    assert!(matches!(Client::Remote(remote).status().await, Err(ClientError::Unreachable { .. })));
    let by = Trust::Authorities(gateway.dir.join("data/api.crt"));
    let remote = Remote::new(&format!("https://{address}"), token(), &by).unwrap();
    assert!(matches!(Client::Remote(remote).status().await, Err(ClientError::Refused(p)) if p.status == 401));
    for url in ["http://127.0.0.1", "https://", "https://a/b", "127.0.0.1:8443"] {
        assert!(matches!(Remote::new(url, token(), &by), Err(ClientError::Place(_))), "{url}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_no_request_of_ours_is_refused_in_words() {
    let gateway = Gateway::start(24).await;
    let json = "Content-Type: application/json\r\n";
    let big = format!("\"{}\"", "x".repeat(1 << 20));
    let many = vec![r#"{"name": "x"}"#; 10_001].join(",");
    let many = format!("{{\"kind\": \"tunnel\", \"resources\": [{many}]}}");
    for (method, path, header, body, code, words) in [
        ("GET", "/", "", "", 404, "there is nothing at /"),
        ("GET", "/v1/tunnels/none/log", "", "", 404, "there is no tunnel \"none\""),
        ("GET", "/v1/tunnels/%FF/log", "", "", 400, "Invalid UTF-8"),
        ("POST", "/v1/status", "", "", 405, "POST is nothing that /v1/status takes"),
        ("BREW", "/v1/status", "", "", 405, "BREW"),
        ("POST", "/v1/tunnels/a-b/rekey?what=nothing", "", "", 400, "unknown variant `nothing`"),
        ("GET", "/v1/tunnels/a-b/peer-config?for=acme", "", "", 400, "acme"),
        ("POST", "/v1/tokens", "", "{}", 415, "application/json"),
        ("POST", "/v1/tokens", json, "{", 400, "EOF while parsing"),
        ("POST", "/v1/tokens", json, "{\"name\": 1, \"scopes\": []}", 422, "expected a string"),
        ("POST", "/v1/tokens", json, "{\"name\": \"a\", \"scopes\": [], \"x\": 1}", 422, "unknown field `x`"),
        ("POST", "/v1/tokens", json, "{\"name\": \"a\", \"scopes\": []}", 422, "at least one of"),
        ("POST", "/v1/tokens", json, &big, 413, "length limit"),
        ("POST", "/v1/delete", json, &many, 422, "at most 10000"),
    ] {
        let (found, head, text) = ask(gateway.local().await, &request(method, path, header, body)).await;
        let problem: Problem =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{method} {path}: {e}: {text}"));
        assert_eq!((found, problem.status), (code, code), "{method} {path}: {text}");
        assert!(problem.detail.contains(words), "{method} {path}: {text}");
        assert!(head.contains("application/problem+json") && problem.kind == "about:blank");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn who_takes_his_time_is_let_go_and_keeps_nobody_waiting() {
    let gateway = Gateway::start(25).await;
    let mut silent = gateway.local().await;
    let mut slow = gateway.local().await;
    slow.write_all(b"GET /v1/status HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.unwrap();
    let mut body = gateway.local().await;
    let begun = "POST /v1/tokens HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Content-Length: 100\r\n\r\n{";
    body.write_all(begun.as_bytes()).await.unwrap();
    assert!(gateway.client().status().await.is_ok());
    tokio::time::pause();
    let mut rest = Vec::new();
    for stream in [&mut silent, &mut slow] {
        aged(stream.read_to_end(&mut rest)).await.unwrap();
    }
    rest.clear();
    aged(body.read_to_end(&mut rest)).await.unwrap();
    assert!(String::from_utf8(rest).unwrap().starts_with("HTTP/1.1 408"));
    tokio::time::resume();
    assert!(gateway.client().status().await.is_ok());
    gateway.stop().await;
}

#[tokio::test]
async fn what_happens_to_a_tunnel_is_told_to_who_follows_it() {
    let gateway = Gateway::start(26).await;
    gateway.rewrite(&super::config(26, &["a-b", "a-c"]));
    gateway.client().reload().await.unwrap();
    let remote = gateway.remote(&gateway.token(&[Scope::Read]).await);
    let mut all = remote.events(None).await.unwrap();
    let mut one = remote.events(Some("a-c")).await.unwrap();
    gateway.client().act("a-b", Action::Down).await.unwrap();
    gateway.client().act("a-c", Action::Down).await.unwrap();
    let next_state = async |events: &mut Events| loop {
        match events.next().await.unwrap().unwrap() {
            Event::State { tunnel, state } => return (tunnel, state),
            Event::Log { tunnel, entry } => {
                let log = gateway.client().log(&tunnel).await.unwrap();
                assert!(log.contains(&entry), "{entry:?} of {log:?}");
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(next_state(&mut all).await, ("a-b".into(), State::Disabled));
    assert_eq!(next_state(&mut one).await, ("a-c".into(), State::Disabled));
    gateway.rewrite(&super::config(26, &["a-b"]));
    gateway.client().reload().await.unwrap();
    assert_eq!(one.next().await.unwrap(), Some(Event::Removed { tunnel: "a-c".into() }));
    assert!(matches!(remote.events(Some("a-c")).await, Err(ClientError::Refused(p)) if p.status == 404));
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_of_events_is_of_a_tunnel_by_its_id_and_ends_with_the_token() {
    let gateway = Gateway::start(31).await;
    let remote = gateway.remote(&gateway.token(&[Scope::Read]).await);
    let listed = gateway.control.store().list::<adit_control::resource::Tunnel>().await.unwrap();
    let mut by_id = remote.events(Some(&listed[0].meta.id)).await.unwrap();
    let mut local = gateway.client().events(None).await.unwrap();
    gateway.client().act("a-b", Action::Down).await.unwrap();
    while !matches!(by_id.next().await.unwrap(), Some(Event::State { tunnel, .. }) if tunnel == "a-b") {}
    let name = [("name".to_owned(), "other".into())].into_iter().collect();
    gateway.client().edit(Kind::Tunnel, "a-b", &name).await.unwrap();
    let renamed = Event::Renamed { tunnel: "a-b".into(), to: "other".into() };
    while by_id.next().await.unwrap().as_ref() != Some(&renamed) {}
    gateway.client().act("other", Action::Up).await.unwrap();
    while !matches!(by_id.next().await.unwrap(), Some(Event::State { tunnel, .. }) if tunnel == "other") {}
    gateway.client().delete_token("read").await.unwrap();
    while by_id.next().await.unwrap().is_some() {}
    assert!(local.next().await.unwrap().is_some());
    gateway.stop().await;
}

#[tokio::test]
async fn who_is_nobody_has_a_connection_for_one_request() {
    let gateway = Gateway::start(32).await;
    let twice = "GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
    let (code, header, rest) = ask(gateway.tls().await, &twice).await;
    assert_eq!((code, header.contains("connection: close")), (401, true), "{header}");
    assert!(!rest.contains("HTTP/1.1"), "{rest}");
    gateway.stop().await;
}

#[test]
fn the_document_is_the_one_that_is_committed() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let text = openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("ADIT_UPDATE_OPENAPI").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == text,
        "docs/openapi.json is of another version: ADIT_UPDATE_OPENAPI=1 cargo test -p adit-api document"
    );
}
