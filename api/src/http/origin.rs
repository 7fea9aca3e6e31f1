//! Which listener a request came through, and from whom.

/// Who is at the other end of a Unix socket, as the kernel says. Requests that came through it carry it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// Their group.
    pub gid: u32,
}

/// The listener. Requests carry it as an extension; one that has none counts as [`Origin::Tcp`], the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// TCP on loopback: any user of the host, and any web page in their browser.
    Tcp,
    /// The Unix socket: who may open it.
    Unix,
}
