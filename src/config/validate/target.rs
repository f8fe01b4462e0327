//! Upstreams: `host:port`, `unix:/path`, `https://host:port`.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use super::super::model::Target;
use super::super::raw::Value;
use super::Home;
use crate::name::{Hostname, NameError};

/// The longest path of a unix socket in octets (unix(7): 108 with the NUL).
pub(super) const MAX_SOCKET_PATH: usize = 107;
/// The port of `https://host`.
const HTTPS: u16 = 443;

/// What is wrong with an upstream, and what to do about it.
type Wrong = (String, String);

/// Reads one upstream or a list of them. None where one is wrong.
pub(super) fn read(value: &Value<'_>, home: &Home<'_>) -> Option<Vec<Target>> {
    let items = value.one_or_more();
    if items.is_empty() {
        value.refuse("the list of upstreams is empty", "name one, as in \"django:8000\"");
    }
    let mut targets: Vec<Target> = Vec::new();
    for item in &items {
        let Some(target) = one(item, home) else { continue };
        if targets.contains(&target) {
            item.refuse("this upstream is listed twice", "keep one of the two");
        }
        targets.push(target);
    }
    Some(targets).filter(|targets| !targets.is_empty() && targets.len() == items.len())
}

fn one(item: &Value<'_>, home: &Home<'_>) -> Option<Target> {
    let text = item.text()?;
    if text.contains('@') && !text.starts_with("unix:") {
        item.report.secret(&item.place, "an upstream takes no user or password: let Django check who asks");
        return None;
    }
    parse(text, home).map_err(|(message, help)| item.refuse(message, help)).ok()
}

fn parse(text: &str, home: &Home<'_>) -> Result<Target, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(path, home);
    }
    if let Some(rest) = text.strip_prefix("https://") {
        return tcp(text, rest, true);
    }
    if let Some(rest) = text.strip_prefix("http://") {
        let bare = rest.trim_end_matches('/');
        let bare = if bare.contains(':') { bare.to_owned() } else { format!("{bare}:80") };
        return Err(("an upstream is written without http://".into(), format!("write \"{bare}\"")));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        let help = "an upstream speaks HTTP/1.1: \"host:port\", \"unix:/path\" or \"https://host:port\"";
        return Err((format!("{scheme}:// is not spoken to upstreams"), help.into()));
    }
    if text.starts_with('/') {
        return Err((format!("{text:?} is a path"), format!("write \"unix:{text}\" for a unix socket")));
    }
    tcp(text, text, false)
}

fn socket(path: &str, home: &Home<'_>) -> Result<Target, Wrong> {
    let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    if path.is_empty() || path.contains('\0') {
        return Err((
            "the path of the unix socket is missing".into(),
            "write \"unix:/run/gunicorn.sock\"".into(),
        ));
    }
    let path = home.resolve(path);
    socket_length(&path)?;
    Ok(Target::Unix(path.into()))
}

/// Whether the kernel takes a path for a unix socket.
pub(super) fn socket_length(path: &Path) -> Result<(), Wrong> {
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        let message = format!("the path of the unix socket has {length} octets");
        return Err((message, format!("the kernel takes {MAX_SOCKET_PATH} at most: choose a shorter one")));
    }
    Ok(())
}

fn tcp(text: &str, authority: &str, tls: bool) -> Result<Target, Wrong> {
    if let Some(at) = authority.find(['/', '?', '#']) {
        let bare = text.get(..text.len() - (authority.len() - at)).unwrap_or(text);
        return Err((
            "an upstream has no path".into(),
            format!("write \"{bare}\": a request's own path is kept"),
        ));
    }
    let (host, port) = split(authority);
    let port = match port {
        Some(port) => number(port).ok_or_else(|| {
            (format!("{port:?} is not a port"), "a port is a number from 1 to 65535".to_owned())
        })?,
        None if tls => HTTPS,
        None => {
            return Err((format!("the port of {text:?} is missing"), format!("write \"{authority}:8000\"")));
        }
    };
    Ok(Target::Tcp { host: host_name(host, text)?.into(), port, tls })
}

/// Host and port; an IPv6 address keeps its brackets.
fn split(authority: &str) -> (&str, Option<&str>) {
    match authority.rfind([':', ']']) {
        Some(at) if authority.get(at..).is_some_and(|rest| rest.starts_with(':')) => {
            (authority.get(..at).unwrap_or(""), authority.get(at + 1..))
        }
        _ => (authority, None),
    }
}

fn number(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    port.parse().ok().filter(|&port| digits && port != 0)
}

/// A name in lower case, or an address without brackets.
fn host_name(host: &str, text: &str) -> Result<String, Wrong> {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let ip = inner.parse::<Ipv6Addr>();
        return ip.map(|ip| ip.to_string()).map_err(|_| {
            (format!("{inner:?} is not an IPv6 address"), "write \"[2001:db8::1]:8000\"".into())
        });
    }
    if host.contains(':') {
        return Err((
            format!("the address in {text:?} needs brackets"),
            "write \"[2001:db8::1]:8000\"".into(),
        ));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    let example = "write a name or an address, as in \"django:8000\"";
    match Hostname::parse(host) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(NameError::Empty) => Err((format!("{text:?} names no host"), example.into())),
        Err(_) => Err((format!("{host:?} is not a host"), example.into())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Target, Wrong> {
        parse(text, &Home(Path::new("/etc/vestibule")))
    }

    fn tcp(host: &str, port: u16, tls: bool) -> Target {
        Target::Tcp { host: host.into(), port, tls }
    }

    #[test]
    fn upstreams() {
        for (text, target) in [
            ("django:8000", tcp("django", 8000, false)),
            ("my_app:8000", tcp("my_app", 8000, false)),
            ("Django.Internal:8000", tcp("django.internal", 8000, false)),
            ("127.0.0.1:8000", tcp("127.0.0.1", 8000, false)),
            ("[::1]:8000", tcp("::1", 8000, false)),
            ("https://app.example.com", tcp("app.example.com", 443, true)),
            ("https://[2001:db8::1]:8443", tcp("2001:db8::1", 8443, true)),
            ("unix:/run/gunicorn.sock", Target::Unix(Path::new("/run/gunicorn.sock").into())),
            ("unix:///run/gunicorn.sock", Target::Unix(Path::new("/run/gunicorn.sock").into())),
            ("unix:gunicorn.sock", Target::Unix(Path::new("/etc/vestibule/gunicorn.sock").into())),
        ] {
            assert_eq!(read(text), Ok(target), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_upstream() {
        for (text, help) in [
            ("http://django:8000/", "write \"django:8000\""),
            ("http://django", "write \"django:80\""),
            ("django", "write \"django:8000\""),
            ("django:0", "a port is a number from 1 to 65535"),
            ("django:+80", "a port is a number from 1 to 65535"),
            ("::1:8000", "write \"[2001:db8::1]:8000\""),
            ("[::g]:8000", "write \"[2001:db8::1]:8000\""),
            ("django:8000/app", "write \"django:8000\": a request's own path is kept"),
            ("https://app.example.com/", "write \"https://app.example.com\": a request's own path is kept"),
            ("/run/gunicorn.sock", "write \"unix:/run/gunicorn.sock\" for a unix socket"),
        ] {
            assert_eq!(read(text).map_err(|wrong| wrong.1), Err(help.into()), "{text:?}");
        }
        for text in ["", ":8000", "unix:", "127.1:8000", "ftp://x:1", "a b:8000", "*:80"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", scheme in "(https://|http://|unix:|)") {
            let _ = (read(&text), read(&format!("{scheme}{text}")));
        }
    }
}
