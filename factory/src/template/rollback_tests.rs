//! Rollbacks of generations made of small files, and what happens while their bytes are read.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::super::keep::tests::{Shelf, spec};
use super::super::stale::tests::recipe;
use super::*;
use crate::memory::file_digest;
use crate::waiting::wait_until;

/// How long something may take that takes a millisecond.
const DEADLINE: Duration = Duration::from_secs(30);

fn way<'a>(shelf: &'a Shelf, digests: &'a Digests, spec: &'a TemplateSpec) -> WayBack<'a> {
    let recipe = recipe();
    WayBack {
        store: shelf.store.clone(),
        registry: &shelf.registry,
        digests,
        platform: Platform {
            qemu_version: recipe.qemu_version,
            qemu_digest: Ok(recipe.qemu_digest),
            accel: recipe.accel,
            cpu: recipe.host_cpu,
            devices: recipe.devices,
        },
        spec,
    }
}

/// What one test's digests wait for.
struct Reading {
    is_held_up: AtomicBool,
    begun: AtomicUsize,
}

impl Reading {
    const fn new() -> Self {
        Self {
            is_held_up: AtomicBool::new(true),
            begun: AtomicUsize::new(0),
        }
    }

    fn digest(&self, path: &Path) -> io::Result<String> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        wait_until("it may go on", || !self.is_held_up.load(Ordering::SeqCst));
        file_digest(path)
    }

    fn has_begun(&self) {
        wait_until("it has begun", || self.begun.load(Ordering::SeqCst) > 0);
    }
}

#[test]
fn what_is_rolled_back_to_stays_though_its_last_clone_ends_meanwhile() -> anyhow::Result<()> {
    static READING: Reading = Reading::new();
    let shelf = Shelf::new()?;
    let (one, two) = (shelf.publish("g1", 1)?, shelf.publish("g2", 1)?);
    let digests = Digests::reading_by(|path| READING.digest(path));
    let spec = spec(1);
    let asked = way(&shelf, &digests, &spec);
    let rolled_back = std::thread::scope(|scope| {
        let rollback = scope.spawn(|| asked.take());
        READING.has_begun();
        // Its last clone ends: it was surplus, and would go with it.
        drop(one);
        READING.is_held_up.store(false, Ordering::SeqCst);
        rollback.join()
    });
    let generation = rolled_back.map_err(|_| anyhow::anyhow!("it panicked"))??;
    let current = shelf.store.current()?;
    assert_eq!(current.as_ref(), Some(generation.id()));
    assert_eq!(shelf.on_disk()?, ["g2", "g1"]);
    drop(generation);
    assert_eq!(shelf.on_disk()?, ["g2", "g1"], "the current one is needed");
    drop(two);
    Ok(())
}

#[test]
fn nobody_waits_for_the_bytes_of_a_rollback_and_a_later_publication_wins() -> anyhow::Result<()> {
    static READING: Reading = Reading::new();
    let shelf = Shelf::new()?;
    drop((shelf.publish("g1", 3)?, shelf.publish("g2", 3)?));
    let digests = Digests::reading_by(|path| READING.digest(path));
    let spec = spec(3);
    let asked = way(&shelf, &digests, &spec);
    let rolled_back = std::thread::scope(|scope| {
        let rollback = scope.spawn(|| asked.take());
        READING.has_begun();
        let (done, published) = mpsc::channel();
        let (registry, store) = (&shelf.registry, &shelf.store);
        let shelf = &shelf;
        scope.spawn(move || {
            registry.publishing(store.path(), || {});
            let _ = done.send(shelf.publish("g3", 3).is_ok());
        });
        let published = published.recv_timeout(DEADLINE);
        READING.is_held_up.store(false, Ordering::SeqCst);
        (published, rollback.join())
    });
    let (published, rolled_back) = rolled_back;
    assert_eq!(published, Ok(true), "a build waits for a rollback's bytes");
    let refused = rolled_back.map_err(|_| anyhow::anyhow!("it panicked"))?;
    let refused = refused.expect_err("g3 was published meanwhile");
    assert!(
        matches!(&refused, RollbackError::Overtaken { current, .. } if current == "g3"),
        "{refused}"
    );
    assert!(refused.is_impossible());
    let current = shelf.store.current()?.map(|id| id.to_string());
    assert_eq!(current.as_deref(), Some("g3"));
    Ok(())
}

/// Reads nothing, because a limit of the host stands in the way.
fn cannot_open(_: &Path) -> io::Result<String> {
    Err(io::Error::from_raw_os_error(
        nix::errno::Errno::ENFILE as i32,
    ))
}

#[test]
fn what_cannot_be_opened_just_now_is_no_damage() -> anyhow::Result<()> {
    let shelf = Shelf::new()?;
    drop((shelf.publish("g1", 3)?, shelf.publish("g2", 3)?));
    let (digests, spec) = (Digests::reading_by(cannot_open), spec(3));
    let one = shelf.store.path().join("g1");
    assert!(judge(&one, &digests, Look::EveryByte).is_err());
    std::fs::write(one.join("state"), "cut")?;
    assert!(judge(&one, &Digests::default(), Look::EveryByte)?.is_err());
    let refused = way(&shelf, &digests, &spec).take();
    let refused = refused.expect_err("its state was cut short");
    assert!(refused.is_impossible(), "{refused}");
    drop(shelf.publish("g3", 3)?);
    let refused = way(&shelf, &digests, &spec).take();
    let refused = refused.expect_err("g2 cannot be opened");
    assert!(!refused.is_impossible(), "{refused}");
    let current = shelf.store.current()?.map(|id| id.to_string());
    assert_eq!(current.as_deref(), Some("g3"));
    Ok(())
}
