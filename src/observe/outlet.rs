//! The log's way out: one thread writes, so that a reader who has stopped reading stops nobody else.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

/// Lines that may wait for the thread.
const QUEUE: usize = 4096;

/// The log's way out. Clones lead to the same thread, which ends with the last of them.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    to_thread: Sender<Message>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicUsize,
    lost: AtomicU64,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Answered once all that came before is written.
    Flush(Sender<()>),
}

impl Outlet {
    /// Starts the thread, which writes to `out`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (to_thread, messages) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let own = Arc::clone(&counts);
        std::thread::Builder::new().name("log".into()).spawn(move || write_out(out, &messages, &own))?;
        Ok(Self { to_thread, counts })
    }

    /// Waits until all lines are written, but no longer than that.
    pub(super) fn flush(&self, within: Duration) {
        let (done, is_done) = mpsc::channel();
        let _ = self.to_thread.send(Message::Flush(done));
        let _ = is_done.recv_timeout(within);
    }
}

/// Each write is one line, as the subscriber hands them over. It never waits: where too many lines wait already, the
/// line is lost and counted.
impl Write for Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Counts { waiting, lost } = &*self.counts;
        if waiting.fetch_add(1, Ordering::Relaxed) < QUEUE {
            let _ = self.to_thread.send(Message::Line(line.to_vec()));
        } else {
            waiting.fetch_sub(1, Ordering::Relaxed);
            lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_out(mut out: impl Write, messages: &Receiver<Message>, counts: &Counts) {
    let mut told = 0;
    for message in messages {
        match message {
            Message::Line(line) => {
                // A log that cannot be written has nowhere to say so.
                let _ = out.write_all(&line);
                counts.waiting.fetch_sub(1, Ordering::Relaxed);
            }
            Message::Flush(done) => {
                // Who asked may have stopped waiting.
                let _ = done.send(());
            }
        }
        let lost = counts.lost.load(Ordering::Relaxed);
        if lost > told {
            tracing::warn!(
                lines = lost - std::mem::replace(&mut told, lost),
                "lines of this log were lost: nobody read it fast enough"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_reader_that_stops_costs_lines_and_no_time() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut outlet = Outlet::start(writer).unwrap();
        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<_>>();
        let sent = 2 * QUEUE;
        (0..sent).for_each(|_| outlet.write_all(&line).unwrap());
        outlet.flush(Duration::ZERO);
        let lost = usize::try_from(outlet.counts.lost.load(Ordering::Relaxed)).unwrap();
        assert!(lost > 0);
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        outlet.flush(PATIENCE);
        drop(outlet);
        let read = reading.join().unwrap().unwrap();
        assert_eq!(read, line.repeat(sent - lost));
    }
}
