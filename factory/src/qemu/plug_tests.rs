//! Plugging against a scripted QEMU.

use serde_json::{Value, json};

use super::monitor_tests::{OK, qmp, say};
use crate::driver::Monitor;

/// Two slots are free, and QEMU lists the last one first.
const SLOTS: &str = r#"{"return": [
    {"props": {"core-id": 2, "thread-id": 0, "socket-id": 0}, "vcpus-count": 1, "type": "max-x86_64-cpu"},
    {"props": {"core-id": 1, "thread-id": 0, "socket-id": 0}, "vcpus-count": 1, "type": "max-x86_64-cpu"},
    {"props": {"core-id": 0, "thread-id": 0, "socket-id": 0}, "vcpus-count": 1, "type": "max-x86_64-cpu",
     "qom-path": "/machine/unattached/device[0]"}
], "id": ID}"#;
const REFUSED: &str = r#"{"error": {"class": "GenericError", "desc": "no room"}, "id": ID}"#;

/// Every command after the negotiation: its name and its arguments.
fn commands(seen: &[String]) -> serde_json::Result<Vec<(String, Value)>> {
    let parse = |line: &String| {
        let mut line: Value = serde_json::from_str(line)?;
        let name = line["execute"].as_str().unwrap_or_default().to_owned();
        Ok((name, line["arguments"].take()))
    };
    seen.iter().skip(1).map(parse).collect()
}

fn one_line(text: &str) -> String {
    text.replace('\n', "")
}

#[tokio::test]
async fn cpus_fill_the_free_slots_from_the_first_on() -> anyhow::Result<()> {
    let (qmp, peer) = qmp(vec![say([&one_line(SLOTS)]), say([OK]), say([OK])]).await?;
    qmp.plug_vcpus(2).await?;
    drop(qmp);
    let seen = commands(&peer.await??)?;
    let plug = |core: u32, id: &str| {
        let arguments = json!({"driver": "max-x86_64-cpu", "id": id,
            "core-id": core, "thread-id": 0, "socket-id": 0});
        ("device_add".to_owned(), arguments)
    };
    assert_eq!(seen[0].0, "query-hotpluggable-cpus");
    assert_eq!(seen[1..], [plug(1, "vcpu1"), plug(2, "vcpu2")]);
    Ok(())
}

#[tokio::test]
async fn more_cpus_than_there_are_slots_are_refused_before_any_is_plugged() -> anyhow::Result<()> {
    let (qmp, peer) = qmp(vec![say([&one_line(SLOTS)])]).await?;
    let error = qmp.plug_vcpus(3).await.expect_err("there are two");
    assert_eq!(
        error.to_string(),
        "2 more virtual CPUs can be plugged in, and 3 are wanted"
    );
    drop(qmp);
    assert_eq!(commands(&peer.await??)?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn memory_is_a_module_of_its_own_memory() -> anyhow::Result<()> {
    let (qmp, peer) = qmp(vec![say([OK]), say([OK])]).await?;
    qmp.plug_memory(256).await?;
    drop(qmp);
    let seen = commands(&peer.await??)?;
    let backend =
        json!({"qom-type": "memory-backend-ram", "id": "dimm0-mem", "size": 256 * 1024 * 1024});
    let module = json!({"driver": "pc-dimm", "id": "dimm0", "memdev": "dimm0-mem"});
    assert_eq!(
        seen,
        [
            ("object-add".to_owned(), backend),
            ("device_add".to_owned(), module)
        ]
    );
    Ok(())
}

#[tokio::test]
async fn memory_whose_module_is_refused_is_given_back() -> anyhow::Result<()> {
    let (qmp, peer) = qmp(vec![say([OK]), say([REFUSED]), say([OK])]).await?;
    let error = qmp.plug_memory(128).await.expect_err("the script refuses");
    assert_eq!(error.to_string(), "device_add: no room");
    drop(qmp);
    let seen = commands(&peer.await??)?;
    let last = ("object-del".to_owned(), json!({"id": "dimm0-mem"}));
    assert_eq!(seen.last(), Some(&last));
    Ok(())
}
