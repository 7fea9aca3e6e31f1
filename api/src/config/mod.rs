//! The configuration: one TOML file over the default values, checked as a whole.
//!
//! ```text
//! default.toml ─┐
//!               ├─ document (unknown keys, types) ── Requested ── check (ranges, contradictions, files) ── Config
//! user's file ──┘
//! ```
//!
//! What always holds: every mistake is collected, none ends the reading, and each is told with its key, its value and
//! its mend. A [`Config`] that [`load`] returned has none.

mod check;
mod document;
mod effective;
mod load;
mod places;
mod presence;
mod problem;
mod requested;
mod units;
mod validated;

pub use effective::{effective, show_effective};
pub(crate) use load::path_of;
pub use load::{
    DEFAULT_FILE, Examined, LoadError, SYSTEM_FILE, examine, examine_text, load, load_for_client,
    load_whole,
};
pub use places::Places;
pub use presence::check_presence;
pub use problem::{Problem, Problems};
pub use units::{parse_duration, parse_size};
pub use validated::{Config, Server};
