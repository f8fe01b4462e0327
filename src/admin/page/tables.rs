//! The tables of the page.

use time::OffsetDateTime;

use super::calendar::calendar;
use super::html::{Html, put};
use super::parts::{clock, counted, date, grouped, lasted};
use super::{MemberView, RowView, View, moment, stamp};
use crate::admin::certificates::Certificate;
use crate::admin::explain::Met;

/// The most rows of a table; whoever has more sites has the metrics too.
const ROWS: usize = 200;
/// The most requests that are shown.
const TROUBLES: usize = 12;

/// The latest requests that were refused or failed.
pub(super) fn troubles(html: &mut Html, view: &View) {
    open(html, "troubles", "Refused and failed requests");
    if view.troubles.is_empty() {
        html.raw("<p class=\"none\">None so far.</p></section>");
        return;
    }
    head(html, "Refused and failed requests", &["Time", "Status", "Request", "Why", "Client"]);
    for met in view.troubles.iter().take(TROUBLES) {
        trouble(html, met);
    }
    close(html);
}

fn trouble(html: &mut Html, met: &Met) {
    let class = if met.status >= 500 { "bad" } else { "warn" };
    html.raw("<tr><td data-label=\"Time\">");
    match moment(&met.time) {
        Some(at) => put!(html; "<time datetime=\"" (met.time) "\">" (clock(at)) "</time>"),
        None => html.text(&met.time),
    }
    let status = if met.status == 0 { "none".to_owned() } else { met.status.to_string() };
    // Without the query: there are secrets in queries.
    let path = met.path.split('?').next().unwrap_or_default();
    put!(html; "</td><td data-label=\"Status\"><b class=\"" (class) "\">" (status) "</b></td>");
    put!(html; "<td data-label=\"Request\"><span class=\"asked\"><b>" (met.method) "</b> " (met.host) (path) "</span>");
    put!(html; "<span class=\"id\">" (met.id) "</span></td><td data-label=\"Why\">");
    let why = if met.why.is_empty() { "answered so by the upstream" } else { &met.why };
    put!(html; (why));
    if !met.upstream.is_empty() {
        put!(html; " <span class=\"aside\">" (met.upstream) ", after " (lasted(met.total_ms.into())) "</span>");
    }
    put!(html; "</td><td data-label=\"Client\">" (met.client) "</td></tr>");
}

/// What is served under which names.
pub(super) fn sites(html: &mut Html, view: &View) {
    open(html, "sites", "Sites");
    head(
        html,
        "Sites, since the start",
        &["Name", "Routes", "#Requests", "#Failed", "#Half within", "#95 % within"],
    );
    for site in view.sites.iter().take(ROWS) {
        let first = site.names.first().map(String::as_str).unwrap_or_default();
        put!(html; "<tr><th scope=\"row\" data-label=\"Name\">" (first));
        if let Some(others) = site.names.get(1..).filter(|others| !others.is_empty()) {
            put!(html; " <span class=\"aside\" title=\"" (others.join(", ")) "\">and " (others.len()) " more</span>");
        }
        html.raw("</th><td data-label=\"Routes\"><ul class=\"routes\">");
        for (path, does) in &site.routes {
            put!(html; "<li><code>" (path) "</code> <span class=\"aside\">" (does) "</span></li>");
        }
        put!(html; "</ul></td><td class=\"n\" data-label=\"Requests\">" (grouped(site.requests)) "</td>");
        let class = if site.failed > 0 { "n bad" } else { "n" };
        put!(html; "<td class=\"" (class) "\" data-label=\"Failed\">" (grouped(site.failed)) "</td>");
        let (half, most) = site.took.map(|(half, most)| (lasted(half), lasted(most))).unwrap_or_default();
        put!(html; "<td class=\"n\" data-label=\"Half within\">" (half) "</td>");
        put!(html; "<td class=\"n\" data-label=\"95 % within\">" (most) "</td></tr>");
    }
    close_after(html, view.sites.len());
}

/// What stands behind.
pub(super) fn upstreams(html: &mut Html, view: &View) {
    open(html, "upstreams", "Upstreams");
    if view.upstreams.is_empty() {
        html.raw("<p class=\"none\">None: no site and no port hands anything on.</p></section>");
        return;
    }
    head(html, "Upstreams", &["For", "Address", "State", "#Busy with"]);
    for upstream in view.upstreams.iter().take(ROWS) {
        for (at, member) in upstream.members.iter().enumerate() {
            html.raw(if at == 0 { "<tr class=\"first\">" } else { "<tr>" });
            if at == 0 {
                put!(html; "<th scope=\"rowgroup\" rowspan=\"" (upstream.members.len()) "\" data-label=\"For\">");
                put!(html; (upstream.users.join(", ")) "</th>");
            }
            one_member(html, member);
        }
    }
    close_after(html, view.upstreams.len());
}

fn one_member(html: &mut Html, member: &MemberView) {
    put!(html; "<td data-label=\"Address\">" (member.target));
    if let Some(address) = member.address.as_ref().filter(|address| **address != member.target) {
        put!(html; " <span class=\"aside\">" (address) "</span>");
    }
    html.raw("</td><td data-label=\"State\">");
    if !member.state.is_empty() {
        let class = if member.well { "good" } else { "bad" };
        put!(html; "<span class=\"dot " (class) "\"></span>" (member.state));
    }
    if let Some(error) = member.error.as_ref().filter(|_| !member.well) {
        put!(html; " <span class=\"aside why\">" (error) "</span>");
    }
    put!(html; "</td><td class=\"n\" data-label=\"Busy with\">" (grouped(member.busy)) "</td></tr>");
}

/// Who may come in where.
pub(super) fn firewall(html: &mut Html, view: &View) {
    open(html, "firewall", "Firewall");
    html.raw("<p class=\"lead\">A port without a row is closed.</p>");
    let sources = view.sources.iter().map(String::as_str);
    let heads: Vec<&str> =
        std::iter::once("Port").chain(sources).chain(["#Open", "#Let in", "#Turned away"]).collect();
    head(html, "Who may come in where", &heads);
    for row in &view.rows {
        put!(html; "<tr><th scope=\"row\" data-label=\"Port\">" (row.row) " <span class=\"aside\">" (row.serve) "</span></th>");
        cells(html, row, &view.sources);
        put!(html; "<td class=\"n\" data-label=\"Open\">" (grouped(row.open)) "</td>");
        put!(html; "<td class=\"n\" data-label=\"Let in\">" (grouped(row.opened)) "</td>");
        put!(html; "<td class=\"n\" data-label=\"Turned away\">" (grouped(row.refused)) "</td></tr>");
    }
    close(html);
}

fn cells(html: &mut Html, row: &RowView, sources: &[String]) {
    for (cell, source) in row.cells.iter().zip(sources) {
        let (class, word) = match cell {
            Some(true) => ("allow", "allow"),
            Some(false) => ("deny", "deny"),
            None => {
                html.raw("<td class=\"closed\"><span aria-hidden=\"true\">·</span><span class=\"unseen\">closed</span></td>");
                continue;
            }
        };
        put!(html; "<td data-label=\"" (source) "\"><span class=\"cell " (class) "\">" (word) "</span></td>");
    }
}

/// The certificates: a calendar, and a list of those that need something first.
pub(super) fn certificates(html: &mut Html, view: &View) {
    open(html, "certificates", "Certificates");
    calendar(html, &view.certificates, view.now);
    let mut sorted: Vec<&Certificate> = view.certificates.iter().collect();
    sorted.sort_by_key(|certificate| (certificate.is_well(), certificate.not_after.clone()));
    head(html, "Certificates, the most urgent first", &["Names", "Issuer", "Ends", "Next"]);
    for certificate in sorted.into_iter().take(ROWS) {
        one(html, certificate, view.now);
    }
    close_after(html, view.certificates.len());
}

fn one(html: &mut Html, certificate: &Certificate, now: OffsetDateTime) {
    let first = certificate.names.first().map(String::as_str).unwrap_or_default();
    put!(html; "<tr><th scope=\"row\" data-label=\"Names\">" (first));
    if let Some(others) = certificate.names.get(1..).filter(|others| !others.is_empty()) {
        put!(html; " <span class=\"aside\" title=\"" (others.join(", ")) "\">and " (others.len()) " more</span>");
    }
    let issuer = certificate.issuer.as_deref().filter(|issuer| !issuer.is_empty());
    put!(html; "</th><td data-label=\"Issuer\">" (issuer.unwrap_or("not issued")) " <span class=\"aside\">" (certificate.source) "</span></td>");
    html.raw("<td data-label=\"Ends\">");
    match certificate.not_after.as_deref().and_then(moment) {
        Some(end) => {
            let days = (end - now).whole_days();
            when(
                html,
                end,
                now,
                if end < now {
                    "bad"
                } else if days < 7 {
                    "warn"
                } else {
                    ""
                },
            );
        }
        None => html.raw("<b class=\"bad\">none yet</b>"),
    }
    html.raw("</td><td data-label=\"Next\">");
    if let Some(next) = &certificate.next {
        if let Some(at) = moment(&next.at) {
            when(html, at, now, "");
        }
        put!(html; " <span class=\"aside why\">" (next.why) "</span>");
    }
    if let Some(failure) = &certificate.failure {
        put!(html; " <span class=\"bad why\">failed " (counted(failure.tries as usize, "time")) ": " (failure.error) "</span>");
    }
    if let Some(trouble) = &certificate.trouble {
        put!(html; " <span class=\"bad why\">" (trouble) "</span>");
    }
    html.raw("</td></tr>");
}

fn when(html: &mut Html, at: OffsetDateTime, now: OffsetDateTime, class: &'static str) {
    let days = (at - now).whole_days();
    put!(html; "<time class=\"" (class) "\" datetime=\"" (stamp(at)) "\">" (date(at)) "</time> <span class=\"aside when\">");
    match days {
        _ if at < now => html.raw("past"),
        0 => html.raw("within a day"),
        1 => html.raw("in 1 day"),
        days => put!(html; "in " (days) " days"),
    }
    html.raw("</span>");
}

fn open(html: &mut Html, id: &'static str, title: &'static str) {
    put!(html; "<section id=\"" (id) "\" aria-labelledby=\"" (id) "-title\"><h2 id=\"" (id) "-title\">" (title) "</h2>");
}

/// A head that begins with `#` is above numbers.
fn head(html: &mut Html, caption: &str, columns: &[&str]) {
    put!(html; "<div class=\"scroll\" role=\"group\" aria-label=\"" (caption) "\" tabindex=\"0\"><table>");
    put!(html; "<caption class=\"unseen\">" (caption) "</caption><thead><tr>");
    for column in columns {
        let (class, name) = column.strip_prefix('#').map_or(("", *column), |number| ("n", number));
        put!(html; "<th scope=\"col\" class=\"" (class) "\">" (name) "</th>");
    }
    html.raw("</tr></thead><tbody>");
}

fn close(html: &mut Html) {
    html.raw("</tbody></table></div></section>");
}

fn close_after(html: &mut Html, count: usize) {
    html.raw("</tbody></table></div>");
    if count > ROWS {
        put!(html; "<p class=\"none\">and " (grouped(count - ROWS)) " more, which <code>/metrics</code> has too</p>");
    }
    html.raw("</section>");
}
