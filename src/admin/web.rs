//! What is read by machines and browsers: the same on the socket and on `[admin] listen`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::mpsc;

use super::server::ask;
use super::{Ask, page};
use crate::observe::metrics::Dialect;

/// Whether the edge leaves: set once, and seen by whoever asks whether it is ready. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Leaving(Arc<AtomicBool>);

impl Leaving {
    /// From now on it takes no new connections.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// It stays after all.
    pub fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it does.
    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Answers GET and HEAD; None for a path that nothing is at. Health is told here and now: a control thread that reads a
/// long file still lives.
pub(super) async fn answer(
    request: &Request<Incoming>,
    asks: &mpsc::Sender<Ask>,
    leaving: &Leaving,
) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path();
    if !matches!(path, "/" | "/metrics" | "/healthz" | "/readyz") {
        return None;
    }
    Some(match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/") => window(asks).await,
        (&Method::GET | &Method::HEAD, "/metrics") => metrics(request, asks).await,
        (&Method::GET | &Method::HEAD, "/readyz") if leaving.has_begun() => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "the edge is leaving\n")
        }
        (&Method::GET | &Method::HEAD, _) => plain(StatusCode::OK, "ok\n"),
        _ => {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            refused
        }
    })
}

async fn metrics(request: &Request<Incoming>, asks: &mpsc::Sender<Ask>) -> Response<Full<Bytes>> {
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let dialect = Dialect::of(accept);
    match ask(asks, |reply| Ask::Metrics(dialect, reply)).await {
        Some(text) => text_response(StatusCode::OK, dialect.content_type(), text),
        None => plain(StatusCode::SERVICE_UNAVAILABLE, "the edge is leaving\n"),
    }
}

async fn window(asks: &mpsc::Sender<Ask>) -> Response<Full<Bytes>> {
    let Some(page) = ask(asks, Ask::Window).await else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the edge is leaving\n");
    };
    let mut response = text_response(StatusCode::OK, "text/html; charset=utf-8", page);
    let headers = response.headers_mut();
    for (name, value) in [
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&page::POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    text_response(status, "text/plain; charset=utf-8", text)
}

fn text_response(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
