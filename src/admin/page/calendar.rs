//! The months to come, and on which days certificates are renewed or end.

use std::collections::BTreeMap;

use time::{Date, Month, OffsetDateTime};

use super::html::{Html, put};
use super::moment;
use crate::admin::certificates::Certificate;

/// This month and those behind it.
const MONTHS: usize = 4;
/// The most names that a day is told of.
const NAMES: usize = 8;

/// What happens on a day.
#[derive(Debug, Default)]
struct Day {
    renewed: Vec<String>,
    ending: Vec<String>,
}

/// Draws the months.
pub(super) fn calendar(html: &mut Html, certificates: &[Certificate], now: OffsetDateTime) {
    let days = days(certificates);
    html.raw("<div class=\"months\">");
    let mut month = (now.year(), now.month());
    for _ in 0..MONTHS {
        draw(html, month, &days, now.date());
        let year = if month.1 == Month::December { month.0 + 1 } else { month.0 };
        month = (year, month.1.next());
    }
    html.raw("</div>");
    html.raw(
        "<p class=\"key\"><span class=\"renewed\">7</span> renewed <span class=\"ending\">7</span> ends",
    );
    html.raw(" <span class=\"today\">7</span> today</p>");
}

fn days(certificates: &[Certificate]) -> BTreeMap<Date, Day> {
    let mut days: BTreeMap<Date, Day> = BTreeMap::new();
    for certificate in certificates {
        let name = certificate.names.first().cloned().unwrap_or_default();
        if let Some(at) = certificate.next.as_ref().and_then(|next| moment(&next.at)) {
            days.entry(at.date()).or_default().renewed.push(name.clone());
        }
        if let Some(at) = certificate.not_after.as_deref().and_then(moment) {
            days.entry(at.date()).or_default().ending.push(name);
        }
    }
    days
}

fn draw(html: &mut Html, (year, month): (i32, Month), days: &BTreeMap<Date, Day>, today: Date) {
    put!(html; "<table class=\"month\"><caption>" (month) " " (year) "</caption><thead><tr>");
    for (short, long) in [
        ("M", "Monday"),
        ("T", "Tuesday"),
        ("W", "Wednesday"),
        ("T", "Thursday"),
        ("F", "Friday"),
        ("S", "Saturday"),
        ("S", "Sunday"),
    ] {
        put!(html; "<th scope=\"col\" abbr=\"" (long) "\">" (short) "</th>");
    }
    html.raw("</tr></thead><tbody><tr>");
    let Ok(first) = Date::from_calendar_date(year, month, 1) else { return };
    let blank = first.weekday().number_days_from_monday();
    (0..blank).for_each(|_| html.raw("<td></td>"));
    for number in 1..=month.length(year) {
        let Ok(date) = Date::from_calendar_date(year, month, number) else { break };
        cell(html, date, days.get(&date), date == today);
        if (blank + number).is_multiple_of(7) && number < month.length(year) {
            html.raw("</tr><tr>");
        }
    }
    html.raw("</tr></tbody></table>");
}

fn cell(html: &mut Html, date: Date, day: Option<&Day>, is_today: bool) {
    let class = match day {
        Some(day) if !day.ending.is_empty() => "ending",
        Some(_) => "renewed",
        None if is_today => "today",
        None => {
            put!(html; "<td>" (date.day()) "</td>");
            return;
        }
    };
    let today = if is_today && day.is_some() { " today" } else { "" };
    put!(html; "<td><span class=\"" (class) (today) "\" title=\"" (told(day)) "\">" (date.day()) "</span>");
    if day.is_some() {
        put!(html; "<span class=\"unseen\">: " (told(day)) "</span>");
    }
    html.raw("</td>");
}

fn told(day: Option<&Day>) -> String {
    let Some(day) = day else { return "today".to_owned() };
    let list = |what: &str, names: &[String]| match names {
        [] => None,
        names => {
            let more = names.len().saturating_sub(NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let shown: Vec<_> = names.iter().take(NAMES).map(String::as_str).collect();
            Some(format!("{what} {}{more}", shown.join(", ")))
        }
    };
    let parts = [list("ends:", &day.ending), list("renewed:", &day.renewed)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::admin::certificates::Next;

    #[test]
    fn days_are_marked_with_what_happens_on_them() {
        let certificates = [Certificate {
            names: vec!["<a>.example.com".into()],
            not_after: Some("2028-03-01T00:00:00Z".into()),
            next: Some(Next { at: "2028-02-29T23:59:59Z".into(), why: "its age".into() }),
            ..Certificate::default()
        }];
        let mut html = Html::default();
        calendar(&mut html, &certificates, datetime!(2027-12-31 12:00 UTC));
        let html = html.into_string();
        for part in [
            "<caption>December 2027</caption>",
            "<caption>March 2028</caption>",
            "class=\"today\" title=\"today\">31</span></td></tr></tbody></table>",
            "class=\"renewed\" title=\"renewed: &lt;a&gt;.example.com\">29</span>",
            "<td></td><td></td><td><span class=\"ending\" title=\"ends: &lt;a&gt;.example.com\">1</span>",
        ] {
            assert!(html.contains(part), "no {part} in {html}");
        }
        assert_eq!(html.matches("<tr>").count(), html.matches("</tr>").count());
    }
}
