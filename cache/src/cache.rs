//! The cache as its users see it.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{
    CheckoutError, ConsoleError, RebuildError, ReleaseError, RenewError, ResizeError, SandboxExecError,
};
use crate::lease::Lease;
use crate::mint::Mint;
use crate::request::{CheckoutRequest, Resize};
use crate::spec::{CacheSettings, TemplatePlan};
use crate::standin::{ExecOutcome, ExecRequest};
use crate::telemetry::Telemetry;
use crate::view::{BuildView, PoolView, Readiness, SandboxView, TemplateMemory, TemplateView};

/// Templates, their pools and their sandboxes. Cheap to clone; all clones are the same cache.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner;

#[allow(clippy::todo, clippy::unused_async, missing_docs, clippy::missing_errors_doc, unused_variables)]
impl Cache {
    pub fn start(
        mint: Arc<dyn Mint>,
        plans: Vec<TemplatePlan>,
        settings: CacheSettings,
        telemetry: Arc<dyn Telemetry>,
    ) -> Cache {
        todo!()
    }
    pub fn begin_stop(&self) {
        todo!()
    }
    pub async fn stop(&self, deadline: Duration) {
        todo!()
    }
    pub fn readiness(&self) -> Readiness {
        todo!()
    }
    pub fn templates(&self) -> Vec<TemplateView> {
        todo!()
    }
    pub fn template(&self, name: &str) -> Option<TemplateView> {
        todo!()
    }
    pub fn rebuild(&self, name: &str) -> Result<BuildView, RebuildError> {
        todo!()
    }
    pub fn builds(&self) -> Vec<BuildView> {
        todo!()
    }
    pub fn build(&self, id: &str) -> Option<BuildView> {
        todo!()
    }
    pub async fn build_ended(&self, id: &str) -> Option<BuildView> {
        todo!()
    }
    pub fn pools(&self) -> Vec<PoolView> {
        todo!()
    }
    pub fn pool(&self, template: &str) -> Option<PoolView> {
        todo!()
    }
    pub async fn resize(&self, template: &str, change: Resize) -> Result<PoolView, ResizeError> {
        todo!()
    }
    pub async fn checkout(&self, request: CheckoutRequest) -> Result<Lease, CheckoutError> {
        todo!()
    }
    pub fn sandboxes(&self, template: Option<&str>) -> Vec<SandboxView> {
        todo!()
    }
    pub fn sandbox(&self, id: &str) -> Option<SandboxView> {
        todo!()
    }
    pub async fn renew(&self, id: &str, ttl: Option<Duration>) -> Result<SandboxView, RenewError> {
        todo!()
    }
    pub async fn release(&self, id: &str) -> Result<(), ReleaseError> {
        todo!()
    }
    pub async fn exec(&self, id: &str, request: ExecRequest) -> Result<ExecOutcome, SandboxExecError> {
        todo!()
    }
    pub fn console(&self, id: &str) -> Result<Vec<u8>, ConsoleError> {
        todo!()
    }
    pub fn memory(&self) -> Vec<TemplateMemory> {
        todo!()
    }
}
