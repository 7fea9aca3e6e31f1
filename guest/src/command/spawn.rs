//! From a list of words to a running process.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::fchown;

use super::{Environment, user};
use crate::sys::{self, Credentials, SpawnFailure};

/// The program could not be executed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SpawnError {
    pub(crate) errno: i32,
    pub(crate) message: String,
}

impl SpawnError {
    /// `about` goes in front of the system's text; an empty one adds nothing.
    pub(crate) fn new(about: &str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
        let message = format!("{about}{}", sys::error_text(errno));
        Self { errno, message }
    }
}

/// What to run.
pub(crate) struct Program {
    /// Never empty.
    argv: Vec<CString>,
    env: Environment,
    /// `None`: the directory of this process.
    cwd: Option<CString>,
    /// `None`: this process's own.
    user: Option<String>,
    /// Whether the user's variables are set.
    user_env: bool,
    /// Set last, over what the user brings.
    asked: Environment,
    terminal: bool,
}

/// What the new process gets as its standard streams.
pub(crate) struct Streams<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    /// Standard input is a pipe or terminal of ours, and not `/dev/null`.
    pub(crate) stdin_is_ours: bool,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
}

impl Program {
    /// `None` without a program.
    pub(crate) fn new(argv: Vec<CString>, env: Environment, cwd: Option<CString>) -> Option<Self> {
        let named = argv.first().is_some_and(|program| !program.is_empty());
        named.then_some(Self {
            argv,
            env,
            cwd,
            user: None,
            user_env: true,
            asked: Environment::default(),
            terminal: false,
        })
    }

    /// What it was called with. A word that is no text is shown as far as it is.
    pub(crate) fn words(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.argv.iter().map(|word| word.to_string_lossy())
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// As this user, whose HOME, USER and LOGNAME it gets.
    pub(crate) fn run_by(mut self, user: Option<String>) -> Self {
        self.user = user;
        self
    }

    /// Without the user's variables.
    pub(crate) fn without_user_env(mut self) -> Self {
        self.user_env = false;
        self
    }

    /// With these variables, whoever it runs as.
    pub(crate) fn asking_for(mut self, env: Environment) -> Self {
        self.asked = env;
        self
    }

    /// Standard output is a terminal, and is to control the new session.
    pub(crate) fn on_a_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// Starts it in a session of its own, whose id is the process id, and in a control group, if there is one. The second
    /// descriptor tells its end by becoming readable. Where there are as many processes as there may be, it is tried once
    /// more if room can be made.
    pub(crate) fn start(
        mut self,
        streams: &Streams<'_>,
        group: Option<BorrowedFd<'_>>,
        make_room: impl FnOnce() -> bool,
    ) -> Result<(libc::pid_t, OwnedFd), SpawnError> {
        let user = self.user.as_deref().map(user::find).transpose()?;
        if let Some(user) = &user {
            if self.user_env {
                for (key, value) in [
                    ("HOME", &user.home),
                    ("USER", &user.name),
                    ("LOGNAME", &user.name),
                ] {
                    // A line of a text file has no NUL byte, or the variable stays as it was.
                    let _ = self.env.set(key.into(), value);
                }
            }
            self.give_streams(streams, &user.credentials);
        }
        self.env.merge(&self.asked);
        let argv: Vec<&CStr> = self.argv.iter().map(CString::as_c_str).collect();
        let env: Vec<&CStr> = self.env.pairs().collect();
        let plan = sys::SpawnPlan {
            files: &self.files(),
            argv: &argv,
            env: &env,
            cwd: self.cwd.as_deref(),
            streams: [streams.stdin, streams.stdout, streams.stderr],
            user: user.as_ref().map(|user| &user.credentials),
            terminal: self.terminal,
            group,
        };
        let started = with_room(|| sys::spawn(&plan), make_room);
        started.map_err(|failure| match failure {
            SpawnFailure::Process(error) => SpawnError::new("start a process: ", &error),
            SpawnFailure::User(error) => {
                let user = self.user.as_deref().unwrap_or_default();
                SpawnError::new(&format!("user {user}: "), &error)
            }
            SpawnFailure::Directory(error) => {
                let cwd = self.cwd.as_deref().unwrap_or_default().to_string_lossy();
                SpawnError::new(&format!("cwd {cwd}: "), &error)
            }
            SpawnFailure::Program(error) => SpawnError::new("", &error),
        })
    }

    /// Programs open their terminal by its name, and their pipes as `/dev/stdout`. A stream that cannot be given away is
    /// the program's to complain about; `/dev/null` is never given.
    fn give_streams(&self, streams: &Streams<'_>, user: &Credentials) {
        // A terminal keeps its group, whose members may write to it.
        let group = (!self.terminal).then_some(user.gid);
        let stdin = streams.stdin_is_ours.then_some(streams.stdin);
        for stream in [Some(streams.stdout), Some(streams.stderr), stdin]
            .into_iter()
            .flatten()
        {
            let _ = fchown(stream, Some(user.uid), group);
        }
    }

    /// Where the program may be: a name without a slash is looked up in the PATH that the program itself gets.
    fn files(&self) -> Vec<CString> {
        let name = self
            .argv
            .first()
            .map_or(&[][..], |program| program.to_bytes());
        if name.contains(&b'/') {
            return self.argv[..1].to_vec();
        }
        let path = self.env.get(b"PATH").unwrap_or(sys::GUEST_PATH.as_bytes());
        path.split(|byte| *byte == b':')
            .filter_map(|directory| in_directory(directory, name))
            .collect()
    }
}

fn with_room<T>(
    mut start: impl FnMut() -> Result<T, SpawnFailure>,
    make_room: impl FnOnce() -> bool,
) -> Result<T, SpawnFailure> {
    match start() {
        Err(failure) if failure.is_for_want_of_room() && make_room() => start(),
        outcome => outcome,
    }
}

/// An empty directory is the current one, as in every shell.
fn in_directory(directory: &[u8], name: &[u8]) -> Option<CString> {
    let directory = if directory.is_empty() {
        b"."
    } else {
        directory
    };
    CString::new([directory, b"/", name].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, path: &str) -> Program {
        let mut env = Environment::default();
        env.set("PATH".into(), path.as_bytes())
            .expect("a right variable");
        Program::new(vec![CString::new(name).expect("no NUL")], env, None).expect("a program")
    }

    #[test]
    fn looks_names_up_in_the_path() {
        assert_eq!(
            program("ls", "/bin::/sbin").files(),
            [
                c"/bin/ls".to_owned(),
                c"./ls".to_owned(),
                c"/sbin/ls".to_owned()
            ]
        );
        assert_eq!(program("./ls", "/bin").files(), [c"./ls".to_owned()]);
        assert_eq!(program("/x/ls", "/bin").files(), [c"/x/ls".to_owned()]);
    }

    #[test]
    fn without_room_it_is_tried_once_more_where_room_was_made() {
        let tried = |errno: i32, made: bool| {
            let (mut starts, mut rooms) = (0, 0);
            let start = || -> Result<(), _> {
                starts += 1;
                let error = io::Error::from_raw_os_error(errno);
                Err(SpawnFailure::Process(error))
            };
            let make_room = || {
                rooms += 1;
                made
            };
            let failed = with_room(start, make_room).expect_err("it fails each time");
            assert_eq!(failed.into_error().raw_os_error(), Some(errno));
            (starts, rooms)
        };
        assert_eq!(tried(libc::EAGAIN, true), (2, 1));
        assert_eq!(tried(libc::EAGAIN, false), (1, 1));
        assert_eq!(tried(libc::ENOMEM, true), (1, 0));
    }

    #[test]
    fn needs_a_program() {
        assert!(Program::new(Vec::new(), Environment::default(), None).is_none());
        assert!(Program::new(vec![c"".to_owned()], Environment::default(), None).is_none());
    }
}
