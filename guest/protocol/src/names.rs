//! The names in the JSON of control messages, of [`Open`](crate::frame::Kind::Open) and of
//! [`Result`](crate::frame::Kind::Result).

/// Fields of a request and of its reply: `{"id": N, "execute": NAME, "arguments": {}}` is answered by
/// `{"id": N, "return": VALUE}` or by `{"id": N, "error": {"code", "errno", "message"}}`.
pub mod envelope {
    /// A number that the reply has too.
    pub const ID: &str = "id";
    /// The command's name.
    pub const EXECUTE: &str = "execute";
    /// The command's arguments, an object.
    pub const ARGUMENTS: &str = "arguments";
    /// The command's answer.
    pub const RETURN: &str = "return";
    /// Why there is none.
    pub const ERROR: &str = "error";
    /// One of [`codes`](super::codes).
    pub const CODE: &str = "code";
    /// The guest kernel's error number, or 0.
    pub const ERRNO: &str = "errno";
    /// For people.
    pub const MESSAGE: &str = "message";
}

/// Commands of control.
pub mod commands {
    /// Answers `{}` at once.
    pub const PING: &str = "ping";
    /// Which agent it is.
    pub const INFO: &str = "info";
    /// The guest's clock.
    pub const TIME: &str = "time";
    /// Sets the guest's clock, and its hardware clock.
    pub const SET_TIME: &str = "set_time";
    /// Makes a fresh clone a machine of its own.
    pub const IDENTITY: &str = "identity";
    /// The last step in a template before it is saved.
    pub const PREPARE: &str = "prepare";
    /// What a checkout binds to a clone.
    pub const BIND: &str = "bind";
    /// Waits until CPUs and memory are online.
    pub const ONLINE: &str = "online";
    /// Waits until devices are there.
    pub const ATTACHED: &str = "attached";
    /// Starts a process that belongs to no connection.
    pub const START: &str = "start";
    /// The processes that were started so.
    pub const PROCESSES: &str = "processes";
    /// One of them.
    pub const PROCESS: &str = "process";
    /// Sends a signal to one.
    pub const SIGNAL: &str = "signal";
    /// Kills one with its descendants, or forgets one that has ended.
    pub const END: &str = "end";

    /// All of them.
    pub const ALL: [&str; 14] = [
        PING, INFO, TIME, SET_TIME, IDENTITY, PREPARE, BIND, ONLINE, ATTACHED, START, PROCESSES,
        PROCESS, SIGNAL, END,
    ];
}

/// What a stream is: the one field of an [`Open`](crate::frame::Kind::Open)'s object.
pub mod streams {
    /// Starts a process that ends with its stream.
    pub const EXEC: &str = "exec";
    /// A process that was started with [`START`](super::commands::START).
    pub const ATTACH: &str = "attach";
    /// A file that the host writes.
    pub const WRITE: &str = "write";
    /// A file that the host reads.
    pub const READ: &str = "read";
}

/// Why something was refused or has failed.
pub mod codes {
    /// There is no such command, or no such kind of stream.
    pub const UNKNOWN: &str = "unknown";
    /// An argument that is not known, or makes no sense.
    pub const ARGUMENT: &str = "argument";
    /// As many run as may run, or as many streams are open.
    pub const TOO_MANY: &str = "too_many";
    /// No process has this id.
    pub const NO_PROCESS: &str = "no_process";
    /// The process has ended.
    pub const ENDED: &str = "ended";
    /// The program could not be started; `errno` says why.
    pub const NOT_STARTED: &str = "not_started";
    /// The stream was ended by the host.
    pub const CANCELLED: &str = "cancelled";
    /// The kernel said no, or something did not happen in time.
    pub const FAILED: &str = "failed";
}

/// How a process ended.
pub mod ended_by {
    /// It returned from `main`, or called `exit`.
    pub const EXIT: &str = "exit";
    /// By a signal that was none of ours.
    pub const SIGNAL: &str = "signal";
    /// It was killed at its deadline.
    pub const TIMEOUT: &str = "timeout";
    /// The host ended it.
    pub const KILLED: &str = "killed";
    /// The agent was lost, and the process with it.
    pub const AGENT_LOST: &str = "agent_lost";
}
