//! Every limit of the HTTP side, with its reason.

use std::time::Duration;

/// A JSON body. The largest useful one has some kilobytes.
pub const JSON_BODY_MAX_BYTES: usize = 1 << 20;
/// The body of a checkout, which carries small files in base64: all of [`FILES_MAX_BYTES`], and the rest.
pub const CHECKOUT_BODY_MAX_BYTES: usize = 8 << 20;
/// The body of an exec, which carries the command's input in base64.
pub const EXEC_BODY_MAX_BYTES: usize = 8 << 20;
/// The bodies of all requests together, for as long as what was parsed from them is held: 32 of the largest at a time. Members
/// of the service's group have three quarters of it together, and each of them half.
pub(crate) const BODIES_MAX_BYTES: usize = 256 << 20;
/// What of each body does not count: whatever else is sent, a lease can be renewed and a sandbox released. With every
/// connection of two listeners this is 64 MiB.
pub(crate) const BODY_FREE_BYTES: usize = 8 << 10;
/// What is reserved for a body before it has arrived, whatever its `Content-Length` promises.
pub(crate) const BODY_RESERVE_BYTES: usize = 64 << 10;
/// When another try makes sense after a body found no room: most of those before it are worked on for milliseconds. One that
/// waits for a sandbox has its room for as long as it waits ([`WAIT_MAX`]).
pub(crate) const OVERLOAD_WAIT: Duration = Duration::from_secs(1);
/// The detail of an error. What a client sent is in some; it gets no megabytes of it back.
pub(crate) const DETAIL_MAX_BYTES: usize = 16 << 10;
/// How much of a body that is too large is read and thrown away, so that the client sees the refusal and not a
/// connection that was reset while it wrote.
pub(crate) const DISCARD_MAX_BYTES: usize = 64 << 20;
/// A client that has written nothing more of such a body for this long waits for its answer: a local one writes on
/// within a millisecond.
pub(crate) const DISCARD_IDLE: Duration = Duration::from_millis(200);
/// A whole body, from its first to its last byte.
pub(crate) const BODY_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The head of a request; also how long a kept connection may be idle.
pub(crate) const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that does not take its answer.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The head of a request, bytes.
pub(crate) const HEADER_MAX_BYTES: usize = 64 << 10;
/// Connections of one listener at the same time. Each listener has a bound of its own, so that the Unix socket answers
/// whatever happens on TCP. Above the default `queue` of a pool, since a waiting checkout holds a connection.
pub(crate) const CONNECTIONS_MAX: usize = 4096;

/// How long a checkout waits when it does not say.
pub(crate) const WAIT_DEFAULT: Duration = Duration::from_secs(5);
/// Longest that a checkout may wait.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(600);
/// Longest lease where the configuration has no limit: a time that every calendar still has.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Entries of a sandbox's metadata.
pub(crate) const METADATA_MAX_ENTRIES: usize = 64;
/// All keys and values of a sandbox's metadata: they are kept in memory and in its record.
pub(crate) const METADATA_MAX_BYTES: usize = 16 << 10;
/// Words of a command.
pub(crate) const ARGV_MAX_WORDS: usize = 65_536;
/// Variables of one command.
pub(crate) const EXEC_ENV_MAX_ENTRIES: usize = 4096;
/// All names and values of one command's variables: about what the kernel takes.
pub(crate) const EXEC_ENV_MAX_BYTES: usize = 1 << 20;
/// Variables of a sandbox's environment.
pub(crate) const ENV_MAX_ENTRIES: usize = 256;
/// All names and values of a sandbox's environment: the kernel takes a few times as much with every command.
pub(crate) const ENV_MAX_BYTES: usize = 128 << 10;
/// Files of a checkout: they go to the guest in one message.
pub(crate) const FILES_MAX: usize = 64;
/// All contents of a checkout's files: larger ones have a route of their own.
pub(crate) const FILES_MAX_BYTES: usize = 4 << 20;
/// The kernel's own limit of a hostname.
pub(crate) const HOSTNAME_MAX_BYTES: usize = 64;

/// How long a command may run when the request does not say.
pub(crate) const EXEC_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Longest that a command may run.
pub const EXEC_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest deadline of a process: one that has none runs for as long as its sandbox lives.
pub(crate) const PROCESS_TIMEOUT_MAX: Duration = TTL_MAX;
/// What is kept of each of a command's streams: an answer holds both of them, as text or a third more as base64.
pub(crate) const EXEC_OUTPUT_MAX_BYTES: u64 = 8 << 20;

/// One message of a WebSocket: what a client may send of a command's input at once, and its channel.
pub const EXEC_MESSAGE_MAX_BYTES: usize = (1 << 20) + 1;
/// How often a WebSocket is written to at least, so that a client that is gone is noticed.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a client may take for the last words of a WebSocket whose sandbox has ended, or that broke the rules.
pub(crate) const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a file may stand still on its way, in either direction: there is no limit on the whole of it.
pub(crate) const TRANSFER_STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest path of a file in the guest: the kernel's own limit (`PATH_MAX`) without its final zero byte.
pub(crate) const PATH_MAX_BYTES: usize = 4095;
/// What is kept of what `tar` says when it fails.
pub(crate) const TAR_STDERR_MAX_BYTES: usize = 2 << 10;
/// Longest `Idempotency-Key`.
pub(crate) const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;

/// Longest request id that is taken over from a client.
pub(crate) const REQUEST_ID_MAX_BYTES: usize = 128;
/// When another try makes sense while as many follow a console as may: a person leaves one when they have seen enough.
pub(crate) const FOLLOWER_WAIT: Duration = Duration::from_secs(10);
/// When another try makes sense while as many processes run in a sandbox as may: whoever has started them ends them.
pub(crate) const PROCESS_WAIT: Duration = Duration::from_secs(10);
/// When another try makes sense while a pool or the service drains: an operator works on it.
pub(crate) const DRAIN_WAIT: Duration = Duration::from_secs(30);
/// When another try makes sense while the service stops: a restart finds its templates again.
pub(crate) const RESTART_WAIT: Duration = Duration::from_secs(5);
