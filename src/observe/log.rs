//! The log: what the edge has to say that is not about one request.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

use super::outlet::Outlet;
use crate::config::model::{self, LogFormat, LogLevel};

/// Sends the process's log to standard error, in the form and from the level that `[log]` says.
///
/// # Errors
/// The process has a log already, or its thread cannot be started.
pub fn init(log: &model::Log) -> io::Result<Log> {
    let outlet = Outlet::start(io::stderr())?;
    let lines = outlet.clone();
    let (subscriber, level) = subscriber(log, move || lines.clone());
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    Ok(Log { level, outlet })
}

/// The running log. Clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Log {
    level: Level,
    outlet: Outlet,
}

impl Log {
    /// Writes from this level on.
    pub fn set_level(&self, level: LogLevel) {
        self.level.set(level);
    }

    /// Waits until all lines are written, but no longer than that.
    pub fn flush(&self, within: Duration) {
        self.outlet.flush(within);
    }
}

#[derive(Clone)]
struct Level(Arc<dyn Fn(Targets) + Send + Sync>);

impl Level {
    fn set(&self, level: LogLevel) {
        (self.0)(targets(level));
    }
}

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Level")
    }
}

fn subscriber<W>(log: &model::Log, writer: W) -> (impl Subscriber + Send + Sync + 'static, Level)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(targets(log.level));
    let lines = fmt::layer().with_writer(writer).with_ansi(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Combined | LogFormat::Text => lines.boxed(),
    };
    let set = move |targets| {
        // Fails only when the subscriber is gone, and with it every line.
        let _ = handle.reload(targets);
    };
    (Registry::default().with(lines.with_filter(filter)), Level(Arc::new(set)))
}

/// The edge's own lines from this level on; those of what it is built from are held at warnings, for below that
/// they tell of every frame. `h2` warns of single frames too (as of a PING's acknowledgement that nobody asked for), and a
/// client may send millions of them.
fn targets(level: LogLevel) -> Targets {
    let own = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), own)
        .with_target("h2", LevelFilter::ERROR)
        .with_default(own.min(LevelFilter::WARN))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Mutex;

    use super::*;
    use crate::config::model::AccessLog;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(format: LogFormat, level: LogLevel) -> model::Log {
        model::Log { format, access: AccessLog::Off, level }
    }

    #[test]
    fn json_lines_carry_their_fields_and_the_level_follows() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, level) = subscriber(&log(LogFormat::Json, LogLevel::Info), move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(path = "a\nb", "opened");
            tracing::debug!("not yet");
            let line = lines.take();
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(
                (&value["level"], &value["message"], &value["path"]),
                (&"INFO".into(), &"opened".into(), &"a\nb".into())
            );
            assert_eq!(line.matches('\n').count(), 1);
            level.set(LogLevel::Debug);
            tracing::debug!("now");
            assert!(lines.take().contains("now"));
            level.set(LogLevel::Error);
            tracing::warn!("no more");
            assert_eq!(lines.take(), "");
        });
    }

    #[test]
    fn what_the_edge_is_built_from_is_held_at_warnings() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, _level) = subscriber(&log(LogFormat::Text, LogLevel::Trace), move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "hyper::proto", "frame");
            tracing::warn!(target: "h2::proto", "a client's frame");
            assert_eq!(lines.take(), "");
            tracing::warn!(target: "hyper::proto", "broken");
            tracing::trace!("ours");
            let written = lines.take();
            assert!(written.contains("broken") && written.contains("ours"), "{written}");
        });
    }
}
