//! Which listener a request came through, and from whom.

/// The user at the other end of a connection, as the kernel says. Requests carry it as an extension; one that has none
/// comes from nobody that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// Their group, which the kernel says of a Unix socket alone.
    pub gid: Option<u32>,
}

/// Why no request of a connection is served, though the connection is. Requests carry it in place of a [`Peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// The listener. Requests carry it as an extension; one that has none counts as [`Origin::Tcp`], the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// TCP on loopback: any user of the host, and any web page in their browser.
    Tcp,
    /// The Unix socket: who may open it.
    Unix,
}
