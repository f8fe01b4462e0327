//! The window: the edge on one page, rendered here, with nothing that comes from elsewhere.
//!
//! It is read without a script too; the script only fetches it again and again. The policy that it is sent with lets its own
//! style and its own script in, by their hashes, and nothing else.

mod calendar;
mod html;
mod parts;
mod plot;
mod tables;

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::html::{Html, put};
use super::Status;
use super::certificates::Certificate;
use super::explain::Met;
use crate::observe::history::History;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");

/// What the page may do (CSP Level 3).
pub static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// Everything that the page shows.
#[derive(Debug)]
pub struct View {
    /// The moment.
    pub now: OffsetDateTime,
    /// The edge as a whole.
    pub status: Status,
    /// Whether it leaves.
    pub leaving: bool,
    /// Whether the last reload was taken.
    pub reload_ok: bool,
    /// Requests that are not over.
    pub in_flight: u64,
    /// How it did lately.
    pub history: History,
    /// The firewall: the names of the sources, and the rows.
    pub sources: Vec<String>,
    /// The rows, in the order of the file.
    pub rows: Vec<RowView>,
    /// The sites, in the order of the file.
    pub sites: Vec<SiteView>,
    /// The upstreams, by what they are called.
    pub upstreams: Vec<UpstreamView>,
    /// The certificates.
    pub certificates: Vec<Certificate>,
    /// The latest requests that were refused or failed, the latest first.
    pub troubles: Vec<Met>,
}

/// A row of the firewall.
#[derive(Debug)]
pub struct RowView {
    /// Its key in `[ports]`.
    pub row: String,
    /// `http`, `https` or `forward`.
    pub serve: String,
    /// For each source, whether it is let in; None: not named, and closed.
    pub cells: Vec<Option<bool>>,
    /// Connections that are open.
    pub open: u64,
    /// Connections that were let in since the start.
    pub opened: u64,
    /// Connections that were closed unheard, or for a flood of frames, since the start.
    pub refused: u64,
}

/// A site.
#[derive(Debug)]
pub struct SiteView {
    /// Its names, the first first.
    pub names: Vec<String>,
    /// Its routes, and what each does.
    pub routes: Vec<(String, String)>,
    /// Requests since the start.
    pub requests: u64,
    /// Of those, answers of 500 and more.
    pub failed: u64,
    /// What half of them, and 95 of a hundred, took at most.
    pub took: Option<(std::time::Duration, std::time::Duration)>,
}

/// An upstream.
#[derive(Debug)]
pub struct UpstreamView {
    /// The sites that use it, and the rows that forward to it.
    pub users: Vec<String>,
    /// Where it is.
    pub members: Vec<MemberView>,
}

/// One address of an upstream.
#[derive(Debug)]
pub struct MemberView {
    /// Its target, as typed.
    pub target: String,
    /// Its address; None where its name leads to none.
    pub address: Option<String>,
    /// Whether it may have requests.
    pub well: bool,
    /// How it is, in words.
    pub state: String,
    /// Requests, or forwarded connections, that it has.
    pub busy: usize,
    /// The last thing that went wrong.
    pub error: Option<String>,
}

/// The whole page.
pub fn render(view: &View) -> String {
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\"><meta name=\"robots\" content=\"noindex\">");
    html.raw("<link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E");
    html.raw("%3Cpath d='M3 15V6a5 5 0 0 1 10 0v9h-3V6a2 2 0 0 0-4 0v9z' fill='%231f6f8b'/%3E%3C/svg%3E\">");
    html.raw("<title>vestibule</title><style>");
    html.raw(STYLE);
    html.raw("</style></head><body>");
    parts::masthead(&mut html, view);
    html.raw("<main>");
    parts::pulse(&mut html, view);
    tables::sites(&mut html, view);
    tables::upstreams(&mut html, view);
    tables::troubles(&mut html, view);
    tables::firewall(&mut html, view);
    tables::certificates(&mut html, view);
    html.raw("</main>");
    put!(html; "<footer>vestibule " (view.status.version) ", process " (view.status.pid) ", as of ");
    put!(html; "<time datetime=\"" (stamp(view.now)) "\">" (parts::clock(view.now)) "</time> UTC</footer>");
    html.raw("<script>");
    html.raw(SCRIPT);
    html.raw("</script></body></html>\n");
    html.into_string()
}

/// A moment as the socket writes it.
fn moment(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

fn stamp(moment: OffsetDateTime) -> String {
    moment.truncate_to_second().format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'\u{202e}";

    #[test]
    fn what_comes_from_outside_stays_text() {
        let html = render(&view());
        assert!(!html.contains("<img") && !html.contains('\u{202e}'), "{html}");
        assert!(
            html.matches("&lt;img src=x onerror=alert(1)&gt;&quot;&#39;\\u{202e}").count() > 10,
            "{html}"
        );
        let policy = &*POLICY;
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"));
    }
    fn view() -> View {
        View {
            now: datetime!(2026-01-01 00:01 UTC),
            status: Status {
                pid: 7,
                version: HOSTILE.into(),
                started: "2026-01-01T00:00:00Z".into(),
                config: Some(HOSTILE.into()),
                generation: 1,
                workers: 2,
                connections: 3,
                rows: Vec::new(),
                sites: vec![HOSTILE.into()],
                maintenance: Vec::new(),
                upgrade: None,
                leases: Vec::new(),
                upstreams: Vec::new(),
            },
            leaving: false,
            reload_ok: true,
            in_flight: 0,
            history: History::default(),
            sources: vec!["public".into(), HOSTILE.into()],
            rows: vec![RowView {
                row: HOSTILE.into(),
                serve: "https".into(),
                cells: vec![Some(true), Some(false)],
                open: 1,
                opened: 2,
                refused: 3,
            }],
            sites: vec![SiteView {
                names: vec![HOSTILE.into()],
                routes: vec![(HOSTILE.into(), HOSTILE.into())],
                requests: 1,
                failed: 0,
                took: None,
            }],
            upstreams: vec![UpstreamView {
                users: vec![HOSTILE.into()],
                members: vec![MemberView {
                    target: HOSTILE.into(),
                    address: Some(format!("{HOSTILE}1")),
                    well: false,
                    state: HOSTILE.into(),
                    busy: 0,
                    error: Some(HOSTILE.into()),
                }],
            }],
            certificates: vec![Certificate { names: vec![HOSTILE.into()], ..Certificate::default() }],
            troubles: vec![met()],
        }
    }

    fn met() -> Met {
        Met {
            id: HOSTILE.into(),
            time: "2026-01-01T00:00:00Z".into(),
            client: "192.0.2.1".into(),
            method: HOSTILE.into(),
            host: HOSTILE.into(),
            path: HOSTILE.into(),
            upstream: HOSTILE.into(),
            refused: "forbidden".into(),
            why: HOSTILE.into(),
            status: 403,
            ..Met::default()
        }
    }
}
