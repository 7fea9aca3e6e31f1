//! The arguments. Names that later versions fill are listed, so that nobody else takes them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::disk::{DiskArg, disk};
use crate::config::{parse_duration, parse_size};
use crate::telemetry::LogFormat;

/// Boots a template VM once, and hands copy-on-write clones of it out from warm pools over HTTP.
#[derive(Debug, Parser)]
#[command(
    name = "vmint",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) options: Options,
}

impl Cli {
    /// Whether errors are JSON, as everything else.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.options.json
    }

    /// How the logs of this command look, where it has any.
    #[must_use]
    pub fn logs(&self) -> &LogArgs {
        &self.options.logs
    }

    /// Whether this is the service itself, which works on every core.
    #[must_use]
    pub fn is_service(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }

    /// Whether it serves for as long as it can, rather than answering once: nothing around it may end it or hold it up.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(
            self.command,
            Command::Serve(_) | Command::GuardLeases { .. }
        )
    }
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the service is: http://HOST:PORT or unix:/PATH [default: the socket that `serve` uses]
    #[arg(long, global = true, env = "VMINT_URL", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The configuration [default: /etc/vmint/vmint.toml where it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the API's JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) logs: LogArgs,
}

/// Logs.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// How log lines look
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
    /// What is logged: a level, or a filter such as info,vmint_factory=debug
    #[arg(
        long,
        global = true,
        env = "VMINT_LOG",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the service
    Serve(ServeArgs),
    /// Say what is missing on this host, and how to get it
    Doctor,
    /// Check or show the configuration, or have it read again
    #[command(subcommand)]
    Config(ConfigCommand),
    /// List, show, rebuild or roll back templates
    #[command(subcommand)]
    Template(TemplateCommand),
    /// List, resize, drain or resume pools
    #[command(subcommand)]
    Pool(PoolCommand),
    /// End sandboxes whose lease runs out while no service runs: the service starts this by itself
    #[command(hide = true)]
    GuardLeases {
        /// Where the sandboxes are
        #[arg(long, value_name = "DIR")]
        run_dir: PathBuf,
        /// The user that their hypervisors run as
        #[arg(long, value_name = "UID")]
        hypervisor_uid: u32,
        /// The user that the hypervisors of builds run as
        #[arg(long, value_name = "UID")]
        build_uid: u32,
    },
    /// Remove what a stopped service leaves: generations, their tmpfs, the run directory
    Clean,
    /// Refuse checkouts and end unused clones everywhere; sandboxes live until their end
    Drain(DrainArgs),
    /// Let the service go on after a drain
    Resume,
    /// Lease a sandbox
    Checkout(CheckoutArgs),
    /// List leased sandboxes
    Ps(PsArgs),
    /// Show one sandbox
    Inspect {
        /// The sandbox
        id: String,
    },
    /// Run a command in a sandbox
    Exec(ExecArgs),
    /// List the processes of a sandbox that were started with `exec -d`
    Processes {
        /// The sandbox
        id: String,
    },
    /// Follow a process of a sandbox, and pass standard input to it; leaving does not end it
    Attach(AttachArgs),
    /// Send a signal to a process of a sandbox
    Kill(KillArgs),
    /// Copy files and directories from and to a sandbox
    Cp(CpArgs),
    /// Print a sandbox's serial console
    Console(ConsoleArgs),
    /// Set a sandbox's lease anew, counted from now
    Renew {
        /// The sandbox
        id: String,
        /// The lease, such as 5m; 0 = until released
        #[arg(long, value_name = "DUR", value_parser = duration)]
        ttl: Duration,
    },
    /// End sandboxes
    Release {
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// End leased sandboxes with the service; without it they go on, and the next start takes them up
    #[arg(long)]
    pub(crate) drain_on_exit: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// End the service when nothing is left
    #[arg(long)]
    pub(crate) exit: bool,
    /// Wait until nothing is left
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Tell every mistake in the configuration; exit with 64 when there is one
    Check,
    /// Print the default values, commented; with --config, what that file comes to
    Show,
    /// Have the service read its configuration again, and tell what changed
    Reload,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// List templates
    Ls,
    /// Show one template and its generations
    Show {
        /// The template
        name: String,
    },
    /// Build a new generation and wait for it
    Rebuild {
        /// The template
        name: String,
    },
    /// Go back to the generation before
    Rollback {
        /// The template
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// List pools
    Ls,
    /// Change how many clones a pool keeps, until the service is started again
    Resize {
        /// The template
        name: String,
        /// Warm clones to keep
        #[arg(long, value_name = "N", required_unless_present = "max")]
        target: Option<u32>,
        /// Clones alive at most, leased ones included
        #[arg(long, value_name = "N")]
        max: Option<u32>,
    },
    /// Refuse checkouts and end unused clones, until it is resumed; sandboxes live until their end
    Drain {
        /// The template
        name: String,
    },
    /// Let a drained pool go on
    Resume {
        /// The template
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CheckoutArgs {
    /// The template [default: default]
    pub(crate) template: Option<String>,
    /// Print the id alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Virtual CPUs at least, up to the template's max_vcpus
    #[arg(long, value_name = "N")]
    pub(crate) vcpus: Option<u32>,
    /// Memory at least, such as 512MiB, up to the template's max_memory
    #[arg(long, value_name = "SIZE", value_parser = size_mib)]
    pub(crate) memory: Option<u64>,
    /// The lease, such as 5m; 0 = until released
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// How long to wait for a sandbox, such as 5s
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// What to do when none is ready
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) on_empty: Option<OnEmptyArg>,
    /// A name for the guest
    #[arg(long, value_name = "H")]
    pub(crate) hostname: Option<String>,
    /// Something to keep with the sandbox
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    pub(crate) metadata: Vec<(String, String)>,
    /// An environment variable of every command; without a value, it is that of this environment
    #[arg(short, long, value_name = "K[=V]")]
    pub(crate) env: Vec<String>,
    /// A small file to put into the guest, as SRC:/PATH or SRC:/PATH:MODE (MODE: octal digits)
    #[arg(long, value_name = "SRC:/PATH[:MODE]")]
    pub(crate) file: Vec<String>,
    /// A network interface: a tap of the host by name, or `user` for a network of the hypervisor's own
    #[arg(long, value_name = "TAP|user")]
    pub(crate) nic: Vec<String>,
    /// A disk: a file or block device of the host; `:ro` for one that is only read, `:qcow2` for that format
    #[arg(long, value_name = "PATH[:ro][:qcow2]", value_parser = disk)]
    pub(crate) disk: Vec<DiskArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OnEmptyArg {
    /// Wait for one
    Wait,
    /// Have one made at once
    Clone,
    /// Fail
    Fail,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Only sandboxes of this template
    #[arg(long, value_name = "NAME")]
    pub(crate) template: Option<String>,
    /// Only sandboxes that were checked out with this metadata; several must all match
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    pub(crate) metadata: Vec<(String, String)>,
    /// Print ids alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Pass standard input, as it comes; with -d, leave the process's open for `attach`
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// A terminal in place of pipes; with -i, every key goes to it
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// An environment variable
    #[arg(short, long, value_name = "K=V", value_parser = key_value)]
    pub(crate) env: Vec<(String, String)>,
    /// The working directory
    #[arg(short = 'w', long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// The guest's user: a name or a number
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// When the command is killed [default: after 24h; with -d: never]
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Start a process that runs on by itself, and print its id: see `processes`, `attach` and `kill`
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// With -d: keep nothing of what the process writes
    #[arg(long, requires = "detach")]
    pub(crate) no_keep: bool,
    /// The sandbox
    pub(crate) id: String,
    /// The program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGV"
    )]
    pub(crate) argv: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Print first what was kept of its output
    #[arg(long)]
    pub(crate) replay: bool,
    /// Leave standard input alone; without, its end, unless it is empty from the start, is that of the process's, too
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// The sandbox
    pub(crate) id: String,
    /// The process. In one with a terminal every key goes to it, but for Ctrl-P Ctrl-Q, which leave it
    pub(crate) process: String,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The signal: a name, with or without SIG, or a number
    #[arg(short, long, value_name = "SIG", default_value = "TERM")]
    pub(crate) signal: String,
    /// The sandbox
    pub(crate) id: String,
    /// The process
    pub(crate) process: String,
}

#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// ID:/path, a path, or - for standard input
    #[arg(value_name = "SRC", allow_hyphen_values = true)]
    pub(crate) source: String,
    /// ID:/path, a path, or - for standard output
    #[arg(value_name = "DST", allow_hyphen_values = true)]
    pub(crate) destination: String,
}

#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    /// Go on with what comes, until the machine has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The sandbox
    pub(crate) id: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write it like 250ms, 120s, 5m or 1h30m".to_owned())
}

fn size_mib(text: &str) -> Result<u64, String> {
    match parse_size(text) {
        Some(bytes) if bytes.is_multiple_of(1 << 20) => Ok(bytes >> 20),
        _ => Err("write it like 512MiB or 1GiB".to_owned()),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it like K=V".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_after_the_id_belongs_to_the_command() {
        for line in [
            ["vmint", "exec", "-i", "id", "--", "ls", "-la", "--json"].as_slice(),
            ["vmint", "exec", "-i", "id", "ls", "-la", "--json"].as_slice(),
        ] {
            let cli = Cli::try_parse_from(line).expect("valid");
            let Command::Exec(exec) = cli.command else {
                panic!("no exec")
            };
            assert_eq!(exec.argv, ["ls", "-la", "--json"]);
            assert!(exec.interactive && !cli.options.json);
        }
    }
}
