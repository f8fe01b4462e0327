//! A real collector, and a real Django that is traced by OpenTelemetry's own package.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{NAME, PARENT, TRACE, connect};
use crate::support::django::Django;
use crate::support::edge::{Edge, ROWS};
use crate::support::lines::Lines;
use crate::support::port::Port;

/// A rotel that says on its standard output what it understood. Dropping it ends it.
struct Rotel {
    child: Child,
    said: Lines,
    url: String,
    _ports: [Port; 2],
}

impl Rotel {
    fn start() -> Self {
        let program = packages().join("rotel/rotel-agent");
        assert!(program.exists(), "{} is missing: run `make test`, which installs it", program.display());
        // It takes no port 0.
        let ports = [Port::reserve(), Port::reserve()];
        let [http, grpc] = ports.each_ref().map(Port::address);
        let mut command = Command::new(program);
        command.args(["start", "--exporter", "blackhole", "--batch-timeout", "50ms"]);
        command.args(["--debug-log", "traces", "--debug-log-verbosity", "detailed"]);
        command.args(["--otlp-http-endpoint", &http.to_string(), "--otlp-grpc-endpoint", &grpc.to_string()]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = Lines::follow(child.stdout.take().unwrap());
        said.wait("the collector", |line| line.contains("Starting Rotel").then_some(()));
        Self { child, said, url: format!("http://{http}"), _ports: ports }
    }

    /// The first span after the mark with such a value.
    #[track_caller]
    fn span(&self, key: &str, value: &str) -> HashMap<String, String> {
        let (mut service, mut span) = (String::new(), HashMap::<String, String>::new());
        self.said.wait_from(0, &format!("a span whose {key} is {value}"), |line| {
            let line = line.trim().trim_start_matches("-> ");
            // The next one begins where this one is whole.
            let is_whole = line.starts_with("Span #") || line.starts_with("ResourceSpans #");
            let found = (is_whole && span.get(key).is_some_and(|own| own == value)).then(|| span.clone());
            if is_whole {
                span = HashMap::from([("service".to_owned(), service.clone())]);
            }
            if let Some((name, text)) = line.split_once(": ").or_else(|| line.split_once(':')) {
                let text =
                    text.trim().trim_start_matches("Str(").trim_start_matches("Int(").trim_end_matches(')');
                span.insert(name.trim().to_owned(), text.to_owned());
                if name == "service.name" {
                    text.clone_into(&mut service);
                }
            }
            found
        })
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The client's span is above the edge's, that above the edge's try, and that above Django's: one trace, as rotel saw it.
#[test]
fn django_s_span_is_below_the_edge_s_in_a_real_collector() {
    let rotel = Rotel::start();
    let django = Django::traced(&rotel.url, &packages());
    let edge = Edge::start(&format!(
        "{ROWS}\n[trace]\nendpoint = \"{}\"\nservice = \"edge\"\n\n[[site]]\ndomains = [\"{NAME}\"]\n\
         upstream = \"{}\"\ncertificate = \"internal\"\n",
        rotel.url, django.upstream
    ));
    // What is said of the second ends what is said of the first.
    for trace in [TRACE, &TRACE.replace('4', "5")] {
        let asked =
            format!("GET /healthz HTTP/1.1\r\nHost: {NAME}\r\ntraceparent: 00-{trace}-{PARENT}-01\r\n\r\n");
        assert_eq!(connect(&edge).ask(asked).unwrap().status, 200);
    }
    let server = rotel.span("Parent ID", PARENT);
    let client = rotel.span("Parent ID", &server["ID"]);
    let own = rotel.span("Parent ID", &client["ID"]);
    for (span, service, kind) in [
        (&server, "edge", "SPAN_KIND_SERVER"),
        (&client, "edge", "SPAN_KIND_CLIENT"),
        (&own, "django", "SPAN_KIND_SERVER"),
    ] {
        let told = [&span["service"], &span["Kind"], &span["Trace ID"]];
        assert_eq!(told, [service, kind, TRACE], "{span:?}");
    }
    assert_eq!(server["http.response.status_code"], "200", "{server:?}");
}

fn packages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("build/traces")
}
