//! The program as its users meet it: started, asked over HTTP and by its own client commands, hurt, stopped, started
//! again. Real machines; `scripts/test` prepares what they need.
#![allow(unreachable_pub)]

mod accel;
mod away;
mod caller;
mod clock;
mod damage;
mod events;
mod examples;
mod faults;
mod going_back;
mod hung;
mod life;
mod live;
mod load;
mod main_job;
mod place;
mod plain_user;
mod processes;
mod prometheus;
mod reload;
mod rolling;
mod service;
mod stored;
mod storms;
mod surroundings;
mod survive;
#[path = "../api/support/terminal.rs"]
mod terminal;
mod vanish;
mod wait;
