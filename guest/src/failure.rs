//! What was being done when the system said no.

use std::fmt;
use std::io;

/// A failed step: what it was, and the system's reason.
#[derive(Debug)]
pub(crate) struct Failure {
    doing: String,
    cause: io::Error,
}

impl Failure {
    pub(crate) fn new(doing: impl Into<String>, cause: io::Error) -> Self {
        Self {
            doing: doing.into(),
            cause,
        }
    }

    /// A step that failed by its own judgement, not by a system call.
    pub(crate) fn judged(doing: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(doing, io::Error::other(reason.into()))
    }

    /// The kernel's error number, or 0.
    pub(crate) fn errno(&self) -> i32 {
        self.cause.raw_os_error().unwrap_or(0)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.cause)
    }
}

/// Adds what was being done to an I/O error.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|cause| Failure::new(what(), cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_step_and_the_reason() {
        let failed: io::Result<()> = Err(io::Error::from_raw_os_error(libc::ENOENT));
        let text = failed
            .doing(|| "open /dev/rtc0".to_owned())
            .map_err(|f| f.to_string());
        assert_eq!(
            text,
            Err("open /dev/rtc0: No such file or directory (os error 2)".to_owned())
        );
        assert_eq!(
            Failure::judged("look", "nothing there").to_string(),
            "look: nothing there"
        );
    }
}
