//! Small plots: lines over time, drawn by the server.

use std::fmt::Write as _;

use super::html::{Html, put};

/// The plot's own units.
const WIDTH: f32 = 300.0;
const HEIGHT: f32 = 60.0;

/// One line of a plot.
pub(super) struct Line<'a> {
    /// Its class in the style sheet.
    pub(super) class: &'static str,
    /// The values, the oldest first; the last stands at the right edge.
    pub(super) values: &'a [f32],
    /// Whether what lies below it is filled.
    pub(super) filled: bool,
}

/// Draws lines on one scale, which goes from 0 to `top`. `places` is how many values fill the width, which is marked off in
/// `parts`.
pub(super) fn plot(html: &mut Html, label: &str, lines: &[Line<'_>], places: usize, parts: u8, top: f32) {
    put!(html; "<svg viewBox=\"0 0 300 60\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"" (label) "\">");
    put!(html; "<path class=\"grid\" d=\"M0 .5H300M0 30H300M0 59.5H300" (marks(parts)) "\"/>");
    for line in lines.iter().filter(|line| !line.values.is_empty()) {
        let points = points(line.values, places, top);
        if line.filled {
            let from = WIDTH - step(places) * count(line.values.len().saturating_sub(1));
            let area = format!("M{from:.1} 60L{points}L300 60Z");
            put!(html; "<path class=\"area " (line.class) "\" d=\"" (area) "\"/>");
        }
        put!(html; "<path class=\"line " (line.class) "\" d=\"M" (points) "\"/>");
    }
    html.raw("</svg>");
}

/// A round number that none of the values exceeds.
pub(super) fn top(values: impl Iterator<Item = f32>, least: f32) -> f32 {
    let highest = values.fold(least, f32::max);
    let power = 10f32.powf(highest.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|top| *top >= highest).unwrap_or(highest)
}

/// Upright lines between the parts.
fn marks(parts: u8) -> String {
    let mut text = String::new();
    for part in 1..parts {
        // Writing to a string cannot fail.
        let _ = write!(text, "M{:.1} 0V60", WIDTH * f32::from(part) / f32::from(parts));
    }
    text
}

fn points(values: &[f32], places: usize, top: f32) -> String {
    let mut text = String::with_capacity(values.len() * 11);
    let first = WIDTH - step(places) * count(values.len().saturating_sub(1));
    for (at, value) in values.iter().enumerate() {
        let x = first + step(places) * count(at);
        let y = HEIGHT - 1.0 - (value / top).clamp(0.0, 1.0) * (HEIGHT - 2.0);
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{x:.1} {y:.1}", if at == 0 { "" } else { " " });
    }
    text
}

fn step(places: usize) -> f32 {
    WIDTH / count(places.saturating_sub(1).max(1))
}

#[allow(clippy::cast_precision_loss, reason = "for a picture")]
fn count(number: usize) -> f32 {
    number as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_right_edge_and_stay_inside() {
        let mut html = Html::default();
        let line = Line { class: "requests", values: &[0.0, 5.0, 99.0], filled: true };
        plot(&mut html, "three", &[line], 4, 3, 10.0);
        let svg = html.into_string();
        assert!(svg.contains("H300M100.0 0V60M200.0 0V60\""), "{svg}");
        assert!(svg.contains("d=\"M100.0 59.0 200.0 30.0 300.0 1.0\""), "{svg}");
        assert!(svg.contains("d=\"M100.0 60L100.0 59.0 200.0 30.0 300.0 1.0L300 60Z\""), "{svg}");
    }

    #[test]
    fn a_scale_ends_at_a_round_number() {
        for (highest, expected) in
            [(0.0, 1.0), (1.0, 1.0), (3.0, 5.0), (7.0, 10.0), (180.0, 200.0), (0.3, 1.0)]
        {
            assert!((top([highest].into_iter(), 1.0) - expected).abs() < 0.001, "{highest}");
        }
    }
}
