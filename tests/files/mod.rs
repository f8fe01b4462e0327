//! Files from directories: what is served, in which parts and codings, and that nothing leads out.

mod accel;
mod serving;
mod traversal;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use tempfile::TempDir;

use crate::support::client::{self, NAME, Response};
use crate::support::edge::{Edge, ROWS};
use crate::support::h2client::H2Client;
use crate::support::shared::Shared;
use crate::support::upstream::{Then, Upstream};

/// What lies beside the directories, and must never be seen.
const SECRET: &str = "nobody may read this";
/// When every file that is not about its date was changed: 6 November 1994, 08:49:37.
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// An edge with a route for each way to serve files, and an upstream that hands requests over.
struct Stack {
    edge: Edge,
    folder: TempDir,
    upstream: Upstream,
}

static STACK: Shared<Stack> = Shared::new();

fn stack() -> Arc<Stack> {
    STACK.get(Stack::start)
}

impl Stack {
    /// One of a test's own, where what others do at the same time would be counted.
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("vestibule-files-").tempdir().unwrap();
        plant(folder.path());
        let upstream = handing_over();
        let at = folder.path().display();
        let routes = [
            ("/static/", "static", "cache = \"immutable\""),
            ("/media/", "media", "cache = \"1h\""),
            ("/plain/", "static", "sandbox = false"),
            ("= /robots.txt", "static", "cache = \"immutable\""),
            ("/private/", "private", "internal = true\ncache = \"1d\""),
            ("/closed/", "private", "internal = true\nallow = [\"elsewhere\"]"),
        ];
        let routes = routes.map(|(path, folder, more)| {
            format!("[[site.route]]\npath = \"{path}\"\nfiles = \"{at}/{folder}\"\n{more}\n")
        });
        let up = format!("[[site.route]]\npath = \"/up/\"\nupstream = \"{}\"\n", upstream.address());
        let site = format!(
            "[sources]\nelsewhere = [\"192.0.2.1\"]\n[[site]]\ndomains = [\"{NAME}\"]\nredirect = [\"www.{NAME}\"]\ncertificate = \"internal\"\n"
        );
        let edge = Edge::start(&[ROWS, &site, &up, &routes.concat()].concat());
        Self { edge, folder, upstream }
    }
}

/// Answers with the field lines that the request's `x-answer` field names, `|` between them.
fn handing_over() -> Upstream {
    Upstream::start(|seen, stream| {
        let fields = seen.header("x-answer").unwrap_or_default().replace('|', "\r\n");
        let body = if seen.method == "HEAD" { "" } else { "what Django says" };
        let length = "what Django says".len();
        io::Write::write_all(
            stream,
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n\r\n{body}").as_bytes(),
        )?;
        Ok(Then::Keep)
    })
}

const FILES: &[(&str, &str)] = &[
    ("secret.txt", SECRET),
    ("outside/secret.txt", SECRET),
    ("static/app.css.br", "brotli"),
    ("static/app.css.zst", "zstandard"),
    ("static/app.css.gz", "gzip"),
    ("static/only.js", "let a;"),
    ("static/only.js.gz", "gzipped"),
    ("static/fresh.txt", "fresh"),
    ("static/fresh.txt.gz", "stale"),
    ("static/picture.png", "png"),
    ("static/picture.png.gz", "png, zipped"),
    ("static/app.0123456789ab.js", "let b;"),
    ("static/digits.txt", "0123456789"),
    ("static/empty.txt", ""),
    ("static/robots.txt", "User-agent: *\n"),
    ("static/dir/a b.html", "<p>"),
    ("static/dir/index.html", "<p>index"),
    ("static/dir/deeper/deep.txt", "deep"),
    ("static/b\u{fc}cher.txt", "b\u{fc}cher"),
    ("static/100%.txt", "per cent"),
    ("static/back\\slash.txt", "backslash"),
    ("static/...", "three dots"),
    ("static/no-extension", "?"),
    ("media/evil.svg", "<svg onload='alert(1)'/>"),
    ("media/evil.svg.gz", "another person's"),
    ("media/paper.pdf", "%PDF"),
    ("private/report.txt", "0123456789"),
    ("private/report.txt.gz", "another person's"),
    ("private/a b?.txt", "odd"),
];

const LINKS: &[(&str, &str)] = &[
    ("static/link-in", "app.css"),
    ("static/link-around", "dir/../dir/deeper/../../app.css"),
    ("static/dir-in", "dir"),
    ("static/link-out", "../secret.txt"),
    ("static/link-deep-out", "dir/deeper/../../../secret.txt"),
    ("static/link-up", ".."),
    ("static/link-root", "/"),
    ("static/dir-out", "../outside"),
    ("static/link-twice", "link-out"),
    ("static/link-nowhere", "nowhere"),
    ("static/link-loop", "link-loop"),
    ("static/link-environ", "/proc/self/environ"),
    ("static/link-fd", "/proc/self/fd"),
    ("static/link-passwd", "/etc/passwd"),
    ("static/link-null", "/dev/null"),
    ("private/link-out", "../secret.txt"),
];

/// The directories: names are relative to their parent.
fn plant(root: &Path) {
    for folder in ["static/dir/deeper", "media", "private", "outside"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    write(&root.join("static/app.css"), &"body { color: black }\n".repeat(50));
    for (name, content) in FILES {
        write(&root.join(name), content);
    }
    let fresh = File::options().append(true).open(root.join("static/fresh.txt")).unwrap();
    fresh.set_modified(modified() + Duration::from_secs(2)).unwrap();
    for (link, target) in LINKS {
        symlink(target, root.join(link)).unwrap();
    }
    symlink(root.join("static/app.css"), root.join("static/link-absolute")).unwrap();
    nix::unistd::mkfifo(&root.join("static/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::net::UnixListener::bind(root.join("static/socket")).unwrap();
    if nix::unistd::geteuid().is_root() {
        let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRWXU);
        let zero = nix::sys::stat::makedev(1, 5);
        // Where devices may not be made, there is one attempt less.
        let _ = nix::sys::stat::mknod(&root.join("static/zero"), kind, mode, zero);
    }
}

fn write(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    File::options().append(true).open(path).unwrap().set_modified(modified()).unwrap();
}

fn modified() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
}

/// One request over each protocol; what both answer is the same, but for dates and ids.
impl Stack {
    #[track_caller]
    fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
        let first = self.ask_h1(method, path, fields);
        let mut client = H2Client::connect(self.edge.https(), &self.edge.ca(), NAME).unwrap();
        let request = Request::builder().method(method).uri(format!("https://{NAME}{path}"));
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let second = client.ask(request.body(()).unwrap(), Bytes::new()).unwrap();
        assert_eq!(first.status, second.status, "{method} {path} {fields:?}");
        assert_eq!(comparable(&first), comparable(&second), "{method} {path} {fields:?}");
        first
    }

    #[track_caller]
    fn ask_h1(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
        let lines: String = fields.iter().map(|(name, value)| [name, ": ", value, "\r\n"].concat()).collect();
        client::connect(&self.edge)
            .ask(format!("{method} {path} HTTP/1.1\r\nHost: {NAME}\r\n{lines}\r\n"))
            .unwrap()
    }

    #[track_caller]
    fn get(&self, path: &str) -> Response {
        self.ask("GET", path, &[])
    }
}

/// The fields that differ from one answer to the next, and the boundaries of parts, left out.
fn comparable(response: &Response) -> (Vec<(String, String)>, usize) {
    let mut fields = response.headers.clone();
    fields.retain(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id" | "connection"));
    for (_, value) in fields.iter_mut().filter(|(_, value)| value.starts_with("multipart/")) {
        *value = value.split(';').next().unwrap().to_owned();
    }
    fields.sort();
    (fields, response.body.len())
}
