//! Which user of the host may do what.

use axum::body::Body;
use http::{Method, Request};
use nix::unistd::{Gid, Uid, User};
use serde_json::{Value, json};
use vmint_api::http::{Origin, Peer};

use crate::listeners::Listening;
use crate::support::{FakeFactory, Harness, Reply, plan};

const ROOT: u32 = 0;
/// Two users of the host that are neither root nor this test's.
const ALICE: u32 = 4001;
const BOB: u32 = 4002;

/// Routes for every user of the host.
const OPEN: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/openapi.json"];
/// Routes for those who operate the service.
const OPERATE: [(&str, &str); 8] = [
    ("post", "/v1/templates/{name}/rebuild"),
    ("post", "/v1/templates/{name}/rollback"),
    ("patch", "/v1/pools/{template}"),
    ("post", "/v1/pools/{template}/drain"),
    ("post", "/v1/pools/{template}/resume"),
    ("post", "/v1/drain"),
    ("post", "/v1/resume"),
    ("post", "/v1/config/reload"),
];

/// A request of a user.
fn by(uid: u32, origin: Origin, method: &str, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method.to_uppercase().parse::<Method>().unwrap())
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .extension(origin)
        .extension(Peer { uid, gid: None })
}

/// Any body will do: who asks is looked at first.
async fn ask(harness: &Harness, uid: u32, origin: Origin, method: &str, path: &str) -> Reply {
    let request = by(uid, origin, method, path).body(Body::from("{}"));
    harness.send(request.unwrap()).await
}

/// A sandbox of a user of the Unix socket.
async fn sandbox_of(harness: &Harness, uid: u32) -> Value {
    let made = ask(harness, uid, Origin::Unix, "post", "/v1/sandboxes").await;
    made.ok(201)
}

/// Every operation of the document, with paths that lead somewhere.
async fn operations(harness: &Harness, sandbox: &str) -> Vec<(String, String, String)> {
    let document = harness.get("/openapi.json").await.ok(200);
    let mut all = Vec::new();
    for (route, item) in document["paths"].as_object().unwrap() {
        let path = route
            .replace("/v1/builds/{id}", "/v1/builds/none")
            .replace("{id}", sandbox)
            .replace("{name}", "default")
            .replace("{template}", "default")
            .replace("{process}", "p1");
        for method in item.as_object().unwrap().keys() {
            all.push((method.clone(), route.clone(), path.clone()));
        }
    }
    assert!(all.len() > 30);
    all
}

#[tokio::test]
async fn a_user_who_is_not_in_the_group_gets_health_and_nothing_else_over_tcp() {
    let harness = Harness::start().await;
    let own = sandbox_of(&harness, ALICE).await;
    let id = own["id"].as_str().unwrap();
    for (method, route, path) in operations(&harness, id).await {
        let reply = ask(&harness, ALICE, Origin::Tcp, &method, &path).await;
        if OPEN.contains(&route.as_str()) {
            assert_eq!(reply.status, 200, "{method} {route}");
            continue;
        }
        let detail = reply.problem(403, "forbidden");
        for word in ["4001", "root", "hint", "server.socket_group"] {
            assert!(detail.contains(word), "{word}: {detail}");
        }
    }
    for path in ["/nope", "/v1/sandboxes/nope"] {
        let reply = ask(&harness, ALICE, Origin::Tcp, "get", path).await;
        reply.problem(403, "forbidden");
    }
}

#[tokio::test]
async fn a_request_of_nobody_that_is_known_is_refused_with_the_reason() {
    let listening = Listening::start_without_diag().await;
    for path in ["/healthz", "/v1/pools"] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = listening.ask_as(None, head).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("tcp_diag"), "{answer}");
    }
    listening.harness.get("/healthz").await.ok(200);
}

#[tokio::test]
async fn who_may_open_the_socket_uses_sandboxes_and_does_not_operate_the_service() {
    let harness = Harness::start().await;
    let own = sandbox_of(&harness, ALICE).await;
    let id = own["id"].as_str().unwrap();
    let command = by(
        ALICE,
        Origin::Unix,
        "post",
        &format!("/v1/sandboxes/{id}/processes"),
    );
    let command = command.body(Body::from(json!({"argv": ["hang"]}).to_string()));
    assert_eq!(harness.send(command.unwrap()).await.ok(201)["id"], "p1");
    let mut refused = Vec::new();
    for (method, route, path) in operations(&harness, id).await {
        // It would end what the others need, or never end.
        let ends = method == "delete" && route.starts_with("/v1/sandboxes/{id}");
        if ends || route == "/v1/events" {
            continue;
        }
        let reply = ask(&harness, ALICE, Origin::Unix, &method, &path).await;
        let is_there = reply.status != 404 || route == "/v1/builds/{id}";
        assert!(is_there, "{method} {path}: {}", reply.text());
        if reply.status == 403 {
            let detail = reply.problem(403, "forbidden");
            assert!(detail.contains("root"), "{detail}");
            refused.push((method, route));
        }
    }
    refused.sort();
    let mut expected = OPERATE.map(|(method, route)| (method.to_owned(), route.to_owned()));
    expected.sort();
    assert_eq!(refused, expected);
    let gone = ask(
        &harness,
        ALICE,
        Origin::Unix,
        "delete",
        &format!("/v1/sandboxes/{id}"),
    )
    .await;
    assert_eq!(gone.status, 204);
    assert!(!harness.cache.draining().draining);
    // Root does: here, as everywhere.
    let drained = ask(&harness, ROOT, Origin::Tcp, "post", "/v1/drain").await;
    assert_eq!(drained.ok(200)["draining"], true);
}

#[tokio::test]
async fn what_does_not_exist_is_not_forbidden() {
    let harness = Harness::start().await;
    let bobs = sandbox_of(&harness, BOB).await;
    let of_bob = format!("/v1/sandboxes/{}", bobs["id"].as_str().unwrap());
    for (method, path, status, code) in [
        ("post", "/nope", 404, "not_found"),
        ("get", "/nope", 404, "not_found"),
        ("put", "/v1/sandboxes", 405, "method_not_allowed"),
        ("delete", "/healthz", 405, "method_not_allowed"),
        ("patch", of_bob.as_str(), 405, "method_not_allowed"),
        ("get", of_bob.as_str(), 404, "unknown_sandbox"),
    ] {
        let reply = ask(&harness, ALICE, Origin::Unix, method, path).await;
        reply.problem(status, code);
    }
}

#[tokio::test]
async fn a_sandbox_of_another_user_does_not_exist() {
    let harness = Harness::start().await;
    let sandbox = sandbox_of(&harness, ALICE).await;
    assert_eq!(sandbox["owner_uid"], ALICE);
    let id = sandbox["id"].as_str().unwrap();
    let of_sandboxes: Vec<_> = operations(&harness, id).await;
    let of_sandboxes: Vec<_> = of_sandboxes
        .into_iter()
        .filter(|(_, route, _)| route.starts_with("/v1/sandboxes/{id}"))
        .collect();
    assert!(of_sandboxes.len() >= 8);
    for (method, _, path) in &of_sandboxes {
        let reply = ask(&harness, BOB, Origin::Unix, method, path).await;
        reply.problem(404, "unknown_sandbox");
    }
    let list = async |uid, origin| {
        let reply = ask(&harness, uid, origin, "get", "/v1/sandboxes").await;
        reply.ok(200)["sandboxes"].as_array().unwrap().len()
    };
    assert_eq!(list(ALICE, Origin::Unix).await, 1);
    assert_eq!(list(BOB, Origin::Unix).await, 0);
    assert_eq!(list(ROOT, Origin::Tcp).await, 1);
    let path = format!("/v1/sandboxes/{id}");
    for (uid, origin) in [
        (ALICE, Origin::Unix),
        (ROOT, Origin::Unix),
        (ROOT, Origin::Tcp),
    ] {
        let shown = ask(&harness, uid, origin, "get", &path).await.ok(200);
        assert_eq!(shown["owner_uid"], ALICE);
    }
}

#[tokio::test]
async fn a_pool_says_how_many_sandboxes_others_have_and_not_which() {
    let harness = Harness::start().await;
    let (alices, bobs) = (
        sandbox_of(&harness, ALICE).await,
        sandbox_of(&harness, BOB).await,
    );
    let leased = async |uid: u32, path: &str| {
        let pool = ask(&harness, uid, Origin::Unix, "get", path).await.ok(200);
        let pool = if pool["pools"].is_array() {
            pool["pools"][0].clone()
        } else {
            pool
        };
        assert_eq!(pool["leased"], 2);
        let clones = pool["clones"].as_array().unwrap().clone();
        let leased = clones
            .into_iter()
            .filter(|clone| clone["state"] == "leased");
        let mut ids: Vec<_> = leased.map(|clone| clone["id"].to_string()).collect();
        ids.sort();
        ids
    };
    let mut both = [alices["id"].to_string(), bobs["id"].to_string()];
    both.sort();
    for path in ["/v1/pools", "/v1/pools/default"] {
        assert_eq!(leased(ALICE, path).await, [alices["id"].to_string()]);
        assert_eq!(leased(BOB, path).await, [bobs["id"].to_string()]);
        assert_eq!(leased(ROOT, path).await, both);
    }
}

#[tokio::test]
async fn a_key_is_its_users_own_over_tcp_too() {
    let nobody = User::from_name("nobody")
        .unwrap()
        .expect("every Debian has it");
    let harness = Harness::start_for_group(nobody.gid).await;
    let checkout = async |uid, origin| {
        let request = by(uid, origin, "post", "/v1/sandboxes").header("idempotency-key", "job 17");
        harness
            .send(request.body(Body::from("{}")).unwrap())
            .await
            .ok(201)["id"]
            .clone()
    };
    let roots = checkout(ROOT, Origin::Tcp).await;
    let theirs = checkout(nobody.uid.as_raw(), Origin::Tcp).await;
    assert_ne!(roots, theirs);
    assert_eq!(
        checkout(ROOT, Origin::Unix).await,
        roots,
        "by whichever way"
    );
    assert_eq!(checkout(nobody.uid.as_raw(), Origin::Tcp).await, theirs);
}

#[tokio::test]
async fn the_group_of_the_socket_is_served_over_tcp() {
    let nobody = User::from_name("nobody")
        .unwrap()
        .expect("every Debian has it");
    let harness = Harness::start_for_group(nobody.gid).await;
    let asks = async |uid| ask(&harness, uid, Origin::Tcp, "get", "/v1/sandboxes").await;
    asks(nobody.uid.as_raw()).await.ok(200);
    let detail = asks(ALICE).await.problem(403, "forbidden");
    let group = format!("gid {}", nobody.gid);
    assert!(
        detail.contains(&group) && detail.contains("usermod"),
        "{detail}"
    );
}

/// With real sockets: the kernel says who asks. Only root can be somebody else.
#[tokio::test]
async fn the_kernel_says_who_asks_over_tcp() {
    let own = Uid::effective();
    let nobody = User::from_name("nobody")
        .unwrap()
        .expect("every Debian has it");
    let get =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let other = own.is_root().then_some(nobody.uid.as_raw());

    let listening = Listening::start().await;
    let own_answer = listening.ask_as(None, get("/v1/sandboxes")).await;
    assert!(own_answer.starts_with("HTTP/1.1 200"), "{own_answer}");
    let mapped = listening.ask_dual_stack(get("/v1/sandboxes")).await;
    assert!(mapped.starts_with("HTTP/1.1 200"), "{mapped}");
    if other.is_some() {
        let health = listening.ask_as(other, get("/readyz")).await;
        assert!(health.starts_with("HTTP/1.1 200"), "{health}");
        let refused = listening.ask_as(other, get("/v1/sandboxes")).await;
        assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    }

    let harness = Harness::start_for_group(nobody.gid).await;
    let listening = Listening::over(harness).await;
    if other.is_some() {
        let member = listening.ask_as(other, get("/v1/sandboxes")).await;
        assert!(member.starts_with("HTTP/1.1 200"), "{member}");
    }

    let who = other.unwrap_or_else(|| own.as_raw());
    let listening = Listening::start_closed_to(&[who]).await;
    let closed = listening.ask_as(other, get("/healthz")).await;
    assert_eq!(closed, "", "users of hypervisors are not served at all");
}

#[tokio::test]
async fn a_group_that_nobody_is_in_opens_nothing() {
    let harness = Harness::start_for_group(Gid::from_raw(3_999_999_999)).await;
    let reply = ask(&harness, ALICE, Origin::Tcp, "post", "/v1/sandboxes").await;
    reply.problem(403, "forbidden");
    assert_eq!(harness.cache.sandboxes(None).len(), 0);
}

#[tokio::test]
async fn a_refusal_comes_although_the_client_goes_on_writing() {
    let harness = Harness::start_with(FakeFactory::new(), vec![plan()]);
    harness.until_ready().await;
    let chunks = (0..64).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 64 << 10]));
    let body = Body::from_stream(futures::stream::iter(chunks));
    let request = by(ALICE, Origin::Tcp, "put", "/v1/sandboxes/x/files?path=/x").body(body);
    let detail = harness
        .send(request.unwrap())
        .await
        .problem(403, "forbidden");
    assert!(!detail.is_empty());
    let reply = harness
        .post("/v1/sandboxes/nope/renew", json!({"ttl_s": 1}))
        .await;
    reply.problem(404, "unknown_sandbox");
}
