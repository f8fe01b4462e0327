//! Answers are compressed for clients that take it, where the site or the route asks for that.
//!
//! What is compressed is another representation of the same thing (RFC 9110 section 8.4): its entity tag is a weak one, Vary
//! says that Accept-Encoding chose it, and parts of it cannot be asked for.
//!
//! BREACH (2013): who can make a browser send requests with a secret's guess in them, and sees how long the compressed
//! answers are, learns the secret. So nothing is compressed unless the configuration says so, and never for what the page of
//! another site makes a browser fetch with its cookies. Random padding is no remedy: it is averaged away.

mod encoder;
mod stream;

use http::StatusCode;

pub(super) use encoder::Encoder;
pub(super) use stream::Compressed;

use super::exchange::Exchange;
use super::response::{Payload, Response};
use crate::config::model::Compress;
use crate::wire::coding::{self, Coding};
use crate::wire::head::members;
use crate::wire::{Head, Known};

/// Fields that say what the octets of the content are: with them it stays as it is (RFC 9530, RFC 1864, RFC 9110 section
/// 14.4), and so it does with trailers, which may say the same of it.
const ABOUT_OCTETS: [&[u8]; 6] =
    [b"content-digest", b"repr-digest", b"digest", b"content-md5", b"content-range", b"trailer"];

/// Compresses an answer, or says in Vary that it would be for others.
pub(super) fn compress(exchange: &Exchange, rules: &Compress, response: &mut Response) {
    let Some(request) = &exchange.request else { return };
    if response.status == StatusCode::NOT_MODIFIED {
        return not_modified(&request.head, rules, &mut response.head);
    }
    if !is_meant(rules, response) {
        return;
    }
    vary(&mut response.head);
    let coding = coding::accepted(&request.head, coding::BY_WORK).into_iter().next();
    if let Some(coding) = coding.filter(|_| !is_another_sites_doing(&request.head)) {
        encode(coding, response);
    }
}

/// Whether the answer is such that clients which take it get it compressed.
fn is_meant(rules: &Compress, response: &Response) -> bool {
    let without = matches!(
        response.status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT
    );
    !without
        && !response.status.is_informational()
        && !matches!(response.payload, Payload::Tunnel(..) | Payload::Silence)
        && response.length.is_none_or(|length| length >= rules.min_size)
        && response.head.first(Known::ContentType).is_some_and(|kind| is_listed(rules, kind))
        && response.head.fields().all(|field| leaves_it_open(field.name, field.value))
}

/// Whether a media type, with its parameters, is one of those that gain.
fn is_listed(rules: &Compress, kind: &[u8]) -> bool {
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    !kind.eq_ignore_ascii_case(b"text/event-stream") && rules.types.iter().any(|listed| listed.matches(kind))
}

/// Whether a field lets the content be coded.
fn leaves_it_open(name: &[u8], value: &[u8]) -> bool {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    let all = |right: fn(&[u8]) -> bool| members(value).all(right);
    match name.first().map(u8::to_ascii_lowercase) {
        Some(b'c') if is(b"content-encoding") => all(|coding| coding.eq_ignore_ascii_case(b"identity")),
        Some(b'c') if is(b"cache-control") => all(|word| !word.eq_ignore_ascii_case(b"no-transform")),
        Some(b'c' | b'd' | b'r' | b't') => !ABOUT_OCTETS.iter().any(|other| is(other)),
        _ => true,
    }
}

/// Whether the page of another site makes the browser fetch this, with cookies, and without a person's click: what BREACH
/// takes (W3C Fetch Metadata).
fn is_another_sites_doing(head: &Head) -> bool {
    head.named("sec-fetch-site").any(|site| site == b"cross-site")
        && !head.named("sec-fetch-user").any(|user| user == b"?1")
        && head.first(Known::Cookie).is_some()
}

fn encode(coding: Coding, response: &mut Response) {
    // What HEAD is told is what GET would be.
    if !response.payload.is_empty() {
        match Encoder::new(coding, response.length) {
            Ok(encoder) => response.payload.compress(encoder),
            Err(error) => return tracing::error!(%error, "an answer is not compressed"),
        }
    }
    response.length = None;
    let tag = response.head.named("etag").next().map(<[u8]>::to_vec);
    response.head.retain(|_, name| {
        ![&b"etag"[..], b"accept-ranges", b"content-encoding"]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
    });
    response.head.push(b"content-encoding", coding.name().as_bytes());
    if let Some(tag) = tag {
        response.head.push(b"etag", &weak(tag));
    }
}

fn weak(tag: Vec<u8>) -> Vec<u8> {
    if tag.starts_with(b"W/") { tag } else { [b"W/", &tag[..]].concat() }
}

/// Adds Accept-Encoding to what an answer varies by.
fn vary(head: &mut Head) {
    let values: Vec<&[u8]> = head.named("vary").collect();
    let known = |name: &[u8]| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding");
    if values.iter().flat_map(|value| members(value)).any(known) {
        return;
    }
    let whole = values.into_iter().chain([&b"Accept-Encoding"[..]]).collect::<Vec<_>>().join(&b", "[..]);
    head.retain(|_, name| !name.eq_ignore_ascii_case(b"vary"));
    head.push(b"vary", &whole);
}

/// A 304 says what the 200 would have said (RFC 9110 section 15.4.5). Whether that would have been compressed, the client's
/// own tag shows: it is the weak form of the upstream's where the edge has made it so.
fn not_modified(asked: &Head, rules: &Compress, head: &mut Head) {
    if head.first(Known::ContentType).is_some_and(|kind| !is_listed(rules, kind)) {
        return;
    }
    vary(head);
    let Some(tag) = head.named("etag").next().map(<[u8]>::to_vec) else { return };
    let weak = weak(tag);
    if asked.named("if-none-match").any(|list| memchr::memmem::find(list, &weak).is_some()) {
        head.retain(|_, name| !name.eq_ignore_ascii_case(b"etag"));
        head.push(b"etag", &weak);
    }
}
