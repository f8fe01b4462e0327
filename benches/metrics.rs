//! What counting adds to a request.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use vestibule::observe::metrics::{Labels, Measured, Metrics};

fn counting(c: &mut Criterion) {
    let meter = Metrics::default().meter();
    let mut labels = Labels::default();
    let series: Vec<_> =
        (0..1000).map(|site| labels.series(&format!("app-{site}.example.com"), "/")).collect();
    let measured = |series| Measured {
        series,
        status: 200,
        total: Some(Duration::from_micros(7_300)),
        first_byte: Some(Duration::from_micros(6_900)),
        sent: 1024,
        ..Measured::default()
    };
    for (what, routes) in [("one route", 1), ("a thousand routes", series.len())] {
        let mut turn = series.iter().take(routes).cycle();
        c.bench_function(what, |b| {
            b.iter(|| {
                meter.begin();
                meter.end(black_box(&measured(turn.next().copied().unwrap_or_default())));
            });
        });
    }
}

criterion_group!(benches, counting);
criterion_main!(benches);
