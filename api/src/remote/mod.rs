//! Kubernetes' remote command protocol `v5.channel.k8s.io`, as both ends of it speak it.
//!
//! Binary WebSocket messages; the first byte is the channel. The last thing on the error channel is a [`Status`] that
//! tells how the command ended.

pub(crate) mod channel;
pub(crate) mod status;

pub(crate) use channel::{FromCommand, ToCommand};
pub(crate) use status::Status;
