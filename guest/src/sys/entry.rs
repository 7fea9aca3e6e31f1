//! What std's start-up would do, and what a parent may have left.

/// A write to a closed pipe is an error to handle, not the end of the process. Blocked rather than ignored, as in std:
/// what we start has no signal blocked anyway, and needs no further system call to be as every program expects.
///
/// What a parent ignores stays ignored in all that it starts, through every `execve`: a shell's background job ignores
/// SIGINT and SIGQUIT, and so would our commands.
pub(crate) fn be_as_started_by_the_kernel() {
    const LAST_ORDINARY: libc::c_int = 31;
    for signal in 1..=LAST_ORDINARY {
        // SAFETY: no handler is installed. SIGKILL and SIGSTOP cannot be changed, and say so.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    super::wait::block_signals(&[libc::SIGPIPE]);
}
