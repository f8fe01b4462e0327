//! Heads: a browser's request read and rewritten for its upstream, Django's answer read, and the least of both.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vestibule::addr::ClientAddr;
use vestibule::http::rewrite;
use vestibule::wire::Head;
use vestibule::wire::head::Scanner;

/// What a browser sends, with forwarding headers that somebody forged.
const BROWSER: &str = "GET /accounts/profile/?tab=orders&page=2 HTTP/1.1\r
Host: app.example.com\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r
Accept-Language: en-GB,en;q=0.5\r
Accept-Encoding: gzip, deflate, br, zstd\r
Referer: https://app.example.com/accounts/\r
Connection: keep-alive\r
Cookie: csrftoken=q3hVJ0m5l1x0kRk3Yk8v2dQz7cUe9nWb; sessionid=8n2v5k1m0q7r4t6y9u3i5o8p1a4s7d0f\r
X-Forwarded-For: 6.6.6.6\r
X_Real_IP: 6.6.6.6\r
Upgrade-Insecure-Requests: 1\r
Sec-Fetch-Dest: document\r
Sec-Fetch-Mode: navigate\r
Sec-Fetch-Site: same-origin\r
Sec-Fetch-User: ?1\r
Priority: u=0, i\r
\r
";

const LEAST: &str = "GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n";

/// What Django answers.
const ANSWER: &str = "HTTP/1.1 200 OK\r
Server: gunicorn\r
Date: Sun, 06 Nov 1994 08:49:37 GMT\r
Connection: keep-alive\r
Content-Type: text/html; charset=utf-8\r
X-Frame-Options: DENY\r
Vary: Cookie, Accept-Language\r
Content-Language: en\r
Content-Length: 1024\r
X-Content-Type-Options: nosniff\r
Referrer-Policy: same-origin\r
Cross-Origin-Opener-Policy: same-origin\r
Set-Cookie: csrftoken=q3hVJ0m5l1x0kRk3Yk8v2dQz7cUe9nWb; Path=/; SameSite=Lax; Secure\r
\r
";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("headers");
    let client = ClientAddr::new([203, 0, 113, 7].into());
    for (name, text) in [("browser", BROWSER), ("least", LEAST)] {
        assert!(rewrite(text.as_bytes(), client, "").is_ok(), "{name} is refused");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("read {name}"), |bencher| {
            let mut head = Head::default();
            bencher.iter(|| head.parse_request(black_box(text.as_bytes())).is_ok());
        });
        group.bench_function(format!("rewrite {name}"), |bencher| {
            bencher.iter(|| {
                rewrite(black_box(text.as_bytes()), client, "00112233445566778899aabbccddeeff").is_ok()
            });
        });
    }
    group.throughput(Throughput::Bytes(ANSWER.len() as u64));
    group.bench_function("read answer", |bencher| {
        let mut head = Head::default();
        bencher.iter(|| head.parse_response(black_box(ANSWER.as_bytes())).is_ok());
    });
    group.bench_function("find the end", |bencher| {
        bencher.iter(|| Scanner::default().find_end(black_box(BROWSER.as_bytes())).is_ok());
    });
    group.finish();
}

criterion_group!(benches, heads);
criterion_main!(benches);
