//! What every request goes through, from top to bottom: host → SNI agrees → route → gates → rate → password → size → answer.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::exchange::Exchange;
use super::link::Standing;
use super::request::{Request, Scheme, hostname};
use super::response::Response;
use super::{files, finish, forward, forwarded, gates, respond, validation};
use crate::fault::Fault;
use crate::name::Hostname;
use crate::route::{RouteAction, RouteEntry, SiteEntry, normalize};
use crate::upstream::Answer;
use crate::wire::{Body, Framing};

/// Takes an interim answer (1xx) to the client.
pub(super) type Interim<'a> = &'a mut dyn FnMut(&Answer);

/// Answers one request. A fault becomes a page; a connection that may not ask at all gets silence.
pub(super) async fn handle(exchange: &mut Exchange, body: Option<Body>, interim: Interim<'_>) -> Response {
    let answered = match exchange.link.standing() {
        Err(_) => {
            exchange.fault = Some(Fault::Forbidden);
            return Response::silence();
        }
        Ok(standing) if exchange.link.tls.is_none() => return plain(exchange, &standing),
        Ok(standing) => answer(exchange, &standing, body, interim).await,
    };
    let mut response = answered.unwrap_or_else(|fault| respond::fault(exchange, fault));
    exchange.status = response.status.as_u16();
    finish::finish(exchange, &mut response);
    response
}

/// Port 80: a pending ACME challenge is answered, and a known name is sent to https, same host and path; to any other the
/// edge says nothing.
fn plain(exchange: &mut Exchange, standing: &Standing) -> Response {
    let Some(request) = &exchange.request else { return Response::silence() };
    if let Some(answer) = validation::answer_of(&standing.snapshot.challenges, request) {
        exchange.status = StatusCode::OK.as_u16();
        return respond::key_authorization(exchange, &answer);
    }
    let known = request.host().and_then(hostname).and_then(|host| {
        let site = standing.snapshot.table.site(standing.row, host.as_str())?;
        Some((host, Arc::clone(site)))
    });
    let Some((host, site)) = known else {
        exchange.fault = Some(Fault::Misdirected);
        return Response::silence();
    };
    if matches!(request.method, Method::TRACE | Method::CONNECT) {
        return respond::fault(exchange, Fault::MethodNotAllowed);
    }
    if let Err(bad) = normalize(request.path()) {
        return respond::fault(exchange, bad_path(bad));
    }
    let port = standing.snapshot.https_port(&site, exchange.link.local.ip());
    let location = https_url(&host, port, request.target());
    exchange.found(site);
    exchange.status = StatusCode::PERMANENT_REDIRECT.as_u16();
    respond::redirect(exchange, StatusCode::PERMANENT_REDIRECT, &location)
}

async fn answer(
    exchange: &mut Exchange,
    standing: &Standing,
    body: Option<Body>,
    interim: Interim<'_>,
) -> Result<Response, Fault> {
    let Some(request) = &exchange.request else { return Err(Fault::internal("a request without a head")) };
    let site = site(exchange, standing, request)?;
    exchange.series = site.series;
    exchange.site = Some(Arc::clone(&site));
    let policy = standing.snapshot.config.client_address.as_ref();
    exchange.client = forwarded::client(policy, exchange.link.peer, &request.head);
    if matches!(request.method, Method::TRACE | Method::CONNECT) && !request.websocket {
        return Err(Fault::MethodNotAllowed);
    }
    // "*" asks about the server, which is the site as a whole.
    let path = if request.path() == b"*" { b"/" } else { request.path() };
    let path = normalize(path).map_err(bad_path)?;
    let Some(route) = site.route(&path) else {
        return canonical(exchange, &site, request).ok_or(Fault::NoRoute);
    };
    exchange.policy.clone_from(&route.policy);
    exchange.series = route.series;
    let permit =
        route.gate.admit_route(standing.permit, &site.gate, exchange.client).map_err(|_| Fault::Forbidden)?;
    if let Some(response) = canonical(exchange, &site, request) {
        return Ok(response);
    }
    if site.maintenance.keeps_out(exchange.client) {
        return Err(Fault::Maintenance);
    }
    if let Some(policy) = &route.policy {
        gates::pass(exchange, request, policy).await?;
    }
    check_length(exchange, route, request)?;
    match &route.action {
        RouteAction::Redirect { to, status } => {
            let status = StatusCode::from_u16(*status).map_err(Fault::internal)?;
            Ok(respond::redirect(exchange, status, to.as_bytes()))
        }
        RouteAction::Files(folder) => {
            let (folder, name) = (Arc::clone(folder), route.file_name(&path));
            Box::pin(files::serve(exchange, permit, &folder, name)).await
        }
        // Only an upstream's answer leads here; for whoever asks by himself there is nothing.
        RouteAction::Internal(_) => Err(Fault::NoRoute),
        RouteAction::Proxy(upstream) => {
            let upstream = Arc::clone(upstream);
            forward::forward(exchange, permit, &upstream, route, body, interim).await
        }
    }
}

/// The site of the TLS server name, to which the request's host must belong (RFC 9110 section 7.4).
fn site(exchange: &Exchange, standing: &Standing, request: &Request) -> Result<Arc<SiteEntry>, Fault> {
    let own = standing.site.as_ref().ok_or(Fault::Misdirected)?;
    if request.scheme == Some(Scheme::Http) {
        return Err(Fault::Misdirected);
    }
    let Some(host) = request.host() else { return Ok(Arc::clone(own)) };
    let asked = exchange.link.tls.as_ref().map(|tls| tls.name.as_str());
    if asked.is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(host)) {
        return Ok(Arc::clone(own));
    }
    let host = hostname(host).ok_or(Fault::Misdirected)?;
    match standing.snapshot.table.site(standing.row, host.as_str()) {
        Some(site) if Arc::ptr_eq(site, own) => Ok(Arc::clone(own)),
        _ => Err(Fault::Misdirected),
    }
}

/// A redirect name leads to the site's canonical one.
fn canonical(exchange: &Exchange, site: &SiteEntry, request: &Request) -> Option<Response> {
    if !site.has_redirects() {
        return None;
    }
    let host = request.host().and_then(hostname)?;
    if !site.is_redirect(host.as_str()) {
        return None;
    }
    let to = site.canonical.as_ref()?;
    let port = request.authority.and_then(|authority| authority.port).unwrap_or(443);
    let location = https_url(to, port, request.target());
    Some(respond::redirect(exchange, StatusCode::PERMANENT_REDIRECT, &location))
}

fn check_length(exchange: &Exchange, route: &RouteEntry, request: &Request) -> Result<(), Fault> {
    match request.framing {
        Framing::Length(length) if length > route.body.octets => {
            Err(forward::too_large(&route.body, Some(length), exchange.id))
        }
        _ => Ok(()),
    }
}

fn https_url(host: &Hostname, port: u16, target: &[u8]) -> Vec<u8> {
    let mut url = format!("https://{host}").into_bytes();
    if port != 443 {
        url.extend_from_slice(format!(":{port}").as_bytes());
    }
    url.extend_from_slice(if target == b"*" { b"/" } else { target });
    url
}

fn bad_path(_bad: crate::route::BadPath) -> Fault {
    Fault::BadRequest("the path is malformed or ambiguous")
}
