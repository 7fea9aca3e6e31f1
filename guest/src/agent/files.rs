//! Files that the host writes or reads. Neither is ever in memory as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use serde::Serialize;
use vmint_guest_protocol::frame::{Kind, PAYLOAD_MAX_BYTES};
use vmint_guest_protocol::{WINDOW_BYTES, channel};

use super::out::Out;
use super::processes::Grant;
use super::refusal::Refusal;
use crate::file::{MODE_BITS, NewFile, Wanted};
use crate::{json, sys};

/// All files that streams write or read.
pub(super) struct Files {
    all: Vec<Transfer>,
}

struct Transfer {
    stream: u16,
    work: Work,
}

enum Work {
    Write(Write),
    Read(Read),
}

/// What is known of a file before it is read.
#[derive(Serialize)]
struct Facts {
    size: Option<u64>,
    mode: u32,
}

#[derive(Serialize)]
struct Size {
    size: u64,
}

/// What has become of a transfer. The text is its `RESULT`.
enum Step {
    GoOn,
    Done(String),
}

impl Files {
    pub(super) fn new() -> Self {
        Self { all: Vec::new() }
    }

    pub(super) fn stream_count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn has_stream(&self, stream: u16) -> bool {
        self.all.iter().any(|transfer| transfer.stream == stream)
    }

    pub(super) fn write(&mut self, stream: u16, wanted: Wanted) -> Result<(), Refusal> {
        let work = Work::Write(Write::begin(wanted)?);
        self.all.push(Transfer { stream, work });
        Ok(())
    }

    pub(super) fn read(&mut self, stream: u16, path: String) -> Result<(), Refusal> {
        let work = Work::Read(Read::begin(path)?);
        self.all.push(Transfer { stream, work });
        Ok(())
    }

    /// Half-written files go.
    pub(super) fn lose_connection(&mut self) {
        self.all.clear();
    }

    /// Whether one of them has something to send.
    pub(super) fn wants_turn(&self) -> bool {
        let wants = |transfer: &Transfer| match &transfer.work {
            Work::Write(_) => false,
            Work::Read(read) => read.wants_turn(),
        };
        self.all.iter().any(wants)
    }

    /// Sends a frame of each that is read; another one is the first each time.
    pub(super) fn attend(&mut self, out: &mut Out) {
        if self.all.len() > 1 {
            self.all.rotate_left(1);
        }
        self.all.retain_mut(|transfer| {
            let step = match &mut transfer.work {
                Work::Write(_) => Step::GoOn,
                Work::Read(read) => read.attend(transfer.stream, out),
            };
            goes_on(transfer.stream, step, out)
        });
    }

    pub(super) fn data(&mut self, stream: u16, bytes: &[u8], out: &mut Out) {
        self.step(stream, out, |transfer, out| match &mut transfer.work {
            Work::Write(write) => match write.take(bytes) {
                Ok(()) => {
                    if let Some(bytes) = write.grant.give_back() {
                        out.credit(stream, bytes);
                    }
                    Step::GoOn
                }
                Err(refusal) => Step::Done(refusal.result()),
            },
            Work::Read(_) => Step::GoOn,
        });
    }

    /// `END` of what is written: the file is put into its place.
    pub(super) fn end(&mut self, stream: u16, out: &mut Out) {
        self.step(stream, out, |transfer, _| match &mut transfer.work {
            Work::Write(write) => Step::Done(match write.end() {
                Ok(result) => result,
                Err(refusal) => refusal.result(),
            }),
            Work::Read(_) => Step::GoOn,
        });
    }

    pub(super) fn credit(&mut self, stream: u16, channel: u8, bytes: u32) {
        for transfer in &mut self.all {
            if let (Work::Read(read), channel::OUTPUT) = (&mut transfer.work, channel) {
                if transfer.stream == stream {
                    read.credit_bytes = read.credit_bytes.saturating_add(bytes.into());
                }
            }
        }
    }

    pub(super) fn cancel(&mut self, stream: u16, out: &mut Out) {
        self.step(stream, out, |_, _| {
            Step::Done(Refusal::cancelled().result())
        });
    }

    fn step(
        &mut self,
        stream: u16,
        out: &mut Out,
        act: impl FnOnce(&mut Transfer, &mut Out) -> Step,
    ) {
        let place = self.all.iter().position(|it| it.stream == stream);
        if let Some(place) = place {
            let step = act(&mut self.all[place], out);
            if !goes_on(stream, step, out) {
                self.all.remove(place);
            }
        }
    }
}

fn goes_on(stream: u16, step: Step, out: &mut Out) -> bool {
    match step {
        Step::GoOn => true,
        Step::Done(result) => {
            out.result(stream, &result);
            false
        }
    }
}

struct Write {
    path: String,
    /// `None`: it is in its place.
    file: Option<NewFile>,
    grant: Grant,
}

impl Write {
    fn begin(wanted: Wanted) -> Result<Self, Refusal> {
        let file =
            NewFile::create(&wanted).map_err(|error| Refusal::of_file(&wanted.path, &error))?;
        Ok(Self {
            path: wanted.path,
            file: Some(file),
            grant: Grant::new(),
        })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.grant
            .spend(bytes.len())
            .map_err(|_| Refusal::over_credit())?;
        self.grant.consumed(bytes.len());
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write(bytes));
        written.map_err(|error| Refusal::of_file(&self.path, &error))
    }

    fn end(&mut self) -> Result<String, Refusal> {
        let published = self.file.take().map_or(Ok(0), NewFile::publish);
        let size = published.map_err(|error| Refusal::of_file(&self.path, &error))?;
        Ok(size_of(size))
    }
}

struct Read {
    path: String,
    file: File,
    mode: u32,
    /// What the file says. `None`: it is not believed.
    size_bytes: Option<u64>,
    /// Read to learn the size, and not sent yet.
    ahead: Vec<u8>,
    is_told: bool,
    is_at_end: bool,
    sent_bytes: u64,
    credit_bytes: u64,
}

impl Read {
    fn begin(path: String) -> Result<Self, Refusal> {
        let mut read = open(&path).map_err(|error| Refusal::of_file(&path, &error))?;
        if read.size_bytes.is_none() {
            let looked = read.look_ahead();
            looked.map_err(|error| Refusal::of_file(&path, &error))?;
        }
        read.path = path;
        Ok(read)
    }

    /// The first frame's worth: what ends in it has a size after all.
    fn look_ahead(&mut self) -> io::Result<()> {
        let mut filled = 0;
        self.ahead.resize(PAYLOAD_MAX_BYTES, 0);
        while filled < PAYLOAD_MAX_BYTES {
            match self.file.read(&mut self.ahead[filled..]) {
                Ok(0) => {
                    self.size_bytes = Some(filled as u64);
                    break;
                }
                Ok(size) => filled += size,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.ahead.truncate(filled);
        Ok(())
    }

    fn wants_turn(&self) -> bool {
        !self.is_told || self.is_at_end || self.credit_bytes > 0
    }

    /// Sends one frame's worth.
    fn attend(&mut self, stream: u16, out: &mut Out) -> Step {
        if !std::mem::replace(&mut self.is_told, true) {
            let (size, mode) = (self.size_bytes, self.mode);
            let facts = json::text(&Facts { size, mode });
            out.frame(stream, Kind::Data, channel::ERROR, facts.as_bytes());
        }
        let left = self.size_bytes.map(|size| size - self.sent_bytes);
        self.is_at_end |= left == Some(0);
        if self.is_at_end {
            out.end(stream, channel::OUTPUT);
            return Step::Done(size_of(self.sent_bytes));
        }
        if self.credit_bytes == 0 || !out.has_room() {
            return Step::GoOn;
        }
        let most = left.unwrap_or(u64::MAX).min(self.credit_bytes);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let Self { file, ahead, .. } = self;
        let got = out.data(stream, channel::OUTPUT, most, |room| match ahead.len() {
            0 => file.read(room),
            held => {
                let size = held.min(room.len());
                room[..size].copy_from_slice(&ahead[..size]);
                ahead.drain(..size);
                Ok(size)
            }
        });
        match got {
            Ok(0) => self.is_at_end = true,
            Ok(size) => {
                self.sent_bytes += size as u64;
                self.credit_bytes -= size as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Step::Done(Refusal::of_file(&self.path, &error).result()),
        }
        Step::GoOn
    }
}

/// A regular file.
fn open(path: &str) -> io::Result<Read> {
    let errno = io::Error::from_raw_os_error;
    if !path.starts_with('/') || path.contains('\0') {
        return Err(errno(libc::EINVAL));
    }
    let file = OpenOptions::new()
        .read(true)
        // A FIFO or a terminal is not waited for; it is refused below.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(errno(libc::EISDIR));
    }
    if !about.is_file() {
        return Err(errno(libc::EINVAL));
    }
    let is_believed = about.len() > 0 && !sys::is_made_by_kernel(&file)?;
    Ok(Read {
        path: String::new(),
        file,
        mode: about.mode() & MODE_BITS,
        size_bytes: is_believed.then_some(about.len()),
        ahead: Vec::new(),
        is_told: false,
        is_at_end: false,
        sent_bytes: 0,
        credit_bytes: WINDOW_BYTES.into(),
    })
}

/// How a transfer ends.
fn size_of(size: u64) -> String {
    json::text(&Size { size })
}
