//! A child's output, line by line, that a test can wait on.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use serde_json::Value;

use super::PATIENCE;

/// The lines that came so far; a thread reads until the child closes the pipe.
#[derive(Clone)]
pub(crate) struct Lines(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Follows a pipe to its end.
    pub(crate) fn follow(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::new((Mutex::default(), Condvar::new())));
        let writer = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                writer.0.0.lock().unwrap().lines.push(line);
                writer.0.1.notify_all();
            }
            writer.0.0.lock().unwrap().ended = true;
            writer.0.1.notify_all();
        });
        lines
    }

    /// How many there are: a mark for [`Lines::wait_from`].
    pub(crate) fn mark(&self) -> usize {
        self.0.0.lock().unwrap().lines.len()
    }

    /// Every line so far, for a failing test's message.
    pub(crate) fn all(&self) -> String {
        self.0.0.lock().unwrap().lines.join("\n")
    }

    /// The first line, old or new, that `pick` makes something of.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, pick: impl FnMut(&str) -> Option<T>) -> T {
        self.wait_from(0, what, pick)
    }

    /// The first line after the mark that `pick` makes something of.
    #[track_caller]
    pub(crate) fn wait_from<T>(&self, mark: usize, what: &str, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.0.0.lock().unwrap();
        let mut next = mark;
        loop {
            while let Some(line) = state.lines.get(next) {
                if let Some(found) = pick(line) {
                    return found;
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                let lines = state.lines.join("\n");
                drop(state);
                panic!("no line with {what}; the lines:\n{lines}");
            }
            state = self.0.1.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits until the child has closed the pipe, as its end does.
    #[track_caller]
    pub(crate) fn wait_end(&self) {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap();
        let (state, _) = changed.wait_timeout_while(state, PATIENCE, |state| !state.ended).unwrap();
        let (ended, lines) = (state.ended, state.lines.join("\n"));
        drop(state);
        assert!(ended, "the process did not leave; its lines:\n{lines}");
    }

    /// The first JSON line that `pick` accepts, after the mark.
    #[track_caller]
    pub(crate) fn wait_json(&self, mark: usize, what: &str, pick: impl Fn(&Value) -> bool) -> Value {
        self.wait_from(mark, what, |line| serde_json::from_str(line).ok().filter(&pick))
    }
}

/// A field of a JSON log line, wherever the formatter put it.
pub(crate) fn field<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    line.get(name).or_else(|| line.get("fields").and_then(|fields| fields.get(name)))
}

/// A text field of a JSON log line; empty when it is missing.
pub(crate) fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    field(line, name).and_then(Value::as_str).unwrap_or_default()
}
