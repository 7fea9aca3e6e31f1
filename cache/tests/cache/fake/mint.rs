//! The factory as the cache sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use futures::future::BoxFuture;
use vmint_cache::{
    AdoptedClone, BoxError, CloneFailure, CloneOrder, FoundGeneration, GenerationFacts, LiveClone,
    LiveGeneration, Mint, NoWayBack, StaleField, Staleness, StepReport, UnverifiedField,
};
use vmint_factory::{FindError, GenerationId, TemplateSpec};

use super::factory::FakeFactory;
use super::generation::state_of;
use super::script::OnDisk;

/// Too many files are open on this host.
const ENFILE: i32 = 23;

/// The factory as the cache gets it.
pub(crate) struct Shared(Arc<FakeFactory>, usize);

impl Shared {
    pub(crate) fn new(factory: &Arc<FakeFactory>) -> Self {
        Self(Arc::clone(factory), factory.era.load(Ordering::SeqCst))
    }
}

impl Mint for Shared {
    fn find<'a>(
        &'a self,
        spec: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<FoundGeneration, BoxError>> {
        let on_disk = self.0.script().on_disk;
        self.0.finds.fetch_add(1, Ordering::SeqCst);
        let generation = GenerationId::new();
        async move {
            match on_disk {
                OnDisk::Valid => {
                    let found = self.0.script().found.clone();
                    let known = found.and_then(|id| self.0.known(&id));
                    let made_of = Some(spec.clone());
                    let found = known.unwrap_or_else(|| self.0.generation_of(1, made_of));
                    Ok(FoundGeneration::Current(found))
                }
                OnDisk::Unverified => Ok(FoundGeneration::Unverified {
                    generation: self.0.generation(1),
                    fields: unverified("gone"),
                }),
                OnDisk::Stale => Ok(FoundGeneration::Stale {
                    generation,
                    fields: stale(0, 1),
                    restorable: None,
                }),
                OnDisk::Restorable => {
                    let found = self.0.generation(0);
                    Ok(FoundGeneration::Stale {
                        generation: found.facts().id.clone(),
                        fields: stale(0, 1),
                        restorable: Some(found),
                    })
                }
                OnDisk::Damaged => Ok(FoundGeneration::Damaged {
                    generation,
                    reason: "cut short".to_owned(),
                }),
                OnDisk::Nothing => Ok(FoundGeneration::None),
                OnDisk::Unreadable => Err("permission denied".into()),
                OnDisk::Unopened => Err(Box::new(FindError::Read {
                    path: "/run/vmint/template/default/memory".into(),
                    source: std::io::Error::from_raw_os_error(ENFILE),
                }) as BoxError),
                OnDisk::Hangs => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn build<'a>(
        &'a self,
        spec: &'a TemplateSpec,
        report: StepReport,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, BoxError>> {
        async {
            let made = self.0.make(spec, report).await?;
            self.0.built.lock().unwrap().push(spec.clone());
            Ok(made)
        }
        .boxed()
    }

    fn forget<'a>(&'a self, template: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        self.0.forgotten.lock().unwrap().push(template.to_owned());
        async { Ok(()) }.boxed()
    }

    fn adopt<'a>(&'a self, _: &'a [TemplateSpec]) -> BoxFuture<'a, Vec<AdoptedClone>> {
        async { self.0.adopted() }.boxed()
    }

    fn generations<'a>(
        &'a self,
        _: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<Vec<GenerationFacts>, BoxError>> {
        async {
            let disk = self.0.disk.lock().unwrap();
            let all = self.0.generations.lock().unwrap();
            let on_disk = disk.all.iter().rev();
            Ok(on_disk.map(|at| all[*at].facts.clone()).collect())
        }
        .boxed()
    }

    fn rollback<'a>(
        &'a self,
        _: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, NoWayBack>> {
        let none = || NoWayBack::Impossible("there is no earlier generation".into());
        async move { self.0.earlier().ok_or_else(none) }.boxed()
    }

    fn drop_kept<'a>(
        &'a self,
        _: &'a str,
        generation: &'a GenerationId,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        async { Ok(self.0.drop_kept(generation)) }.boxed()
    }

    fn give_up<'a>(
        &'a self,
        _: &'a TemplateSpec,
        given_up: &'a GenerationId,
        back_to: &'a GenerationId,
    ) -> BoxFuture<'a, Result<(), BoxError>> {
        async move {
            let all = self.0.generations.lock().unwrap();
            let is = |at: usize, id: &GenerationId| all[at].facts.id == *id;
            let mut disk = self.0.disk.lock().unwrap();
            disk.all.retain(|at| !is(*at, given_up));
            disk.current = disk.all.iter().copied().find(|at| is(*at, back_to));
            Ok(())
        }
        .boxed()
    }

    fn staleness<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
        spec: &'a TemplateSpec,
    ) -> BoxFuture<'a, Staleness> {
        let (now, state) = (self.0.script().recipe, state_of(generation));
        let unverified: Vec<_> = self.0.script().unreadable.map_or_else(Vec::new, unverified);
        let mut fields = if unverified.is_empty() {
            stale(state.recipe, now)
        } else {
            Vec::new()
        };
        let parameters = |spec: &TemplateSpec| spec.kernel_params.clone();
        let was = state.made_of.as_ref().map(parameters);
        if let Some(built_with) = was.filter(|was| *was != spec.kernel_params) {
            fields.push(StaleField {
                field: "kernel_params".to_owned(),
                built_with,
                now: spec.kernel_params.clone(),
            });
        }
        let found = Staleness {
            differing: fields,
            unverified,
        };
        async move { found }.boxed()
    }

    fn damage<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
    ) -> BoxFuture<'a, Option<String>> {
        let is_damaged = self.0.script().damaged.as_ref() == Some(&generation.facts().id);
        async move { is_damaged.then(|| "memory: it is cut short".to_owned()) }.boxed()
    }

    fn mint<'a>(
        &'a self,
        generation: &'a Arc<dyn LiveGeneration>,
        order: CloneOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveClone>, CloneFailure>> {
        async move {
            if self.0.era.load(Ordering::SeqCst) != self.1 {
                // Whoever asks was killed.
                return std::future::pending().await;
            }
            self.0.launch(generation, order).await
        }
        .boxed()
    }
}

fn unverified(why: &str) -> Vec<UnverifiedField> {
    vec![UnverifiedField {
        field: "kernel".to_owned(),
        reason: format!("/boot/vmlinuz cannot be read: {why}"),
    }]
}

fn stale(recipe: u32, now: u32) -> Vec<StaleField> {
    let field = || StaleField {
        field: "kernel".to_owned(),
        built_with: recipe.to_string(),
        now: now.to_string(),
    };
    (recipe != now).then(field).into_iter().collect()
}
