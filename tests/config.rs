//! The configuration: every malformed file of `tests/config/` gives its expected message, the
//! examples load, and what is left out has its default.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::select;
use vestibule::cli::check;
use vestibule::config::model::{
    Action, AddressHeader, Certificate, Challenge, LogLevel, PathPattern, SecretSource, Serve, Target,
    TlsVersion,
};
use vestibule::config::schema;
use vestibule::config::{self, Loaded};

/// Set, it rewrites the expected messages instead of comparing them.
const UPDATE: &str = "UPDATE_EXPECTED";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn load(name: &str, text: &str) -> Loaded {
    config::parse(text.to_owned(), Path::new(name)).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The smallest file around some more of it.
fn with(more: &str) -> Loaded {
    let site =
        "[[site]]\ndomains = ['app.example.com']\nupstream = 'django:8000'\ncertificate = 'internal'\n";
    load("edge.toml", &format!("{more}\n{site}"))
}

/// What each malformed file must be told, as a terminal shows it; file names are relative to the repository.
#[test]
fn malformed_files_give_their_expected_messages() {
    let folder = Path::new("tests/config");
    let cases = files(&root().join(folder), "toml");
    assert!(cases.len() >= 60, "{} cases are left of at least 60", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| compare(case, folder)).collect();
    assert!(wrong.is_empty(), "{}\n{} of {} differ", wrong.join("\n"), wrong.len(), cases.len());
}

/// A difference, or None.
fn compare(case: &Path, folder: &Path) -> Option<String> {
    let shown = folder.join(case.file_name().unwrap());
    let text = fs::read_to_string(case).unwrap();
    let got = match config::parse(text, &shown) {
        Ok(_) => "in order\n".to_owned(),
        Err(problems) => problems.to_string(),
    };
    let path = case.with_extension("txt");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &got).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    (got != expected || got == "in order\n")
        .then(|| format!("── {} ──\n{}", shown.display(), diff(&expected, &got)))
}

fn diff(expected: &str, got: &str) -> String {
    let (expected, got): (Vec<_>, Vec<_>) = (expected.lines().collect(), got.lines().collect());
    let mut out = String::new();
    for index in 0..expected.len().max(got.len()) {
        let (old, new) = (expected.get(index), got.get(index));
        if old == new {
            out.extend(new.map(|line| format!("  {line}\n")));
        } else {
            out.extend(old.map(|line| format!("- {line}\n")));
            out.extend(new.map(|line| format!("+ {line}\n")));
        }
    }
    out
}

#[test]
fn every_example_loads() {
    let examples = files(&root().join("config"), "toml");
    assert!(!examples.is_empty());
    for example in examples {
        config::load(&example).unwrap_or_else(|problems| panic!("{problems}"));
    }
}

#[test]
fn rows_that_pass_on_need_no_site() {
    let office = "[sources]\noffice = ['203.0.113.0/24']\n[ports]\n";
    for rows in [
        "5432 = { forward = 'db:5432', allow = ['office'] }",
        "22 = { host = true, allow = ['office'] }",
        "6380 = { forward = 'redis:6379', allow = ['office'], tls = 'redis.example.com', certificate = 'internal' }",
        "6380 = { forward = 'redis:6379', allow = ['office'], tls = 'redis.example.com' }
         80 = { serve = 'http', allow = ['public'] }",
    ] {
        let loaded = load("edge.toml", &format!("{office}{rows}\n"));
        assert!(loaded.config.sites.is_empty(), "{rows}");
        assert!(!loaded.warning_text().contains("site"), "{}", loaded.warning_text());
    }
}

#[test]
fn the_smallest_file_has_the_defaults_of_the_product() {
    let loaded = with("");
    let config = &loaded.config;
    let rows: Vec<_> =
        config.rows.iter().map(|row| (row.bind.to_string(), row.serve().unwrap(), row.backlog)).collect();
    assert_eq!(rows, [("80".into(), Serve::Http, 4096), ("443".into(), Serve::Https, 4096)]);
    let site = &config.sites[0];
    assert_eq!((site.rows.len(), site.routes.len(), site.hsts), (2, 1, None));
    assert_eq!(site.certificate, Certificate::Internal);
    let acme = &config.acme;
    assert_eq!((acme.cas.len(), acme.cas[0].name.as_str(), &acme.email), (1, "letsencrypt", &None));
    assert_eq!(acme.cas[0].directory, "https://acme-v02.api.letsencrypt.org/directory");
    assert!(acme.cas[0].staging.is_some() && acme.challenge.is_none() && acme.ca_root.is_none());
    assert_eq!(acme.import.as_deref(), Some(Path::new("/etc/letsencrypt")));
    assert!(config.store.key.is_none());
    assert_eq!((config.limits.connections, config.limits.body), (20_000, 64 << 20));
    assert_eq!(config.limits.idle_timeout.as_secs(), 75);
    assert_eq!(config.store.path, Path::new("certs"));
    assert_eq!((config.log.level, config.process.grace.as_secs()), (LogLevel::Info, 30));
    assert!(config.process.workers > 0);
    assert!(config.client_address.is_none());
}

#[test]
fn a_ca_is_chosen_with_all_that_belongs_to_it() {
    let loaded = load(
        "conf/edge.toml",
        r#"
        [acme]
        email = "ops@example.com"
        directory = "zerossl"
        eab = { key_id = "kid", hmac = { file = "secret/eab" } }
        fallback = [{ directory = "https://ca.example/directory", profile = "tlsserver" }]
        challenge = "tls-alpn-01"
        ca_root = "ca.pem"
        import = false
        [store]
        key = { env = "STORE_KEY" }
        [[site]]
        domains = ["app.example.com"]
        upstream = "django:8000"
        "#,
    );
    let config = &loaded.config;
    assert_eq!(config.sites[0].certificate, Certificate::Acme);
    let [first, second] = config.acme.cas.as_slice() else { panic!("{:?}", config.acme) };
    assert_eq!(first.directory, "https://acme.zerossl.com/v2/DV90");
    let eab = first.eab.as_ref().unwrap();
    assert_eq!(
        (eab.key_id.as_str(), &eab.hmac.source),
        ("kid", &SecretSource::File("conf/secret/eab".into()))
    );
    assert_eq!((second.profile.as_deref(), &second.staging), (Some("tlsserver"), &None));
    assert_eq!(config.acme.challenge, Some(Challenge::TlsAlpn01));
    assert_eq!(
        (config.acme.ca_root.as_deref(), &config.acme.import),
        (Some(Path::new("conf/ca.pem")), &None)
    );
    assert_eq!(config.store.key.as_ref().unwrap().source, SecretSource::Env("STORE_KEY".into()));
}

#[test]
fn line_ends_and_a_byte_order_mark_are_no_matter() {
    let text = "\u{feff}[ports.443]\r\nserve = 'https'\r\nallow = ['public']\r\n[[site]]\r\n\
                domains = ['a.example']\r\nupstream = 'a:80'\r\ncertificate = 'internal'\r\n";
    assert_eq!(load("edge.toml", text).config.rows.len(), 1);
}

#[test]
fn a_site_says_what_is_not_the_default() {
    let loaded = load(
        "conf/edge.toml",
        r#"
        [tls]
        min_version = "1.3"
        client_ca = "ca/clients.pem"
        [[site]]
        domains = ["*.Tenants.example.com", "bücher.example"]
        redirect = ["www.example.com"]
        upstream = ["unix:/run/a.sock", "https://[2001:db8::1]"]
        certificate = { cert = "app.pem", key = "/keys/app.key" }
        hsts = "30d"
        body = "1MiB"
        [site.proxy]
        response_timeout = "5m"
        [[site.route]]
        path = "/caf%C3%A9/"
        body = "1GiB"
        [[site.route]]
        path = "= /old"
        redirect = { to = "https://example.com/new", status = 301 }
        [client_address]
        trusted = ["lb"]
        header = "forwarded"
        [sources]
        lb = ["198.51.100.7"]
        "#,
    );
    let site = &loaded.config.sites[0];
    let names: Vec<String> = site.domains.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["*.tenants.example.com", "xn--bcher-kva.example"]);
    let files = Certificate::Files { cert: "conf/app.pem".into(), key: "/keys/app.key".into() };
    assert_eq!(
        (&site.certificate, site.client_ca.as_deref()),
        (&files, Some(Path::new("conf/ca/clients.pem")))
    );
    assert_eq!(&loaded.source.text[site.certificate_place.span.clone()][..8], "{ cert =");
    assert_eq!(site.hsts.map(|age| age.as_secs()), Some(30 * 86_400));
    let paths: Vec<_> = site.routes.iter().map(|route| (&route.path, route.body.octets)).collect();
    let [prefix, exact, rest] = [
        PathPattern::Prefix("/café/".into()),
        PathPattern::Exact("/old".into()),
        PathPattern::Prefix("/".into()),
    ];
    assert_eq!(paths, [(&prefix, 1 << 30), (&exact, 1 << 20), (&rest, 1 << 20)]);
    let Action::Proxy(proxy) = &site.routes[0].action else { panic!("{:?}", site.routes[0]) };
    assert_eq!(proxy.targets[1], Target::Tcp { host: "2001:db8::1".into(), port: 443, tls: true });
    assert_eq!((proxy.connect_timeout.as_secs(), proxy.response_timeout.as_secs()), (2, 300));
    assert_eq!(loaded.config.tls.min_version, TlsVersion::V1_3);
    assert_eq!(loaded.config.client_address.unwrap().header, AddressHeader::Forwarded);
}

#[test]
fn what_works_and_is_likely_not_meant_is_warned_of() {
    let loaded = with(
        "[sources]\noffice = ['203.0.113.0/24']\n[ports]\n443 = { serve = 'https', allow = ['public'] }\n\
         '127.0.0.1:8443' = { serve = 'https', allow = ['public'] }\n[[site]]\ndomains = ['a.example']\n\
         upstream = 'a:80'\ncertificate = 'internal'\nports = [443]\nhsts = '1d'\n[[site.route]]\npath = '/admin'\n\
         [[site]]\ndomains = ['b.example']\ncertificate = 'internal'\n[[site.route]]\npath = '/private/'\n\
         files = '/srv'\ninternal = true\n\
         [[site]]\ndomains = ['c.example.com', 'c.localhost']\nupstream = 'c:80'\n",
    );
    let warnings = loaded.warning_text();
    for warning in [
        "warning: nothing names the source `office`\n --> edge.toml:2:1  (sources.office)\n",
        "warning: Strict-Transport-Security on a site with the edge's own CA\n --> edge.toml:11:8  (site[0].hsts)\n",
        "warning: nothing leads to this route: the site has no upstream\n --> edge.toml:20:12  (site[1].route[0].internal)\n",
        "warning: no public CA issues for \"c.localhost\"\n --> edge.toml:22:29  (site[2].domains[1])\n",
        "warning: this also matches \"/admin-and-more\"\n --> edge.toml:13:8  (site[0].route[0].path)\n",
    ] {
        assert!(warnings.contains(warning), "{warnings}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_too() {
    let folder = tempfile::tempdir().unwrap();
    let latin = folder.path().join("latin.toml");
    fs::write(&latin, b"# caf\n# caf\xe9\n").unwrap();
    for (path, message) in [
        (folder.path().join("nowhere.toml"), "the file cannot be read: No such file"),
        (folder.path().to_owned(), "the file cannot be read: Is a directory"),
        (latin, "the file is not UTF-8: line 2"),
    ] {
        let problems = config::load(&path).unwrap_err().to_string();
        assert!(problems.starts_with(&format!("error: {message}")), "{problems}");
        assert!(problems.contains(&format!(" --> {}\n", path.display())), "{problems}");
    }
}

#[test]
fn a_million_addresses_are_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<String> =
        (0..1_000_000).map(|i| format!("10.{}.{}.{}\n", i >> 16, i >> 8 & 255, i & 255)).collect();
    fs::write(folder.path().join("abuse.txt"), rows.concat()).unwrap();
    let file = folder.path().join("edge.toml");
    let text = "[sources]\nabuse = { file = 'abuse.txt' }\n[ports]\n\
                443 = { serve = 'https', allow = ['public'], deny = ['abuse'] }\n\
                [[site]]\ndomains = ['app.example.com']\nupstream = 'django:8000'\ncertificate = 'internal'\n";
    fs::write(&file, text).unwrap();
    let loaded = config::load(&file).unwrap();
    assert!(!loaded.config.sources[0].members.as_ref().unwrap().is_empty());
}

#[test]
fn check_shows_the_matrix_and_the_sites() {
    let shown = check::report(&config::load(Path::new("config/vestibule.toml")).unwrap());
    let expected = "\
FIREWALL (a port without a row is closed)

  port / source           public  internal  lb
  HTTP 80                 ✓       ✓         ✓
  HTTPS 443               ✓       ✓         ✓
  HTTPS 203.0.113.10:443          ✓
  HTTPS 8443              ✓       ✓         ✓
  PostgreSQL 5432                 ✓
  Redis 6380                      ✓
  SSH/SFTP 2222                   ✓
  SSH/SFTP 22                     ✓

  HTTPS 203.0.113.10:443 rules its own address, and 443 the rest
  HTTPS 8443 is reached through lb alone, with a PROXY header
  PostgreSQL 5432 goes to db:5432
  Redis 6380 goes to redis:6379, with TLS ended as redis.example.com (the edge's own CA)
  SSH/SFTP 2222 goes to git-1:22, git-2:22, behind a PROXY v2 header
  the client's address is believed from lb
  metrics and health are shown to this machine at 127.0.0.1:9180

SITE app.example.com, *.tenants.example.com
  redirected   www.app.example.com
  ports        80, 443, 8443
  certificate  config/app.pem
  key          config/app.key
  hsts         365d
  who          public
  rate         600 in 1m, 101 at once, by client
  routes       /admin/      internal  → django-1:8000, django-2:8000
               /login/      public    → django-1:8000, django-2:8000, 10 in 1m, 6 at once, by client
               /upload/     public    → django-1:8000, django-2:8000
               /static/     public    → files in /srv/static, hashed names cached for ever
               /media/      public    → files in /srv/media, sandboxed
               /protected/  public    → files in /srv/protected, through X-Accel-Redirect alone, sandboxed
               /ws/         public    → channels:9000
               = /old       public    → 308 to /new/
               /            public    → django-1:8000, django-2:8000

SITE tools.example.com
  ports        203.0.113.10:443
  certificate  internal (the edge's own CA)
  hsts         off
  who          public
  routes       /  public  → unix:/run/tools.sock

SITE shop.example.com
  redirected   www.shop.example.com
  ports        80, 443
  certificate  acme (letsencrypt)
  hsts         365d
  who          public
  routes       /  public  → shop:8000
";
    assert_eq!(shown, expected, "{}", diff(expected, &shown));
}

#[test]
fn a_secret_is_never_shown() {
    for line in [
        "[store]\nkey = 'hunter2'",
        "[store]\nkey = hunter2",
        "[store]\nkey = 'hunter2",
        "[store]\nkey = \"hunter2",
        "[store]\nkey = 'hunter2' x",
        "[store]\nkey = \"\"\"\nhunter2\n\"\"\"",
        "[store]\nkey = \"\"\"\nhunter2\n",
        "store = { key = 'hunter2', bad }",
        "store = { key = 'hunter2'",
        "store.key = 'hünter2 hunter2'",
        "[acme.eab]\nhmac = 'hunter2'",
        "[[acme.fallback]]\neab.hmac = 'hunter2'",
        "[[site]]\nupstream = 'https://django:hunter2@db'",
        "[[site]]\ncertificate = { cert = 'a', key = '-----BEGIN PRIVATE KEY----- hunter2' }",
    ] {
        let problems = config::parse(line.to_owned(), Path::new("edge.toml")).unwrap_err().to_string();
        assert!(problems.contains("a secret is never written in the file"), "{line}\n{problems}");
        assert!(!problems.contains("hunter2"), "{line}\n{problems}");
    }
}

#[test]
fn root_becomes_a_user_that_exists() {
    let text = "[process]\nuser = 'nobody-by-this-name'\n[[site]]\ndomains = ['a.example']\n\
                upstream = 'a:80'\ncertificate = 'internal'\n";
    let loaded = config::parse(text.to_owned(), Path::new("edge.toml"));
    if nix::unistd::geteuid().is_root() {
        let problems = loaded.unwrap_err().to_string();
        assert!(
            problems.starts_with("error: this machine has no user \"nobody-by-this-name\""),
            "{problems}"
        );
    } else {
        assert_eq!(loaded.unwrap().config.process.user.as_deref(), Some("nobody-by-this-name"));
    }
}

/// Words that a configuration is made of, in an order that nobody meant.
fn soup() -> impl Strategy<Value = String> {
    let marks = [
        "=", "[", "]", "[[", "]]", "{", "}", ",", "\n", "\"", "'", "\"\"\"", ".", "#", "\\", "é", "\u{0}",
        "0x", "-1",
    ];
    let values = [
        "\"public\"",
        "[\"public\"]",
        "\"https\"",
        "443",
        "\"[::1]:443\"",
        "\"10.0.0.0/8\"",
        "\"0.0.0.0/0\"",
        "\"acme\"",
        "\"internal\"",
        "\"unix:/a\"",
        "\"a:1\"",
        "\"30s\"",
        "\"64MiB\"",
        "true",
        "1.5",
        "1979-05-27",
        "{ to = \"/a/\" }",
        "\"= /%41\"",
    ];
    let headers = schema::TABLES.iter().map(|table| table.header);
    let keys = schema::TABLES.iter().flat_map(|table| table.keys).map(|key| key.name);
    let words: Vec<&str> = marks.into_iter().chain(values).chain(headers).chain(keys).collect();
    let line =
        (select(words.clone()), select(words.clone())).prop_map(|(key, value)| format!("{key} = {value}\n"));
    let word = select(words).prop_map(|word| format!("{word} "));
    prop::collection::vec(prop_oneof![3 => line, 1 => word], 0..40).prop_map(|parts| parts.concat())
}

/// The example with a piece of it replaced.
fn damaged() -> impl Strategy<Value = String> {
    let example = fs::read_to_string(root().join("config/vestibule.toml")).unwrap();
    (any::<prop::sample::Index>(), 0..40_usize, ".{0,10}").prop_map(move |(at, length, patch)| {
        let start = example.floor_char_boundary(at.index(example.len()));
        let end = example.floor_char_boundary((start + length).min(example.len()));
        format!("{}{patch}{}", &example[..start], &example[end.max(start)..])
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in prop_oneof![soup(), damaged(), any::<String>()]) {
        match config::parse(text, Path::new("edge.toml")) {
            Ok(loaded) => prop_assert!(check::report(&loaded).ends_with('\n')),
            Err(problems) => prop_assert!(problems.to_string().starts_with("error: ")),
        }
    }
}
