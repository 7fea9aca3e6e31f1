//! Things that must not be, put where an audit has to find them, and taken away again.
//!
//! What always holds: nothing is planted in the books. A planted thing is what a fault of the service would leave: a
//! process, a file, a mount, a guest that is not what it was. What is planted goes with its [`Planted`], or names the
//! folder and so ends with everything else of a soak that failed.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use tokio::process::{Child, Command};

use super::Soak;
use super::audit::GENERATION_REST_MIB;
use super::books::Held;
use super::call::{Ask, call};
use super::client::Client;
use super::host;
use super::place::{GONE_DEADLINE, Place};

/// What is in the name of everything that is planted.
const NAME: &str = "planted";
/// How often a planted process is looked for.
const AGAIN: Duration = Duration::from_millis(1);

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plant {
    /// A hypervisor that no pool knows.
    Machine,
    /// A second hypervisor of a sandbox.
    Twin,
    Service,
    Guardian,
    /// A machine's directory without a machine.
    Directory,
    /// A generation that the service does not tell of.
    Generation,
    /// A link to another generation than the service tells of.
    Current,
    /// A file that was not renamed into its place.
    Leftover,
    /// A generation that takes more than its memory.
    Size,
    /// A template that is not configured.
    Template,
    /// A file in the run directory.
    Stranger,
    Mount,
    /// A guest with another name than the sandbox was promised with.
    Guest,
    /// A guest that gives the same random numbers again.
    Random,
    /// A sandbox that is no more, while its client holds it.
    Lost,
}

impl Plant {
    /// What is planted while the service lives.
    pub(super) const ALIVE: [Self; 15] = [
        Self::Machine,
        Self::Twin,
        Self::Service,
        Self::Guardian,
        Self::Directory,
        Self::Generation,
        Self::Current,
        Self::Leftover,
        Self::Size,
        Self::Template,
        Self::Stranger,
        Self::Mount,
        Self::Guest,
        Self::Random,
        Self::Lost,
    ];
    /// What must not be left by a service that was stopped.
    pub(super) const STOPPED: [Self; 6] = [
        Self::Machine,
        Self::Service,
        Self::Guardian,
        Self::Directory,
        Self::Leftover,
        Self::Mount,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "a hypervisor that no pool knows",
            Self::Twin => "a second hypervisor of one sandbox",
            Self::Service => "a second service",
            Self::Guardian => "a second guardian",
            Self::Directory => "a directory without a machine",
            Self::Generation => "a generation that nobody tells of",
            Self::Current => "a link to another generation",
            Self::Leftover => "a half-written file",
            Self::Size => "a generation that is too large",
            Self::Template => "a template that nobody configured",
            Self::Stranger => "a file in the run directory",
            Self::Mount => "a mount",
            Self::Guest => "a guest with another name",
            Self::Random => "random numbers that come twice",
            Self::Lost => "a sandbox that its client has lost",
        }
    }

    /// With which words an audit names it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Machine => "machines in ps, clones:",
            Self::Twin => "machines in ps, their names:",
            Self::Service => "services: 2, 1",
            Self::Guardian => "guardians: 2, 1",
            Self::Directory => "directories, clones:",
            Self::Generation => "generations on disk, as told:",
            Self::Current => "current on disk, as told:",
            Self::Leftover => "leftovers:",
            Self::Size => "generations take",
            Self::Template | Self::Stranger => "strangers:",
            Self::Mount => "mounts:",
            Self::Guest => "says that it is",
            Self::Random => "random numbers came twice:",
            Self::Lost => "as told, as held: None",
        }
    }

    /// Puts it in place; a client holds the sandbox. Nothing where that is not possible here.
    pub(super) async fn put(self, client: &Client, held: &Held) -> anyhow::Result<Option<Planted>> {
        let (soak, place) = (&client.soak, &client.soak.place);
        let planted = match self {
            Self::Machine => Planted::process(place, &["qemu", "-name", "vmint-planted"]).await?,
            Self::Twin => {
                let name = format!("vmint-{}", held.id);
                Planted::process(place, &["qemu", "-name", &name])
                    .await?
                    .named("")
            }
            Self::Service => Planted::process(place, &["serve"]).await?.named(""),
            Self::Guardian => Planted::process(place, &["guard-leases"]).await?.named(""),
            Self::Directory => Planted::directory(place.run_dir().join("vm").join(NAME))?,
            Self::Generation => Planted::directory(host::template_folder(place).join(NAME))?,
            Self::Template => Planted::directory(place.template_path().join(NAME))?,
            Self::Current => Planted::link(&host::template_folder(place).join("current"))?,
            Self::Leftover => Planted::file(&current(place)?.join("planted.json.new"), 0)?,
            Self::Size => {
                let file = current(place)?.join(NAME);
                Planted::file(&file, GENERATION_REST_MIB + 1)?.named("MiB")
            }
            Self::Stranger => Planted::file(&place.run_dir().join(NAME), 0)?,
            Self::Mount => return Planted::mount(&place.folder.join(NAME)),
            Self::Guest => {
                let back = format!("hostname {}", held.hostname);
                Planted::guest(soak, held, "hostname planted", &back).await?
            }
            // What a guest gives that has no random numbers: the same, again and again.
            Self::Random => {
                let (there, back) = (
                    "mv /dev/urandom /dev/true && ln -s /dev/zero /dev/urandom",
                    "mv /dev/true /dev/urandom",
                );
                let planted = Planted::guest(soak, held, there, back).await?;
                client.prove(held).await?;
                planted.named(&held.id)
            }
            Self::Lost => {
                let ask = Ask::delete(format!("/v1/sandboxes/{}", held.id));
                let reply = call(&place.socket(), &ask).await?;
                anyhow::ensure!(reply.status == 204, "{} {}", reply.status, reply.body);
                Planted::new(Remedy::Forget(held.id.clone())).named(&held.id)
            }
        };
        Ok(Some(planted))
    }
}

/// Something that is in place.
pub(super) struct Planted {
    /// What the audit must name.
    pub(super) name: String,
    remedy: Remedy,
}

/// How it goes away again.
enum Remedy {
    End(Child),
    RemoveDirectory(PathBuf),
    RemoveFile(PathBuf),
    Link(PathBuf, PathBuf),
    Unmount(Mounted),
    Guest(Held, String),
    Forget(String),
}

impl Planted {
    fn new(remedy: Remedy) -> Self {
        Self {
            name: NAME.to_owned(),
            remedy,
        }
    }

    fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// A process that looks like one of ours: a shell with such a command line, which waits for the end of its input.
    async fn process(place: &Place, words: &[&str]) -> anyhow::Result<Self> {
        let (script, home) = (words[0], place.folder.join("script"));
        fs::create_dir_all(&home)?;
        fs::write(home.join(script), "read line\n")?;
        let child = Command::new("sh")
            .args(words)
            .arg(&place.folder)
            .current_dir(&home)
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().context("a process has a number")?;
        let shows = async {
            while !host::names_folder(pid.try_into()?, &place.folder) {
                tokio::time::sleep(AGAIN).await;
            }
            anyhow::Ok(())
        };
        // A program that has just begun has no command line for a moment.
        let shown = tokio::time::timeout(GONE_DEADLINE, shows).await;
        shown.context("a planted process does not show")??;
        Ok(Self::new(Remedy::End(child)))
    }

    fn directory(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self::new(Remedy::RemoveDirectory(path)))
    }

    fn file(path: &Path, mib: u64) -> anyhow::Result<Self> {
        fs::write(path, vec![0; usize::try_from(mib << 20)?])?;
        Ok(Self::new(Remedy::RemoveFile(path.to_owned())))
    }

    fn link(path: &Path) -> io::Result<Self> {
        let before = fs::read_link(path)?;
        relink(path, Path::new(NAME))?;
        Ok(Self::new(Remedy::Link(path.to_owned(), before)))
    }

    /// Only who may do anything may mount.
    fn mount(path: &Path) -> anyhow::Result<Option<Self>> {
        fs::create_dir_all(path)?;
        let options = Some("size=4k");
        match mount(Some(NAME), path, Some("tmpfs"), MsFlags::empty(), options) {
            Err(nix::Error::EPERM) => Ok(None),
            mounted => {
                mounted?;
                let mounted = Mounted(path.to_owned());
                Ok(Some(Self::new(Remedy::Unmount(mounted))))
            }
        }
    }

    async fn guest(soak: &Soak, held: &Held, there: &str, back: &str) -> anyhow::Result<Self> {
        command(soak, held, there).await?;
        Ok(Self::new(Remedy::Guest(held.clone(), back.to_owned())))
    }

    /// The number of a process.
    pub(super) fn pid(&self) -> Option<String> {
        match &self.remedy {
            Remedy::End(child) => child.id().map(|pid| pid.to_string()),
            _ => None,
        }
    }

    /// Takes it away.
    pub(super) async fn remove(self, soak: &Soak) -> anyhow::Result<()> {
        match self.remedy {
            Remedy::End(mut child) => {
                drop(child.stdin.take());
                let status = tokio::time::timeout(GONE_DEADLINE, child.wait()).await;
                status.context("a planted process does not end")??;
            }
            Remedy::RemoveDirectory(path) => fs::remove_dir(path)?,
            Remedy::RemoveFile(path) => fs::remove_file(path)?,
            Remedy::Link(path, before) => relink(&path, &before)?,
            Remedy::Unmount(mounted) => drop(mounted),
            Remedy::Guest(held, back) => command(soak, &held, &back).await?,
            Remedy::Forget(id) => soak.books.lets_go(&id),
        }
        Ok(())
    }
}

/// A mount; it goes with this.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            println!("{} is left mounted: {error}", self.0.display());
        }
    }
}

/// Runs a command in a sandbox.
async fn command(soak: &Soak, held: &Held, script: &str) -> anyhow::Result<()> {
    let ask = Ask::post(format!("/v1/sandboxes/{}/exec", held.id))
        .body(json!({"argv": ["sh", "-c", script]}));
    let reply = call(&soak.place.socket(), &ask).await?;
    let is_done = reply.status == 200 && reply.body["exit_code"] == 0;
    anyhow::ensure!(is_done, "{script}: {} {}", reply.status, reply.body);
    Ok(())
}

fn current(place: &Place) -> io::Result<PathBuf> {
    Ok(host::template_folder(place).join(host::current(place)?))
}

fn relink(path: &Path, target: &Path) -> io::Result<()> {
    let fresh = path.with_extension(NAME);
    symlink(target, &fresh)?;
    fs::rename(fresh, path)
}
