//! What the cache gets of the fake factory, and its generations.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use vmint_cache::{
    AdoptedClone, BoxError, CloneFailure, CloneOrder, FoundGeneration, GenerationFacts, LiveClone,
    LiveGeneration, Mint, NoWayBack, ProcessControl, Size, SizeRange, StaleField, Staleness,
    StepReport, UnverifiedField,
};
use vmint_factory::{Accel, GenerationId, Phases, TemplateSpec};

use super::FakeFactory;

pub(super) struct Shared(pub(super) Arc<FakeFactory>);

impl Mint for Shared {
    fn find<'a>(&'a self, _: &'a TemplateSpec) -> BoxFuture<'a, Result<FoundGeneration, BoxError>> {
        async {
            let on_disk = self.0.on_disk.load(Ordering::SeqCst);
            Ok(if on_disk {
                FoundGeneration::Current(self.0.made())
            } else {
                FoundGeneration::None
            })
        }
        .boxed()
    }

    fn build<'a>(
        &'a self,
        _: &'a TemplateSpec,
        report: StepReport,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, BoxError>> {
        self.0.build(report).boxed()
    }

    fn adopt<'a>(&'a self, _: &'a [TemplateSpec]) -> BoxFuture<'a, Vec<AdoptedClone>> {
        async { Vec::new() }.boxed()
    }

    fn forget<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        async { Ok(()) }.boxed()
    }

    fn generations<'a>(
        &'a self,
        _: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<Vec<GenerationFacts>, BoxError>> {
        async {
            let disk = self.0.disk.lock().unwrap();
            Ok(disk.iter().rev().map(|one| one.facts().clone()).collect())
        }
        .boxed()
    }

    fn rollback<'a>(
        &'a self,
        _: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, NoWayBack>> {
        async {
            let mut disk = self.0.disk.lock().unwrap();
            if disk.len() < 2 {
                return Err(NoWayBack::Impossible("there is no earlier one".into()));
            }
            disk.pop();
            Ok(Arc::clone(&disk[disk.len() - 1]))
        }
        .boxed()
    }

    fn drop_kept<'a>(
        &'a self,
        _: &'a str,
        _: &'a GenerationId,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        async { Ok(false) }.boxed()
    }

    fn give_up<'a>(
        &'a self,
        _: &'a TemplateSpec,
        _: &'a GenerationId,
        _: &'a GenerationId,
    ) -> BoxFuture<'a, Result<(), BoxError>> {
        async { Ok(()) }.boxed()
    }

    fn staleness<'a>(
        &'a self,
        _: &'a Arc<dyn LiveGeneration>,
        _: &'a TemplateSpec,
    ) -> BoxFuture<'a, Staleness> {
        async {
            let field = || StaleField {
                field: "kernel".to_owned(),
                built_with: "blake3:aa".to_owned(),
                now: "blake3:bb".to_owned(),
            };
            let is_stale = self.0.is_stale.load(Ordering::SeqCst);
            let is_unverified = self.0.is_unverified.load(Ordering::SeqCst);
            let unverified = || UnverifiedField {
                field: "qemu_digest".to_owned(),
                reason: "/usr/bin/qemu cannot be read: gone".to_owned(),
            };
            Staleness {
                differing: is_stale.then(field).into_iter().collect(),
                unverified: is_unverified.then(unverified).into_iter().collect(),
            }
        }
        .boxed()
    }

    fn damage<'a>(&'a self, _: &'a Arc<dyn LiveGeneration>) -> BoxFuture<'a, Option<String>> {
        async { None }.boxed()
    }

    fn mint<'a>(
        &'a self,
        _: &'a Arc<dyn LiveGeneration>,
        order: CloneOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveClone>, CloneFailure>> {
        self.0.launch(order).boxed()
    }
}

pub(super) struct Generation(GenerationFacts);

impl Generation {
    pub(super) fn made() -> Arc<dyn LiveGeneration> {
        let size = |vcpus, memory_mib| Size { vcpus, memory_mib };
        Arc::new(Self(GenerationFacts {
            id: GenerationId::new(),
            built_at: Timestamp::now(),
            accel: Accel::Tcg,
            qemu_version: "10.0.2".to_owned(),
            sizes: SizeRange {
                least: size(1, 256),
                most: size(4, 2048),
                fixed: None,
                refuses_vcpus: None,
            },
            boot_phases: Phases {
                total: Duration::from_secs(5),
                ..Phases::default()
            },
            build_phases: vec![("boot".to_owned(), Duration::from_secs(5))],
            first_exec: Some(Duration::from_secs(6)),
            report: serde_json::json!({ "canaries": 2 }),
            process_control: Some(ProcessControl::Cgroup),
        }))
    }
}

impl LiveGeneration for Generation {
    fn facts(&self) -> &GenerationFacts {
        &self.0
    }
    fn memory_bytes_on_disk(&self) -> u64 {
        64 << 20
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
