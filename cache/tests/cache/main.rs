//! The whole cache over a scripted factory: no virtual machine, and no time that really passes.
//!
//! `fake.rs` is the factory, `bench.rs` the cache under test and how to wait for it. The others have one behaviour a
//! test.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adopt;
mod alive;
mod bench;
mod binding;
mod cancel;
mod checkout;
mod clock;
mod command;
mod cost;
mod crowd;
mod devices;
mod drain;
mod events;
mod fake;
mod faults;
mod follow;
mod kept;
mod last_roll;
mod lease;
mod memory;
mod outdated;
mod panics;
mod process;
mod reload;
mod removed;
mod repeats;
mod roll;
mod size;
mod stale;
mod stop;
mod templates;
mod time;
mod unverified;
