//! The firewall as a table: rows are ports, columns are sources.

use std::fmt::Write as _;

use crate::addr::{Gate, Source};
use crate::config::model::{Bind, Certificate, Config, Forward, Kind, Proxy, ProxyVersion};
use crate::firewall::plan::{Door, Plan, Purpose};

/// The widest that the matrix gets before its columns go on below, in characters.
const WIDTH: usize = 100;

/// Ports that are there for the same and open to the same.
struct Group<'a> {
    head: String,
    door: &'a Door,
}

/// Draws the matrix, and says below it what cells cannot say.
pub(super) fn draw(out: &mut String, config: &Config, plan: &Plan) {
    cells(out, config, plan);
    let notes = notes(config, plan);
    for (index, note) in notes.iter().enumerate() {
        let gap = if index == 0 { "\n" } else { "" };
        let _ = writeln!(out, "{gap}  {note}");
    }
}

/// A source that `public` lets in is let in.
fn cells(out: &mut String, config: &Config, plan: &Plan) {
    let public = Source::public();
    let sources: Vec<&Source> = std::iter::once(&public).chain(&config.sources).collect();
    let groups = groups(plan);
    let heads = groups.iter().map(|group| group.head.len());
    let head_width = heads.chain([CORNER.len()]).max().unwrap_or(0);
    for block in blocks(&sources, WIDTH.saturating_sub(head_width)) {
        let mut line = |head: &str, cell: &dyn Fn(&Source) -> &str| {
            let _ = write!(out, "\n  {head:head_width$}");
            for source in block {
                let _ = write!(out, "  {:1$}", cell(source), column(source));
            }
            out.truncate(out.trim_end_matches(' ').len());
        };
        line(CORNER, &|source| &source.name);
        for group in &groups {
            line(&group.head, &|source| cell(&group.door.gate, source));
        }
        out.push('\n');
    }
}

const CORNER: &str = "port / source";

fn groups(plan: &Plan) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for door in plan.doors.iter().filter(|door| door.purpose != Purpose::Admin) {
        match groups.iter_mut().find(|group| alike(group.door, door)) {
            Some(group) => {
                let _ = write!(group.head, ", {}", door.bind);
            }
            None => groups.push(Group { head: name(door), door }),
        }
    }
    groups
}

fn alike(a: &Door, b: &Door) -> bool {
    let lists =
        |door: &Door| (names(&door.gate.allow), names(&door.gate.deny), door.proxies.as_deref().map(names));
    a.service() == b.service() && a.purpose == b.purpose && lists(a) == lists(b)
}

/// The sources in as many blocks as the width asks for.
fn blocks<'s, 'a>(sources: &'s [&'a Source], width: usize) -> Vec<&'s [&'a Source]> {
    let mut used = sources.first().map_or(0, |first| column(first) + 2);
    let fits = |_: &&Source, next: &&Source| {
        let wanted = column(next) + 2;
        let fits = used + wanted <= width;
        used = if fits { used + wanted } else { wanted };
        fits
    };
    sources.chunk_by(fits).collect()
}

fn column(source: &Source) -> usize {
    source.name.len().max("deny".len())
}

fn cell(gate: &Gate, source: &Source) -> &'static str {
    let named = |list: &[Source]| list.iter().any(|other| other.name == source.name);
    let everyone = gate.allow.iter().any(Source::is_public);
    if named(&gate.deny) {
        "deny"
    } else if named(&gate.allow) || everyone {
        "✓"
    } else {
        ""
    }
}

/// A door as people call it, with its port.
pub(super) fn name(door: &Door) -> String {
    format!("{} {}", door.service(), door.bind)
}

/// The names of sources, as they were typed.
pub(super) fn names(sources: &[Source]) -> String {
    sources.iter().map(|source| &*source.name).collect::<Vec<_>>().join(", ")
}

fn notes(config: &Config, plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    for door in plan.doors.iter().filter(|door| door.purpose != Purpose::Admin) {
        let (name, port) = (name(door), door.bind.port());
        if door.bind.address().is_some() && plan.doors.iter().any(|other| other.bind == Bind::All(port)) {
            notes.push(format!("{name} rules its own address, and {port} the rest"));
        }
        if let Some(peers) = &door.proxies {
            notes.push(format!("{name} is reached through {} alone, with a PROXY header", names(peers)));
        }
        if let Some(Kind::Forward(forward)) = kind(config, door.bind) {
            notes.push(format!("{name} goes to {}", forwarding(forward)));
        }
    }
    if let Some(client) = &config.client_address {
        notes.push(format!("the client's address is believed from {}", names(&client.trusted)));
    }
    if let Some(listen) = &config.admin.listen {
        let own = listen.bind.address().is_some_and(|ip| ip.is_loopback());
        let whom = if own { "this machine".to_owned() } else { names(&listen.allow) };
        notes.push(format!("metrics and health are shown to {whom} at {}", listen.bind));
    }
    notes
}

fn kind(config: &Config, bind: Bind) -> Option<&Kind> {
    config.rows.iter().find(|row| row.bind == bind).map(|row| &row.kind)
}

fn forwarding(forward: &Forward) -> String {
    let mut text = targets(&forward.proxy);
    if let Some(tls) = &forward.tls {
        text.extend([", with TLS ended as ", tls.name.as_str()]);
        match &tls.certificate {
            Some(Certificate::Internal) => text.push_str(" (the edge's own CA)"),
            Some(Certificate::Files { cert, .. }) => text.extend([" (", &cert.display().to_string(), ")"]),
            Some(Certificate::Acme) | None => {}
        }
        if let Some(path) = &tls.client_ca {
            text.extend([", for clients with a certificate of ", &path.display().to_string()]);
        }
    }
    match forward.send_proxy {
        Some(ProxyVersion::V1) => text.push_str(", behind a PROXY v1 header"),
        Some(ProxyVersion::V2) => text.push_str(", behind a PROXY v2 header"),
        None => {}
    }
    text
}

/// The targets of an upstream, as they were typed.
pub(super) fn targets(proxy: &Proxy) -> String {
    proxy.targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    fn shown(more: &str) -> String {
        let site = "[[site]]\ndomains = ['a.example']\nupstream = 'a:80'\ncertificate = 'internal'\n";
        let loaded = parse(format!("{more}\n{site}"), Path::new("edge.toml")).unwrap();
        let mut out = String::new();
        draw(&mut out, &loaded.config, &Plan::new(&loaded.config, Vec::new()));
        out
    }

    #[test]
    fn deny_goes_before_allow_and_public_lets_everyone_in() {
        let out = shown(
            "[sources]\nhq = ['203.0.113.0/24']\nabuse = ['192.0.2.0/24']\n[ports]\n\
             443 = { serve = 'https', allow = ['public'], deny = ['abuse'] }\n\
             8443 = { serve = 'https', allow = ['hq'] }",
        );
        let expected = "\n  port / source  public  hq    abuse\n  HTTPS 443      ✓       ✓     deny\n  \
                        HTTPS 8443             ✓\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn the_guideline_as_it_is_drawn() {
        let out = shown(
            "[sources]\ninternal = ['203.0.113.0/24']\nci = ['198.51.100.7']\n[ports]\n\
             80 = { serve = 'http', allow = ['public'] }\n443 = { serve = 'https', allow = ['public'] }\n\
             22 = { host = true, allow = ['internal', 'ci'] }\n22222 = { host = true, allow = ['internal', 'ci'] }\n\
             5432 = { host = true, allow = ['internal'] }\n6379 = { host = true, allow = ['internal'] }",
        );
        let expected = "
  port / source       public  internal  ci
  HTTP 80             ✓       ✓         ✓
  HTTPS 443           ✓       ✓         ✓
  SSH/SFTP 22, 22222          ✓         ✓
  PostgreSQL 5432             ✓
  Redis 6379                  ✓
";
        assert_eq!(out, expected);
    }

    #[test]
    fn forward_rows_tell_where_they_lead() {
        let out = shown(
            "[sources]\nhq = ['203.0.113.0/24']\n[ports]\n443 = { serve = 'https', allow = ['public'] }\n\
             5432 = { forward = ['db-1:5432', 'db-2:5432'], allow = ['hq'], tls = 'db.example', send_proxy = 'v2' }",
        );
        let note = "PostgreSQL 5432 goes to db-1:5432, db-2:5432, with TLS ended as db.example, behind a PROXY v2 header\n";
        assert!(out.ends_with(note), "{out}");
    }

    #[test]
    fn a_wide_matrix_goes_on_below() {
        let sources: Vec<String> = (0..30).map(|i| format!("source-{i} = ['192.0.2.{i}']\n")).collect();
        let out = shown(&format!("[sources]\n{}", sources.concat()));
        assert!(out.lines().all(|line| line.chars().count() <= WIDTH + 10), "{out}");
        assert!(out.matches("port / source").count() > 1, "{out}");
        assert!((0..30).all(|i| out.contains(&format!("source-{i}"))), "{out}");
    }
}
