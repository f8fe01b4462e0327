//! A real CA: pebble, with a DNS of its own that says 127.0.0.1 for every name, and the fault proxy before it.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::proxy::Proxy;
use crate::support::PATIENCE;
use crate::support::port::Port;

/// What a test wants of its CA.
pub(super) struct Options {
    /// Of 100 good nonces, so many are refused.
    pub(super) nonces_refused: u8,
    /// Lives of the profiles `default` and `short`, in seconds.
    pub(super) lives: (u64, u64),
    /// Whether accounts need a binding: key id and key, in base64url.
    pub(super) binding: Option<(&'static str, &'static str)>,
    /// Whether names are taken to be proved without a look.
    pub(super) trusting: bool,
    /// A name that the CA refuses.
    pub(super) blocked: &'static str,
    /// The name server that it asks; None: one that says 127.0.0.1 for every name.
    pub(super) names: Option<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nonces_refused: 0,
            lives: (90 * 86_400, 120),
            binding: None,
            trusting: false,
            blocked: "blocked.test",
            names: None,
        }
    }
}

/// The ports that the CA's validations come to, and so those of the edge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) https: u16,
}

/// A running CA. Dropping it ends it.
pub(super) struct Pebble {
    child: Option<Child>,
    dns: Option<(Child, u16)>,
    options: Options,
    listen: u16,
    management: u16,
    names: SocketAddr,
    pub(super) ports: Ports,
    pub(super) proxy: Proxy,
    pub(super) folder: TempDir,
}

impl Pebble {
    pub(super) fn start(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("vestibule-pebble-").tempdir().unwrap();
        let keys = own_certificates(folder.path());
        let (listen, management) = (free_port(), free_port());
        let ports = Ports { http: free_port(), https: free_port() };
        let names = options.names.unwrap_or_else(|| ([127, 0, 0, 1], free_port()).into());
        let dns = options.names.is_none().then(|| dns(names.port()));
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], listen)), &keys);
        let mut pebble = Self { child: None, dns, options, listen, management, names, ports, proxy, folder };
        pebble.begin();
        pebble
    }

    /// Starts it anew; like every pebble, it remembers nothing.
    pub(super) fn begin(&mut self) {
        self.end();
        let config = self.folder.path().join("pebble.json");
        fs::write(&config, self.config()).unwrap();
        let log = fs::File::create(self.folder.path().join("pebble.log")).unwrap();
        let child = Command::new(program("pebble"))
            .args(["-strict", "-config"])
            .arg(&config)
            .args(["-dnsserver", &self.names.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", self.options.nonces_refused.to_string())
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_VA_ALWAYS_VALID", if self.options.trusting { "1" } else { "0" })
            .env("PEBBLE_CHAIN_LENGTH", "2")
            .env("PEBBLE_ALTERNATE_ROOTS", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_for_port(self.listen);
        wait_for_port(self.management);
    }

    /// Ends it, as if the CA were down.
    pub(super) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The directory's URL, through the proxy.
    pub(super) fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.proxy.port())
    }

    /// The trust for the CA's API.
    pub(super) fn ca_root(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The trust for what the CA issues, written to a file.
    pub(super) fn issuing_root(&self) -> PathBuf {
        let mut roots = String::new();
        for index in 0..2 {
            roots += &self.root(index);
        }
        let path = self.folder.path().join("issuing.pem");
        fs::write(&path, roots).unwrap();
        path
    }

    /// A root that its chains lead to, in PEM; the first one by default.
    pub(super) fn root(&self, index: usize) -> String {
        self.management(&format!("/roots/{index}"))
    }

    /// Whether the CA's name server fails when it is asked for this name.
    pub(super) fn lose(&self, name: &str, is_lost: bool) {
        let (_, port) = self.dns.as_ref().expect("a name server of the CA's own");
        let word = if is_lost { "set" } else { "clear" };
        let output = Command::new("curl")
            .args(["-sS", "--fail", "-d", &serde_json::json!({ "host": name }).to_string()])
            .arg(format!("http://127.0.0.1:{port}/{word}-servfail"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn management(&self, path: &str) -> String {
        let output = Command::new("curl")
            .args(["-sS", "--fail", "--cacert"])
            .arg(self.ca_root())
            .arg(format!("https://127.0.0.1:{}{path}", self.management))
            .output()
            .unwrap();
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn config(&self) -> String {
        let (long, short) = self.options.lives;
        let keys = self.options.binding.map(|(id, key)| serde_json::json!({ (id): key })).unwrap_or_default();
        serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.listen),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": self.folder.path().join("api.pem"),
            "privateKey": self.folder.path().join("api.key"),
            "httpPort": self.ports.http,
            "tlsPort": self.ports.https,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self.options.binding.is_some(),
            "externalAccountMACKeys": keys,
            "domainBlocklist": [self.options.blocked],
            "retryAfter": { "authz": 1, "order": 1 },
            "keyAlgorithm": "ecdsa",
            "profiles": {
                "default": { "description": "long", "validityPeriod": long },
                "short": { "description": "short", "validityPeriod": short },
            },
        }})
        .to_string()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.end();
        if let Some((dns, _)) = &mut self.dns {
            let _ = dns.kill();
            let _ = dns.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("pebble.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            let mut text = String::new();
            tail.iter().rev().for_each(|line| writeln!(text, "{line}").unwrap());
            eprintln!("the end of pebble's log:\n{text}");
        }
    }
}

/// The edge's rows, where the CA looks.
pub(super) fn rows(ports: Ports, allow: &str) -> String {
    format!(
        "[ports]\n\"127.0.0.1:{}\" = {{ serve = \"http\", allow = [\"{allow}\"] }}\n\
         \"127.0.0.1:{}\" = {{ serve = \"https\", allow = [\"{allow}\"] }}\n",
        ports.http, ports.https
    )
}

fn dns(port: u16) -> (Child, u16) {
    let management = free_port();
    let child = Command::new(program("pebble-challtestsrv"))
        .args(["-dnsserver", &format!("127.0.0.1:{port}"), "-management", &format!("127.0.0.1:{management}")])
        .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv6", ""])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_port(port);
    wait_for_port(management);
    (child, management)
}

/// Where `scripts/pebble` puts it.
fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/pebble/usr/bin").join(name);
    assert!(path.exists(), "{} is missing; run: scripts/pebble", path.display());
    path
}

/// A CA of the test's own, and the certificate of pebble's API and of the proxy: `ca.pem`, `api.pem`, `api.key`.
fn own_certificates(folder: &Path) -> PathBuf {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "the CA's API");
    let key = KeyPair::generate().unwrap();
    fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let api = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    fs::write(folder.join("api.pem"), leaf.signed_by(&api, &issuer).unwrap().pem()).unwrap();
    fs::write(folder.join("api.key"), api.serialize_pem()).unwrap();
    folder.to_owned()
}

/// A port that is nobody's, below those that the kernel gives out by itself: it is kept for as long as the process runs.
pub(super) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static KEPT: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    let start = u16::try_from(std::process::id() % 1000).unwrap() * 10;
    loop {
        let number = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if let Ok(port) = Port::at(number) {
            KEPT.lock().unwrap().push(port);
            return number;
        }
    }
}

fn wait_for_port(port: u16) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on {port}");
        std::thread::sleep(std::time::Duration::from_millis(5)); // a foreign process tells nobody
    }
}
