//! A generation whose files are missing, cut short or altered, one after the other: no clone is made of such a file
//! or handed on, a sandbox that somebody has goes on, and what is wrong is said.
//!
//! The end of a service is played by clones that are left running and a factory that is dropped; `adopt.rs` has the same
//! with `kill -9`.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use support::{LONG, Lab, guest_spec, order, output};
use vmint_factory::{
    Adopted, Found, Generation, LeaseRecord, Phase, RecordedState, Size, Source, Vm,
};

#[derive(Clone, Copy, Debug)]
enum Harm {
    Missing,
    Cut,
    Altered,
}

/// A file that was harmed; the whole one lies beside its generation.
struct Harmed {
    path: PathBuf,
    whole: PathBuf,
}

impl Harmed {
    fn new(path: PathBuf, harm: Harm) -> anyhow::Result<Self> {
        let whole = path.with_file_name("..").join("whole");
        fs::rename(&path, &whole)?;
        let mut bytes = fs::read(&whole)?;
        let middle = bytes.len() / 2;
        match harm {
            Harm::Missing => {}
            Harm::Cut => fs::write(&path, &bytes[..middle])?,
            Harm::Altered => {
                bytes[middle] ^= 0x04;
                fs::write(&path, bytes)?;
            }
        }
        Ok(Self { path, whole })
    }

    fn mend(self) -> std::io::Result<()> {
        fs::rename(self.whole, self.path)
    }
}

fn lease() -> anyhow::Result<LeaseRecord> {
    let leased_at = jiff::Timestamp::now();
    Ok(LeaseRecord {
        owner_uid: 0,
        leased_at,
        expires_at: Some(leased_at.checked_add(LONG)?),
        source: Source::Pool,
        metadata: BTreeMap::new(),
        checkout: Duration::from_micros(250),
        size: Size {
            vcpus: 1,
            memory_mib: 256,
        },
        idempotency: None,
    })
}

async fn lives(sandbox: &Vm) -> anyhow::Result<()> {
    assert_eq!(output(sandbox, "cat /run/mine").await?, "mine");
    Ok(())
}

async fn current(lab: &Lab) -> anyhow::Result<Arc<Generation>> {
    match lab.factory.find(&guest_spec("default")).await? {
        Found::Current(generation) => Ok(generation),
        other => anyhow::bail!("{other:?}"),
    }
}

/// The service ends and leaves these; the next one takes up what it can.
async fn restarted(lab: Lab, left: Vec<Arc<Vm>>) -> anyhow::Result<(Lab, Vec<Adopted>)> {
    for vm in &left {
        vm.leave().await;
    }
    drop(left);
    let lab = lab.reopened().await?;
    let adopted = lab.factory.adopt(&[guest_spec("default")]).await;
    Ok((lab, adopted))
}

fn only(mut adopted: Vec<Adopted>) -> anyhow::Result<Arc<Vm>> {
    let one = adopted.pop();
    anyhow::ensure!(adopted.is_empty(), "more than one");
    let one = one.ok_or_else(|| anyhow::anyhow!("the sandbox has not lived on"))?;
    assert_eq!(one.state, RecordedState::Leased);
    Ok(one.vm)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_missing_cut_or_altered_costs_no_sandbox() -> anyhow::Result<()> {
    let mut lab = Lab::open().await?;
    let generation = lab.build(&guest_spec("default")).await?;
    let sizes = generation.sizes();
    let mut sandbox = lab.mint(&generation, "leased").await?;
    output(&sandbox, "echo mine > /run/mine").await?;
    sandbox.record(RecordedState::Leased, Some(lease()?))?;
    memory_altered_in_place(&lab, &generation).await?;
    lives(&sandbox).await?;
    drop(generation);

    for name in ["memory", "state", "kernel-stub", "manifest.json"] {
        for harm in [Harm::Missing, Harm::Cut, Harm::Altered] {
            eprintln!("{name}: {harm:?}");
            let generation = current(&lab).await?;
            let ready = lab.mint(&generation, "ready").await?;
            let harmed = Harmed::new(lab.generation_file(&generation, name), harm)?;
            let said = lab.factory.damage(&generation).await.unwrap_or_default();
            assert!(said.contains(name), "{said}");
            if name != "manifest.json" {
                is_refused(&lab, &generation, name).await?;
            }
            drop(generation);

            let (next, adopted) = restarted(lab, vec![sandbox, ready]).await?;
            lab = next;
            sandbox = only(adopted)?;
            assert_eq!(lab.machines()?, [sandbox.id().as_str()]);
            lives(&sandbox).await?;
            assert_eq!(sandbox.generation().sizes(), sizes);
            match lab.factory.find(&guest_spec("default")).await? {
                Found::Damaged { reason, .. } => assert!(reason.contains(name), "{reason}"),
                other => anyhow::bail!("{name}, {harm:?}: {other:?}"),
            }
            harmed.mend()?;
        }
    }
    let lab = an_old_one_stays_for_its_sandbox(lab, sandbox).await?;
    lab.close().await
}

async fn is_refused(lab: &Lab, generation: &Arc<Generation>, name: &str) -> anyhow::Result<()> {
    let refused = lab.factory.mint(generation, order("x")).await;
    let error = refused.expect_err("a file is damaged");
    assert_eq!(error.phase, Phase::Load);
    assert!(
        error.is_generation_damage() && error.to_string().contains(&format!("/{name} ")),
        "{error}"
    );
    Ok(())
}

/// A byte of the memory that nobody has read yet, in the very file that clones map.
async fn memory_altered_in_place(lab: &Lab, generation: &Arc<Generation>) -> anyhow::Result<()> {
    assert_eq!(lab.factory.damage(generation).await, None);
    let path = lab.generation_file(generation, "memory");
    let last = fs::metadata(&path)?.len() - 1;
    let set = |byte: u8| -> std::io::Result<()> {
        fs::set_permissions(&path, Permissions::from_mode(0o640))?;
        let file = fs::OpenOptions::new().write(true).open(&path)?;
        file.write_all_at(&[byte], last)?;
        fs::set_permissions(&path, Permissions::from_mode(0o440))
    };
    set(1)?;
    is_refused(lab, generation, "memory").await?;
    set(0)?;
    lab.mint(generation, "x").await?.end().await;
    Ok(())
}

/// A sandbox outlives its generation's time: the files stay for it through a stop, and go with it.
async fn an_old_one_stays_for_its_sandbox(lab: Lab, sandbox: Arc<Vm>) -> anyhow::Result<Lab> {
    let spec = vmint_factory::TemplateSpec {
        keep_generations: 1,
        ..guest_spec("default")
    };
    let folder = lab.generation_file(sandbox.generation(), "");
    let (lab, adopted) = restarted(lab, vec![sandbox]).await?;
    let sandbox = only(adopted)?;
    let newer = lab.build(&spec).await?;
    assert_ne!(newer.id(), sandbox.generation().id());
    drop(newer);
    assert!(folder.join("memory").exists(), "the sandbox needs it");
    let (lab, adopted) = restarted(lab, vec![sandbox]).await?;
    let sandbox = only(adopted)?;
    assert!(folder.join("memory").exists(), "it needs it yet");
    lives(&sandbox).await?;

    fs::remove_file(folder.join("manifest.json"))?;
    let (lab, adopted) = restarted(lab, vec![sandbox]).await?;
    let sandbox = only(adopted)?;
    lives(&sandbox).await?;
    assert!(
        folder.join("memory").exists(),
        "it maps it, so it is counted"
    );
    sandbox.end().await;
    drop(sandbox);
    goes(&folder).await?;
    Ok(lab)
}

async fn goes(folder: &Path) -> anyhow::Result<()> {
    support::eventually("its files go", || Ok(!folder.exists())).await
}
