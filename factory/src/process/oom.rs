//! Which process goes first when the host's memory is short.
//!
//! A guest that writes to all of its memory can exhaust the host. The kernel then kills what is largest: without this,
//! a database of the host as likely as a sandbox. With it, a hypervisor counts half of the host's memory more than it has,
//! so it goes before anything that was not asked to go first as well.

use std::fs;
use std::sync::Once;

/// The `oom_score_adj` of a hypervisor, whatever the service's own is: it may have a negative one.
pub(super) const SCORE_ADJ: &[u8] = b"500";

/// Warns, once, of a kernel that did not take the value.
pub(super) fn report_refusal(pid: u32) {
    static SAID: Once = Once::new();
    let path = format!("/proc/{pid}/oom_score_adj");
    let found = match fs::read(&path) {
        Ok(found) if found.trim_ascii() == SCORE_ADJ => return,
        Ok(found) => String::from_utf8_lossy(found.trim_ascii()).into_owned(),
        Err(error) => error.to_string(),
    };
    SAID.call_once(|| {
        tracing::warn!(
            path,
            found,
            "hypervisors do not go first when the host's memory is short: their oom_score_adj cannot be set to 500"
        );
    });
}
