//! One request for a file, and its answer.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;

use super::accel::Told;
use super::conditional::{Validators, Verdict};
use super::folder::Opened;
use super::kind;
use super::range::{self, Wanted};
use super::{Body, Folder, single};
use crate::addr::{Permit, Route};
use crate::config::model::FileCache;
use crate::fault::Fault;
use crate::wire::{Head, coding};

/// A file with a hash of its content in its name is good for a year (RFC 8246).
const FOR_EVER: &str = "max-age=31536000, immutable";
/// A document that a stranger has uploaded runs nothing, loads nothing, and has an origin of its own (CSP level 3 section
/// 6.3.2); what a browser makes of a picture or a film is still shown.
const SANDBOX: &[u8] =
    b"sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'";

/// What is asked of a file.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The request's field lines.
    pub head: &'a Head,
    /// The method is HEAD; otherwise it counts as GET.
    pub is_head: bool,
    /// Text that no file has in it, to stand between parts.
    pub boundary: &'a str,
    /// The moment of the request.
    pub now: SystemTime,
    /// Nobody had to say a password: caches may give it to others.
    pub public: bool,
}

/// An answer: field lines without a length, a date and hop-by-hop fields.
#[derive(Debug)]
pub struct Served {
    /// 200, 206, 304, 412 or 416.
    pub status: StatusCode,
    /// Its field lines.
    pub head: Head,
    /// The length of the body, or of the body that a HEAD request did not ask for; None where there can be none.
    pub length: Option<u64>,
    /// What follows; None where nothing does.
    pub body: Option<Body>,
}

/// Answers with the file that `name` (a path below the directory, decoded) says. `told` is what an upstream says of it
/// that has handed the request over.
///
/// # Errors
/// [`Fault::NoFile`] where no regular file of this name lies in the directory, [`Fault::FileBroken`] where it cannot be read.
pub async fn serve(
    folder: &Folder,
    permit: Permit<Route>,
    name: &[u8],
    asked: Asked<'_>,
    told: Option<Told>,
) -> Result<Served, Fault> {
    let kind = kind::of(name);
    // What strangers upload side by side is not one the compressed form of the other.
    let negotiable = kind.compresses && !folder.sandbox;
    let codings = if negotiable { coding::accepted(asked.head, coding::BY_SIZE) } else { Vec::new() };
    let opened = folder.open(permit, name, &codings).await?;
    let validators = Validators::of(&opened, asked.now);
    let mut told = told.unwrap_or(Told { ranges: true, ..Told::default() });
    let mut head = std::mem::take(&mut told.kept);
    head.push(b"etag", validators.etag.as_bytes());
    head.push(b"last-modified", httpdate::fmt_http_date(validators.modified).as_bytes());
    if negotiable {
        head.push(b"vary", b"Accept-Encoding");
    }
    if !told.caching {
        cache_control(&mut head, folder.cache, name, asked.public);
    }
    match validators.judge(asked.head) {
        Verdict::NotModified => return Ok(bare(StatusCode::NOT_MODIFIED, head, None)),
        Verdict::Failed => return Ok(bare(StatusCode::PRECONDITION_FAILED, Head::default(), Some(0))),
        Verdict::Send => {}
    }
    let content_type = told.content_type.unwrap_or_else(|| kind.content_type.into());
    about_content(&mut head, &opened, folder.sandbox, &content_type);
    if told.ranges {
        head.push(b"accept-ranges", b"bytes");
    }
    let may_range = told.ranges && !asked.is_head && validators.allow_range(asked.head);
    let range = single(asked.head, "range").filter(|_| may_range);
    let mut served = content(head, &opened, &content_type, range, asked);
    if let (Some(body), Some(rate)) = (&mut served.body, told.rate) {
        body.limit_rate(rate);
    }
    Ok(served)
}

/// The file, or what a Range field wants of it.
fn content(
    mut head: Head,
    opened: &Opened,
    content_type: &[u8],
    range: Option<&[u8]>,
    asked: Asked<'_>,
) -> Served {
    match range.map_or(Wanted::Whole, |value| range::wanted(value, opened.size)) {
        Wanted::Whole => whole(head, opened, content_type, asked.is_head),
        Wanted::Parts(parts) => partial(head, opened, content_type, &parts, asked.boundary),
        Wanted::Nothing => {
            head.clear();
            head.push(b"content-range", format!("bytes */{}", opened.size).as_bytes());
            bare(StatusCode::RANGE_NOT_SATISFIABLE, head, Some(0))
        }
    }
}

fn cache_control(head: &mut Head, cache: FileCache, name: &[u8], public: bool) {
    let value = match cache {
        FileCache::Unsaid => return,
        FileCache::For(age) if public => format!("max-age={}", age.as_secs()),
        FileCache::For(age) => format!("private, max-age={}", age.as_secs()),
        FileCache::Immutable if kind::is_hashed(name) => {
            format!("{}, {FOR_EVER}", if public { "public" } else { "private" })
        }
        FileCache::Immutable => "no-cache".into(),
    };
    head.push(b"cache-control", value.as_bytes());
}

/// What the content is, and what a browser may make of it.
fn about_content(head: &mut Head, opened: &Opened, sandbox: bool, content_type: &[u8]) {
    if let Some(coding) = opened.coding {
        head.push(b"content-encoding", coding.name().as_bytes());
    }
    head.push(b"x-content-type-options", b"nosniff");
    // A sandbox keeps browsers from opening their own viewer, which runs nothing of the page's origin anyway.
    if sandbox && !content_type.to_ascii_lowercase().starts_with(b"application/pdf") {
        head.push(b"content-security-policy", SANDBOX);
    }
}

fn bare(status: StatusCode, head: Head, length: Option<u64>) -> Served {
    Served { status, head, length, body: None }
}

fn whole(mut head: Head, opened: &Opened, content_type: &[u8], is_head: bool) -> Served {
    head.push(b"content-type", content_type);
    let mut body = Body::new(Arc::clone(&opened.file));
    body.push_part(0..opened.size);
    let body = (!is_head && opened.size > 0).then_some(body);
    Served { status: StatusCode::OK, head, length: Some(opened.size), body }
}

/// One part as it is, several in a multipart body (RFC 9110 section 15.3.7).
fn partial(
    mut head: Head,
    opened: &Opened,
    content_type: &[u8],
    parts: &[Range<u64>],
    boundary: &str,
) -> Served {
    let mut body = Body::new(Arc::clone(&opened.file));
    if let [part] = parts {
        head.push(b"content-type", content_type);
        head.push(b"content-range", content_range(part, opened.size).as_bytes());
        body.push_part(part.clone());
    } else {
        head.push(b"content-type", format!("multipart/byteranges; boundary={boundary}").as_bytes());
        for part in parts {
            body.push_text(part_head(boundary, content_type, part, opened.size));
            body.push_part(part.clone());
        }
        body.push_text(format!("\r\n--{boundary}--\r\n"));
    }
    Served { status: StatusCode::PARTIAL_CONTENT, head, length: Some(body.length()), body: Some(body) }
}

fn part_head(boundary: &str, content_type: &[u8], part: &Range<u64>, size: u64) -> Vec<u8> {
    let range = content_range(part, size);
    let pieces: [&[u8]; 7] = [
        b"\r\n--",
        boundary.as_bytes(),
        b"\r\nContent-Type: ",
        content_type,
        b"\r\nContent-Range: ",
        range.as_bytes(),
        b"\r\n\r\n",
    ];
    pieces.concat()
}

fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))
}
