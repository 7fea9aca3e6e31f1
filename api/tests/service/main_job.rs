//! What the service is for.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use http::Method;
use serde_json::json;

use crate::service::{Place, Service, id};

/// What is tried with one service, one after the other: one that fails is named, and hides none of the others.
#[derive(Default)]
struct Tried {
    failed: Vec<String>,
}

impl Tried {
    /// Tries one thing. What it asserts is caught, too.
    async fn one(&mut self, name: &str, work: impl Future<Output = anyhow::Result<()>>) {
        let outcome = AssertUnwindSafe(work).catch_unwind().await;
        let why = match outcome {
            Ok(Ok(())) => return println!("{name}: ok"),
            Ok(Err(error)) => format!("{error:?}"),
            // The panic was printed where it was.
            Err(_) => "it panicked".to_owned(),
        };
        println!("{name}: FAILED: {why}");
        self.failed.push(name.to_owned());
    }

    fn all_went_well(self) {
        assert!(self.failed.is_empty(), "failed: {}", self.failed.join("; "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_are_handed_out_used_and_given_back() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.configure(
        "",
        "warmup = [[\"sh\", \"-c\", \"echo warm > /run/warm\"]]",
        "target = 2\nmax = 6",
    )?;
    let mut service = place.start().await?;
    before_it_is_ready(&mut service).await?;
    service.ready().await?;
    service.quiet(2).await?;
    let mut tried = Tried::default();
    tried.one("one sandbox", one_sandbox(&service)).await;
    let larger = a_larger_sandbox(&service);
    tried.one("a larger sandbox", larger).await;
    let commands = from_the_command_line(&service);
    tried.one("the command line", commands).await;
    let lease = a_lease_runs_out(&mut service);
    tried.one("a lease runs out", lease).await;
    let crowd = a_crowd_is_served(&mut service);
    tried.one("a crowd is served", crowd).await;
    let disk = a_larger_one_with_a_disk(&service);
    tried.one("a larger one with a disk", disk).await;
    let examples = crate::examples::run(&mut service);
    tried.one("the examples", examples).await;
    let rebuild = a_rebuild_replaces_the_clones(&mut service);
    tried.one("a rebuild replaces the clones", rebuild).await;
    let scrapes = crate::prometheus::scrapes(&mut service);
    tried.one("Prometheus scrapes", scrapes).await;
    let stopped = service.stop().await;
    tried.all_went_well();
    stopped?;
    place.close().await
}

async fn before_it_is_ready(service: &mut Service<'_>) -> anyhow::Result<()> {
    service
        .until("an answer", |socket| async move {
            let healthy =
                crate::service::call(socket.as_ref(), Method::GET, "/healthz", None).await?;
            Ok(healthy.0 == 200)
        })
        .await?;
    let (status, body) = service.call(Method::GET, "/readyz", None).await?;
    assert_eq!(status, 503, "{body}");
    assert_eq!(body["ready"], false);
    assert!(
        !body["reasons"].as_array().is_none_or(Vec::is_empty),
        "{body}"
    );
    Ok(())
}

/// What is asked for beyond the template is there when the answer comes, and a disk has one writer.
async fn a_larger_one_with_a_disk(service: &Service<'_>) -> anyhow::Result<()> {
    const DISK_BYTES: usize = 1 << 20;
    let disk = service.place.folder.join("disk.raw");
    std::fs::write(&disk, vec![0; DISK_BYTES])?;
    let vcpus = if guest_takes_cpus(service).await? {
        2
    } else {
        1
    };
    let request = json!({
        "vcpus": vcpus, "memory_mib": 500, "wait_ms": 60_000, "env": {"JOB": "larger"},
        "disks": [{"path": disk, "format": "raw"}], "nics": [{"user": true}],
    });
    let (status, sandbox) = service.checkout(request.clone()).await?;
    assert_eq!(status, 201, "{sandbox}");
    assert_eq!(
        (&sandbox["vcpus"], &sandbox["memory_mib"]),
        (&json!(vcpus), &json!(512))
    );
    let (status, conflict) = service.checkout(request).await?;
    assert_eq!((status, &conflict["code"]), (409, &json!("conflict")));
    let id = id(&sandbox);
    let name = sandbox["disks"][0]["name"].as_str().unwrap_or_default();
    let mac = sandbox["nics"][0]["mac"].as_str().unwrap_or_default();
    let script = format!(
        "nproc; echo $JOB; cat /sys/class/net/eth0/address; printf written > /dev/{name}; sync"
    );
    let (_, end) = service.exec(&id, &script).await?;
    assert_eq!(end["stdout"], format!("{vcpus}\nlarger\n{mac}\n"), "{end}");
    assert_eq!(service.release(&id).await?, 204);
    assert!(std::fs::read(&disk)?.starts_with(b"written"));
    Ok(())
}

async fn one_sandbox(service: &Service<'_>) -> anyhow::Result<()> {
    let request = json!({"ttl_s": 60, "hostname": "job-17", "metadata": {"job": "17"}});
    let (status, sandbox) = service.checkout(request).await?;
    assert_eq!(status, 201, "{sandbox}");
    assert_eq!(sandbox["source"], "pool");
    assert_eq!(sandbox["hostname"], "job-17");
    assert_eq!(sandbox["metadata"], json!({"job": "17"}));
    for phase in [
        "spawn", "qmp", "load", "resume", "agent", "identity", "total",
    ] {
        assert!(
            sandbox["startup_ms"][phase]
                .as_f64()
                .is_some_and(|ms| ms > 0.0),
            "{phase}: {sandbox}"
        );
    }
    let id = id(&sandbox);
    let (status, end) = service
        .exec(
            &id,
            "cat /run/warm; hostname; cat /etc/machine-id; echo no >&2; exit 3",
        )
        .await?;
    assert_eq!(status, 200, "{end}");
    let machine_id = sandbox["machine_id"].as_str().unwrap_or_default();
    assert_eq!(end["stdout"], format!("warm\njob-17\n{machine_id}\n"));
    assert_eq!(
        (&end["stderr"], &end["exit_code"], &end["signal"]),
        (&json!("no\n"), &json!(3), &json!(null))
    );

    let list = service.get("/v1/sandboxes?template=default").await?;
    assert_eq!(list["sandboxes"][0]["id"], sandbox["id"]);
    let renewed = service
        .call(
            Method::POST,
            &format!("/v1/sandboxes/{id}/renew"),
            Some(json!({"ttl_s": 600})),
        )
        .await?;
    assert_eq!(renewed.0, 200);
    assert_ne!(renewed.1["expires_at"], sandbox["expires_at"]);

    let pid = i32::try_from(sandbox["pid"].as_i64().unwrap_or_default())?;
    assert_eq!(service.release(&id).await?, 204);
    assert!(
        !service.place.machines()?.contains(&pid),
        "204 says that its process is gone"
    );
    assert_eq!(service.release(&id).await?, 404);
    assert_eq!(service.exec(&id, "true").await?.0, 404);
    Ok(())
}

/// Whether the guest's kernel takes CPUs that are plugged in: without KVM, one of 6.9 or newer does not (Debian 13's).
async fn guest_takes_cpus(service: &Service<'_>) -> anyhow::Result<bool> {
    let template = service.get("/v1/templates/default").await?;
    let inputs = std::fs::read_to_string(crate::place::guest_folder().join("inputs"))?;
    let release = inputs
        .lines()
        .find_map(|line| line.strip_prefix("kernel-release "));
    let release = release.ok_or_else(|| anyhow::anyhow!("no kernel-release in {inputs}"))?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    let (Some(Ok(major)), Some(Ok(minor))) = version else {
        anyhow::bail!("{release:?} is no kernel's release");
    };
    Ok(template["generations"][0]["accel"] == "kvm" || (major, minor) < (6, 9))
}

/// A warm clone is made larger before it is handed out.
async fn a_larger_sandbox(service: &Service<'_>) -> anyhow::Result<()> {
    let size = json!({"vcpus": 2, "memory_mib": 500, "wait_ms": 60_000});
    let (status, sandbox) = service.checkout(size).await?;
    if !guest_takes_cpus(service).await? {
        let text = sandbox.to_string();
        assert!(status == 422 && text.contains("6.9 or newer"), "{text}");
        return Ok(());
    }
    assert_eq!(status, 201, "{sandbox}");
    assert_eq!(
        (&sandbox["vcpus"], &sandbox["memory_mib"]),
        (&json!(2), &json!(512))
    );
    let id = id(&sandbox);
    let (_, end) = service
        .exec(&id, "nproc; awk '/^MemTotal/ { print $2 }' /proc/meminfo")
        .await?;
    let said = end["stdout"].as_str().unwrap_or_default().to_owned();
    let (cpus, kib) = said.trim().split_once('\n').unwrap_or_default();
    assert_eq!(cpus, "2", "{end}");
    assert!(kib.parse::<u64>()? > 400 * 1024, "{end}");
    assert_eq!(service.release(&id).await?, 204);
    let (status, problem) = service.checkout(json!({"vcpus": 5})).await?;
    assert_eq!((status, &problem["code"]), (422, &json!("not_possible")));
    Ok(())
}

async fn from_the_command_line(service: &Service<'_>) -> anyhow::Result<()> {
    let place = service.place;
    let out = place
        .run(&["checkout", "-q", "--wait", "60s", "--ttl", "10m"])
        .await?;
    let id = String::from_utf8(out.stdout)?.trim().to_owned();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let exec = place
        .run(&[
            "exec",
            &id,
            "--",
            "sh",
            "-c",
            "printf 'a\\000b'; echo err >&2; exit 42",
        ])
        .await?;
    assert_eq!(exec.status.code(), Some(42));
    assert_eq!(
        (exec.stdout.as_slice(), exec.stderr.as_slice()),
        (&b"a\0b"[..], &b"err\n"[..])
    );
    for (argv, code) in [
        (&["no-such-program"][..], 127),
        (&["/etc/passwd"], 126),
        (&["sh", "-c", "kill -15 $$"], 143),
    ] {
        let mut args = vec!["exec", id.as_str(), "--"];
        args.extend(argv);
        assert_eq!(
            place.run(&args).await?.status.code(),
            Some(code),
            "{argv:?}"
        );
    }
    assert_eq!(
        place
            .run(&["exec", "nosuchsandbx", "--", "true"])
            .await?
            .status
            .code(),
        Some(125)
    );
    let sandbox = service.get(&format!("/v1/sandboxes/{id}")).await?;
    let template = service.get("/v1/templates/default").await?;
    let (pid, memory) = (sandbox["pid"].to_string(), "256MiB".to_owned());
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (hostname, generation) = (text(&sandbox["hostname"]), text(&sandbox["generation"]));
    let (qemu, current) = (
        text(&template["generations"][0]["qemu_version"]),
        text(&template["current"]),
    );
    let expires = || "expires at 20".to_owned();
    // A clone's console begins with the clone, and this kernel is quiet.
    let spoken = "spoken by the guest".to_owned();
    let script = format!("echo {spoken} > /dev/console");
    assert_eq!(service.exec(&id, &script).await?.1["exit_code"], 0);
    for (args, shown) in [
        (&["ps"][..], vec![&id, &hostname, &pid, &memory]),
        (&["inspect", &id], vec![&id, &hostname, &pid, &generation]),
        (&["renew", &id, "--ttl", "20m"], vec![&id, &expires()]),
        (&["template", "ls"], vec![&current, &qemu]),
        (
            &["pool", "ls"],
            vec![&"default".to_owned(), &"LEASED".to_owned()],
        ),
        (&["console", &id], vec![&spoken]),
    ] {
        let out = place.run(args).await?;
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(
            out.status.success() && shown.iter().all(|part| said.contains(part.as_str())),
            "{args:?} without one of {shown:?}: {said}{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    assert!(place.run(&["release", &id]).await?.status.success());
    assert_eq!(place.run(&["release", &id]).await?.status.code(), Some(1));
    Ok(())
}

async fn a_lease_runs_out(service: &mut Service<'_>) -> anyhow::Result<()> {
    let (status, sandbox) = service
        .checkout(json!({"ttl_s": 1, "wait_ms": 60_000}))
        .await?;
    assert_eq!(status, 201, "{sandbox}");
    let path = format!("/v1/sandboxes/{}", id(&sandbox));
    service
        .until("the end of a lease", |socket| {
            let path = path.clone();
            async move {
                Ok(
                    crate::service::call(socket.as_ref(), Method::GET, &path, None)
                        .await?
                        .0
                        == 404,
                )
            }
        })
        .await
}

/// Twenty at once with two ready, and room for six: each waits for its turn and gets one.
async fn a_crowd_is_served(service: &mut Service<'_>) -> anyhow::Result<()> {
    service.quiet(2).await?;
    let turns = (0..20).map(|_| async {
        let (status, sandbox) = service.checkout(json!({"wait_ms": 120_000})).await?;
        anyhow::ensure!(status == 201, "{status}: {sandbox}");
        let (_, pool) = service.call(Method::GET, "/v1/pools/default", None).await?;
        let alive: u64 = ["ready", "launching", "leased", "releasing"]
            .iter()
            .filter_map(|s| pool[*s].as_u64())
            .sum();
        anyhow::ensure!(alive <= 6, "more than max: {pool}");
        let (status, end) = service
            .exec(&id(&sandbox), "cat /proc/sys/kernel/random/uuid")
            .await?;
        anyhow::ensure!(status == 200, "{status}: {end}");
        anyhow::ensure!(service.release(&id(&sandbox)).await? == 204);
        Ok(end["stdout"].to_string())
    });
    let mut seen = std::collections::HashSet::new();
    for uuid in futures::future::join_all(turns).await {
        assert!(
            seen.insert(uuid?),
            "two sandboxes drew the same random numbers"
        );
    }
    service.quiet(2).await?;
    assert_eq!(service.place.machines()?.len(), 2);
    assert_eq!(service.place.directories()?.len(), 2);
    Ok(())
}

async fn a_rebuild_replaces_the_clones(service: &mut Service<'_>) -> anyhow::Result<()> {
    let before = service.get("/v1/templates/default").await?;
    let kept = service.sandbox().await?;
    let (status, build) = service
        .call(Method::POST, "/v1/templates/default/rebuild", None)
        .await?;
    assert_eq!(status, 202, "{build}");
    assert_eq!(
        service
            .call(Method::POST, "/v1/templates/default/rebuild", None)
            .await?
            .0,
        409
    );
    let path = format!("/v1/builds/{}", id(&build));
    service
        .until("the end of a build", |socket| {
            let path = path.clone();
            async move {
                let (_, build) =
                    crate::service::call(socket.as_ref(), Method::GET, &path, None).await?;
                Ok(build["state"] == "succeeded")
            }
        })
        .await?;
    let after = service.get("/v1/templates/default").await?;
    assert_ne!(after["current"], before["current"]);
    service.quiet(2).await?;
    let pool = service.pool().await?;
    let clones = pool["clones"].as_array().cloned().unwrap_or_default();
    let ready: Vec<_> = clones
        .iter()
        .filter(|clone| clone["state"] == "ready")
        .collect();
    assert!(
        ready
            .iter()
            .all(|clone| clone["generation"] == after["current"]),
        "{pool}"
    );
    assert_eq!(
        service.exec(&id(&kept), "echo still here").await?.1["stdout"],
        "still here\n"
    );
    assert_eq!(service.release(&id(&kept)).await?, 204);
    Ok(())
}
