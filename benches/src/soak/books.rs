//! What is known of a soak from outside: who holds which sandbox, what was ever seen, what was hurt, and how it went.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::call::Reply;

/// How close to its end a lease counts as over: the service's clock runs on while an answer is on its way.
const LEASE_SLACK: SignedDuration = SignedDuration::from_secs(1);
/// Failures that are kept: the first ones tell.
const FAILURES_MAX: usize = 20;

/// A sandbox that a client holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: String,
    pub(super) tag: String,
    pub(super) pid: i64,
    pub(super) machine_id: String,
    pub(super) hostname: String,
    pub(super) expires_at: Timestamp,
}

impl Held {
    /// Reads the answer to a checkout.
    pub(super) fn of(tag: &str, sandbox: &Value) -> anyhow::Result<Self> {
        let text = |key: &str| {
            let text = sandbox[key].as_str().map(str::to_owned);
            text.with_context(|| format!("a sandbox without {key}: {sandbox}"))
        };
        Ok(Self {
            id: text("id")?,
            tag: tag.to_owned(),
            pid: sandbox["pid"].as_i64().context("a sandbox without pid")?,
            machine_id: text("machine_id")?,
            hostname: text("hostname")?,
            expires_at: text("expires_at")?.parse()?,
        })
    }
}

/// The figures, and what went wrong.
#[derive(Default)]
pub(super) struct Pages {
    is_up: bool,
    /// How often the service was killed.
    era: u32,
    held: BTreeMap<String, Held>,
    hurt: BTreeSet<String>,
    sandboxes: HashMap<String, String>,
    machine_ids: HashMap<String, String>,
    random: HashSet<String>,
    pub(super) duplicates: u64,
    pub(super) outcomes: BTreeMap<String, u64>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) checkouts: Vec<Duration>,
    pub(super) execs: Vec<Duration>,
    pub(super) starts: Vec<Duration>,
    pub(super) lives: Vec<String>,
    /// Kills by situation.
    pub(super) killed: BTreeMap<&'static str, u64>,
    /// Builds that succeeded, the most that was seen in each era.
    builds: BTreeMap<u32, usize>,
    failures: Vec<String>,
}

impl Pages {
    /// So many builds of this service have succeeded so far.
    pub(super) fn note_builds(&mut self, succeeded: usize) {
        self.builds.insert(self.era, succeeded);
    }

    /// Builds that succeeded and were still told of at an audit.
    pub(super) fn builds(&self) -> usize {
        self.builds.values().sum()
    }
}

/// The books; every part of the soak writes into them.
#[derive(Default)]
pub(super) struct Books(Mutex<Pages>);

impl Books {
    pub(super) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    pub(super) fn add(&self, what: &'static str, more: u64) {
        *self.pages().counts.entry(what).or_default() += more;
    }

    /// The service answers from now on.
    pub(super) fn is_up(&self, started_in: Duration) {
        let mut pages = self.pages();
        pages.is_up = true;
        pages.starts.push(started_in);
    }

    /// The service is about to be killed, or to stop.
    pub(super) fn goes_down(&self) {
        let mut pages = self.pages();
        pages.is_up = false;
        pages.era += 1;
    }

    pub(super) fn era(&self) -> u32 {
        self.pages().era
    }

    /// Whether a request that began in an era may have come to nothing.
    pub(super) fn may_miss(&self, era: u32) -> bool {
        let pages = self.pages();
        !pages.is_up || pages.era != era
    }

    /// How a checkout was answered.
    pub(super) fn outcome(&self, reply: &Reply, took: Duration) {
        let mut pages = self.pages();
        let word = match reply.status {
            201 => reply.body["source"].as_str().unwrap_or_default(),
            _ => reply.code(),
        };
        let outcome = format!("{} {word}", reply.status);
        *pages.outcomes.entry(outcome).or_default() += 1;
        if reply.status == 201 {
            pages.checkouts.push(took);
        }
    }

    /// A sandbox is somebody's, and never was anybody's before.
    pub(super) fn takes(&self, held: &Held) -> anyhow::Result<()> {
        let mut pages = self.pages();
        let (id, tag) = (held.id.clone(), held.tag.clone());
        let other = pages.sandboxes.insert(id.clone(), tag);
        let twin = pages
            .machine_ids
            .insert(held.machine_id.clone(), id.clone());
        pages.held.insert(id, held.clone());
        if let Some(other) = other.or(twin) {
            pages.duplicates += 1;
            anyhow::bail!("a duplicate: {held:?} is, or looks as, the one of {other}");
        }
        Ok(())
    }

    /// Random bytes of a sandbox; nobody has seen them before.
    pub(super) fn random(&self, held: &Held, random: &str) -> anyhow::Result<()> {
        let mut pages = self.pages();
        if !pages.random.insert(random.to_owned()) {
            pages.duplicates += 1;
            anyhow::bail!("random numbers came twice: {random}, now in {held:?}");
        }
        Ok(())
    }

    /// Its client is about to release it.
    pub(super) fn lets_go(&self, id: &str) {
        self.pages().held.remove(id);
    }

    /// Its lease lasts longer.
    pub(super) fn renewed(&self, id: &str, expires_at: Timestamp) {
        if let Some(held) = self.pages().held.get_mut(id) {
            held.expires_at = expires_at;
        }
    }

    /// Its hypervisor is about to be killed.
    pub(super) fn hurts(&self, id: &str) {
        self.pages().hurt.insert(id.to_owned());
    }

    /// Whether a sandbox may be gone.
    pub(super) fn may_be_gone(&self, held: &Held) -> bool {
        let pages = self.pages();
        let expires_at = pages.held.get(&held.id).unwrap_or(held).expires_at;
        pages.hurt.contains(&held.id) || Timestamp::now() + LEASE_SLACK > expires_at
    }

    /// All that must be there.
    pub(super) fn held(&self) -> Vec<Held> {
        let held: Vec<_> = self.pages().held.values().cloned().collect();
        let (gone, there): (Vec<_>, Vec<_>) = held.into_iter().partition(|h| self.may_be_gone(h));
        for held in gone {
            self.lets_go(&held.id);
        }
        there
    }

    pub(super) fn fails(&self, who: &str, error: &anyhow::Error) {
        let mut pages = self.pages();
        println!("FAILURE of {who}: {error:#}");
        if pages.failures.len() < FAILURES_MAX {
            let now = Timestamp::now();
            pages.failures.push(format!("{now} {who}: {error:#}"));
        }
    }

    pub(super) fn failures_text(&self) -> String {
        self.pages().failures.join("\n")
    }

    /// Fails when anything has.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        let failures = self.pages().failures.len();
        anyhow::ensure!(failures == 0, "{failures} failures");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn held(id: &str, machine_id: &str, ttl_s: i64) -> anyhow::Result<Held> {
        let expires_at = Timestamp::now() + SignedDuration::from_secs(ttl_s);
        Held::of(
            "tag",
            &json!({
                "id": id, "pid": 7, "machine_id": machine_id, "hostname": "h",
                "expires_at": expires_at.to_string(),
            }),
        )
    }

    #[test]
    fn what_comes_twice_is_noticed() -> anyhow::Result<()> {
        let books = Books::default();
        let first = held("a", "m1", 60)?;
        books.takes(&first)?;
        assert!(
            books.takes(&held("a", "m2", 60)?).is_err(),
            "handed out twice"
        );
        assert!(
            books.takes(&held("b", "m1", 60)?).is_err(),
            "looks as another"
        );
        books.random(&first, "r")?;
        assert!(books.random(&first, "r").is_err(), "the same numbers");
        assert_eq!(books.pages().duplicates, 3);
        Ok(())
    }

    #[test]
    fn only_what_was_hurt_or_is_over_may_be_gone() -> anyhow::Result<()> {
        let books = Books::default();
        let (whole, hurt, over) = (held("a", "1", 60)?, held("b", "2", 60)?, held("c", "3", 0)?);
        for one in [&whole, &hurt, &over] {
            books.takes(one)?;
        }
        books.hurts("b");
        assert!(!books.may_be_gone(&whole));
        assert!(books.may_be_gone(&hurt) && books.may_be_gone(&over));
        let there: Vec<_> = books.held().into_iter().map(|held| held.id).collect();
        assert_eq!(there, ["a"]);
        Ok(())
    }

    #[test]
    fn a_request_may_be_missed_only_around_a_kill() {
        let books = Books::default();
        books.is_up(Duration::ZERO);
        let era = books.era();
        assert!(!books.may_miss(era));
        books.goes_down();
        books.is_up(Duration::ZERO);
        assert!(books.may_miss(era) && !books.may_miss(books.era()));
    }
}
