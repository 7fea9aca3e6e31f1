//! The kills of the service: a deck of situations, shuffled from the seed, each ended with an audit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::Soak;
use super::audit;
use super::host;
use super::service::Service;
use super::situation::{Situation, provoke, settle};
use super::upkeep::LIFE_LEAST;
use super::view::View;

/// Of the time of a soak, the share in which kills come: what is left is one long life, whose upkeep can be compared.
const KILLING_SHARE: f64 = 0.75;
/// What the last life lasts at least, however long the kills took: long enough for a comparison.
const CALM_LEAST: Duration = LIFE_LEAST.saturating_add(Duration::from_secs(5));
/// How often it is looked whether anything has failed.
const AGAIN: Duration = Duration::from_millis(200);

pub(super) struct Kills {
    soak: Arc<Soak>,
    rng: StdRng,
    deck: Vec<Situation>,
}

impl Kills {
    pub(super) fn new(soak: &Arc<Soak>, seed: u64) -> Self {
        Self {
            soak: Arc::clone(soak),
            rng: StdRng::seed_from_u64(seed),
            deck: Vec::new(),
        }
    }

    /// Lets the load go on for a time, and kills the service so often meanwhile.
    pub(super) async fn run(
        &mut self,
        service: &mut Service,
        time: Duration,
        kills: u32,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        for nth in 1..=kills {
            let at = time.mul_f64(KILLING_SHARE * f64::from(nth) / f64::from(kills));
            self.until(service, begun + at).await?;
            self.kill(service, nth).await?;
        }
        let end = (begun + time).max(Instant::now() + CALM_LEAST);
        self.until(service, end).await
    }

    async fn until(&self, service: &mut Service, at: Instant) -> anyhow::Result<()> {
        loop {
            service.lives()?;
            self.soak.books.verdict()?;
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(AGAIN)).await;
        }
    }

    async fn kill(&mut self, service: &mut Service, nth: u32) -> anyhow::Result<()> {
        let situation = self.draw();
        let tag = format!("k-{nth}");
        let provoked = provoke(&self.soak, situation, tag, &mut self.rng).await?;
        let what = format!(
            "{:<8} {:>9.3} ms after {}",
            situation.as_str(),
            provoked.delay.as_secs_f64() * 1e3,
            provoked.since
        );
        service.kill_after(provoked.delay).await?;
        let left = machines(&self.soak)?;
        *service = Service::start(&self.soak)?;
        let ready = service.until_ready().await?;
        // Some may have been given back since; those are not counted.
        let there = View::take(&self.soak.place.socket()).await?.clones;
        let adopted = there.keys().filter(|id| left.contains(*id)).count();
        let begun = Instant::now();
        audit::agree(&self.soak, service).await?;
        settle(&self.soak, provoked.pending).await?;
        let books = &self.soak.books;
        books.add("clones taken up", u64::try_from(adopted)?);
        *books.pages().killed.entry(situation.as_str()).or_default() += 1;
        println!(
            "kill {nth:>3}  {what:<58} ready in {:>6.2} s, {adopted} of {} machines taken up, agreed in {:.2} s",
            ready.as_secs_f64(),
            left.len(),
            begun.elapsed().as_secs_f64()
        );
        books.verdict()
    }

    /// The next situation: each comes once before any comes again.
    fn draw(&mut self) -> Situation {
        loop {
            if let Some(situation) = self.deck.pop() {
                return situation;
            }
            self.deck = Situation::ALL.to_vec();
            self.deck.shuffle(&mut self.rng);
        }
    }
}

fn machines(soak: &Soak) -> anyhow::Result<BTreeSet<String>> {
    let seen = host::processes(&soak.place.folder)?;
    Ok(seen
        .machines
        .into_iter()
        .map(|machine| machine.id)
        .collect())
}
