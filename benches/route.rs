//! Host to site, path to route: flat from ten sites to ten thousand.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vestibule::config;
use vestibule::config::model::RowId;
use vestibule::route::{Table, normalize};

/// Sites of Django projects, with the routes that such sites have.
#[allow(clippy::panic, reason = "a bench that cannot begin says why")]
fn table(sites: usize) -> Table {
    let mut text = "[sources]\noffice = [\"192.0.2.0/24\"]\n".to_owned();
    for index in 0..sites {
        let _ = writeln!(
            text,
            r#"
            [[site]]
            domains = ["app-{index}.example.com", "*.tenants-{index}.example.com"]
            upstream = "django-{index}:8000"
            certificate = "internal"
            [[site.route]]
            path = "/admin/"
            allow = ["office"]
            [[site.route]]
            path = "/ws/"
            upstream = "channels-{index}:9000"
            [[site.route]]
            path = "= /healthz"
            allow = ["office"]
            "#
        );
    }
    let loaded = config::parse(text, Path::new("bench.toml")).unwrap_or_else(|problems| panic!("{problems}"));
    Table::build(&loaded.config, Vec::new(), None, None)
}

fn sites(c: &mut Criterion) {
    let mut group = c.benchmark_group("site and route");
    for count in [10, 1_000, 10_000] {
        let table = table(count);
        let row = RowId(0);
        let last = count - 1;
        for (what, host) in [
            ("exact", format!("app-{last}.example.com")),
            ("wildcard", format!("acme.tenants-{last}.example.com")),
        ] {
            group.bench_function(BenchmarkId::new(what, count), |b| {
                b.iter(|| {
                    let site = table.site(row, black_box(&host))?;
                    site.route(black_box(b"/articles/2026/a-title/")).map(|route| route.body.octets)
                });
            });
        }
        group.bench_function(BenchmarkId::new("unknown", count), |b| {
            b.iter(|| table.site(row, black_box("nobody.example.org")).is_some());
        });
    }
    group.finish();
}

fn paths(c: &mut Criterion) {
    let mut group = c.benchmark_group("normalize");
    for (what, path) in [
        ("plain", &b"/articles/2026/a-title/"[..]),
        ("long", &b"/static/admin/css/vendor/select2/select2.min.4f6d7a0c1b2e.css"[..]),
        ("encoded", &b"/articles/b%C3%BCcher%20und%20mehr/"[..]),
    ] {
        group.bench_function(what, |b| b.iter(|| normalize(black_box(path)).map(|path| path.len())));
    }
    group.finish();
}

criterion_group!(benches, sites, paths);
criterion_main!(benches);
