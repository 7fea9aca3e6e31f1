//! The checks: ranges, contradictions, and the few facts of the host that a configuration depends on.
//!
//! Every check returns a usable value whatever it finds; a value with a mistake is replaced by one that works, so
//! that the checks after it, and `vmint doctor`, can go on.

mod host;
mod pool;
mod server;
#[cfg(test)]
mod size_tests;
mod template;

use std::path::PathBuf;
use std::time::Duration;

use super::places::Places;
use super::problem::Problems;
use super::requested::Requested;
use super::units::{parse_duration, parse_size};
use super::validated::Config;

/// Checks the whole configuration.
pub(crate) fn check(requested: &Requested, places: &Places, problems: &mut Problems) -> Config {
    let has_tcp = !requested.server.listen.is_empty();
    let (host, max_ttl) = host::check(&requested.host, has_tcp, places, problems);
    let memory_share = host::memory_share(requested.host.memory_share, problems);
    let server = server::check(&requested.server, &host.run_dir, problems);
    if requested.templates.is_empty() {
        let mend = "remove the empty [templates], or describe one: [templates.default]";
        problems.add("templates", toml::Table::new(), "names no template", mend);
    }
    let templates = requested
        .templates
        .iter()
        .map(|(name, template)| template::check(name, template, max_ttl, places, problems))
        .collect();
    Config {
        server,
        host,
        max_ttl,
        memory_share,
        templates,
    }
}

/// One table of the file, and where to tell its mistakes.
struct Section<'a> {
    path: String,
    problems: &'a mut Problems,
}

impl Section<'_> {
    fn tell(
        &mut self,
        key: &str,
        value: impl Into<toml::Value>,
        reason: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.problems
            .add(&format!("{}.{key}", self.path), value, reason, mend);
    }

    /// A whole number between two limits.
    fn number<T: TryFrom<i64> + Copy>(
        &mut self,
        key: &str,
        value: i64,
        (low, high): (i64, i64),
        fallback: T,
    ) -> T {
        match T::try_from(value) {
            Ok(number) if (low..=high).contains(&value) => number,
            _ => {
                self.tell(
                    key,
                    value,
                    "is out of range",
                    format!("use {low} to {high}"),
                );
                fallback
            }
        }
    }

    /// A duration; zero is one.
    fn duration(&mut self, key: &str, text: &str, fallback: Duration) -> Duration {
        parse_duration(text).unwrap_or_else(|| {
            self.tell(
                key,
                text,
                "is no duration",
                r#"write it like "250ms", "120s", "5m" or "1h30m""#,
            );
            fallback
        })
    }

    /// A size in bytes between two limits.
    fn size(&mut self, key: &str, text: &str, (low, high): (u64, u64), fallback: u64) -> u64 {
        match parse_size(text) {
            Some(bytes) if (low..=high).contains(&bytes) => bytes,
            Some(_) => {
                let limits = format!("use {} to {}", size_text(low), size_text(high));
                self.tell(key, text, "is out of range", limits);
                fallback
            }
            None => {
                self.tell(
                    key,
                    text,
                    "is no size",
                    r#"write it like "512KiB", "256MiB" or "1GiB""#,
                );
                fallback
            }
        }
    }

    /// A path that must not depend on the directory in which the service was started.
    fn absolute(&mut self, key: &str, text: &str, fallback: impl FnOnce() -> PathBuf) -> PathBuf {
        let path = PathBuf::from(text);
        if text.is_empty() {
            return fallback();
        }
        if !path.is_absolute() {
            self.tell(
                key,
                text,
                "is a relative path",
                "write the whole path, from / on",
            );
            return fallback();
        }
        path
    }

    /// One of a few words.
    fn choice<T: Copy>(&mut self, key: &str, text: &str, choices: &[(&str, T)], fallback: T) -> T {
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return *choice;
        }
        let words = choices
            .iter()
            .map(|(word, _)| format!("{word:?}"))
            .collect::<Vec<_>>()
            .join(", ");
        self.tell(
            key,
            text,
            "is none of the choices",
            format!("use one of: {words}"),
        );
        fallback
    }
}

/// A limit in the largest unit that it is a whole number of.
fn size_text(bytes: u64) -> String {
    let unit = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    unit.iter()
        .find(|(_, shift)| bytes >= 1 << shift && bytes.trailing_zeros() >= *shift)
        .map_or_else(
            || format!("{bytes}B"),
            |(name, shift)| format!("{}{name}", bytes >> shift),
        )
}

#[cfg(test)]
mod tests;
