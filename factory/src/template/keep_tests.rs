//! Generations beside each other, made of small files.

use std::fs;
use std::sync::Arc;

use super::super::check::{Look, check};
use super::super::generation::{Generation, Registry};
use super::super::manifest::{Files, Manifest, tests::manifest};
use super::super::store::Store;
use super::*;
use crate::memory::bytes_digest;
use crate::template::FileSeal;
use crate::waiting::wait_until;
use crate::{TemplateSpec, VmId};

const FILES: [&str; 3] = ["memory", "state", "kernel-stub"];

/// A template with generations that were never booted.
pub(crate) struct Shelf {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) registry: Arc<Registry>,
}

impl Shelf {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let store = Store::new(folder.path(), "default", None);
        Ok(Self {
            folder,
            store,
            registry: Arc::default(),
        })
    }

    /// Publishes a generation, and lets others go, as a build does.
    pub(crate) fn publish(&self, name: &str, keep: u32) -> anyhow::Result<Generation> {
        let id = GenerationId::parse(name).ok_or_else(|| anyhow::anyhow!("{name}"))?;
        let path = self.store.create(&id)?.keep();
        let seal = |name: &str| -> std::io::Result<FileSeal> {
            let content = format!("{name} of {id}, {}", VmId::random());
            fs::write(path.join(name), &content)?;
            Ok(FileSeal {
                bytes: content.len() as u64,
                digest: bytes_digest(content.as_bytes()),
            })
        };
        let files = Files {
            memory: seal("memory")?,
            state: seal("state")?,
            kernel_stub: seal("kernel-stub")?,
        };
        let manifest = Manifest {
            generation: id.clone(),
            files,
            ..manifest()
        };
        manifest.write(&path)?;
        let before = self.store.replace(&id)?;
        let generation = Generation::new(&self.registry, &path, manifest, spec(keep));
        generation.let_others_go(before.as_ref());
        Ok(generation)
    }

    pub(crate) fn on_disk(&self) -> anyhow::Result<Vec<String>> {
        let paths = generations(self.store.path())?;
        let names = paths.iter().filter_map(|path| path.file_name());
        Ok(names
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    fn surplus(&self, keep: u32) -> anyhow::Result<Vec<String>> {
        let paths = surplus(self.store.path(), keep, None, &self.registry)?;
        let names = paths.iter().filter_map(|path| path.file_name());
        Ok(names
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }
}

pub(crate) fn spec(keep_generations: u32) -> TemplateSpec {
    TemplateSpec {
        keep_generations,
        ..TemplateSpec::new("default", "vmlinuz".into(), "initrd".into())
    }
}

#[test]
fn as_many_as_are_kept_stay_and_the_oldest_goes() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    for name in ["g1", "g2", "g3"] {
        drop(shelf.publish(name, 2)?);
    }
    assert_eq!(shelf.on_disk()?, ["g3", "g2"]);
    drop(shelf.publish("g4", 1)?);
    assert_eq!(shelf.on_disk()?, ["g4"]);
    drop(shelf.publish("g5", 0)?);
    assert_eq!(shelf.on_disk()?, ["g5"], "the current one always stays");
    Ok(())
}

#[test]
fn one_that_clones_use_goes_with_the_last_of_them() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    let used = Arc::new(shelf.publish("g1", 1)?);
    let clone = Arc::clone(&used);
    drop(used);
    drop(shelf.publish("g2", 1)?);
    assert_eq!(shelf.on_disk()?, ["g2", "g1"], "a clone still needs it");
    // Another service of the same process would find the same files.
    let path = shelf.store.generation_path(clone.id());
    let orphan = shelf.registry.hold(&path);
    drop(clone);
    assert_eq!(shelf.on_disk()?, ["g2", "g1"], "an orphan still needs it");
    drop(orphan);
    assert_eq!(shelf.on_disk()?, ["g2"]);
    Ok(())
}

#[test]
fn retiring_keeps_what_is_kept() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    let old = shelf.publish("g1", 2)?;
    drop(shelf.publish("g2", 2)?);
    old.retire();
    drop(old);
    assert_eq!(shelf.on_disk()?, ["g2", "g1"], "it can be gone back to");
    Ok(())
}

#[test]
fn what_is_only_kept_can_be_dropped_and_nothing_else() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    let used = shelf.publish("g1", 4)?;
    for name in ["g2", "g3"] {
        drop(shelf.publish(name, 4)?);
    }
    let dropped = |name: &str| -> anyhow::Result<bool> {
        let id = GenerationId::parse(name).ok_or_else(|| anyhow::anyhow!("{name}"))?;
        Ok(drop_kept(&shelf.store, &id, &shelf.registry)?)
    };
    assert!(!dropped("g3")?, "the current one");
    assert!(!dropped("g1")?, "one that somebody has");
    assert_eq!(shelf.on_disk()?, ["g3", "g2", "g1"]);
    assert!(dropped("g2")?);
    let directory = shelf.store.path().join("g2");
    assert!(!directory.exists(), "its memory is free at once");
    drop(used);
    assert_eq!(shelf.on_disk()?, ["g3", "g1"], "it was not marked");
    assert!(dropped("g1")? && dropped("g1")?, "gone is gone");
    assert_eq!(shelf.on_disk()?, ["g3"]);
    Ok(())
}

/// After a rollback the generation that was left is the first to go.
#[test]
fn what_was_rolled_back_from_goes_before_what_was_current() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    for name in ["g1", "g2"] {
        drop(shelf.publish(name, 2)?);
    }
    let first = GenerationId::parse("g1").ok_or_else(|| anyhow::anyhow!("g1"))?;
    shelf.store.publish(&first)?;
    assert!(shelf.surplus(2)?.is_empty());
    drop(shelf.publish("g3", 2)?);
    assert_eq!(shelf.on_disk()?, ["g3", "g1"]);
    Ok(())
}

#[test]
fn what_is_not_whole_counts_for_nothing() -> anyhow::Result<()> {
    for (name, cut) in FILES.iter().flat_map(|name| [(name, true), (name, false)]) {
        let shelf = Shelf::new()?;
        for name in ["g1", "g2", "g3"] {
            drop(shelf.publish(name, 3)?);
        }
        let file = shelf.store.path().join("g2").join(name);
        if cut {
            fs::write(&file, "")?;
        } else {
            fs::remove_file(&file)?;
        }
        assert_eq!(shelf.surplus(2)?, ["g2"], "{name} (cut short: {cut})");
    }
    let shelf = Shelf::new()?;
    let damaged = shelf.publish("g1", 2)?;
    damaged.found_damaged();
    drop(shelf.publish("g2", 2)?);
    drop(damaged);
    assert_eq!(shelf.on_disk()?, ["g2"], "it was found damaged");
    Ok(())
}

#[test]
fn every_missing_short_or_altered_file_is_noticed() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    let digests = Digests::default();
    drop(shelf.publish("g1", 2)?);
    let path = shelf.store.path().join("g1");
    for look in [Look::EveryByte, Look::Changes] {
        check(&path, &digests, look)?;
        for name in FILES.iter().chain(&["manifest.json"]) {
            let file = path.join(name);
            let whole = fs::read(&file)?;
            let mut altered = whole.clone();
            altered[whole.len() / 2] ^= 1;
            for damaged in [&altered[..], &whole[..whole.len() - 1], &[]] {
                fs::write(&file, damaged)?;
                assert!(check(&path, &digests, look).is_err(), "{name} {look:?}");
            }
            fs::remove_file(&file)?;
            assert!(check(&path, &digests, look).is_err(), "no {name} {look:?}");
            fs::write(&file, &whole)?;
        }
        check(&path, &digests, look)?;
    }
    let elsewhere = shelf.store.path().join("g9");
    fs::rename(&path, &elsewhere)?;
    let why = check(&elsewhere, &digests, Look::Length).expect_err("another's manifest");
    assert!(why.to_string().contains("it is that of g1"), "{why}");
    Ok(())
}

#[test]
fn half_built_generations_are_swept_and_whole_ones_are_not() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    drop(shelf.publish("g1", 2)?);
    let half = shelf.store.path().join("g2");
    fs::create_dir(&half)?;
    fs::write(half.join("memory"), "half a mem")?;
    // A generation that a living clone holds has lost its manifest.
    let lost = shelf.publish("g3", 2)?;
    fs::remove_file(shelf.store.path().join("g3/manifest.json"))?;
    std::os::unix::fs::symlink("g2", shelf.store.path().join("current.new"))?;
    assert_eq!(shelf.on_disk()?, ["g1"], "what has no manifest is none");
    assert!(
        shelf.surplus(1)?.is_empty(),
        "and is not removed as one: it may be a build"
    );
    let done = sweep_half_built(shelf.folder.path(), &shelf.registry)?;
    assert_eq!(
        done,
        ["removed generation g2 of template default, whose build was cut off"]
    );
    assert!(!half.exists());
    let mut left: Vec<_> = fs::read_dir(shelf.store.path())?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    left.sort();
    assert_eq!(left, ["current", "g1", "g3"]);
    // It goes with its holder.
    let path = shelf.store.path().join("g3");
    assert!(lost.damage(&Digests::default()).is_some());
    drop(lost);
    wait_until("it is removed", || !path.exists());
    Ok(())
}

#[test]
fn a_generation_that_is_removed_by_its_last_holder_is_no_error() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    drop(shelf.publish("20260101-000001-bcdf", 1)?);
    let path = shelf.folder.path().join("default/20260101-000001-bcdf");
    fs::remove_file(path.join("manifest.json"))?;
    assert_eq!(
        let_go(vec![path], &shelf.registry)?,
        ["20260101-000001-bcdf"]
    );
    Ok(())
}
