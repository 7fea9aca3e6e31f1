//! One pool of clones.

mod core;
