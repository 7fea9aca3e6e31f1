//! The configuration as the service uses it: checked, resolved, in the types of the crates below.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::Gid;
use vmint_cache::TemplatePlan;
use vmint_factory::HostSettings;

/// A configuration without mistakes (see [`super::load`]), or the best that could be made of one (see
/// [`super::examine`]).
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the service listens.
    pub server: Server,
    /// Where and as whom the factory works.
    pub host: HostSettings,
    /// Longest lease; `None` = no limit.
    pub max_ttl: Option<Duration>,
    /// Share of the host's memory that all virtual machines together may have: above 0, at most 1.
    pub memory_share: f64,
    /// The templates and their pools, at least one.
    pub templates: Vec<TemplatePlan>,
}

/// The listeners.
#[derive(Clone, Debug)]
pub struct Server {
    /// TCP, loopback only; `None` = off.
    pub listen: Option<SocketAddr>,
    /// The Unix socket.
    pub socket: PathBuf,
    /// Its rights.
    pub socket_mode: u32,
    /// Its group; `None` = the service's own.
    pub socket_group: Option<Gid>,
}
