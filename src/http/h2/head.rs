//! Heads between HTTP/2's form and the edge's own.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::fault::Fault;
use crate::http::forward::is_hop;
use crate::http::request::{Authority, Protocol, Request, Scheme, expects_continue};
use crate::upstream::Answer;
use crate::wire::Known;
use crate::wire::head::{Field, MAX_LINES, MAX_TARGET, Version};
use crate::wire::octets::is_target;
use crate::wire::{Framing, Head, framing};

/// Reads a request's head. The `h2` crate has refused what RFC 9113 section 8.2 and 8.3 call malformed; what is left to see
/// is what only a translator to HTTP/1.1 must see.
pub(super) fn read(parts: &Parts, bodiless: bool) -> Result<Request, Fault> {
    let mut head = Head::default();
    copy_fields(&parts.headers, &mut head)?;
    let text = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if text.len() > MAX_TARGET {
        return Err(Fault::TargetTooLong);
    }
    if !is_target(text.as_bytes())
        || !(text.starts_with('/') || text == "*" && parts.method == Method::OPTIONS)
    {
        return Err(Fault::BadRequest("the path is malformed"));
    }
    let target = head.add(text.as_bytes());
    let authority = authority(parts, &mut head)?;
    let framing = framing_of(&head, bodiless)?;
    let expects_continue = expects_continue(&head, Version::Http11)? && !bodiless;
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    Ok(Request {
        method: parts.method.clone(),
        protocol: Protocol::Http2,
        target,
        scheme: scheme(parts)?,
        authority: Some(authority),
        framing,
        expects_continue,
        websocket: protocol.is_some_and(|protocol| protocol.as_str() == "websocket"),
        head,
    })
}

/// The field lines of an answer. What HTTP/1 says of its connection was taken off before.
pub(super) fn fields(head: &Head) -> HeaderMap {
    map(head.fields())
}

/// The field lines of an interim answer or of trailers, without what HTTP/1 says of its connection.
pub(super) fn passing_fields(head: &Head) -> HeaderMap {
    map(head.fields().filter(|field| !is_hop(field.known)))
}

fn map<'a>(fields: impl Iterator<Item = Field<'a>>) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(16);
    for field in fields {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value))
        {
            map.append(name, value);
        }
    }
    map
}

/// An interim answer.
pub(super) fn interim(answer: &Answer) -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = answer.status;
    *response.headers_mut() = passing_fields(&answer.head);
    response
}

/// The fields in their order, the crumbs of Cookie as one line (RFC 9113 section 8.2.3).
fn copy_fields(fields: &HeaderMap, head: &mut Head) -> Result<(), Fault> {
    if fields.len() > MAX_LINES {
        return Err(Fault::HeadTooLarge);
    }
    for (name, value) in fields {
        let value = value.as_bytes();
        if value.first().is_some_and(u8::is_ascii_whitespace)
            || value.last().is_some_and(u8::is_ascii_whitespace)
        {
            return Err(Fault::BadRequest("a field value has white space around it"));
        }
        if name != http::header::COOKIE {
            head.push(name.as_str().as_bytes(), value);
        }
    }
    let crumbs = fields.get_all(http::header::COOKIE).iter().map(HeaderValue::as_bytes);
    let crumbs: Vec<&[u8]> = crumbs.filter(|crumb| !crumb.is_empty()).collect();
    if !crumbs.is_empty() {
        head.push(b"cookie", &crumbs.join(&b"; "[..]));
    }
    Ok(())
}

/// `:authority`, else Host; where both are there, they must be the same (RFC 9113 section 8.3.1).
fn authority(parts: &Parts, head: &mut Head) -> Result<Authority, Fault> {
    let host = head.single(Known::Host).map_err(|_| Fault::BadRequest("Host stands more than once"))?;
    let asked = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let text = match (asked, host) {
        (Some(asked), Some(host)) if !asked.eq_ignore_ascii_case(host) => {
            return Err(Fault::BadRequest(":authority and Host differ"));
        }
        (Some(text), _) | (None, Some(text)) => text.to_vec(),
        (None, None) => return Err(Fault::BadRequest(":authority is missing")),
    };
    let span = head.add(&text);
    Authority::parse(head, span)
}

fn scheme(parts: &Parts) -> Result<Option<Scheme>, Fault> {
    match parts.uri.scheme_str() {
        Some("https") => Ok(Some(Scheme::Https)),
        Some("http") => Ok(Some(Scheme::Http)),
        // CONNECT has none (RFC 9113 section 8.5), and `h2` drops it where Host stands for `:authority`.
        None => Ok(None),
        _ => Err(Fault::BadRequest(":scheme is neither http nor https")),
    }
}

fn framing_of(head: &Head, bodiless: bool) -> Result<Framing, Fault> {
    match framing::content_length(head).map_err(Fault::BadRequest)? {
        _ if bodiless => Ok(Framing::None),
        // A length of 0 on a stream that is still open is no end yet: data that breaks it may follow.
        None | Some(0) => Ok(Framing::Chunked),
        Some(length) => Ok(Framing::Length(length)),
    }
}
