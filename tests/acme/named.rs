//! A real name server: BIND's `named`, primary of the zones `test` and `alias.test`, which takes updates from those who have a key.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tempfile::TempDir;

use super::pebble::free_port;
use crate::support::PATIENCE;
use crate::support::lines::Lines;
use crate::support::program::copy;

/// A running name server. Dropping it ends it.
pub(super) struct Named {
    child: Child,
    log: Lines,
    folder: TempDir,
    port: u16,
}

impl Named {
    pub(super) fn start() -> Self {
        Self::start_with("")
    }

    /// The same, with more in the zone `test`.
    pub(super) fn start_with(records: &str) -> Self {
        Self::start_at(free_port(), records)
    }

    /// The same, on this port of 127.0.0.1.
    pub(super) fn start_at(port: u16, records: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("vestibule-named-").tempdir().unwrap();
        for key in ["edge", "stranger", "unknown"] {
            fs::write(folder.path().join(key), generate(key)).unwrap();
        }
        for zone in ["test", "alias.test"] {
            fs::write(folder.path().join(format!("{zone}.zone")), format!("{ZONE}{records}")).unwrap();
        }
        // It resolves what it has, across its zones, and asks nobody else.
        fs::write(folder.path().join("hints"), ". 1 NS a.\na. 1 A 127.0.0.1\n").unwrap();
        let (mut child, log) = run(&folder, port);
        log.wait("named's zones", |line| line.ends_with("all zones loaded").then_some(()));
        assert!(child.try_wait().unwrap().is_none());
        Self { child, log, folder, port }
    }

    /// Where it listens, UDP and TCP.
    pub(super) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The file of a key: `edge` may change TXT records; `stranger` may change nothing; `unknown` is not the server's.
    pub(super) fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `dns` of `[acme]`, by updates with this key.
    pub(super) fn rfc2136(&self, key: &str) -> String {
        format!(
            "dns = {{ provider = \"rfc2136\", server = \"{0}\", key = {{ file = \"{1}\" }}, \
             resolvers = [\"{0}\"], nameservers = [\"{0}\"] }}\n",
            self.address(),
            self.key(key).display()
        )
    }

    /// The values of a name's TXT records.
    pub(super) fn txt(&self, name: &str) -> Vec<String> {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::TXT));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(&message.to_vec().unwrap(), self.address()).unwrap();
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert!(matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain), "{answer}");
        let values = answer.answers.iter().filter_map(|record| match &record.data {
            RData::TXT(txt) => Some(String::from_utf8(txt.txt_data.concat()).unwrap()),
            _ => None,
        });
        values.collect()
    }

    /// Waits until a name has as many values.
    #[track_caller]
    pub(super) fn wait_for_txt(&self, name: &str, count: usize) {
        let start = Instant::now();
        while self.txt(name).len() != count {
            assert!(start.elapsed() < PATIENCE, "{name} has {:?}", self.txt(name));
            std::thread::sleep(Duration::from_millis(10)); // a name server tells nobody
        }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("named's log:\n{}", self.log.all());
        }
    }
}

fn run(folder: &TempDir, port: u16) -> (Child, Lines) {
    let at = folder.path().display();
    let keys = ["edge", "stranger"].map(|key| format!("include \"{at}/{key}\";\n")).concat();
    let zone = |zone: &str| {
        format!(
            "zone \"{zone}\" {{ type primary; file \"{at}/{zone}.zone\"; \
             update-policy {{ grant edge zonesub TXT; }}; }};\n"
        )
    };
    let config = format!(
        "options {{ directory \"{at}\"; pid-file none; session-keyfile \"{at}/session.key\"; \
         recursion yes; allow-recursion {{ any; }}; \
         listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; dnssec-validation no; \
         notify no; }};\ncontrols {{ }};\n\
         zone \".\" {{ type hint; file \"{at}/hints\"; }};\n{keys}{}{}",
        zone("test"),
        zone("alias.test")
    );
    let file = folder.path().join("named.conf");
    fs::write(&file, config).unwrap();
    // AppArmor knows Debian's own by its path, and keeps it to folders of its own.
    let named = folder.path().join("named");
    copy(&program("named"), &named);
    let mut child = Command::new(named)
        .args(["-g", "-n", "1", "-U", "1", "-c"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Lines::follow(child.stderr.take().unwrap());
    (child, log)
}

/// A key, as a person makes one.
fn generate(name: &str) -> Vec<u8> {
    let output = Command::new(program("tsig-keygen")).arg(name).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Debian has them where only administrators look.
fn program(name: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = folders.map(|folder| PathBuf::from(folder).join(name)).into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing; run: apt-get install bind9"))
}

/// Every name of the zone is this machine.
const ZONE: &str =
    "$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A 127.0.0.1\n@ A 127.0.0.1\n* A 127.0.0.1\n";
