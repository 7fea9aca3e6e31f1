//! Which listener a request came through.

/// The listener. Requests carry it as an extension; one that has none counts as [`Origin::Tcp`], the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// TCP on loopback: any user of the host, and any web page in their browser.
    Tcp,
    /// The Unix socket: who may open it.
    Unix,
}
