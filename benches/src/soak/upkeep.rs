//! What a service takes for itself while it lives: descriptors and memory.
//!
//! Both go up and down with the sandboxes of the moment, so floors are compared: the least in the first half minute after
//! the service was ready with the least in its last. What is never given back raises the floor.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use procfs::process::Process;
use tokio::task::JoinHandle;

use super::books::Books;

/// How often is looked.
const INTERVAL: Duration = Duration::from_millis(500);
/// Lives that are shorter say nothing: their beginning would be their end.
pub(super) const LIFE_LEAST: Duration = Duration::from_secs(60);
/// What is compared in a soak.
const SOAKED: Span = Span {
    life_least: LIFE_LEAST,
    window: Duration::from_secs(30),
};
/// How many descriptors more are no leak: a machine has about eight, so these are four clones that happen to live.
const DESCRIPTORS_MAX: usize = 32;
/// How much more memory is no leak: a clone's console and its tasks are far below a megabyte, histories have limits of some
/// megabytes, which they reach in minutes.
const MEMORY_MAX_KIB: u64 = 12 << 10;

/// How much of a life is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) life_least: Duration,
    /// How long the beginning and the end of a life are.
    pub(super) window: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    descriptors: usize,
    memory_kib: u64,
}

pub(super) struct Upkeep {
    samples: Arc<Mutex<Vec<Sample>>>,
    span: Span,
    task: JoinHandle<()>,
}

impl Upkeep {
    /// Looks until the process is gone.
    pub(super) fn watch(pid: u32) -> Self {
        Self::watch_for(pid, SOAKED)
    }

    /// The same, for a life of another length.
    pub(super) fn watch_for(pid: u32, span: Span) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let samples = Arc::clone(&samples);
            async move {
                while let Some(sample) = look(pid) {
                    lock(&samples).push(sample);
                    tokio::time::sleep(INTERVAL).await;
                }
            }
        });
        Self {
            samples,
            span,
            task,
        }
    }

    /// The start is over: what counts begins now.
    pub(super) fn begin(&self) {
        lock(&self.samples).clear();
    }

    /// The life is over: did it grow?
    pub(super) fn close(&self, books: &Books) -> anyhow::Result<()> {
        self.task.abort();
        if let Some(text) = compare(&lock(&self.samples), self.span)? {
            books.pages().lives.push(text);
        }
        Ok(())
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What to say of a life, if it was long enough; an error when it grew.
fn compare(samples: &[Sample], span: Span) -> anyhow::Result<Option<String>> {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return Ok(None);
    };
    let life = last.at - first.at;
    if life < span.life_least {
        return Ok(None);
    }
    let early = samples.iter().filter(|s| s.at - first.at < span.window);
    let late = samples.iter().filter(|s| last.at - s.at < span.window);
    let (early, late) = (floor(early), floor(late));
    let text = format!(
        "{:.0} s: descriptors {} to {}, memory {} to {} KiB",
        life.as_secs_f64(),
        early.0,
        late.0,
        early.1,
        late.1
    );
    let is_well = late.0 <= early.0 + DESCRIPTORS_MAX && late.1 <= early.1 + MEMORY_MAX_KIB;
    anyhow::ensure!(is_well, "the service grows: {text}");
    Ok(Some(text))
}

fn floor<'a>(samples: impl Iterator<Item = &'a Sample> + Clone) -> (usize, u64) {
    let descriptors = samples.clone().map(|s| s.descriptors).min();
    let memory = samples.map(|s| s.memory_kib).min();
    (descriptors.unwrap_or_default(), memory.unwrap_or_default())
}

/// `None` once the process has ended.
fn look(pid: u32) -> Option<Sample> {
    let process = Process::new(pid.try_into().ok()?).ok()?;
    let rollup = process.smaps_rollup().ok()?;
    let memory = rollup.memory_map_rollup.iter().next()?;
    let anonymous = memory.extension.map.get("Anonymous")?;
    Some(Sample {
        at: Instant::now(),
        descriptors: process.fd_count().ok()?,
        memory_kib: anonymous / 1024,
    })
}

fn lock(samples: &Mutex<Vec<Sample>>) -> std::sync::MutexGuard<'_, Vec<Sample>> {
    samples.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two minutes of samples that grow by so much a second.
    fn grown(descriptors: usize, memory_kib: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        let sample = |second: u32| {
            let (seconds, more) = (u64::from(second), usize::try_from(second));
            Sample {
                at: begun + Duration::from_secs(seconds),
                descriptors: 50 + descriptors * more.unwrap_or_default(),
                memory_kib: 9000 + memory_kib * seconds,
            }
        };
        compare(&(0..120).map(sample).collect::<Vec<_>>(), SOAKED).map(drop)
    }

    #[test]
    fn a_floor_that_rises_is_noticed() {
        assert!(grown(0, 0).is_ok());
        assert!(grown(1, 0).is_err(), "a descriptor a second");
        assert!(grown(0, 1 << 10).is_err(), "a megabyte a second");
    }
}
