//! The agent with real processes, on the host. Each test has a server of its own in a thread, and talks to it as the
//! host does: over a socket, or over two FIFOs where it must go and come back, which behave as a virtio port does then.

mod bind;
mod client;
mod exec;
mod protocol;
mod user;
mod waits;

use client::Client;
