//! Files that are whole, up to their publication.

use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;

use super::site::Site;
use crate::Phases;
use crate::aside::aside;
use crate::guest::ProcessControl;
use crate::memory::MemorySurvey;
use crate::template::manifest::{Files, Manifest, SavedClock, VerifyReport};
use crate::template::verify::verify;
use crate::template::{BuildError, Generation};

/// The files are whole and unchangeable.
pub(super) struct Saved {
    pub(super) site: Site,
    pub(super) protocol: u16,
    pub(super) process_control: ProcessControl,
    pub(super) files: Files,
    pub(super) survey: MemorySurvey,
    pub(super) clock: SavedClock,
    pub(super) phases: Phases,
    pub(super) first_exec: Duration,
}

impl Saved {
    /// Mints canaries from it: it must work before it is published.
    pub(super) async fn verify(self) -> Result<Verified, BuildError> {
        let manifest = Manifest {
            format: Manifest::FORMAT,
            template: self.site.spec.name.clone(),
            generation: self.site.id.clone(),
            built_at: Timestamp::now(),
            recipe: self.site.recipe.clone(),
            files: self.files,
            memory: self.survey,
            protocol: Some(self.protocol),
            process_control: Some(self.process_control),
            guest_kernel: self.site.guest_kernel.clone(),
            clock: self.clock,
            boot_phases: self.phases,
            first_exec: self.first_exec,
            build_phases: Vec::new(),
            report: VerifyReport {
                canaries: Vec::new(),
                memory_unchanged: false,
            },
        };
        let path = self.site.dir.path().to_owned();
        let draft = Arc::new(Generation::new(
            &self.site.host.registry,
            &path,
            manifest.clone(),
            self.site.spec.clone(),
        ));
        let report = verify(&self.site.host, &draft).await?;
        Ok(Verified {
            site: self.site,
            manifest: Manifest { report, ..manifest },
        })
    }
}

/// Canaries have shown that it works.
pub(super) struct Verified {
    site: Site,
    manifest: Manifest,
}

impl Verified {
    /// Writes the manifest and makes it the current generation.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing, unless the link to the current generation is being changed already: that is finished.
    pub(super) async fn publish(
        self,
        build_phases: Vec<(String, Duration)>,
    ) -> Result<Generation, BuildError> {
        let caller = Arc::new(());
        let waiting = Arc::downgrade(&caller);
        // It writes, and waits for others that publish.
        let published = aside(move || self.publish_blocking(build_phases, &waiting)).await;
        drop(caller);
        published
    }

    fn publish_blocking(
        self,
        build_phases: Vec<(String, Duration)>,
        caller: &Weak<()>,
    ) -> Result<Generation, BuildError> {
        let Self { site, manifest } = self;
        let manifest = Manifest {
            build_phases,
            built_at: Timestamp::now(),
            ..manifest
        };
        let path = site.dir.path().to_owned();
        let place = site.host.registry.renew_place();
        place.map_err(Site::file_error("publish", &path))?;
        manifest
            .write(&path)
            .map_err(Site::file_error("write the manifest in", &path))?;
        let registry = Arc::clone(&site.host.registry);
        registry.publishing(site.store.path(), || {
            if caller.strong_count() == 0 {
                return Err(BuildError::Dropped);
            }
            let before = site.store.replace(&site.id);
            let before = before.map_err(Site::file_error("publish", &path))?;
            site.dir.keep();
            let generation = Generation::new(&registry, &path, manifest, site.spec);
            generation.let_others_go(before.as_ref());
            Ok(generation)
        })
    }
}
