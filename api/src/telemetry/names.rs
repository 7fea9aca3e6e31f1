//! Names, help texts and buckets. The names are those of the contract with the users' dashboards.

pub(super) const CHECKOUT_SECONDS: &str = "vmint_checkout_seconds";
pub(super) const STARTUP_PHASE_SECONDS: &str = "vmint_startup_phase_seconds";
pub(super) const EXEC_SECONDS: &str = "vmint_exec_seconds";
pub(super) const HTTP_REQUEST_SECONDS: &str = "vmint_http_request_seconds";
pub(super) const TEMPLATE_BUILD_SECONDS: &str = "vmint_template_build_seconds";
pub(super) const CHECKOUTS_TOTAL: &str = "vmint_checkouts_total";
pub(super) const CLONE_FAILURES_TOTAL: &str = "vmint_clone_failures_total";
pub(super) const POOL_VMS: &str = "vmint_pool_vms";
pub(super) const POOL_TARGET: &str = "vmint_pool_target";
pub(super) const POOL_WAITERS: &str = "vmint_pool_waiters";
pub(super) const SANDBOXES_UNRESPONSIVE: &str = "vmint_sandboxes_unresponsive";
pub(super) const TEMPLATE_INFO: &str = "vmint_template_info";
pub(super) const TEMPLATE_BUILT: &str = "vmint_template_built_timestamp_seconds";
pub(super) const TEMPLATE_STALE: &str = "vmint_template_stale";
pub(super) const TEMPLATE_MEMORY: &str = "vmint_template_memory_bytes";
pub(super) const CLONE_PRIVATE: &str = "vmint_clone_private_bytes";
pub(super) const MEMORY_BUDGET: &str = "vmint_memory_budget_bytes";
pub(super) const MEMORY_ADMITTED: &str = "vmint_memory_admitted_bytes";
pub(super) const LOG_LINES_DROPPED: &str = "vmint_log_lines_dropped_total";
pub(super) const BUILD_INFO: &str = "vmint_build_info";

/// Upper ends of the buckets, seconds: from a checkout out of a filled pool (50 µs) to a cold boot under emulation.
pub(super) const BUCKETS: [f64; 19] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

pub(super) const HISTOGRAMS: [(&str, &str); 5] = [
    (
        CHECKOUT_SECONDS,
        "Time from a checkout's request to its sandbox or its error.",
    ),
    (
        STARTUP_PHASE_SECONDS,
        "Time of one phase of a start: the boot of a template (cold) or a clone.",
    ),
    (
        EXEC_SECONDS,
        "Time of a command in a sandbox, from the request to its outcome.",
    ),
    (
        HTTP_REQUEST_SECONDS,
        "Time of an HTTP request, from its head to the head of its answer.",
    ),
    (TEMPLATE_BUILD_SECONDS, "Time of a build of a template."),
];

pub(super) const COUNTERS: [(&str, &str); 2] = [
    (
        CHECKOUTS_TOTAL,
        "Checkouts that ended, by where the sandbox came from and by outcome.",
    ),
    (
        CLONE_FAILURES_TOTAL,
        "Clones that could not be made, by the phase that failed.",
    ),
];

/// The help of [`LOG_LINES_DROPPED`], which is read when somebody scrapes, as levels are.
pub(super) const LOG_LINES_DROPPED_HELP: &str =
    "Log lines that were lost because standard error did not take them.";

pub(super) const GAUGES: [(&str, &str); 12] = [
    (
        SANDBOXES_UNRESPONSIVE,
        "Sandboxes whose guest has not answered for guest_timeout.",
    ),
    (POOL_VMS, "Living clones of a pool, by state."),
    (POOL_TARGET, "Warm clones that a pool keeps."),
    (POOL_WAITERS, "Checkouts that wait for a clone."),
    (
        TEMPLATE_INFO,
        "The current generation of a template; always 1.",
    ),
    (
        TEMPLATE_BUILT,
        "When the current generation of a template was built, seconds since the epoch.",
    ),
    (
        TEMPLATE_STALE,
        "1 where the current generation of a template is not what would be built now.",
    ),
    (
        TEMPLATE_MEMORY,
        "Memory that all clones of a template share: the blocks of its memory files, each counted once.",
    ),
    (
        CLONE_PRIVATE,
        "Memory that the clones of a template have for themselves: the sum of their anonymous pages.",
    ),
    (
        MEMORY_BUDGET,
        "Memory of the host that all virtual machines together may have.",
    ),
    (
        MEMORY_ADMITTED,
        "Memory that all virtual machines together count for, what builds and launches will need included.",
    ),
    (BUILD_INFO, "The version of the program; always 1."),
];
