//! What is configured, through the API.

use super::{
    Gateway,
    api::{ask, request},
};
use crate::{ClientError, Problem};
use adit_control::resource::Kind;
use serde_json::{Map, Value, json};

fn given(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// The tunnel of these tests' peer.
fn tunnel(name: &str, subnet: u8) -> Map<String, Value> {
    given(json!({
        "name": name, "peer": "c", "local_subnets": ["10.1.0.0/16"],
        "remote_subnets": format!("10.{subnet}.0.0/16"), "psk": super::SECRET,
    }))
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Problem {
    match answer {
        Err(ClientError::Refused(problem)) => *problem,
        other => panic!("{other:?}"),
    }
}

impl Gateway {
    /// One request with a body of JSON; the status, the header and the body of the answer.
    async fn json(&self, method: &str, path: &str, header: &str, body: &Value) -> (u16, String, Value) {
        let header = format!("Content-Type: application/json\r\n{header}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (code, header, text) = ask(self.local().await, &request(method, path, &header, &body)).await;
        (code, header, serde_json::from_str(&text).unwrap_or_default())
    }
}

#[tokio::test]
async fn a_tunnel_is_made_changed_and_deleted() {
    let gateway = Gateway::start(40).await;
    let client = gateway.client();
    client.create(Kind::Peer, &given(json!({"name": "c", "address": "198.51.100.7"}))).await.unwrap();
    let made = client.create(Kind::Tunnel, &tunnel("a-c", 77)).await.unwrap();
    assert_eq!(
        (made["remote_subnets"][0].as_str(), made["ike"]["version"].as_str()),
        (Some("10.77.0.0/16"), Some("ikev2"))
    );
    let id = made["id"].as_str().unwrap();
    let running = client.tunnel(id).await.unwrap();
    assert_eq!((running.name.as_str(), running.peer.as_str()), ("a-c", "c"));
    let edited =
        client.edit(Kind::Tunnel, "a-c", &given(json!({"start": "respond", "remark": "x"}))).await.unwrap();
    assert_eq!((edited["start"].as_str(), edited["remark"].as_str()), (Some("respond"), Some("x")));
    assert_eq!(client.resource(Kind::Tunnel, id).await.unwrap()["revision"], edited["revision"]);
    let page = client.resources(Kind::Tunnel, &[("search", Some("10.77".into()))], 10, 0).await.unwrap();
    assert_eq!((page.total, page.items[0]["name"].as_str()), (1, Some("a-c")));
    client.delete(Kind::Tunnel, &[id.to_owned()]).await.unwrap();
    assert_eq!(refused(client.tunnel("a-c").await).status, 404);
    client.delete(Kind::Peer, &["c".into()]).await.unwrap();
    gateway.stop().await;
}

#[tokio::test]
async fn who_was_slower_changes_nothing() {
    let gateway = Gateway::start(41).await;
    gateway
        .client()
        .create(Kind::Peer, &given(json!({"name": "c", "address": "198.51.100.7"})))
        .await
        .unwrap();
    let path = "/v1/peers/c";
    let (code, header, _) = gateway.json("GET", path, "", &Value::Null).await;
    assert!(code == 200 && header.contains("etag: \"1\""), "{header}");
    let (code, header, _) =
        gateway.json("PATCH", path, "If-Match: \"1\"\r\n", &json!({"remark": "first"})).await;
    assert!(code == 200 && header.contains("etag: \"2\""), "{header}");
    for (method, body) in [
        ("PATCH", json!({"remark": "second"})),
        ("PUT", json!({"name": "c", "address": "any"})),
        ("DELETE", Value::Null),
    ] {
        let (code, _, problem) = gateway.json(method, path, "If-Match: \"1\"\r\n", &body).await;
        assert_eq!((code, problem["status"].as_u64()), (412, Some(412)), "{method}");
        assert!(problem["detail"].as_str().unwrap().contains("revision 2"), "{problem}");
        let (code, _, _) = gateway.json(method, path, "If-Match: W/\"2\"\r\n", &body).await;
        assert_eq!(code, 412, "{method}: a weak tag matches nothing");
    }
    let (_, _, peer) = gateway.json("GET", path, "", &Value::Null).await;
    assert_eq!((peer["remark"].as_str(), peer["address"].as_str()), (Some("first"), Some("198.51.100.7")));
    let (code, _, _) =
        gateway.json("PUT", path, "If-Match: \"2\"\r\n", &json!({"name": "c", "address": "any"})).await;
    assert_eq!(code, 200);
    // The gateway's file does not know of it, which is told.
    let (code, _, deleted) = gateway.json("DELETE", path, "If-Match: *\r\n", &Value::Null).await;
    let why = deleted["warnings"][0]["why"].as_str().unwrap();
    assert!(code == 200 && why.contains("adit.toml says what there is"), "{code} {why}");
    gateway.rewrite("[api]\n");
    gateway.client().reload().await.unwrap();
    let (_, _, made) = gateway.json("POST", "/v1/peers", "", &json!({"name": "c", "address": "any"})).await;
    assert_eq!((made["name"].as_str(), &made["warnings"]), (Some("c"), &Value::Null));
    let (code, _, _) = gateway.json("DELETE", path, "", &Value::Null).await;
    assert_eq!(code, 204);
    gateway.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_fields_and_what_it_clashes_with() {
    let gateway = Gateway::start(42).await;
    let client = gateway.client();
    let (code, header, _) =
        gateway.json("POST", "/v1/peers", "", &json!({"name": "c", "address": "198.51.100.7"})).await;
    assert!(code == 201 && header.contains("location: /v1/peers/peer-"), "{header}");
    client.create(Kind::Tunnel, &tunnel("a-c", 77)).await.unwrap();
    let field = |problem: &Problem, field: &str| {
        let found = problem.errors.iter().find(|e| e.field == field);
        found.cloned().unwrap_or_else(|| panic!("no {field} in {problem:?}"))
    };
    let problem = refused(client.create(Kind::Tunnel, &tunnel("a-c", 78)).await);
    assert_eq!(problem.status, 409);
    assert!(field(&problem, "name").clashes_with.unwrap().contains("a-c"));
    let problem = refused(client.create(Kind::Tunnel, &tunnel("other", 77)).await);
    assert_eq!(problem.status, 422);
    assert!(
        problem.errors.iter().any(|e| e.clashes_with.as_deref() == Some("tunnel \"a-c\"")),
        "{problem:?}"
    );
    for (name, value) in [("ike", json!({"lifetime": 1})), ("mtu", json!("big")), ("nothing", json!(1))] {
        let mut wrong = tunnel("wrong", 79);
        wrong.insert(name.into(), value);
        let problem = refused(client.create(Kind::Tunnel, &wrong).await);
        let path = if name == "ike" { "ike.lifetime" } else { name };
        assert_eq!(problem.status, 422);
        assert!(!field(&problem, path).detail.is_empty());
    }
    let problem = refused(client.delete(Kind::Peer, &["c".into()]).await);
    assert_eq!(problem.status, 409);
    assert!(problem.detail.contains("tunnel \"a-c\""), "{problem:?}");
    let both = ["a-c".to_owned(), "none".to_owned()];
    assert_eq!(refused(client.delete(Kind::Tunnel, &both).await).status, 404);
    assert!(client.resource(Kind::Tunnel, "a-c").await.is_ok(), "all of them or none");
    for (path, words) in [
        ("/v1/peers?limit=0", "limit: 1 to 1000"),
        ("/v1/peers?sort=x", "unknown variant"),
        ("/v1/peers?x=1", "unknown field"),
    ] {
        let (code, _, problem) = gateway.json("GET", path, "", &Value::Null).await;
        assert!(code == 400 && problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn no_resource_shows_its_key() {
    let gateway = Gateway::start(43).await;
    let client = gateway.client();
    client.create(Kind::Peer, &given(json!({"name": "c", "address": "198.51.100.7"}))).await.unwrap();
    let made = client.create(Kind::Tunnel, &tunnel("a-c", 77)).await.unwrap();
    let mut clash = tunnel("other", 77);
    clash.insert("psk".into(), format!("{} no", super::SECRET).into());
    let answers = [
        made.to_string(),
        format!("{:?}", refused(client.create(Kind::Tunnel, &clash).await)),
        client.resource(Kind::Tunnel, "a-c").await.unwrap().to_string(),
        format!(
            "{:?}",
            client.resources(Kind::Tunnel, &[("search", Some(super::SECRET.into()))], 9, 0).await.unwrap()
        ),
        client.edit(Kind::Tunnel, "a-c", &given(json!({"psk": super::SECRET}))).await.unwrap().to_string(),
    ];
    for answer in answers {
        assert!(!answer.contains(super::SECRET), "{answer}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn clients_that_change_the_same_resource_at_once_lose_no_change() {
    const CLIENTS: usize = 8;
    const CHANGES: usize = 5;
    let gateway = Gateway::start(45).await;
    let given = given(json!({"name": "c", "address": "any", "labels": {"count": "0"}}));
    gateway.client().create(Kind::Peer, &given).await.unwrap();
    let path = "/v1/peers/c";
    let count = |peer: &Value| -> usize { peer["labels"]["count"].as_str().unwrap().parse().unwrap() };
    // Reads the number, and writes the next one if nobody else was faster.
    let client = async || {
        let (mut done, mut late) = (0, 0);
        while done < CHANGES {
            let (_, _, seen) = gateway.json("GET", path, "", &Value::Null).await;
            let tag = format!("If-Match: \"{}\"\r\n", seen["revision"]);
            let patch = json!({"labels": {"count": (count(&seen) + 1).to_string()}});
            match gateway.json("PATCH", path, &tag, &patch).await.0 {
                200 => done += 1,
                412 => late += 1,
                other => panic!("{other}"),
            }
        }
        late
    };
    let late: usize = futures_util::future::join_all((0..CLIENTS).map(|_| client())).await.into_iter().sum();
    let (_, _, last) = gateway.json("GET", path, "", &Value::Null).await;
    assert_eq!((count(&last), last["revision"].as_u64()), (CLIENTS * CHANGES, Some(1 + 8 * 5)));
    assert!(late > 0, "they did not meet");
    gateway.stop().await;
}
