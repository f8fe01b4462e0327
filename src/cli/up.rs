//! `vestibule up`: an edge with no file.

use std::fmt::Write as _;
use std::net::{Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};

use super::{Failure, UpArguments, files, print, serve};
use crate::config::model::{Admin, Kind, Serve};
use crate::name::{HostPattern, NameError};
use crate::runtime::{self, Origin, Ready};
use crate::tls::Authority;

/// What messages call the configuration that the arguments make.
const NAME: &str = "(the arguments of vestibule up)";

pub(super) fn run(arguments: &UpArguments) -> Result<(), Failure> {
    let names = arguments.domains.iter().map(|typed| name(typed)).collect::<Result<Vec<_>, _>>()?;
    let (store, socket) = (files::up_store(), arguments.socket.clone().unwrap_or_else(own_socket));
    let text = configuration(arguments, &names, &store, &socket, has_ipv6());
    serve::run_origin(Origin::Text(text, NAME), |ready| {
        // Standard output may have gone; the edge serves all the same.
        let _ = print(&greeting(&names, &arguments.to, ready, &Authority::root_path(&store)));
    })
}

fn name(typed: &str) -> Result<HostPattern, Failure> {
    HostPattern::parse(typed).map_err(|error: NameError| {
        Failure::new(format_args!("--domain {typed}: {error}; a name for this machine is app.localhost"))
    })
}

/// A socket of its own, so that several may run.
fn own_socket() -> PathBuf {
    let usual = Admin::default_socket();
    // A user who has not logged in has no directory below /run/user.
    let has_home = usual.ancestors().nth(2).is_some_and(Path::is_dir);
    let beside = if has_home { usual } else { files::up_store() };
    beside.with_file_name(format!("up-{}.sock", std::process::id()))
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// The same edge as a file.
fn configuration(
    arguments: &UpArguments,
    names: &[HostPattern],
    store: &Path,
    socket: &Path,
    ipv6: bool,
) -> String {
    let (http, https) = if runtime::is_root() { (80, 443) } else { (8080, 8443) };
    let addresses: &[&str] = match (arguments.public, ipv6) {
        (true, _) => &[""],
        (false, true) => &["127.0.0.1:", "[::1]:"],
        (false, false) => &["127.0.0.1:"],
    };
    let mut text = "[ports]\n".to_owned();
    for (serve, port) in
        [("http", arguments.http.unwrap_or(http)), ("https", arguments.https.unwrap_or(https))]
    {
        for address in addresses {
            let _ = writeln!(text, "\"{address}{port}\" = {{ serve = \"{serve}\", allow = [\"public\"] }}");
        }
    }
    let domains: Vec<_> = names.iter().map(|name| quoted(&name.to_string())).collect();
    let _ = write!(
        text,
        "[[site]]\ndomains = [{}]\nupstream = {}\ncertificate = \"internal\"\nhsts = false\n\
         [store]\npath = {}\n[admin]\nsocket = {}\n[log]\nformat = \"text\"\n",
        domains.join(", "),
        quoted(&arguments.to),
        quoted(&store.to_string_lossy()),
        quoted(&socket.to_string_lossy()),
    );
    text
}

/// A TOML basic string: every escape that JSON has means the same there.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn greeting(names: &[HostPattern], to: &str, ready: &Ready, root: &Path) -> String {
    let https = ready.rows.iter().filter(|(_, kind, _)| *kind == Kind::Serve(Serve::Https));
    let Some(address) = https.flat_map(|(_, _, addresses)| addresses).next() else { return String::new() };
    let port = address.port();
    let colon_port = if port == 443 { String::new() } else { format!(":{port}") };
    let mut text = String::new();
    for name in names {
        let _ = writeln!(text, "https://{name}{colon_port} -> {to}");
    }
    let example = names.iter().find_map(|name| match name {
        HostPattern::Exact(name) => Some(name.to_string()),
        HostPattern::Wildcard(_) => None,
    });
    if let Some(name) = example {
        // curl takes every name under localhost for this machine; others it would ask DNS for.
        let local = name == "localhost" || name.ends_with(".localhost");
        let resolve = if local { String::new() } else { format!(" --resolve {name}:{port}:127.0.0.1") };
        let root = root.display();
        let _ = writeln!(text, "curl --cacert {root}{resolve} https://{name}{colon_port}/");
    }
    text + "Browsers: `vestibule certs trust` tells how to trust the certificate. Ctrl-C ends it.\n\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::model::Bind;

    fn arguments(domain: &str, to: &str, public: bool) -> UpArguments {
        UpArguments {
            domains: vec![domain.into()],
            to: to.into(),
            http: Some(8080),
            https: Some(8443),
            public,
            socket: None,
        }
    }

    fn text(arguments: &UpArguments, ipv6: bool) -> String {
        let names = [HostPattern::parse(&arguments.domains[0]).unwrap()];
        configuration(arguments, &names, Path::new("/data/certs"), Path::new("/run/up.sock"), ipv6)
    }

    #[test]
    fn the_arguments_are_a_configuration() {
        for (public, ipv6, expected) in [
            (false, true, vec!["127.0.0.1:8080", "[::1]:8080", "127.0.0.1:8443", "[::1]:8443"]),
            (false, false, vec!["127.0.0.1:8080", "127.0.0.1:8443"]),
            (true, true, vec!["8080", "8443"]),
        ] {
            let text = text(&arguments("app.localhost", "127.0.0.1:8000", public), ipv6);
            let loaded = config::parse(text, Path::new(NAME)).unwrap_or_else(|problems| panic!("{problems}"));
            let binds: Vec<_> = loaded.config.rows.iter().map(|row| row.bind.to_string()).collect();
            assert_eq!(binds, expected);
            assert_eq!(loaded.config.sites[0].hsts, None);
        }
    }

    #[test]
    fn what_is_typed_stays_inside_its_quotes() {
        let text = text(&arguments("app.localhost", "a\"]\n[process]\nuser = \"x", false), true);
        let problems = config::parse(text, Path::new(NAME)).unwrap_err().to_string();
        assert!(problems.contains("site[0].upstream"), "{problems}");
    }

    #[test]
    fn the_greeting_can_be_pasted() {
        let row =
            |port: u16| (Bind::All(port), Kind::Serve(Serve::Https), vec![([127, 0, 0, 1], port).into()]);
        let greet = |name: &str, port| {
            let ready = Ready { rows: vec![row(port)] };
            greeting(&[HostPattern::parse(name).unwrap()], "127.0.0.1:8000", &ready, Path::new("/r.pem"))
        };
        let local = greet("app.localhost", 8443);
        assert!(local.starts_with("https://app.localhost:8443 -> 127.0.0.1:8000\n"), "{local}");
        assert!(local.contains("curl --cacert /r.pem https://app.localhost:8443/\n"), "{local}");
        let other = greet("app.example.com", 443);
        assert!(
            other.contains(
                "curl --cacert /r.pem --resolve app.example.com:443:127.0.0.1 https://app.example.com/\n"
            ),
            "{other}"
        );
    }
}
