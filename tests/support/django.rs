//! A real Django, under the servers that people run it with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::lines::Lines;

/// A running application server. Dropping it ends the process and its workers.
pub(crate) struct Django {
    child: Child,
    log: Lines,
    /// As a site's `upstream` names it.
    pub(crate) upstream: String,
    _folder: TempDir,
}

impl Django {
    /// gunicorn with this worker class (`sync`, `gthread`), on a unix socket for `sync` and TCP for the rest.
    pub(crate) fn gunicorn(class: &str) -> Self {
        Self::gunicorn_with(class, None, &[])
    }

    /// The same, where it is told to listen, and with more arguments.
    pub(crate) fn gunicorn_with(class: &str, bind: Option<&str>, more: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("vestibule-django-").tempdir().unwrap();
        let socket = folder.path().join("gunicorn.sock");
        let bind = match bind {
            Some(bind) => bind.to_owned(),
            None if class == "sync" => format!("unix:{}", socket.display()),
            None => "127.0.0.1:0".to_owned(),
        };
        let mut command = server(&folder, "gunicorn");
        command.args([
            "front.wsgi",
            "--workers",
            "2",
            "--threads",
            "2",
            "--worker-class",
            class,
            "--bind",
            &bind,
        ]);
        // A worker that is told to leave while it still boots may miss it: its master waits no longer than this.
        command.args(["--graceful-timeout", "5"]).args(more);
        let (child, log) = spawn(command);
        let upstream = if bind.starts_with("unix:") {
            log.wait("gunicorn's worker", |line| line.contains("Booting worker").then_some(bind.clone()))
        } else {
            log.wait("gunicorn's address", |line| address(line, "Listening at: http://")).to_string()
        };
        Self { child, log, upstream, _folder: folder }
    }

    /// gunicorn with the site that OpenTelemetry's package traces, for a collector. `packages` is where that lies.
    pub(crate) fn traced(collector: &str, packages: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("vestibule-django-").tempdir().unwrap();
        let mut command = server(&folder, "gunicorn");
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
        command.env("PYTHONPATH", std::env::join_paths([packages, &own]).unwrap());
        command.envs([("OTEL_SERVICE_NAME", "django"), ("OTEL_EXPORTER_OTLP_ENDPOINT", collector)]);
        command.args(["traced", "--workers", "1", "--bind", "127.0.0.1:0"]);
        let (child, log) = spawn(command);
        let upstream =
            log.wait("gunicorn's address", |line| address(line, "Listening at: http://")).to_string();
        Self { child, log, upstream, _folder: folder }
    }

    /// uvicorn, with the WebSocket.
    pub(crate) fn uvicorn() -> Self {
        let folder = tempfile::Builder::new().prefix("vestibule-django-").tempdir().unwrap();
        let mut command = server(&folder, "uvicorn");
        command.args(["front.asgi:application", "--host", "127.0.0.1", "--port", "0", "--lifespan", "off"]);
        let (child, log) = spawn(command);
        let upstream = log.wait("uvicorn's address", |line| address(line, "running on http://")).to_string();
        Self { child, log, upstream, _folder: folder }
    }
}

impl Django {
    /// Has it finish what it has, and leave: as `docker stop` does.
    pub(crate) fn leave(&mut self) {
        let master = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(master, Signal::SIGTERM).unwrap();
        self.log.wait_end();
        self.child.wait().unwrap();
    }
}

impl Drop for Django {
    fn drop(&mut self) {
        let master = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let _ = kill(master, Signal::SIGINT); // both leave at once, and take their workers along
        self.log.wait_end();
        let _ = self.child.wait();
    }
}

fn server(folder: &TempDir, name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("build/venv/bin").join(name);
    assert!(program.exists(), "{} is missing: run `make test`, which installs it", program.display());
    let mut command = Command::new(program);
    command.current_dir(root.join("tests/django")).env("DJANGO_SECRET_KEY_FILE", secret(folder));
    command.env("DJANGO_ALLOWED_HOSTS", "app.localhost,sync.localhost,gthread.localhost,asgi.localhost");
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn secret(folder: &TempDir) -> PathBuf {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).unwrap();
    let text = random.map(|octet| octet.to_string()).concat();
    let path = folder.path().join("secret");
    std::fs::write(&path, text).unwrap();
    path
}

fn spawn(mut command: Command) -> (Child, Lines) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let log = Lines::follow(child.stderr.take().unwrap());
    (child, log)
}

fn address(line: &str, before: &str) -> Option<SocketAddr> {
    line.split_once(before)?.1.split_whitespace().next()?.parse().ok()
}
