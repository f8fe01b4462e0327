//! The head of the page, and its plots.

use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;

use super::html::{Html, put};
use super::plot::{Line, plot, top};
use super::{View, moment, stamp};
use crate::observe::history::{MINUTES, SECONDS, Sample};

/// What the edge is, in a line.
pub(super) fn masthead(html: &mut Html, view: &View) {
    let (class, word) = if view.leaving { ("bad", "leaving") } else { ("good", "serving") };
    html.raw("<header id=\"masthead\"><h1>vestibule</h1>");
    put!(html; "<p class=\"state " (class) "\">" (word) "</p><p class=\"about\">");
    let (sites, rows) = (view.sites.len(), view.rows.len());
    put!(html; (counted(sites, "site")) " on " (counted(rows, "port")) ", ");
    put!(html; (counted(view.status.connections, "connection")) " open, ");
    put!(html; (grouped(view.in_flight)) " in flight");
    if let Some(started) = moment(&view.status.started) {
        put!(html; "; up since <time datetime=\"" (stamp(started)) "\">" (date_and_clock(started)) "</time>");
    }
    put!(html; ", configuration " (view.status.generation));
    html.raw("</p>");
    html.raw("<p class=\"alarm\" role=\"status\">");
    if !view.reload_ok {
        html.raw("The last reload was refused: the configuration before it still runs. ");
        html.raw("<code>vestibule check</code> says what is wrong.");
    }
    html.raw("</p>");
    contents(html, view);
    html.raw("</header>");
}

/// Where what is on the page, and how much of it needs somebody.
fn contents(html: &mut Html, view: &View) {
    let members = || view.upstreams.iter().flat_map(|upstream| &upstream.members);
    let down = members().filter(|member| !member.well).count();
    let failing = view.certificates.iter().filter(|certificate| !certificate.is_well()).count();
    html.raw("<nav aria-label=\"On this page\">");
    for (id, title, count, bad, what) in [
        ("sites", "Sites", view.sites.len(), 0, ""),
        ("upstreams", "Upstreams", members().count(), down, "down"),
        ("troubles", "Refused and failed", view.troubles.len(), 0, ""),
        ("firewall", "Firewall", view.rows.len(), 0, ""),
        ("certificates", "Certificates", view.certificates.len(), failing, "failing"),
    ] {
        put!(html; "<a href=\"#" (id) "\">" (title) " <span>" (grouped(count)) "</span>");
        if bad > 0 {
            put!(html; " <b class=\"bad\">" (grouped(bad)) " " (what) "</b>");
        }
        html.raw("</a>");
    }
    html.raw("</nav>");
}

/// What a plot is of.
struct Figure {
    title: &'static str,
    unit: &'static str,
    least: f32,
    lines: &'static [Measure],
}

/// A line of a plot: its class, its name, and what it takes of a sample.
type Measure = (&'static str, &'static str, fn(&Sample) -> f32);

const FIGURES: [Figure; 3] = [
    Figure {
        title: "Requests",
        unit: "per second",
        least: 1.0,
        lines: &[("main", "requests", |s| s.requests)],
    },
    Figure {
        title: "Time taken",
        unit: "milliseconds",
        least: 1.0,
        lines: &[("main", "half within", |s| s.median), ("second", "95 % within", |s| s.slow)],
    },
    Figure {
        title: "Refused and failed",
        unit: "per second",
        least: 1.0,
        lines: &[("warn", "refused", |s| s.refused), ("bad", "failed", |s| s.failed)],
    },
];

/// The plots.
pub(super) fn pulse(html: &mut Html, view: &View) {
    html.raw("<section id=\"pulse\" aria-labelledby=\"pulse-title\"><h2 id=\"pulse-title\" class=\"unseen\">Just now</h2>");
    let seconds: Vec<Sample> = view.history.seconds.iter().copied().collect();
    let minutes: Vec<Sample> = view.history.minutes.iter().copied().collect();
    for figure in &FIGURES {
        put!(html; "<figure><figcaption><span class=\"title\">" (figure.title) "</span> ");
        put!(html; "<span class=\"unit\">" (figure.unit) "</span></figcaption><p class=\"now\">");
        for (class, name, of) in figure.lines {
            let value = rounded(recent(&seconds, *of));
            put!(html; "<span class=\"" (class) "\">" (name) " <b>" (value) "</b></span>");
        }
        html.raw("</p>");
        strip(html, figure, &seconds, &FIVE_MINUTES);
        if !minutes.is_empty() {
            strip(html, figure, &minutes, &DAY);
        }
        html.raw("</figure>");
    }
    html.raw("</section>");
}

/// A stretch of time: how many samples it has, in how many parts it is marked off, and what it is called.
struct Span {
    places: usize,
    parts: u8,
    name: &'static str,
}

const FIVE_MINUTES: Span = Span { places: SECONDS, parts: 5, name: "5 min" };
const DAY: Span = Span { places: MINUTES, parts: 4, name: "24 h" };

fn strip(html: &mut Html, figure: &Figure, samples: &[Sample], span: &Span) {
    let values: Vec<Vec<f32>> =
        figure.lines.iter().map(|(_, _, of)| samples.iter().map(of).collect()).collect();
    let top = top(values.iter().flatten().copied(), figure.least);
    let lines: Vec<Line<'_>> = figure
        .lines
        .iter()
        .zip(&values)
        .map(|((class, _, _), values)| Line { class, values, filled: figure.lines.len() == 1 })
        .collect();
    let told: Vec<String> = figure
        .lines
        .iter()
        .zip(&values)
        .map(|((_, name, _), values)| {
            let most = values.iter().copied().fold(0.0, f32::max);
            format!("{name} at most {}", rounded(most))
        })
        .collect();
    let label = format!("{} over {}, {}: {}", figure.title, span.name, figure.unit, told.join(", "));
    html.raw("<div class=\"strip\">");
    plot(html, &label, &lines, span.places, span.parts, top);
    put!(html; "<span class=\"top\">" (rounded(top)) "</span><span class=\"nought\">0</span>");
    put!(html; "<span class=\"span\"><span>" (span.name) " ago</span><span>now</span></span></div>");
}

/// The mean of the last five seconds, so that the number can be read.
#[allow(clippy::cast_precision_loss, reason = "five at most")]
fn recent(samples: &[Sample], of: fn(&Sample) -> f32) -> f32 {
    let last = samples.get(samples.len().saturating_sub(5)..).unwrap_or_default();
    let sum: f32 = last.iter().map(of).sum();
    sum / last.len().max(1) as f32
}

/// Two digits that count.
pub(super) fn rounded(value: f32) -> String {
    match value {
        value if value <= 0.0 => "0".to_owned(),
        value if value < 9.95 => {
            let text = format!("{value:.1}");
            text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
        }
        value => grouped(value.round()),
    }
}

/// With a comma at every third digit.
pub(super) fn grouped(number: impl std::fmt::Display) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(super) fn counted(number: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// As in "1.4 s" or "12 ms".
pub(super) fn lasted(time: Duration) -> String {
    let seconds = time.as_secs_f32();
    if seconds < 1.0 {
        format!("{} ms", rounded(seconds * 1000.0))
    } else {
        format!("{} s", rounded(seconds))
    }
}

/// The time of day.
pub(super) fn clock(moment: OffsetDateTime) -> String {
    moment.format(format_description!("[hour]:[minute]:[second]")).unwrap_or_default()
}

/// The day.
pub(super) fn date(moment: OffsetDateTime) -> String {
    moment.format(format_description!("[day padding:none] [month repr:short] [year]")).unwrap_or_default()
}

fn date_and_clock(moment: OffsetDateTime) -> String {
    moment
        .format(format_description!("[day padding:none] [month repr:short] [hour]:[minute] UTC"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_write_them() {
        for (value, text) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.25, "0.2"),
            (2.0, "2"),
            (9.96, "10"),
            (1234.4, "1,234"),
            (12.4, "12"),
        ] {
            assert_eq!(rounded(value), text, "{value}");
        }
        assert_eq!((grouped(1_234_567), grouped(999)), ("1,234,567".into(), "999".into()));
        assert_eq!((counted(1, "site"), counted(0, "port")), ("1 site".into(), "0 ports".into()));
        assert_eq!(lasted(Duration::from_micros(1_400)), "1.4 ms");
        assert_eq!(lasted(Duration::from_secs(75)), "75 s");
    }
}
