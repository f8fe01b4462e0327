//! The store of certificates, on real disks: what others may read, what is damaged, what is cut off halfway, and who
//! else is at it. Other processes are this same binary, told by an environment variable what to do.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use vestibule::acme::store::{
    AccountRecord, Bundle, EventKind, PendingOrder, Record, RecordId, Seal, Secret, Store, StoreError, look,
};
use vestibule::name::HostPattern;

/// Tells a process of its own what to do, and where.
const TASK: &str = "VESTIBULE_TEST_STORE_TASK";
const PLACE: &str = "VESTIBULE_TEST_STORE_PLACE";

fn names(names: &[&str]) -> Vec<HostPattern> {
    names.iter().map(|name| HostPattern::parse(name).unwrap()).collect()
}

fn record(key: &str) -> Record {
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let mut record = Record::new(names(&["app.example.com"]));
    record.bundle = Some(Bundle {
        key_pem: Secret::new(key),
        chain_pem: "chain".into(),
        directory: "https://ca.example/dir".into(),
        profile: Some("classic".into()),
        issued: now,
        not_before: now,
        not_after: now + Duration::days(90),
        ari_id: None,
        imported: false,
        lacks: Vec::new(),
    });
    record.order = Some(PendingOrder {
        url: "https://ca.example/order/1".into(),
        directory: "https://ca.example/dir".into(),
        key_pem: Secret::new("key of the order"),
        names: record.names.clone(),
        created: now,
        replaces: None,
    });
    record.note(now, EventKind::Ordered, "https://ca.example/order/1");
    record
}

fn id() -> RecordId {
    RecordId::of(&names(&["app.example.com"]))
}

fn open(place: &Path) -> Store {
    Store::open(place, None).unwrap()
}

fn sealed(place: &Path, octet: u8) -> Result<Store, StoreError> {
    Store::open(place, Some(Seal::new(&[octet; 32]).unwrap()))
}

fn file(place: &Path) -> PathBuf {
    place.join(format!("acme/certificates/{}.json", id()))
}

fn previous(place: &Path) -> PathBuf {
    place.join(format!("acme/certificates/{}.json.previous", id()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set_aside(place: &Path) -> usize {
    let entries = fs::read_dir(place.join("acme/certificates")).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(".json.corrupt-"))
        .count()
}

/// Every octet below a folder.
fn everything(place: &Path) -> String {
    let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    let text =
        |path: PathBuf| if path.is_dir() { everything(&path) } else { fs::read_to_string(path).unwrap() };
    entries.map(text).collect()
}

#[test]
fn a_record_comes_back_and_nobody_else_can_read_it() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    assert_eq!(store.load(&id()).unwrap(), None);
    store.save(&id(), &record("first")).unwrap();
    store.save(&id(), &record("second")).unwrap();
    assert_eq!(open(folder.path()).load(&id()).unwrap(), Some(record("second")));
    assert_eq!(store.list().unwrap(), [id()]);
    for path in [file(folder.path()), previous(folder.path())] {
        assert_eq!(mode(&path), 0o600);
    }
    assert_eq!(mode(&folder.path().join("acme/certificates")), 0o700);
}

#[test]
fn an_account_comes_back() {
    let folder = TempDir::new().unwrap();
    let credentials = serde_json::json!({ "id": "https://ca.example/acct/1", "key": "secret" });
    let created = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let account = AccountRecord { credentials, contacts: vec!["mailto:ops@example.com".into()], created };
    let directory = "https://ca.example/dir";
    for seal in [false, true] {
        let store = if seal { sealed(folder.path(), 0x80).unwrap() } else { open(folder.path()) };
        assert_eq!(store.account("https://other.example/dir").unwrap(), None);
        store.save_account(directory, &account).unwrap();
        assert_eq!(store.account(directory).unwrap(), Some(account.clone()));
    }
    sealed(folder.path(), 0x80).unwrap();
    let all = everything(folder.path());
    assert!(all.contains("mailto:ops@example.com") && !all.contains("secret"), "{all}");
}

#[test]
fn what_others_can_reach_is_refused_with_the_fix() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    store.save(&id(), &record("key")).unwrap();
    chmod(&file(folder.path()), 0o640);
    let said = store.load(&id()).unwrap_err().to_string();
    assert!(said.ends_with(&format!("run: chmod 600 {}", file(folder.path()).display())), "{said}");
    let directory = folder.path().join("acme/certificates");
    chmod(&directory, 0o755);
    let said = Store::open(folder.path(), None).unwrap_err().to_string();
    assert!(said.ends_with(&format!("run: chmod 700 {}", directory.display())), "{said}");
}

#[test]
fn a_damaged_record_is_set_aside_and_the_one_before_it_served() {
    let whole = {
        let folder = TempDir::new().unwrap();
        open(folder.path()).save(&id(), &record("second")).unwrap();
        fs::read_to_string(file(folder.path())).unwrap()
    };
    for damaged in [
        String::new(),
        whole[..whole.len() / 2].to_owned(),
        whole.replace("second", "secand"),
        whole.replace("\"version\": 1", "\"version\": \"x\""),
        "[]".into(),
    ] {
        let folder = TempDir::new().unwrap();
        let store = open(folder.path());
        store.save(&id(), &record("first")).unwrap();
        store.save(&id(), &record("second")).unwrap();
        fs::write(file(folder.path()), damaged).unwrap();
        assert_eq!(store.load(&id()).unwrap(), Some(record("first")));
        assert_eq!(set_aside(folder.path()), 1);
        assert_eq!(store.load(&id()).unwrap(), Some(record("first")), "and again");
        assert_eq!(store.list().unwrap(), [id()]);
        store.save(&id(), &record("third")).unwrap();
        assert_eq!(store.load(&id()).unwrap(), Some(record("third")));
        fs::write(file(folder.path()), "x").unwrap();
        fs::write(previous(folder.path()), "x").unwrap();
        assert_eq!(store.load(&id()).unwrap(), None);
    }
}

#[test]
fn a_record_of_a_later_version_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    store.save(&id(), &record("key")).unwrap();
    let later = fs::read_to_string(file(folder.path())).unwrap().replace("\"version\": 1", "\"version\": 2");
    fs::write(file(folder.path()), &later).unwrap();
    assert!(matches!(store.load(&id()), Err(StoreError::Newer { version: 2, .. })));
    assert_eq!(fs::read_to_string(file(folder.path())).unwrap(), later);
}

#[test]
fn keys_are_sealed_and_another_key_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let plain = open(folder.path());
    plain.save(&id(), &record("open key one")).unwrap();
    plain.save(&id(), &record("open key two")).unwrap();
    let store = sealed(folder.path(), 0x80).unwrap();
    let all = everything(folder.path());
    assert!(
        !all.contains("open key") && !all.contains("key of the order") && all.contains("ca.example"),
        "{all}"
    );
    assert_eq!(store.load(&id()).unwrap(), Some(record("open key two")));
    store.save(&id(), &record("open key three")).unwrap();
    let before = everything(folder.path());
    assert!(!before.contains("open key"));
    assert!(matches!(sealed(folder.path(), 0x81), Err(StoreError::WrongKey { .. })));
    assert!(matches!(Store::open(folder.path(), None), Err(StoreError::Sealed { .. })));
    assert!(matches!(plain.load(&id()), Err(StoreError::Sealed { .. })));
    assert_eq!(everything(folder.path()), before);
    fs::remove_file(file(folder.path())).unwrap();
    assert_eq!(
        store.load(&id()).unwrap(),
        Some(record("open key two")),
        "the generation before it opens too"
    );
}

#[test]
fn a_removed_name_keeps_its_record_for_a_while() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    let other = RecordId::of(&names(&["other.example.com"]));
    for id in [&id(), &other] {
        store.save(id, &record("key")).unwrap();
        store.save(id, &record("key")).unwrap();
    }
    let now = OffsetDateTime::now_utc();
    let forget =
        |used: &[RecordId], days| store.forget_after(used, Duration::days(30), now + Duration::days(days));
    assert_eq!(forget(std::slice::from_ref(&other), 0).unwrap(), []);
    assert_eq!(forget(std::slice::from_ref(&other), 29).unwrap(), []);
    // Named again, its time begins anew.
    assert_eq!(forget(&[other.clone(), id()], 29).unwrap(), []);
    assert_eq!(forget(std::slice::from_ref(&other), 31).unwrap(), []);
    let lock = store.lock(&id()).unwrap().unwrap();
    assert_eq!(forget(std::slice::from_ref(&other), 61).unwrap(), [], "an order is under way");
    drop(lock);
    assert_eq!(forget(std::slice::from_ref(&other), 61).unwrap(), [id()]);
    assert_eq!(store.load(&id()).unwrap(), None);
    assert_eq!(store.list().unwrap(), [other]);
    let left = fs::read_dir(folder.path().join("acme/certificates")).unwrap().count();
    assert_eq!(left, 2, "the other record, and its previous generation");
}

#[test]
fn a_lock_is_one_edges_and_dies_with_it() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    let own = store.lock(&id()).unwrap().unwrap();
    assert!(store.lock(&id()).unwrap().is_none());
    drop(own);
    let (mut child, mut lines) = start("hold", folder.path());
    assert_eq!(lines.next().unwrap(), "held");
    assert!(store.lock(&id()).unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(store.lock(&id()).unwrap().is_some());
}

#[test]
fn two_edges_that_race_hold_one_lock() {
    let folder = TempDir::new().unwrap();
    open(folder.path());
    let mut edges: Vec<_> = (0..4).map(|_| start("count", folder.path())).collect();
    for (child, lines) in &mut edges {
        assert!(lines.by_ref().any(|line| line == "counted"));
        assert!(child.wait().unwrap().success());
    }
    let store = open(folder.path());
    assert_eq!(store.load(&id()).unwrap().unwrap().retry.failures, 4 * COUNTED, "no step was lost");
}

#[test]
fn a_process_that_is_killed_leaves_a_whole_record() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    store.save(&id(), &record("before")).unwrap();
    for round in 0..10 {
        let (mut child, mut lines) = start("save", folder.path());
        let mut written = 0;
        for line in lines.by_ref().take(3 + round * 7) {
            written = line.parse().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let kept = store.load(&id()).unwrap().unwrap();
        assert!(
            kept.retry.failures >= written,
            "{} after {written} was told to be written",
            kept.retry.failures
        );
        assert_eq!(set_aside(folder.path()), 0);
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_found_beforehand() {
    let folder = TempDir::new().unwrap();
    let script = format!("mount -t tmpfs -o size=1m none {} && exec \"$0\" \"$@\"", folder.path().display());
    let mut command = Command::new("unshare");
    command.args(["-Urm", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
    let (mut child, lines) = spawn(command, "fill", folder.path());
    let told: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{told:?}");
    assert!(told.iter().any(|line| line == "filled"), "{told:?}");
}

#[test]
fn a_look_needs_no_key_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let store = sealed(folder.path(), 0x80).unwrap();
    assert_eq!(look(folder.path(), &id()).unwrap(), None);
    for key in ["one", "two"] {
        store.save(&id(), &record(key)).unwrap();
    }
    let seen = look(folder.path(), &id()).unwrap().unwrap();
    assert_eq!((seen.names, seen.history), (record("").names, record("").history));
    assert_eq!(seen.bundle.unwrap().key_pem.expose(), "");
    fs::write(file(folder.path()), "damaged").unwrap();
    let before = everything(folder.path());
    assert!(look(folder.path(), &id()).unwrap().is_some());
    assert_eq!(everything(folder.path()), before);
}

/// How often each of the racing edges counts.
const COUNTED: u32 = 25;

/// What the other processes do. Run as a test of its own, it does nothing.
#[test]
fn another_process() {
    let (Ok(task), Ok(place)) = (std::env::var(TASK), std::env::var(PLACE)) else { return };
    let store = open(Path::new(&place));
    match task.as_str() {
        "hold" => {
            let _lock = store.lock(&id()).unwrap().unwrap();
            eprintln!("held");
            std::thread::park();
        }
        "count" => {
            for _ in 0..COUNTED {
                count(&store);
            }
            eprintln!("counted");
        }
        "save" => {
            for step in store.load(&id()).unwrap().unwrap().retry.failures.. {
                let mut next = record(&step.to_string().repeat(1000));
                next.retry.failures = step;
                store.save(&id(), &next).unwrap();
                eprintln!("{step}");
            }
        }
        "fill" => fill(&store, Path::new(&place)),
        other => panic!("{other}"),
    }
}

fn count(store: &Store) {
    loop {
        let Some(_lock) = store.lock(&id()).unwrap() else {
            std::thread::yield_now();
            continue;
        };
        let mut record = store.load(&id()).unwrap().unwrap_or_else(|| record("key"));
        record.retry.failures += 1;
        store.save(&id(), &record).unwrap();
        return;
    }
}

fn fill(store: &Store, place: &Path) {
    assert!(
        store.warnings().iter().any(|warning| warning.contains("lies in memory")),
        "{:?}",
        store.warnings()
    );
    store.save(&id(), &record("before")).unwrap();
    store.probe().unwrap();
    let ballast = place.join("ballast");
    assert!(fs::write(&ballast, vec![7; 4 << 20]).is_err());
    assert!(store.probe().unwrap_err().to_string().contains("No space left"));
    let error = store.save(&id(), &record(&"after".repeat(10_000))).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(store.load(&id()).unwrap(), Some(record("before")));
    fs::remove_file(ballast).unwrap();
    store.save(&id(), &record("after")).unwrap();
    assert_eq!(store.load(&id()).unwrap(), Some(record("after")));
    let drafts = fs::read_dir(place.join("acme/certificates")).unwrap();
    assert!(
        !drafts.into_iter().any(|entry| entry.unwrap().path().extension().is_some_and(|end| end == "draft"))
    );
    eprintln!("filled");
}

type Lines = Box<dyn Iterator<Item = String>>;

/// This binary again, with one task, and what it says.
fn start(task: &str, place: &Path) -> (Child, Lines) {
    spawn(Command::new(std::env::current_exe().unwrap()), task, place)
}

fn spawn(mut command: Command, task: &str, place: &Path) -> (Child, Lines) {
    command.args(["--exact", "store::another_process", "--nocapture"]).env(TASK, task).env(PLACE, place);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    (child, Box::new(lines))
}
