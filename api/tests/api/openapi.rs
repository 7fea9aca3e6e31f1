//! The OpenAPI document.

use serde_json::{Map, Value, json};

use crate::support::Harness;

/// Every route of the contract, with the status of its good answer.
const ROUTES: [(&str, &str, &str); 38] = [
    ("get", "/healthz", "200"),
    ("get", "/readyz", "200"),
    ("get", "/metrics", "200"),
    ("get", "/v1/templates", "200"),
    ("get", "/v1/templates/{name}", "200"),
    ("post", "/v1/templates/{name}/rebuild", "202"),
    ("post", "/v1/templates/{name}/rollback", "200"),
    ("get", "/v1/builds", "200"),
    ("get", "/v1/builds/{id}", "200"),
    ("get", "/v1/pools", "200"),
    ("get", "/v1/pools/{template}", "200"),
    ("patch", "/v1/pools/{template}", "200"),
    ("post", "/v1/pools/{template}/drain", "200"),
    ("post", "/v1/pools/{template}/resume", "200"),
    ("post", "/v1/drain", "200"),
    ("get", "/v1/drain", "200"),
    ("post", "/v1/resume", "200"),
    ("post", "/v1/sandboxes", "201"),
    ("get", "/v1/sandboxes", "200"),
    ("get", "/v1/sandboxes/{id}", "200"),
    ("delete", "/v1/sandboxes/{id}", "204"),
    ("post", "/v1/sandboxes/{id}/renew", "200"),
    ("post", "/v1/sandboxes/{id}/exec", "200"),
    ("get", "/v1/sandboxes/{id}/exec", "101"),
    ("post", "/v1/sandboxes/{id}/processes", "201"),
    ("get", "/v1/sandboxes/{id}/processes", "200"),
    ("get", "/v1/sandboxes/{id}/processes/{process}", "200"),
    ("delete", "/v1/sandboxes/{id}/processes/{process}", "204"),
    (
        "post",
        "/v1/sandboxes/{id}/processes/{process}/signal",
        "204",
    ),
    (
        "get",
        "/v1/sandboxes/{id}/processes/{process}/attach",
        "101",
    ),
    ("put", "/v1/sandboxes/{id}/files", "204"),
    ("get", "/v1/sandboxes/{id}/files", "200"),
    ("get", "/v1/sandboxes/{id}/console", "200"),
    ("get", "/v1/events", "200"),
    ("get", "/v1/config", "200"),
    ("post", "/v1/config/reload", "200"),
    ("get", "/openapi.json", "200"),
    ("post", "/v1/sandboxes", "503"),
];

#[tokio::test]
async fn every_route_is_in_the_document_with_its_errors() {
    let harness = Harness::start().await;
    let document = harness.get("/openapi.json").await.ok(200);
    assert!(
        document["openapi"].as_str().unwrap().starts_with("3.1"),
        "{}",
        document["openapi"]
    );
    for (method, path, status) in ROUTES {
        let operation = &document["paths"][path][method];
        assert!(
            operation["responses"][status].is_object(),
            "{method} {path} {status} is missing"
        );
        let default = &operation["responses"]["default"]["content"]["application/problem+json"];
        assert!(default.is_object(), "{method} {path} has no default error");
    }
    let documented: usize = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|item| item.as_object().unwrap().len())
        .sum();
    assert_eq!(documented, ROUTES.len() - 1, "the last route stands twice");
}

/// What `docs/api.md` says of events and what the document says are the same names.
#[tokio::test]
async fn every_event_is_in_the_document() {
    let harness = Harness::start().await;
    let document = harness.get("/openapi.json").await.ok(200);
    let operation = &document["paths"]["/v1/events"]["get"];
    let described = operation["responses"]["200"]["description"]
        .as_str()
        .unwrap();
    let docs = include_str!("../../../docs/api.md");
    let (_, table) = docs.split_once("| event | data |").unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let names: Vec<&str> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .collect();
    assert!(names.len() > 16, "{names:?}");
    for name in names {
        let quoted = format!("`{name}`");
        assert!(described.contains(&quoted), "{name}: {described}");
    }
}

#[tokio::test]
async fn every_operation_has_a_name_of_its_own_and_every_answer_a_description() {
    let harness = Harness::start().await;
    let document = harness.get("/openapi.json").await.ok(200);
    let mut names = Vec::new();
    for operation in document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
    {
        names.push(operation["operationId"].as_str().unwrap());
        for response in operation["responses"].as_object().unwrap().values() {
            assert!(
                response["description"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{operation}"
            );
        }
    }
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "{names:?}");
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    let harness = Harness::start().await;
    let document = harness.get("/openapi.json").await.ok(200);
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(
            document.pointer(pointer).is_some(),
            "{reference} leads nowhere"
        );
    }
}

#[tokio::test]
async fn the_schemas_are_those_of_the_answers() {
    let harness = Harness::start().await;
    let document = harness.get("/openapi.json").await.ok(200);
    let schema = |name: &str| {
        document["components"]["schemas"][name]["properties"]
            .as_object()
            .unwrap()
            .clone()
    };
    let keys = |object: &Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
    let id = harness.checkout().await;
    let answer = async |path: &str| harness.get(path).await.ok(200).as_object().unwrap().clone();
    // Only where the template has it.
    let mut of_each = schema("Sandbox");
    of_each.remove("vsock_cid");
    assert_eq!(
        keys(&answer(&format!("/v1/sandboxes/{id}")).await),
        keys(&of_each)
    );
    let path = format!("/v1/sandboxes/{id}/processes");
    let started = harness.post(&path, json!({"argv": ["echo"]})).await;
    let process = started.ok(201)["id"].as_str().unwrap().to_owned();
    // Only where it is no text.
    let mut of_each = schema("Process");
    of_each.retain(|name, _| !name.ends_with("_b64"));
    assert_eq!(
        keys(&answer(&format!("{path}/{process}")).await),
        keys(&of_each)
    );
    assert_eq!(
        keys(&answer("/v1/templates/default").await),
        keys(&schema("Template"))
    );
    assert_eq!(
        keys(&answer("/v1/pools/default").await),
        keys(&schema("Pool"))
    );
}

#[tokio::test]
async fn what_is_always_in_an_answer_is_required_even_where_it_may_be_null() {
    let harness = Harness::start().await;
    let document = harness.get("/openapi.json").await.ok(200);
    for (schema, fields) in [
        ("Sandbox", ["expires_at"].as_slice()),
        (
            "Template",
            &[
                "current",
                "build",
                "last_error",
                "last_roll",
                "unverified_fields",
            ],
        ),
        ("LastRoll", &["outcome", "reason"]),
        ("Build", &["step", "generation", "error", "ended_at"]),
        ("Pool", &["degraded"]),
        ("Configuration", &["path", "last_reload"]),
        ("LastReload", &["error"]),
        ("ExecResult", &["exit_code", "signal"]),
        (
            "Process",
            &["pid", "ended_at", "exit_code", "signal", "ended_by"],
        ),
        ("Generation", &["process_control"]),
    ] {
        let required = document["components"]["schemas"][schema]["required"].clone();
        let required = required.as_array().unwrap();
        for field in fields {
            assert!(required.contains(&(*field).into()), "{schema}.{field}");
        }
        assert!(!required.contains(&"stdout_b64".into()));
    }
    let checkout = &document["components"]["schemas"]["Checkout"];
    assert!(checkout["required"].is_null(), "every field is optional");
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            references.extend(
                object
                    .get("$ref")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            );
            object.values().for_each(|value| collect(value, references));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
