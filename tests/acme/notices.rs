//! A program and a URL that are told what becomes of certificates.

use std::fs;
use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;

use super::pebble::{Options, Pebble};
use super::proxy::{Fault, NEW_ORDER};
use super::{NAME, alter, certs, config, said, wait_for_handshake};
use crate::support::edge::{Edge, run};
use crate::support::{PATIENCE, post, program};

/// Where posts arrive, answered with these statuses in turn, the last one for ever.
struct Receiving {
    url: String,
    posts: Receiver<(String, Value)>,
}

impl Receiving {
    fn start(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hooks/certificates?to=ops", listener.local_addr().unwrap());
        let (sender, posts) = channel();
        std::thread::spawn(move || {
            let mut statuses = statuses.iter();
            let mut status = 200;
            for stream in listener.incoming() {
                status = *statuses.next().unwrap_or(&status);
                let mut stream = BufReader::new(stream.unwrap());
                let (head, body) = post::read(&mut stream);
                write!(
                    stream.get_mut(),
                    "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                .unwrap();
                if sender.send((head, serde_json::from_slice(&body).unwrap())).is_err() {
                    return;
                }
            }
        });
        Self { url, posts }
    }

    #[track_caller]
    fn next(&self) -> (String, Value) {
        self.posts.recv_timeout(PATIENCE).expect("a post")
    }
}

/// A hook that writes down its arguments and its input, and the key of `[acme]` that names it.
pub(super) fn hook(folder: &Path, then: &str) -> (PathBuf, String) {
    let (path, told) = (folder.join("on-cert"), folder.join("told"));
    let script = format!("#!/bin/sh\nprintf '%s\\n' \"$*\" \"$(cat)\" >> {}\n{then}\n", told.display());
    program::write(&path, script);
    (told, format!("hook = [\"{}\", \"first\"]\n", path.display()))
}

/// What the hook was told, once it was told so often.
#[track_caller]
pub(super) fn told(file: &Path, times: usize) -> Vec<(String, Value)> {
    let begin = std::time::Instant::now();
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() >= 2 * times {
            return lines
                .chunks(2)
                .map(|two| (two[0].into(), serde_json::from_str(two[1]).unwrap()))
                .collect();
        }
        assert!(begin.elapsed() < PATIENCE, "told {} times: {text}", lines.len() / 2);
        std::thread::sleep(Duration::from_millis(20)); // a program tells nobody
    }
}

#[test]
fn a_program_and_a_url_are_told() {
    let pebble = Pebble::start(Options::default());
    let problem = r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"not \u001b[2J this"}"#;
    pebble.proxy.fault(NEW_ORDER, 1, Fault::Answer(400, Vec::new(), problem.into()));
    let receiving = Receiving::start(&[500, 200]);
    let (file, key) = hook(pebble.folder.path(), "exit 0");
    let text = config(&pebble, &format!("{key}webhook = \"{}\"", receiving.url), &[NAME, "other.test"]);
    let edge =
        Edge::start(&text.replace("domains = [\"other.test\"]", "domains = [\"other.test\", \"www.test\"]"));
    let heard = told(&file, 2);
    let of = |event: &str| heard.iter().find(|(line, _)| line.contains(event)).unwrap();
    let (line, json) = of("failed");
    let names: Vec<&str> =
        json["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(*line, format!("first failed {}", names.join(" ")));
    assert_eq!((&json["event"], &json["failures"]), (&"failed".into(), &1.into()));
    let error = json["error"].as_str().unwrap();
    assert!(error.contains("rejectedIdentifier: not [2J this"), "{error}");
    assert!(json["next_try"].is_string() && json["not_after"].is_null());
    let (_, json) = of("obtained");
    assert!(json["not_after"].is_string() && json["error"].is_null(), "{json}");
    assert!(json["text"].as_str().unwrap().contains("a new certificate is in use, valid until "), "{json}");
    // The first post was refused, and is made again: three in all.
    let posts: Vec<_> = (0..3).map(|_| receiving.next()).collect();
    assert!(posts.iter().all(|(head, _)| head.starts_with("POST /hooks/certificates?to=ops HTTP/1.1\r\n")));
    let mut events: Vec<_> = posts.iter().map(|(_, json)| json["event"].to_string()).collect();
    events.sort();
    events.dedup();
    assert_eq!(events, ["\"failed\"", "\"obtained\""]);
    drop(edge);
}

#[test]
fn one_that_fails_or_hangs_holds_nothing_up_and_is_not_asked_for_ever() {
    let pebble = Pebble::start(Options::default());
    let receiving = Receiving::start(&[404]);
    let (file, key) = hook(pebble.folder.path(), "echo no room >&2; exit 3");
    // The URL is a secret: it shows nowhere.
    let secret = pebble.folder.path().join("webhook");
    fs::write(&secret, format!("{}&token=hunter2\n", receiving.url)).unwrap();
    let webhook = format!("{key}webhook = {{ file = \"{}\" }}", secret.display());
    let edge = Edge::start(&config(&pebble, &webhook, &[NAME]));
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert!(receiving.next().0.contains("token=hunter2"));
    let line = said(&edge, "nobody was told of a certificate");
    assert_eq!((&line["by"], &line["why"]), (&"webhook".into(), &"it answered 404 Not Found".into()));
    let line = said(&edge, "telling of a certificate failed; tried again");
    let why = line["why"].as_str().unwrap();
    assert!(why.ends_with("on-cert failed: exit status: 3: no room"), "{why}");
    told(&file, 2);
    assert!(receiving.posts.try_recv().is_err(), "what is wrong for good is not tried again");
    assert!(!edge.log().all().contains("hunter2"));
    // Another that hangs: the next certificate comes all the same.
    // It hangs for as long as its file is there: nothing is left behind by the test.
    let (_, _) = hook(pebble.folder.path(), "while [ -e \"$0\" ]; do sleep 0.2; done");
    let (code, out, err) = certs(&edge, "renew", NAME);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(pebble.proxy.orders(), 2);
}

#[test]
fn each_step_towards_the_end_is_told_once_whoever_runs() {
    let pebble = Pebble::start(Options::default());
    let (file, key) = hook(pebble.folder.path(), "exit 0");
    let mut edge = Edge::start(&config(&pebble, &key, &[NAME]));
    wait_for_handshake(&pebble, NAME, PATIENCE);
    assert_eq!(told(&file, 1)[0].0, format!("first obtained {NAME}"));
    let problem = r#"{"type":"urn:ietf:params:acme:error:malformed","detail":"down"}"#;
    pebble.proxy.fault(NEW_ORDER, 99, Fault::Answer(400, Vec::new(), problem.into()));
    for (left, expected) in [(0.3, 2), (0.2, 2), (0.1, 3), (0.01, 4), (-0.01, 5), (-0.1, 5)] {
        edge = alter(edge, NAME, |record| {
            // The same certificate throughout, and another moment of its life.
            let (life, now) = (time::Duration::days(90), OffsetDateTime::now_utc());
            let bundle = record.bundle.as_mut().unwrap();
            (bundle.not_after, bundle.not_before) = (now + life * left, now + life * left - life);
            if let Some(alarm) = &mut record.alarm {
                alarm.not_after = bundle.not_after;
            }
            record.retry.failures = 3;
            record.retry.not_before = Some(now + time::Duration::hours(1));
            record.retry.last_error = Some("the CA is down".to_owned());
        });
        let all = told(&file, expected);
        std::thread::sleep(Duration::from_secs(1)); // and nothing more comes
        assert_eq!(told(&file, expected).len(), expected, "{left}: {all:?}");
        let (arguments, json) = all.last().unwrap();
        assert_eq!(*arguments, format!("first expiring {NAME}"));
        assert_eq!((&json["error"], &json["failures"]), (&"the CA is down".into(), &3.into()));
    }
    let text = told(&file, 5)[4].1["text"].to_string();
    assert!(text.contains("has expired and is still served"), "{text}");
}

#[test]
fn a_check_looks_for_the_program_and_reads_the_url() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    fs::write(folder.path().join("hook"), "#!/bin/sh\n").unwrap();
    fs::write(folder.path().join("url"), "hunter2\n").unwrap();
    for (key, expected) in [
        ("hook = ['hook']", "hook is not a program; make it one with chmod +x"),
        ("webhook = { file = 'none' }", "none: the secret cannot be read"),
        ("webhook = { file = 'url' }", "the secret is not a URL, as in https://hooks.example.com/"),
    ] {
        let text = format!("[[site]]\ndomains = ['app.test']\nupstream = 'a:80'\n[acme]\n{key}\n");
        fs::write(&file, text).unwrap();
        let (code, _, stderr) = run(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(expected) && !stderr.contains("hunter2"), "{stderr}");
    }
}
