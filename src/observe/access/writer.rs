//! The thread that writes access lines to where they go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{Chunk, Shared};
use crate::config::model::{AccessLog, Log, LogFormat};

/// Where access lines go, open and ready.
#[derive(Debug)]
pub struct Destination {
    target: AccessLog,
    form: Option<LogFormat>,
    file: Option<File>,
    /// What was written last; a line that a full disk cut short must not run into the next.
    last: u8,
}

impl Destination {
    /// Opens what `[log]` names: a file to append to, made with mode 0640 where there is none, or standard output.
    ///
    /// # Errors
    /// The file cannot be opened; the text names it.
    pub fn open(log: &Log) -> io::Result<Self> {
        let file = match &log.access {
            AccessLog::Off => None,
            AccessLog::Stdout => Some(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            AccessLog::File(path) => Some(append(path)?),
        };
        let form = file.as_ref().map(|_| log.format);
        Ok(Self { target: log.access.clone(), form, file, last: b'\n' })
    }

    /// The form of its lines; None where there are none.
    pub(super) fn form(&self) -> Option<LogFormat> {
        self.form
    }

    fn path(&self) -> PathBuf {
        match &self.target {
            AccessLog::File(path) => path.clone(),
            AccessLog::Stdout => "standard output".into(),
            AccessLog::Off => "nowhere".into(),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let AccessLog::File(path) = &self.target {
            self.file = Some(append(path)?);
            self.last = b'\n';
        }
        Ok(())
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// What the write met, and how many lines are lost.
    fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let mut rest = lines;
        let written = if self.last == b'\n' { Ok(()) } else { self.put(&mut &b"\n"[..]) };
        let written = written.and_then(|()| self.put(&mut rest));
        written.map_err(|error| (rest.iter().map(|byte| u64::from(*byte == b'\n')).sum(), error))
    }

    /// Writes, and moves `rest` past what was written.
    fn put(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    let (written, left) = rest.split_at(count.min(rest.len()));
                    self.last = written.last().copied().unwrap_or(self.last);
                    *rest = left;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Standard output may be shared with a process that made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    // A named pipe without a reader would hold the caller up for ever; files know no difference.
    let flags = OFlag::O_NONBLOCK.bits();
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path);
    opened.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => ": make its directory first",
            io::ErrorKind::PermissionDenied => ": the user that the edge runs as needs to write there",
            _ if error.raw_os_error() == Some(Errno::ENXIO as i32) => ": nobody reads this pipe",
            _ => "",
        };
        io::Error::new(
            error.kind(),
            format!("the access log {} cannot be opened: {error}{hint}", path.display()),
        )
    })
}

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    Lines(Chunk),
    Switch(Destination),
    Reopen,
    /// Answered once all that came before is done.
    Flush(Sender<()>),
}

/// The thread's own state.
#[derive(Debug)]
pub(super) struct Writer {
    destination: Destination,
    shared: Arc<Shared>,
    messages: Receiver<Message>,
    /// Whether the last write failed.
    failing: bool,
    /// How many dropped lines the log has told of, and when.
    reported: u64,
    reported_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(destination: Destination, shared: Arc<Shared>, messages: Receiver<Message>) -> Self {
        Self { destination, shared, messages, failing: false, reported: 0, reported_at: None }
    }

    /// Until every sender is gone.
    pub(super) fn run(mut self) {
        loop {
            match self.next() {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.report();
        }
    }

    /// Waits without end, except when the log is owed a report.
    fn next(&self) -> Result<Message, RecvTimeoutError> {
        if self.shared.dropped() > self.reported {
            return self.messages.recv_timeout(REPORT_EVERY);
        }
        self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Lines(chunk) => self.write(&chunk),
            Message::Switch(destination) => self.destination = destination,
            Message::Reopen => match self.destination.reopen() {
                Ok(()) => tracing::info!("log files are opened again"),
                Err(error) => tracing::error!(%error, "the access log stays in the old file"),
            },
            Message::Flush(done) => {
                // Who asked may have stopped waiting.
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self, chunk: &Chunk) {
        let result = self.destination.write(&chunk.bytes);
        self.shared.unqueue(chunk);
        let path = self.destination.path();
        match result {
            Ok(()) if self.failing => {
                tracing::warn!(path = %path.display(), "access lines are written again");
            }
            Err((_, ref error)) if !self.failing => {
                tracing::error!(path = %path.display(), %error, "access lines cannot be written and are dropped");
            }
            _ => {}
        }
        self.failing = result.is_err();
        if let Err((lost, _)) = result {
            self.shared.drop_lines(lost);
        }
    }

    fn report(&mut self) {
        let dropped = self.shared.dropped();
        let due = self.reported_at.is_none_or(|at| at.elapsed() >= REPORT_EVERY);
        if dropped > self.reported && due {
            tracing::warn!(lines = dropped - self.reported, "access lines were dropped");
            self.reported = dropped;
            self.reported_at = Some(Instant::now());
        }
    }
}

/// How often the log tells of dropped lines at most.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// How long a non-blocking output that is full is left alone.
const RETRY: Duration = Duration::from_millis(10);
