//! A new process in the way of `vfork`: the child borrows our memory until it executes its program.
//!
//! No page tables are copied, which under emulation is the dear part of `fork`, and a failure in the child is simply
//! written to our memory. `posix_spawn` does the same with more system calls around it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr::null;
use std::sync::atomic::{AtomicBool, Ordering};

use super::check;
use super::wait::signal_set;

/// What the child does until it is its program: a few system calls.
const STACK_BYTES: usize = 16 * 1024;
const STACK_ALIGN_BYTES: usize = 16;
/// Nobody sees it: the parent takes the failure from the plan.
const EXIT_NOT_EXECUTED: c_int = 127;

/// Everything that the child needs, made beforehand: it must not allocate.
pub(crate) struct SpawnPlan<'a> {
    /// The first that can be executed is.
    pub(crate) files: &'a [CString],
    pub(crate) argv: &'a [&'a CStr],
    pub(crate) env: &'a [&'a CStr],
    pub(crate) cwd: Option<&'a CStr>,
    /// stdin, stdout and stderr.
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// `None`: this process's own.
    pub(crate) user: Option<&'a Credentials>,
    /// stdout is a terminal that is to control the new session.
    pub(crate) terminal: bool,
}

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uid: libc::uid_t,
    pub(crate) gid: libc::gid_t,
    pub(crate) groups: Vec<libc::gid_t>,
}

/// Which step failed.
#[derive(Debug)]
pub(crate) enum SpawnFailure {
    Process(io::Error),
    User(io::Error),
    Directory(io::Error),
    Program(io::Error),
}

/// Starts a process in a session of its own, with no signal blocked. Returns its id, and a descriptor that becomes
/// readable when it ends. The caller waits for it.
pub(crate) fn spawn(plan: &SpawnPlan<'_>) -> Result<(libc::pid_t, OwnedFd), SpawnFailure> {
    let argv = pointers(plan.argv);
    let env = pointers(plan.env);
    let mut child = Child {
        plan,
        argv: argv.as_ptr(),
        env: env.as_ptr(),
        failed: None,
    };
    let mut stack: Vec<u8> = Vec::with_capacity(STACK_BYTES);
    let mut pid_fd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack is ours alone, is big enough for `run_child`, and its end is aligned. CLONE_VFORK suspends this
    // thread until the child has executed its program or ended, so that all that it points to outlives its use; the
    // child has no other thread's state to break, as it only makes system calls. `pid_fd` is where CLONE_PIDFD writes.
    let cloned = unsafe {
        let top = stack.as_mut_ptr().add(STACK_BYTES);
        let top = top.sub(top as usize % STACK_ALIGN_BYTES);
        libc::clone(
            run_child,
            top.cast(),
            flags,
            (&raw mut child).cast(),
            &raw mut pid_fd,
        )
    };
    let pid = check(cloned).map_err(SpawnFailure::Process)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let pid_fd = unsafe { OwnedFd::from_raw_fd(pid_fd) };
    match child.failed {
        None => Ok((pid, pid_fd)),
        Some(failed) => {
            // SAFETY: our own child, which has ended or is about to; no status is asked for.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            let error = |errno| io::Error::from_raw_os_error(errno);
            Err(match failed {
                Failed::User(errno) => SpawnFailure::User(error(errno)),
                Failed::Directory(errno) => SpawnFailure::Directory(error(errno)),
                Failed::Program(errno) => SpawnFailure::Program(error(errno)),
                Failed::Stream(errno) => SpawnFailure::Process(error(errno)),
            })
        }
    }
}

/// A list of strings as `execve` takes it, with the null pointer at its end.
fn pointers(strings: &[&CStr]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([null()])
        .collect()
}

struct Child<'a> {
    plan: &'a SpawnPlan<'a>,
    argv: *const *const c_char,
    env: *const *const c_char,
    failed: Option<Failed>,
}

enum Failed {
    Stream(c_int),
    User(c_int),
    Directory(c_int),
    Program(c_int),
}

extern "C" fn run_child(child: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes this pointer, and does not touch what it points to before we have ended.
    let child = unsafe { &mut *child.cast::<Child<'_>>() };
    child.failed = Some(child.become_program());
    // SAFETY: nothing of the parent may run in the child, so not even `exit`.
    unsafe { libc::_exit(EXIT_NOT_EXECUTED) }
}

impl Child<'_> {
    /// Returns only when it failed.
    fn become_program(&self) -> Failed {
        // SAFETY: plain arguments; a new process leads no group, so that this cannot fail.
        unsafe { libc::setsid() };
        for (stream, number) in self.plan.streams.iter().zip(0..) {
            // SAFETY: plain arguments. A copy is not closed when the program is executed.
            if unsafe { libc::dup2(stream.as_raw_fd(), number) } == -1 {
                return Failed::Stream(errno());
            }
        }
        if self.plan.terminal {
            // SAFETY: plain arguments; the new session has no terminal yet, and this one no session.
            if unsafe { libc::ioctl(1, libc::TIOCSCTTY, 0) } == -1 {
                return Failed::Stream(errno());
            }
        }
        if PROTECTED.load(Ordering::Relaxed) {
            become_ordinary();
        }
        let none = signal_set(&[]);
        // SAFETY: `none` is valid; no old set is asked for.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) };
        if let Some(user) = self.plan.user {
            if !become_user(user) {
                return Failed::User(errno());
            }
        }
        if let Some(cwd) = self.plan.cwd {
            // SAFETY: the string ends with a zero byte.
            if unsafe { libc::chdir(cwd.as_ptr()) } == -1 {
                return Failed::Directory(errno());
            }
        }
        Failed::Program(self.execute())
    }

    /// As a shell looks for a program: the first file that can be executed; that one may not be is said only when no
    /// other can.
    fn execute(&self) -> c_int {
        let mut reason = libc::ENOENT;
        for file in self.plan.files {
            // A look before the attempt, because the attempt costs the kernel much more.
            // SAFETY: all strings end with a zero byte, and both lists with a null pointer.
            let failed = unsafe {
                if self.plan.files.len() == 1 || libc::access(file.as_ptr(), libc::X_OK) == 0 {
                    libc::execve(file.as_ptr(), self.argv, self.env);
                }
                errno()
            };
            match failed {
                libc::ENOENT | libc::ENOTDIR if self.plan.files.len() > 1 => {}
                libc::EACCES => reason = libc::EACCES,
                other => return other,
            }
        }
        reason
    }
}

/// Whether this process is one that the kernel never ends for want of memory. Its children are not.
static PROTECTED: AtomicBool = AtomicBool::new(false);

/// Looks whether this process is protected, so that [`spawn`] need not.
pub(crate) fn notice_protection() {
    let score = std::fs::read(OOM_SCORE_ADJ).unwrap_or_default();
    PROTECTED.store(score.starts_with(b"-"), Ordering::Relaxed);
}

/// Protects this process, and what it starts by other means than [`spawn`], from being ended for want of memory.
pub(crate) fn protect_from_oom() -> io::Result<()> {
    std::fs::write(OOM_SCORE_ADJ, "-1000")
}

const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// The kernel may end the command when memory runs out. This cannot fail but without /proc, and then it was not
/// protected either.
fn become_ordinary() {
    // SAFETY: the strings end with zero bytes, the size is that of the text, and the descriptor is ours alone. The write
    // concerns the child only, although it borrows its parent's memory: the kernel makes that exception for vfork.
    unsafe {
        let file = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        libc::write(file, c"0".as_ptr().cast(), 1);
        libc::close(file);
    }
}

/// By the system calls themselves: the C library would take all threads of the process along, which are our parent's.
fn become_user(user: &Credentials) -> bool {
    // SAFETY: the pointer and the count describe the groups; the other arguments are plain numbers.
    unsafe {
        libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid) == 0
            && libc::syscall(libc::SYS_setresuid, user.uid, user.uid, user.uid) == 0
    }
}

fn errno() -> c_int {
    // SAFETY: the C library's errno of this thread, which the child shares with its suspended parent.
    unsafe { *libc::__errno_location() }
}
