//! Requests, and what is made of their answers.

use vmint_guest_protocol::message::{MORE, REPLY_MAX_BYTES};

use super::*;
use crate::clock::WallNs;
use crate::guest::{BindError, Binding, Identity, IdentityOrder, ProcessControl};

/// Asks in a task of its own.
fn ask(agent: &Agent, within: Duration) -> tokio::task::JoinHandle<Result<(), GuestError>> {
    let agent = agent.clone();
    tokio::spawn(async move { agent.ping(within).await })
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_is_passed_over() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    let late = ask(&agent, Duration::from_millis(1));
    let first = guest.request().await?;
    let error = late.await?.expect_err("it is late");
    assert!(matches!(error, GuestError::Silent { .. }), "{error:?}");
    guest.answer(&first, &json!({})).await?;
    let next = ask(&agent, LONG);
    let second = guest.request().await?;
    assert_ne!(first["id"], second["id"]);
    guest.answer(&second, &json!({})).await?;
    next.await??;
    Ok(())
}

#[tokio::test]
async fn a_request_that_is_not_waited_for_before_it_is_written_is_not_sent() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    // More than the socket's buffers hold: what comes after it waits.
    let mut large = Binding::default();
    large.env.insert("A".into(), "x".repeat(4 << 20));
    let binding = tokio::spawn({
        let agent = agent.clone();
        async move { agent.bind(&Identity::default(), &large).await }
    });
    guest.socket.readable().await?;
    let given_up = ask(&agent, LONG);
    tokio::task::yield_now().await;
    given_up.abort();
    assert!(given_up.await.is_err());
    let last = ask(&agent, LONG);
    let bind = guest.request().await?;
    guest.answer(&bind, &json!({"hostname": ""})).await?;
    binding.await??;
    let asked = guest.request().await?;
    guest.answer(&asked, &json!({})).await?;
    last.await??;
    Ok(())
}

#[tokio::test]
async fn a_reply_that_is_too_long_or_is_none_ends_the_connection() -> anyhow::Result<()> {
    for is_long in [true, false] {
        let (agent, mut guest) = connected().await?;
        let waiting = ask(&agent, LONG);
        guest.request().await?;
        if is_long {
            let part = vec![b' '; 32 * 1024];
            for _ in 0..=REPLY_MAX_BYTES / part.len() {
                guest.say(CONTROL, Kind::Message, MORE, &part).await?;
            }
        }
        guest.say(CONTROL, Kind::Message, 0, b"nonsense").await?;
        let error = waiting.await?.expect_err("it is no reply");
        assert!(matches!(error, GuestError::Channel { .. }), "{error:?}");
        assert!(agent.is_lost());
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_and_a_wrong_answer_are_told_apart() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    let prepare = |agent: &Agent| {
        let agent = agent.clone();
        tokio::spawn(async move { agent.prepare().await })
    };
    let refused = prepare(&agent);
    let asked = guest.request().await?;
    assert_eq!(asked["execute"], "prepare");
    guest.refuse(&asked, "failed", "not seeded").await?;
    let error = refused.await?.expect_err("it is refused");
    assert_eq!(
        error.to_string(),
        "the guest agent refused prepare: not seeded"
    );
    let wrong = prepare(&agent);
    let asked = guest.request().await?;
    guest
        .answer(&asked, &json!({"process_control": "none"}))
        .await?;
    let error = wrong.await?.expect_err("it is wrong");
    assert!(matches!(error, GuestError::Proof { .. }), "{error:?}");
    let right = prepare(&agent);
    let asked = guest.request().await?;
    let answer = json!({"clock_realtime_ns": 1, "process_control": "cgroup"});
    guest.answer(&asked, &answer).await?;
    assert_eq!(right.await??.process_control, ProcessControl::Cgroup);
    Ok(())
}

#[tokio::test]
async fn what_the_guest_refuses_to_bind_is_told_in_its_words() -> anyhow::Result<()> {
    let (agent, mut guest) = connected().await?;
    let identity = Identity::new("before".into());
    let mut binding = Binding {
        hostname: Some("after".into()),
        ..Binding::default()
    };
    binding.env.insert("KEY".into(), "secret".into());
    for (answer, outcome) in [
        (Some("after"), "after"),
        (
            Some("before"),
            "the guest's answer to bind is wrong: the host name is \"before\", not \"after\"",
        ),
        (None, "/etc: Is a directory"),
    ] {
        let bound = tokio::spawn({
            let (agent, identity, binding) = (agent.clone(), identity.clone(), binding.clone());
            async move { agent.bind(&identity, &binding).await }
        });
        let asked = guest.request().await?;
        assert_eq!(asked["execute"], "bind");
        assert_eq!(asked["arguments"]["env"]["KEY"], "secret");
        match answer {
            Some(name) => guest.answer(&asked, &json!({"hostname": name})).await?,
            None => {
                guest
                    .refuse(&asked, "failed", "/etc: Is a directory")
                    .await?;
            }
        }
        let text = match bound.await? {
            Ok(bound) => bound.hostname,
            Err(error) => error.to_string(),
        };
        assert_eq!(text, outcome);
    }
    Ok(())
}

#[tokio::test]
async fn what_no_request_holds_is_refused_here() -> anyhow::Result<()> {
    let (agent, _guest) = connected().await?;
    let mut binding = Binding::default();
    // Each byte of it takes six in JSON.
    binding.env.insert("A".into(), "\u{1}".repeat(3 << 20));
    let refused = agent.bind(&Identity::default(), &binding).await;
    assert!(
        matches!(&refused, Err(BindError::Refused { reason }) if reason.contains("16777216")),
        "{:?}",
        refused.map(drop)
    );
    Ok(())
}

/// The step is counted, and the count is wrong where the hypervisor's answers came late.
#[tokio::test]
async fn a_clock_that_is_off_is_stepped_by_what_is_measured() -> anyhow::Result<()> {
    const AHEAD_NS: i64 = 300_000_000;
    let (agent, mut guest) = connected().await?;
    let order = IdentityOrder {
        identity: Some(Identity::new("job-1".into())),
        clock_step_ns: 1,
        expect_reseed: true,
    };
    let wanted = order.identity.clone();
    let identified = tokio::spawn(async move { agent.identify(&order).await });

    let mut ahead_ns = AHEAD_NS;
    let mut steps = Vec::new();
    while steps.len() < 2 {
        let asked = guest.request().await?;
        let step = asked["arguments"]["clock_step_ns"].as_i64();
        if let Some(step_ns) = step {
            ahead_ns += if steps.is_empty() { 0 } else { step_ns };
            steps.push(step_ns);
        }
        let clock = WallNs::now().0 + ahead_ns;
        let proof = json!({
            "hostname": wanted.as_ref().map(|it| &it.hostname), "machine_id": wanted.as_ref().map(|it| &it.machine_id),
            "random": "00", "uuid": "u", "clock_realtime_ns": clock, "vmgenid_reseed": steps.len() == 1, "boot_id": "b",
        });
        let time = json!({"clock_realtime_ns": clock});
        guest
            .answer(&asked, if step.is_some() { &proof } else { &time })
            .await?;
    }
    let proof = identified.await??;
    assert!(
        proof.vmgenid_reseed,
        "the first order's proof, but for the clock"
    );
    let off_ns = steps[1] + AHEAD_NS;
    assert!(off_ns.abs() < 50_000_000, "stepped by {} ns", steps[1]);
    Ok(())
}
