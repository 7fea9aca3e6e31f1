//! What the actor does where the core and the ledger disagree, which must not be: nothing is lost all the same.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use vmint_factory::{CloneOrder, GenerationId, Phase, Phases, TemplateSpec};

use super::super::core::Ticket;
use super::super::core::{CloneKey, Event};
use super::super::handle::Pool;
use super::super::message::{Ask, Message, Refused};
use crate::error::BoxError;
use crate::mint::{
    AdoptedClone, CloneFailure, FoundGeneration, GenerationFacts, LiveClone, LiveGeneration, Mint,
    NoWayBack, StepReport,
};
use crate::node::Node;
use crate::request::OnEmpty;
use crate::spec::{CacheSettings, PoolSpec, Standby};
use crate::telemetry::{StartPath, Telemetry};
use crate::view::Source;

struct Deaf;

impl Telemetry for Deaf {
    fn checkout(&self, _: &str, _: Option<Source>, _: &'static str, _: Duration) {}
    fn startup(&self, _: &str, _: StartPath, _: &Phases) {}
    fn first_exec(&self, _: &str, _: StartPath, _: Duration) {}
    fn exec(&self, _: &str, _: &'static str, _: Duration) {}
    fn clone_failed(&self, _: &str, _: Phase) {}
    fn build(&self, _: &str, _: &'static str, _: Duration) {}
}

struct Generation(GenerationFacts);

impl LiveGeneration for Generation {
    fn facts(&self) -> &GenerationFacts {
        &self.0
    }
    fn memory_bytes_on_disk(&self) -> u64 {
        0
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn generation() -> Arc<dyn LiveGeneration> {
    Arc::new(Generation(GenerationFacts::for_tests()))
}

/// Clones of it never come up.
struct Stub;

impl Mint for Stub {
    fn find<'a>(&'a self, _: &'a TemplateSpec) -> BoxFuture<'a, Result<FoundGeneration, BoxError>> {
        async { Ok(FoundGeneration::None) }.boxed()
    }
    fn build<'a>(
        &'a self,
        _: &'a TemplateSpec,
        _: StepReport,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, BoxError>> {
        std::future::pending().boxed()
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
        async { Ok(Vec::new()) }.boxed()
    }
    fn rollback<'a>(
        &'a self,
        _: &'a TemplateSpec,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveGeneration>, NoWayBack>> {
        std::future::pending().boxed()
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
    ) -> BoxFuture<'a, vmint_factory::Staleness> {
        async { vmint_factory::Staleness::default() }.boxed()
    }
    fn drop_kept<'a>(
        &'a self,
        _: &'a str,
        _: &'a GenerationId,
    ) -> BoxFuture<'a, Result<bool, BoxError>> {
        async { Ok(false) }.boxed()
    }
    fn damage<'a>(&'a self, _: &'a Arc<dyn LiveGeneration>) -> BoxFuture<'a, Option<String>> {
        async { None }.boxed()
    }
    fn mint<'a>(
        &'a self,
        _: &'a Arc<dyn LiveGeneration>,
        _: CloneOrder,
    ) -> BoxFuture<'a, Result<Arc<dyn LiveClone>, CloneFailure>> {
        std::future::pending().boxed()
    }
}

fn pool() -> Pool {
    let settings = CacheSettings {
        max_ttl: None,
        refill_at_once: 1,
        memory: None,
    };
    let node = Node::new(Arc::new(Stub), Arc::new(Deaf), settings);
    let spec = PoolSpec {
        target: 1,
        max: 1,
        refill: 1,
        standby: Standby::Running,
        on_clone: Vec::new(),
        max_age: Duration::ZERO,
        ttl: Duration::from_secs(300),
        queue: 8,
        guest_timeout: Duration::from_secs(60),
    };
    Pool::start(&node, "default", spec, Vec::new(), Box::new(|_| {}))
}

#[tokio::test(start_paused = true)]
async fn a_clone_without_a_machine_is_not_leased_for_good_and_its_caller_is_answered() {
    let pool = pool();
    let outbox = pool.outbox();
    let (reply, published) = oneshot::channel();
    let publish = Message::Publish {
        generation: generation(),
        on_trial: false,
        reply,
    };
    outbox.send(publish).await.expect("the actor");
    published.await.expect("published");
    // The core believes that it is up, and nothing is there.
    let clone = CloneKey(0);
    let launched = Message::Happened(Event::Launched { clone });
    outbox.send(launched).await.expect("the actor");
    let (reply, answer) = oneshot::channel();
    let ask = Ask {
        on_empty: OnEmpty::Wait,
        deadline: Some(Instant::now() + Duration::from_secs(5)),
        ttl: None,
        again: false,
    };
    let ticket = Ticket(0);
    let checkout = Message::Checkout { ticket, ask, reply };
    outbox.send(checkout).await.expect("the actor");
    let answer = timeout(Duration::from_secs(60), answer).await;
    let refused = answer.expect("in time").expect("an answer").err();
    assert!(
        matches!(refused, Some(Refused::Empty { .. })),
        "{refused:?}"
    );
    // Its place is free again: the next clone is being made.
    let until = async {
        loop {
            let view = pool.view();
            if view.launching == 1 && view.leased + view.releasing == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let deadline = timeout(Duration::from_secs(60), until).await;
    assert!(deadline.is_ok(), "{:?}", pool.view());
}
