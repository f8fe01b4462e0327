//! The text that Prometheus reads: its own format 0.0.4, and `OpenMetrics` 1.0 for whoever asks for it.

use std::fmt::{Display, Write as _};

use super::cells::{BOUNDS, Durations};

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Prometheus' own, version 0.0.4.
    Prometheus,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Dialect {
    /// The one that an Accept field asks for.
    pub fn of(accept: &str) -> Self {
        if accept.to_ascii_lowercase().contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The text's media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A text in the making: families one after another, each with its samples.
#[derive(Debug)]
pub struct Text {
    out: String,
    dialect: Dialect,
    family: String,
}

/// A label and its value.
type Label<'a> = (&'a str, &'a str);

impl Text {
    /// An empty one.
    pub fn new(dialect: Dialect) -> Self {
        Self { out: String::new(), dialect, family: String::new() }
    }

    /// Begins a family of counters; `name` ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str) {
        let family = match self.dialect {
            Dialect::Prometheus => name,
            Dialect::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
        };
        self.begin(family, "counter", help);
        name.clone_into(&mut self.family);
    }

    /// Begins a family of gauges.
    pub fn gauge(&mut self, name: &str, help: &str) {
        self.begin(name, "gauge", help);
    }

    /// Begins a family of histograms; `name` ends in `_seconds`.
    pub fn histogram(&mut self, name: &str, help: &str) {
        self.begin(name, "histogram", help);
    }

    /// Facts that do not change, as labels of one sample; `name` ends in `_info`.
    pub fn info(&mut self, name: &str, help: &str, labels: &[Label<'_>]) {
        match self.dialect {
            Dialect::Prometheus => self.begin(name, "gauge", help),
            Dialect::OpenMetrics => self.begin(name.strip_suffix("_info").unwrap_or(name), "info", help),
        }
        name.clone_into(&mut self.family);
        self.sample(labels, 1);
    }

    /// One sample of the family that was begun last.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// One histogram of the family that was begun last, in seconds.
    #[allow(clippy::cast_precision_loss, reason = "no duration is that long")]
    pub fn durations(&mut self, labels: &[Label<'_>], durations: &Durations) {
        let mut below = 0;
        let bounds = BOUNDS.iter().map(|micros| format!("{:?}", *micros as f64 / 1e6));
        for (bucket, bound) in durations.buckets.iter().zip(bounds.chain(["+Inf".to_owned()])) {
            below += bucket;
            self.line("_bucket", labels, Some(("le", &bound)), below);
        }
        self.line("_sum", labels, None, durations.micros as f64 / 1e6);
        self.line("_count", labels, None, below);
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.dialect == Dialect::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    fn begin(&mut self, family: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(self.out, "# HELP {family} {}", help.replace('\\', "\\\\").replace('\n', "\\n"));
        let _ = writeln!(self.out, "# TYPE {family} {kind}");
        let unit = ["seconds", "bytes"].into_iter().find(|unit| family.ends_with(&format!("_{unit}")));
        if let Some(unit) = unit.filter(|_| self.dialect == Dialect::OpenMetrics) {
            let _ = writeln!(self.out, "# UNIT {family} {unit}");
        }
        family.clone_into(&mut self.family);
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], last: Option<Label<'_>>, value: impl Display) {
        let _ = write!(self.out, "{}{suffix}", self.family);
        let mut mark = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            let _ = write!(self.out, "{mark}{name}=\"");
            escape(&mut self.out, value);
            self.out.push('"');
            mark = ',';
        }
        let _ = writeln!(self.out, "{} {value}", if mark == ',' { "}" } else { "" });
    }
}

fn escape(out: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            letter => out.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(dialect: Dialect) -> String {
        let mut text = Text::new(dialect);
        text.counter("vestibule_requests_total", "Requests");
        text.sample(&[("site", "a\"\\\nb"), ("status", "200")], 7);
        text.gauge("process_resident_memory_bytes", "Memory");
        text.sample(&[], 4096);
        text.histogram("vestibule_wait_seconds", "Waiting");
        let mut durations = Durations { micros: 1_500_000, ..Durations::default() };
        (durations.buckets[0], durations.buckets[9], durations.buckets[14]) = (2, 1, 1);
        text.durations(&[("site", "a")], &durations);
        text.info("vestibule_build_info", "Build", &[("version", "1")]);
        text.finish()
    }

    #[test]
    fn prometheus_reads_it() {
        let text = text(Dialect::Prometheus);
        for line in [
            "# TYPE vestibule_requests_total counter",
            "vestibule_requests_total{site=\"a\\\"\\\\\\nb\",status=\"200\"} 7",
            "process_resident_memory_bytes 4096",
            "vestibule_wait_seconds_bucket{site=\"a\",le=\"0.001\"} 2",
            "vestibule_wait_seconds_bucket{site=\"a\",le=\"1.0\"} 3",
            "vestibule_wait_seconds_bucket{site=\"a\",le=\"+Inf\"} 4",
            "vestibule_wait_seconds_sum{site=\"a\"} 1.5",
            "vestibule_wait_seconds_count{site=\"a\"} 4",
            "# TYPE vestibule_build_info gauge",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
        assert!(!text.contains("EOF") && !text.contains("UNIT"));
    }

    #[test]
    fn openmetrics_differs_where_it_must() {
        let text = text(Dialect::OpenMetrics);
        for line in [
            "# TYPE vestibule_requests counter",
            "# UNIT process_resident_memory_bytes bytes",
            "# UNIT vestibule_wait_seconds seconds",
            "# TYPE vestibule_build info",
            "vestibule_build_info{version=\"1\"} 1",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn accept_chooses() {
        let sent = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5";
        assert_eq!((Dialect::of(sent), Dialect::of("*/*")), (Dialect::OpenMetrics, Dialect::Prometheus));
    }
}
