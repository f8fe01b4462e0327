//! The access log: rendered by each worker into a buffer of its own, written by one thread.
//!
//! A request never waits for the disk. Where lines come faster than they can be written, or cannot be written at
//! all, they are dropped and counted, and the log says so.

mod escape;
mod line;
mod writer;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use tokio::sync::Notify;

use self::line::Renderer;
pub use self::line::{Ended, Line, Tls, ip};
pub use self::writer::Destination;
use self::writer::{Message, Writer};
use crate::config::model::LogFormat;
use crate::observe::recent::{Recent, Recorder};
use crate::observe::spans::Spans;

/// The access log. Clones are handles of the same one; the writer thread ends with the last of them and of their
/// sinks.
#[derive(Debug, Clone)]
pub struct Access {
    shared: Arc<Shared>,
    to_writer: Sender<Message>,
    recent: Recent,
    spans: Spans,
}

impl Access {
    /// Starts the writer thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(destination: Destination) -> io::Result<Self> {
        let (to_writer, messages) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        shared.set_form(destination.form());
        let writer = Writer::new(destination, Arc::clone(&shared), messages);
        std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run())?;
        Ok(Self { shared, to_writer, recent: Recent::default(), spans: Spans::default() })
    }

    /// The latest requests, whether lines of them are written or not.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// The spans of sampled traces, whether lines are written or not.
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// A worker's own way in.
    pub fn sink(&self) -> Sink {
        let recorder = RefCell::new(self.recent.recorder());
        Sink { access: self.clone(), recorder, pending: RefCell::default(), filled: Notify::new() }
    }

    /// Writes to another place or in another form from here on; lines that are still in a worker's buffer keep
    /// their form. For a reload: what can fail has been done by [`Destination::open`].
    pub fn switch(&self, destination: Destination) {
        self.shared.set_form(destination.form());
        self.send(Message::Switch(destination));
    }

    /// Opens the file again, for one that was moved away. Standard output stays.
    pub fn reopen(&self) {
        self.send(Message::Reopen);
    }

    /// Waits until all that the sinks have flushed is written, or dropped; false when that took longer.
    pub fn flush(&self, within: Duration) -> bool {
        let (done, is_done) = mpsc::channel();
        self.send(Message::Flush(done));
        is_done.recv_timeout(within).is_ok()
    }

    /// How many lines were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped()
    }

    fn send(&self, message: Message) {
        // The writer listens as long as there is a sender; if it is gone, so is the process.
        let _ = self.to_writer.send(message);
    }
}

/// A worker's own way into the access log.
#[derive(Debug)]
pub struct Sink {
    access: Access,
    recorder: RefCell<Recorder>,
    pending: RefCell<Pending>,
    filled: Notify,
}

impl Sink {
    /// Notes the request, renders its line into the buffer, and hands the buffer on when it is full.
    pub fn write(&self, line: &Line<'_>) {
        // What is explained afterwards is requests.
        if line.ended.is_none() && self.recorder.borrow_mut().note(line) {
            self.filled.notify_one();
        }
        let Some(format) = self.access.shared.form() else { return };
        let mut pending = self.pending.borrow_mut();
        if pending.lines == 0 {
            pending.bytes.reserve(BUFFER + BUFFER / 4);
            self.filled.notify_one();
        }
        let Pending { bytes, lines, renderer } = &mut *pending;
        renderer.render(bytes, format, line);
        *lines += 1;
        if bytes.len() >= BUFFER {
            drop(pending);
            self.send_lines();
        }
    }

    /// Where spans of sampled traces are left.
    pub fn spans(&self) -> &Spans {
        &self.access.spans
    }

    /// Hands on what is in the buffers; drops and counts lines where the writer is too far behind.
    pub fn flush(&self) {
        self.recorder.borrow_mut().hand_on();
        self.send_lines();
    }

    fn send_lines(&self) {
        if let Some(chunk) = self.pending.borrow_mut().take() {
            if self.access.shared.queue(&chunk) {
                self.access.send(Message::Lines(chunk));
            } else {
                self.access.shared.drop_lines(chunk.lines);
            }
        }
    }

    /// Flushes a little after a line came into the empty buffer. Runs for ever: one task a worker, which costs
    /// nothing while there are no lines.
    pub async fn keep_flushed(&self) {
        loop {
            self.filled.notified().await;
            tokio::time::sleep(QUIET).await;
            self.flush();
        }
    }
}

/// A worker that ends leaves its last lines, however full the queue is.
impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(chunk) = self.pending.borrow_mut().take() {
            self.access.shared.queued.fetch_add(chunk.bytes.len(), Ordering::Relaxed);
            self.access.send(Message::Lines(chunk));
        }
    }
}

/// Lines on their way to the writer.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    lines: u64,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    lines: u64,
    renderer: Renderer,
}

impl Pending {
    fn take(&mut self) -> Option<Chunk> {
        let lines = std::mem::take(&mut self.lines);
        (lines > 0).then(|| Chunk { bytes: std::mem::take(&mut self.bytes), lines })
    }
}

/// What sinks and the writer both see.
#[derive(Debug, Default)]
struct Shared {
    /// A number for the form of lines: see [`Shared::form`].
    form: AtomicU8,
    /// Octets on their way to the writer.
    queued: AtomicUsize,
    dropped: AtomicU64,
}

impl Shared {
    fn form(&self) -> Option<LogFormat> {
        match self.form.load(Ordering::Relaxed) {
            1 => Some(LogFormat::Json),
            2 => Some(LogFormat::Combined),
            3 => Some(LogFormat::Text),
            _ => None,
        }
    }

    fn set_form(&self, form: Option<LogFormat>) {
        let number = match form {
            None => 0,
            Some(LogFormat::Json) => 1,
            Some(LogFormat::Combined) => 2,
            Some(LogFormat::Text) => 3,
        };
        self.form.store(number, Ordering::Relaxed);
    }

    /// Counts the chunk as on its way; false, with nothing counted, where the queue is full.
    fn queue(&self, chunk: &Chunk) -> bool {
        let len = chunk.bytes.len();
        let fits = self.queued.fetch_add(len, Ordering::Relaxed) < QUEUE;
        if !fits {
            self.queued.fetch_sub(len, Ordering::Relaxed);
        }
        fits
    }

    fn unqueue(&self, chunk: &Chunk) {
        self.queued.fetch_sub(chunk.bytes.len(), Ordering::Relaxed);
    }

    fn drop_lines(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// A buffer of so many octets is handed on.
const BUFFER: usize = 128 * 1024;
/// How long a line waits in a buffer that does not fill.
const QUIET: Duration = Duration::from_millis(100);
/// Octets that may wait for the writer: seconds of a busy edge, or a hiccup of the disk.
const QUEUE: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read;
    use std::net::IpAddr;
    use std::path::Path;
    use std::time::SystemTime;

    use nix::sys::stat::Mode;

    use super::*;
    use crate::config::model::{AccessLog, Log, LogLevel};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn destination(path: &Path) -> Destination {
        let access = AccessLog::File(path.into());
        Destination::open(&Log { format: LogFormat::Json, access, level: LogLevel::Info }).unwrap()
    }

    fn line(path: &[u8]) -> Line<'_> {
        Line { path, ..Line::new(SystemTime::UNIX_EPOCH, IpAddr::from([192, 0, 2, 1])) }
    }

    fn lines(path: &Path) -> usize {
        let text = fs::read_to_string(path).unwrap();
        text.lines().filter(|line| line.parse::<serde_json::Value>().is_ok()).count()
    }

    #[test]
    fn every_line_of_every_worker_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let access = Access::start(destination(&path)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let sink = access.sink();
                scope.spawn(move || (0..1000).for_each(|_| sink.write(&line(b"/"))));
            }
        });
        assert!(access.flush(PATIENCE));
        assert_eq!((lines(&path), access.dropped()), (2000, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_line_does_not_wait_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let access = Access::start(destination(&path)).unwrap();
        let sink = access.sink();
        sink.write(&line(b"/"));
        assert!(tokio::time::timeout(2 * QUIET, sink.keep_flushed()).await.is_err());
        assert!(access.flush(PATIENCE));
        assert_eq!(lines(&path), 1);
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let access = Access::start(destination(&path)).unwrap();
        let sink = access.sink();
        sink.write(&line(b"/1"));
        sink.flush();
        assert!(access.flush(PATIENCE));
        fs::rename(&path, &moved).unwrap();
        access.reopen();
        sink.write(&line(b"/2"));
        sink.flush();
        assert!(access.flush(PATIENCE));
        assert_eq!((lines(&moved), lines(&path)), (1, 1));
    }

    #[test]
    fn a_reload_changes_place_and_form() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1.log"), folder.path().join("2.log"));
        let access = Access::start(destination(&first)).unwrap();
        let sink = access.sink();
        let mut log = Log { format: LogFormat::Text, access: AccessLog::Off, level: LogLevel::Info };
        access.switch(Destination::open(&log).unwrap());
        sink.write(&line(b"/nowhere"));
        log.access = AccessLog::File(second.clone());
        access.switch(Destination::open(&log).unwrap());
        sink.write(&line(b"/second"));
        sink.flush();
        assert!(access.flush(PATIENCE));
        assert_eq!(fs::read_to_string(first).unwrap(), "");
        assert!(fs::read_to_string(second).unwrap().contains(" /second "));
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let access = Access::start(destination(Path::new("/dev/full"))).unwrap();
        let sink = access.sink();
        (0..3).for_each(|_| sink.write(&line(b"/")));
        sink.flush();
        assert!(access.flush(PATIENCE));
        assert_eq!(access.dropped(), 3);
        access.switch(destination(&path));
        sink.write(&line(b"/"));
        drop(sink);
        assert!(access.flush(PATIENCE));
        assert_eq!((lines(&path), access.dropped()), (1, 3));
    }

    /// A pipe whose reader pauses stands for a disk that hangs.
    #[test]
    fn a_writer_that_hangs_costs_lines_and_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let held_open = File::options().read(true).write(true).open(&path).unwrap();
        let access = Access::start(destination(&path)).unwrap();
        let mut reader = File::open(&path).unwrap();
        let (sink, text) = (access.sink(), [b'a'; 4096]);
        let sent = 2 * QUEUE / text.len();
        (0..sent).for_each(|_| sink.write(&line(&text)));
        drop(sink);
        assert!(access.dropped() > 0);
        assert!(!access.flush(Duration::ZERO));
        let counted = std::thread::spawn(move || {
            let mut all = String::new();
            reader.read_to_string(&mut all).map(|_| all.lines().count())
        });
        assert!(access.flush(PATIENCE));
        let dropped = usize::try_from(access.dropped()).unwrap();
        drop((access, held_open));
        assert_eq!(counted.join().unwrap().unwrap() + dropped, sent);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let log = Log {
            format: LogFormat::Json,
            access: AccessLog::File("/nonexistent/access.log".into()),
            level: LogLevel::Info,
        };
        let message = Destination::open(&log).unwrap_err().to_string();
        assert!(
            message.starts_with("the access log /nonexistent/access.log cannot be opened: "),
            "{message}"
        );
        assert!(message.ends_with("make its directory first"), "{message}");
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let log = Log { format: LogFormat::Json, access: AccessLog::File(path), level: LogLevel::Info };
        let message = Destination::open(&log).unwrap_err().to_string();
        assert!(message.ends_with("nobody reads this pipe"), "{message}");
    }
}
