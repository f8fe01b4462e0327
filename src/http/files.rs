//! Requests that files answer: by their own path, or because an upstream says so.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::SystemTime;

use http::Method;

use super::exchange::Exchange;
use super::response::{Payload, Response};
use crate::addr::{Permit, Route};
use crate::fault::Fault;
use crate::files::accel::{self, Told};
use crate::files::{self, Asked, Folder, Served};
use crate::route::{RouteAction, RouteEntry, SiteEntry, normalize};
use crate::upstream::{Answer, Call, Chunk, READ};
use crate::wire::Head;

/// The most pieces that are read of an answer's body which nobody gets.
const MAX_THROWN_AWAY: u32 = 16;

/// Answers GET and HEAD with the file that `name` says.
pub(super) async fn serve(
    exchange: &Exchange,
    permit: Permit<Route>,
    folder: &Folder,
    name: &[u8],
) -> Result<Response, Fault> {
    let read = |request: &super::request::Request| matches!(request.method, Method::GET | Method::HEAD);
    if !exchange.request.as_ref().is_some_and(read) {
        return Err(Fault::ReadOnly);
    }
    send(exchange, permit, folder, name, None).await
}

/// Whether an upstream's answer hands the request over to a file.
pub(super) fn is_handed_over(head: &Head) -> bool {
    accel::target(head).is_some()
}

/// Answers with the file that the upstream's X-Accel-Redirect leads to. Only an internal route of the same site can be led
/// to, and its gate is asked like that of any other.
pub(super) async fn follow(exchange: &Exchange, answer: &Answer, call: Call) -> Result<Response, Fault> {
    throw_away(call).await;
    let target = accel::target(&answer.head).unwrap_or_default();
    let standing = exchange.link.standing().map_err(|_| Fault::Forbidden)?;
    let site = exchange.site.as_ref().ok_or_else(|| Fault::internal("an answer without a site"))?;
    let path = normalize(accel::path(target)).map_err(|bad| {
        tracing::warn!(to = %target.escape_ascii(), %bad, "X-Accel-Redirect is not followed");
        Fault::NoFile
    })?;
    let (route, folder) = internal(site, &path).ok_or_else(|| {
        let site = site.canonical.as_ref().map(ToString::to_string);
        tracing::warn!(
            site,
            to = %target.escape_ascii(),
            "X-Accel-Redirect leads to no internal route of the site: it needs a [[site.route]] with that path, \
             internal = true and files = \"the directory\""
        );
        Fault::UpstreamBroken { reason: "X-Accel-Redirect leads to no internal route of the site", source: None }
    })?;
    let permit =
        route.gate.admit_route(standing.permit, &site.gate, exchange.client).map_err(|_| Fault::Forbidden)?;
    send(exchange, permit, folder, route.file_name(&path), Some(Told::by(&answer.head))).await
}

fn internal<'s>(site: &'s SiteEntry, path: &[u8]) -> Option<(&'s RouteEntry, &'s Arc<Folder>)> {
    let route = site.route(path)?;
    match &route.action {
        RouteAction::Internal(folder) => Some((route, folder)),
        _ => None,
    }
}

/// The connection goes back to its pool where the answer's body is there already, and is closed where it is not.
async fn throw_away(mut call: Call) {
    poll_fn(|cx| {
        let mut left = MAX_THROWN_AWAY;
        while left > 0 && matches!(call.poll_chunk(READ, cx), Poll::Ready(Ok(Chunk::Data(_)))) {
            left -= 1;
        }
        Poll::Ready(())
    })
    .await;
}

async fn send(
    exchange: &Exchange,
    permit: Permit<Route>,
    folder: &Folder,
    name: &[u8],
    told: Option<Told>,
) -> Result<Response, Fault> {
    let Some(request) = &exchange.request else { return Err(Fault::internal("a request without a head")) };
    let asked = Asked {
        head: &request.head,
        is_head: request.method == Method::HEAD,
        boundary: &exchange.id,
        now: SystemTime::now(),
        // Whoever is led here by the upstream was let in by it.
        public: exchange.user.get().is_none() && told.is_none(),
    };
    let Served { status, mut head, length, body } = files::serve(folder, permit, name, asked, told).await?;
    head.push(b"x-request-id", exchange.id.as_bytes());
    head.push(b"date", exchange.worker.clock.http_date().as_bytes());
    let payload = body.map_or(Payload::Empty, |body| Payload::File(Box::new(body)));
    Ok(Response { status, head, length, payload, close: false })
}
