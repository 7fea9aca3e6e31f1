//! Where the C library's start-up hands over.
//!
//! std's own start-up looks for the guard page of the main thread's stack, which means reading /proc/self/maps, and
//! installs handlers to tell a stack overflow from other crashes. This program has no use for either, and in a fresh
//! clone under emulation they are a large part of its start.

#[cfg(not(test))]
// SAFETY: the C library calls the one symbol of this name with these arguments, and there is no other main.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: libc::c_int, _argv: *const *const libc::c_char) -> libc::c_int {
    default_signals();
    block_sigpipe();
    libc::c_int::from(crate::run_as_called())
}

/// A write to a closed pipe is an error to handle, not the end of the process. Blocked rather than ignored, as in std:
/// what we start has no signal blocked anyway, and needs no further system call to be as every program expects.
#[cfg(not(test))]
fn block_sigpipe() {
    super::wait::block_signals(&[libc::SIGPIPE]);
}

/// What a parent ignores stays ignored in all that it starts, through every `execve`: a shell's background job ignores
/// SIGINT and SIGQUIT, and so would our commands.
#[cfg(not(test))]
fn default_signals() {
    const LAST_ORDINARY: libc::c_int = 31;
    for signal in 1..=LAST_ORDINARY {
        // SAFETY: no handler is installed. SIGKILL and SIGSTOP cannot be changed, and say so.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
