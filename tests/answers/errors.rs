//! Pages of the site's own, and maintenance.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{config, edge};
use crate::support::PATIENCE;
use crate::support::client::{NAME, Response, connect, connect_to};
use crate::support::edge::{Edge, run};
use crate::support::upstream::{Then, Upstream};

/// Answers with the status that the path says, and `from Django`.
fn django() -> Upstream {
    Upstream::start(|seen, stream| {
        let status = seen.target.trim_matches('/');
        let status = if status.is_empty() { "200" } else { status };
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 11\r\n\r\nfrom Django")?;
        Ok(Then::Keep)
    })
}

fn folder(pages: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in pages {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn ask(edge: &Edge, target: &str, fields: &str) -> Response {
    connect(edge).ask(format!("GET {target} HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n")).unwrap()
}

const DEAD: &str = "[[site.route]]\npath = \"/dead/\"\nupstream = \"127.0.0.1:1\"\n\
                    [[site.route]]\npath = \"/shut/\"\nallow = [\"nobody\"]\n[site.proxy]\nhold = \"0s\"\nretries = 0\n";

#[test]
fn what_the_edge_answers_itself_has_the_sites_page() {
    let upstream = django();
    let pages =
        folder(&[("5xx.html", "<h1>{status}</h1><p>{request_id}</p>"), ("403.json", "{\"own\":403}")]);
    let at = pages.path().display();
    let errors = format!("[site.errors]\n5xx = \"{at}/5xx.html\"\n403 = \"{at}/403.json\"\n");
    let edge = edge(&upstream, &format!("{DEAD}{errors}\n[sources]\nnobody = [\"192.0.2.1\"]\n"));
    let answer = ask(&edge, "/dead/", "Accept: text/html\r\n");
    let id = answer.header("x-request-id").unwrap().to_owned();
    assert_eq!((answer.status, answer.text()), (502, format!("<h1>502</h1><p>{id}</p>")));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let answer = ask(&edge, "/dead/", "Accept: application/json\r\n");
    assert_eq!((answer.status, &answer.json()["status"]), (502, &502.into()), "programs get no HTML");
    for accept in ["application/json", "text/html"] {
        let answer = ask(&edge, "/shut/", &format!("Accept: {accept}\r\n"));
        assert_eq!((answer.status, answer.text().as_str()), (403, "{\"own\":403}"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    for status in [403, 500, 502, 503] {
        let answer = ask(&edge, &format!("/{status}"), "");
        assert_eq!((answer.status, answer.text().as_str()), (status, "from Django"));
    }
    let head = connect(&edge).ask(format!("HEAD /dead/ HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).unwrap();
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (502, Some("51"), 0));
    let early = connect(&edge).ask("GET / HTTP/9.9\r\n\r\n").unwrap();
    assert!(early.status == 505 && early.text().contains("505"), "no site was known: {early:?}");
}

#[test]
fn a_reload_reads_the_pages_again_and_refuses_what_is_none() {
    let upstream = django();
    let pages = folder(&[("502.html", "one")]);
    let page = pages.path().join("502.html");
    let more =
        format!("{DEAD}[site.errors]\n502 = \"{}\"\n[sources]\nnobody = [\"192.0.2.1\"]\n", page.display());
    let edge = edge(&upstream, &more);
    assert_eq!(ask(&edge, "/dead/", "").text(), "one");
    fs::write(&page, "two").unwrap();
    assert!(edge.reload());
    assert_eq!(ask(&edge, "/dead/", "").text(), "two");
    fs::remove_file(&page).unwrap();
    assert!(!edge.reload());
    assert_eq!(ask(&edge, "/dead/", "").text(), "two");
}

#[test]
fn a_check_names_every_page_that_is_none() {
    let upstream = django();
    let pages = folder(&[("empty.html", ""), ("page", "x"), ("large.html", &"x".repeat((1 << 20) + 1))]);
    let at = pages.path().display();
    let errors = format!(
        "[site.errors]\n404 = \"{at}/missing.html\"\n403 = \"{at}/empty.html\"\n500 = \"{at}/page\"\n502 = \"{at}/large.html\"\n\
         503 = \"{at}\"\nmaintenance = \"{at}/fine.txt\"\n"
    );
    fs::write(pages.path().join("fine.txt"), "closed").unwrap();
    let file = pages.path().join("edge.toml");
    let text = config(&upstream, &errors) + &format!("[store]\npath = \"{at}/store\"\n");
    fs::write(&file, text).unwrap();
    let (code, _, stderr) = run(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{stderr}");
    for part in [
        "(site[0].errors.404)",
        "missing.html: No such file",
        "empty.html: it is empty",
        "page: its name does not say what it is",
        "help: call it 502.html, or 502.json",
        "large.html: larger than 1 MiB",
        "(site[0].errors.503)",
    ] {
        assert!(stderr.contains(part), "{part} is not in:\n{stderr}");
    }
    assert_eq!(stderr.matches("error: ").count(), 5, "{stderr}");
}

/// Asks until the answer has this status: the control thread looks for files every second.
#[track_caller]
fn wait_for(edge: &Edge, status: u16) -> Response {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(edge, "/", "");
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < deadline, "{status} never came: {answer:?}");
        std::thread::sleep(Duration::from_millis(20)); // nobody tells a client when a file was seen
    }
}

#[test]
fn a_site_is_in_maintenance_while_its_file_exists() {
    let upstream = django();
    let pages = folder(&[("closed.html", "closed: {status}")]);
    let at = pages.path().display();
    let more = format!(
        "[site.errors]\nmaintenance = \"{at}/closed.html\"\nmaintenance_file = \"{at}/on\"\n\
         maintenance_allow = [\"team\"]\n[sources]\nteam = [\"127.0.0.7\"]\n"
    );
    let edge = edge(&upstream, &more);
    assert_eq!(ask(&edge, "/", "").status, 200);
    let switch = pages.path().join("on");
    fs::write(&switch, "").unwrap();
    let answer = wait_for(&edge, 503);
    assert_eq!(answer.text(), "closed: 503");
    assert_eq!(answer.header("retry-after"), Some("60"));
    let mark = edge.mark();
    assert_eq!(ask(&edge, "/200", "").status, 503);
    let line = edge.access_line(mark, "maintenance", |line| line["path"] == "/200");
    assert_eq!((&line["status"], &line["refused"]), (&503.into(), &"maintenance".into()));
    fs::remove_file(&switch).unwrap();
    assert_eq!(wait_for(&edge, 200).text(), "from Django");
}

fn command(edge: &Edge, turn: &str, site: &str) -> (Option<i32>, String) {
    let file = edge.folder().join("vestibule.toml");
    let (code, stdout, stderr) = run(&["maintenance", turn, site, "--config", file.to_str().unwrap()]);
    (code, stdout + &stderr)
}

fn status(edge: &Edge) -> String {
    let file = edge.folder().join("vestibule.toml");
    run(&["status", "--config", file.to_str().unwrap()]).1
}

#[test]
fn a_command_begins_and_ends_it_and_it_outlives_reload_and_restart() {
    let upstream = django();
    let (other, folder) = ("other.localhost", folder(&[]));
    let more = format!(
        "[site.errors]\nmaintenance_file = \"{}/on\"\nmaintenance_allow = [\"team\"]\n[sources]\nteam = [\"127.0.0.0/8\"]\n\
         [[site]]\ndomains = [\"{other}\", \"*.{other}\"]\nupstream = \"{}\"\ncertificate = \"internal\"\n",
        folder.path().display(),
        upstream.address()
    );
    let edge = edge(&upstream, &more);
    let other_status = |edge: &Edge| {
        let request = format!("GET / HTTP/1.1\r\nHost: {other}\r\n\r\n");
        connect_to(edge, other).ask(request).unwrap().status
    };
    let (code, said) = command(&edge, "on", "x.other.localhost");
    assert_eq!((code, said.starts_with("other.localhost is in maintenance")), (Some(0), true), "{said}");
    assert_eq!((other_status(&edge), ask(&edge, "/", "").status), (503, 200));
    assert!(status(&edge).contains("other.localhost (in maintenance)"), "{}", status(&edge));
    assert!(edge.reload());
    assert_eq!(other_status(&edge), 503);
    let edge = edge.kill_and_start();
    assert_eq!(other_status(&edge), 503);
    let (code, said) = command(&edge, "off", other);
    assert_eq!((code, said.as_str()), (Some(0), "other.localhost is served again\n"));
    assert_eq!(other_status(&edge), 200);
    assert!(!status(&edge).contains("maintenance"));
    // Who is allowed is served all the same, and a file holds longer than a command.
    fs::write(folder.path().join("on"), "").unwrap();
    assert_eq!(command(&edge, "on", NAME).0, Some(0));
    assert_eq!(ask(&edge, "/", "").status, 200);
    let (code, said) = command(&edge, "off", NAME);
    assert!(code == Some(2) && said.contains("remove that file"), "{said}");
    let (code, said) = command(&edge, "on", "nobody.example.com");
    assert!(code == Some(2) && said.contains("no site has the name"), "{said}");
    assert!(Path::new(&edge.folder().join("store/maintenance")).is_dir());
    edge.signal(Signal::SIGTERM);
}
