//! The answers of the edge's own: every fault ends here.

use bytes::Bytes;
use http::{Method, StatusCode};

use super::exchange::Exchange;
use super::response::{Payload, Response};
use crate::fault::Fault;
use crate::limit::rate::Over;
use crate::route::Page;
use crate::wire::{Head, Known};

/// What a client is told to wait before it tries again, in seconds.
const RETRY_AFTER: &[u8] = b"5";
/// The same, of a site in maintenance.
const AFTER_MAINTENANCE: &[u8] = b"60";

/// The answer that a fault earns: the site's own page, else a small one or JSON, by Accept, with the request's id and no
/// word about the software.
pub(super) fn fault(exchange: &mut Exchange, fault: Fault) -> Response {
    let (status, close) = (fault.status(), fault.closes());
    let json = exchange.request.as_ref().is_some_and(|request| prefers_json(&request.head));
    let own_page = own_page(exchange, &fault).filter(|page| !json || page.is_json());
    let (kind, body) = match own_page {
        Some(page) => (page.content_type, page.render(status, &exchange.id)),
        None if json => ("application/json", json_page(status, &exchange.id)),
        None => ("text/html; charset=utf-8", html_page(status, &exchange.id)),
    };
    let mut head = Head::default();
    head.push(b"content-type", kind.as_bytes());
    head.push(b"cache-control", b"no-store");
    match &fault {
        Fault::Stranger { challenge } => head.push(b"www-authenticate", challenge.as_bytes()),
        Fault::TooMany { wait } => {
            let seconds = Over(*wait).seconds();
            head.push(b"retry-after", itoa::Buffer::new().format(seconds).as_bytes());
        }
        Fault::Maintenance => head.push(b"retry-after", AFTER_MAINTENANCE),
        Fault::Unavailable(_) | Fault::Busy(_) | Fault::NoRoom | Fault::Down { .. } => {
            head.push(b"retry-after", RETRY_AFTER);
        }
        Fault::ReadOnly => head.push(b"allow", b"GET, HEAD"),
        Fault::MethodNotAllowed => head.push(b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        _ => {}
    }
    exchange.fault = Some(fault);
    exchange.status = status.as_u16();
    own(exchange, status, head, body, close)
}

/// What the site has for such a case. Before a site is found there is none.
fn own_page<'e>(exchange: &'e Exchange, fault: &Fault) -> Option<&'e Page> {
    let pages = &exchange.site.as_ref()?.pages;
    let page = match fault {
        Fault::Maintenance => pages.maintenance(),
        other => pages.status(other.status()),
    };
    page.map(|page| &**page)
}

/// A redirect to an absolute URL or to a path of the same host.
pub(super) fn redirect(exchange: &Exchange, status: StatusCode, location: &[u8]) -> Response {
    let mut head = Head::default();
    head.push(b"location", location);
    own(exchange, status, head, Bytes::new(), false)
}

/// What an HTTP-01 challenge is answered (RFC 8555 section 8.3).
pub(super) fn key_authorization(exchange: &Exchange, answer: &str) -> Response {
    let mut head = Head::default();
    head.push(b"content-type", b"application/octet-stream");
    own(exchange, StatusCode::OK, head, Bytes::copy_from_slice(answer.as_bytes()), false)
}

fn own(exchange: &Exchange, status: StatusCode, mut head: Head, body: Bytes, close: bool) -> Response {
    head.push(b"x-request-id", exchange.id.as_bytes());
    head.push(b"date", exchange.worker.clock.http_date().as_bytes());
    let length = Some(body.len() as u64);
    let asked_for_head = exchange.request.as_ref().is_some_and(|request| request.method == Method::HEAD);
    let payload = if asked_for_head || body.is_empty() { Payload::Empty } else { Payload::Full(body) };
    Response { status, head, length, payload, close }
}

/// JSON where Accept names it and does not name HTML; a browser names HTML.
fn prefers_json(head: &Head) -> bool {
    let names = |kind: &[u8]| {
        head.all(Known::Accept).any(|value| memchr::memmem::find(&value.to_ascii_lowercase(), kind).is_some())
    };
    names(b"json") && !names(b"text/html")
}

fn html_page(status: StatusCode, id: &str) -> Bytes {
    let (code, title) = (status.as_str(), title(status));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{code} {title}</title>\n\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem;\
         color-scheme:light dark}}code{{color:GrayText}}</style>\n\
         <h1>{title}</h1>\n<p>{}</p>\n<p><code>{code} · {id}</code></p>\n</html>\n",
        advice(status)
    )
    .into()
}

fn json_page(status: StatusCode, id: &str) -> Bytes {
    format!("{{\"status\":{},\"error\":\"{}\",\"request_id\":\"{id}\"}}\n", status.as_str(), title(status))
        .into()
}

fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "The request could not be understood.",
        401 => "A user name and a password are needed here.",
        403 => "This address may not see this page.",
        404 => "There is nothing here.",
        405 => "The method is not served here.",
        408 => "The request took too long to arrive.",
        413 => "What was sent is larger than this site takes.",
        414 => "The address is too long.",
        417 => "The request expects what cannot be promised.",
        421 => "This site is not served on this connection.",
        429 => "There were too many requests from here. Please wait a moment.",
        431 => "The request carries too much besides its content.",
        501 | 505 => "The request is written in a way that is not supported.",
        502 => "The site gave no answer that could be passed on. Please try again.",
        503 => "The site is busy. Please try again in a moment.",
        507 => "There is no room for what was sent. Please try again later.",
        504 => "The site took too long to answer. Please try again.",
        _ => "Something went wrong. Please try again.",
    }
}
