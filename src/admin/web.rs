//! What is read by machines and browsers: the same on the socket and on `[admin] listen`.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::mpsc;

use super::Ask;
use super::server::ask;
use crate::observe::metrics::Dialect;

/// Answers GET and HEAD; None for a path that nothing is at.
pub(super) async fn answer(
    request: &Request<Incoming>,
    asks: &mpsc::Sender<Ask>,
) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path();
    if !matches!(path, "/metrics") {
        return None;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some(plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n"));
    }
    Some(metrics(request, asks).await)
}

async fn metrics(request: &Request<Incoming>, asks: &mpsc::Sender<Ask>) -> Response<Full<Bytes>> {
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let dialect = Dialect::of(accept);
    match ask(asks, |reply| Ask::Metrics(dialect, reply)).await {
        Some(text) => text_response(StatusCode::OK, dialect.content_type(), text),
        None => plain(StatusCode::SERVICE_UNAVAILABLE, "the edge is leaving\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    text_response(status, "text/plain; charset=utf-8", text)
}

fn text_response(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
