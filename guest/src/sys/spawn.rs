//! A new process in the way of `vfork`: the child borrows our memory until it executes its program.
//!
//! No page tables are copied, which under emulation is the dear part of `fork`, and a failure in the child is simply
//! written to our memory. `posix_spawn` does the same with more system calls around it. The kernel puts the child into
//! its control group before it runs, which costs much less than to move it there.

use std::arch::asm;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr::null;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Access, Mode, OFlags, access, open};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, chdir, ioctl_tiocsctty, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::wait::signal_set;

/// What the child does until it is its program: a few system calls.
const STACK_BYTES: usize = 16 * 1024;
const STACK_ALIGN_BYTES: usize = 16;
/// Nobody sees it: the parent takes the failure from the plan.
const EXIT_NOT_EXECUTED: c_int = 127;

/// Everything that the child needs, made beforehand: it must not allocate.
#[derive(Clone, Copy)]
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
    /// The directory of the control group that it is born into. `None`: this process's own group.
    pub(crate) group: Option<BorrowedFd<'a>>,
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

impl SpawnFailure {
    /// There are as many processes as there may be.
    pub(crate) fn is_for_want_of_room(&self) -> bool {
        matches!(self, Self::Process(error) if error.raw_os_error() == Some(libc::EAGAIN))
    }

    pub(crate) fn into_error(self) -> io::Error {
        match self {
            Self::Process(error)
            | Self::User(error)
            | Self::Directory(error)
            | Self::Program(error) => error,
        }
    }
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
    let mut wanted = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64,
        pidfd: &raw mut pid_fd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(group) = &plan.group {
        wanted.flags |= CLONE_INTO_CGROUP;
        wanted.cgroup = group.as_raw_fd() as u64;
    }
    // From an address that is aligned, up to one that is.
    let bottom = stack.as_mut_ptr() as usize;
    wanted.stack = bottom.next_multiple_of(STACK_ALIGN_BYTES) as u64;
    wanted.stack_size = (STACK_BYTES - STACK_ALIGN_BYTES) as u64;
    // SAFETY: the stack is ours alone and is big enough for `run_child`. CLONE_VFORK suspends this thread until the child
    // has executed its program or ended, so that all that it points to outlives its use; the child has no other thread's
    // state to break, as it only makes system calls. `pid_fd` is where CLONE_PIDFD writes.
    let cloned = unsafe { clone_to(&wanted, run_child, (&raw mut child).cast()) };
    let pid = c_int::try_from(cloned).unwrap_or(-libc::EINVAL);
    if pid == -libc::ENODEV && plan.group.is_some() {
        // The guest's root has removed the group.
        return spawn(&SpawnPlan {
            group: None,
            ..*plan
        });
    }
    if pid < 0 {
        return Err(SpawnFailure::Process(io::Error::from_raw_os_error(-pid)));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let pid_fd = unsafe { OwnedFd::from_raw_fd(pid_fd) };
    match child.failed {
        None => Ok((pid, pid_fd)),
        Some(failed) => {
            // Our own child, which has ended or is about to.
            let _ = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::empty());
            Err(match failed {
                Failed::User(error) => SpawnFailure::User(error.into()),
                Failed::Directory(error) => SpawnFailure::Directory(error.into()),
                Failed::Program(error) => SpawnFailure::Program(error.into()),
                Failed::Stream(error) => SpawnFailure::Process(error.into()),
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
    Stream(Errno),
    User(Errno),
    Directory(Errno),
    Program(Errno),
}

/// The kernel's `struct clone_args`, as far as it is used here.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    /// The lowest address, unlike in clone(2).
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2), which the C library does not offer: its child begins with `start`, on its own stack. The kernel's answer, an
/// error number with a minus in front among them.
///
/// # Safety
/// `wanted` has a stack that is aligned and big enough for `start`, which does not return.
unsafe fn clone_to(
    wanted: &CloneArgs,
    start: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> isize {
    let result: isize;
    // SAFETY: the system call changes rax, rcx and r11 only. The child's path does not come back to this function, and
    // uses the stack that the caller vouches for.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") wanted,
            in("rsi") size_of::<CloneArgs>(),
            in("r8") start,
            in("r9") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

extern "C" fn run_child(child: *mut c_void) -> ! {
    // SAFETY: `spawn` passes this pointer, and does not touch what it points to before we have ended.
    let child = unsafe { &mut *child.cast::<Child<'_>>() };
    child.failed = Some(child.become_program());
    // SAFETY: nothing of the parent may run in the child, so not even `exit`.
    unsafe { libc::_exit(EXIT_NOT_EXECUTED) }
}

impl Child<'_> {
    /// Returns only when it failed.
    fn become_program(&self) -> Failed {
        // A new process leads no group, so that this cannot fail.
        let _ = setsid();
        let [stdin, stdout, stderr] = &self.plan.streams;
        // A copy is not closed when the program is executed.
        let copied = dup2_stdin(stdin)
            .and_then(|()| dup2_stdout(stdout))
            .and_then(|()| dup2_stderr(stderr));
        if let Err(error) = copied {
            return Failed::Stream(error);
        }
        if self.plan.terminal {
            // The new session has no terminal yet, and this one no session.
            if let Err(error) = ioctl_tiocsctty(rustix::stdio::stdout()) {
                return Failed::Stream(error);
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
            if let Err(error) = chdir(cwd) {
                return Failed::Directory(error);
            }
        }
        Failed::Program(self.execute())
    }

    /// As a shell looks for a program: the first file that can be executed; that one may not be is said only when no
    /// other can.
    fn execute(&self) -> Errno {
        let mut reason = Errno::NOENT;
        for file in self.plan.files {
            // A look before the attempt, because the attempt costs the kernel much more.
            let found = match self.plan.files.len() {
                1 => Ok(()),
                _ => access(file.as_c_str(), Access::EXEC_OK),
            };
            let failed = found.err().unwrap_or_else(|| {
                // SAFETY: all strings end with a zero byte, and both lists with a null pointer.
                unsafe { libc::execve(file.as_ptr(), self.argv, self.env) };
                errno()
            });
            match failed {
                Errno::NOENT | Errno::NOTDIR if self.plan.files.len() > 1 => {}
                Errno::ACCESS => reason = Errno::ACCESS,
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
    // The write concerns the child only, although it borrows its parent's memory: the kernel makes that exception for
    // vfork.
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = open(c"/proc/self/oom_score_adj", flags, Mode::empty()) {
        let _ = rustix::io::write(file, b"0");
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

fn errno() -> Errno {
    // The C library's, of this thread, which the child shares with its suspended parent.
    let error = io::Error::last_os_error();
    Errno::from_io_error(&error).unwrap_or(Errno::INVAL)
}
