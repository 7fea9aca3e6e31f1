//! Tests of the core. `world.rs` plays everything around it; `table.rs` has every state with every event, `model.rs`
//! random histories with what must always hold, and the others what a pool does, one behaviour a test.

mod drain;
mod faults;
mod model;
mod pulse;
mod roll;
mod room;
mod settings;
mod supply;
mod table;
mod world;
