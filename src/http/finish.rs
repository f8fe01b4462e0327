//! What an answer goes through before it goes out, whoever made it: header fields set and taken off, HSTS, compression.

use http::StatusCode;

use super::compress::compress;
use super::exchange::Exchange;
use super::respond;
use super::response::Response;
use crate::config::model::Headers;
use crate::fault::Fault;
use crate::route::Policy;
use crate::wire::{Head, Known};

/// Makes an answer what the site and the route say that answers are.
pub(super) fn finish(exchange: &Exchange, response: &mut Response) {
    if let Some(policy) = &exchange.policy
        && response.status != StatusCode::SWITCHING_PROTOCOLS
    {
        rate_limit(exchange, policy, &mut response.head);
        headers(&policy.headers, &mut response.head, exchange.fault.is_some());
    }
    strict_transport_security(exchange, response);
    if let Some(rules) = exchange.policy.as_ref().and_then(|policy| policy.compress.as_ref()) {
        compress(exchange, rules, response);
    }
}

/// The page for what was found after the answer had been finished already: it goes out in its place.
pub(super) fn fault(exchange: &mut Exchange, fault: Fault) -> Response {
    let mut response = respond::fault(exchange, fault);
    finish(exchange, &mut response);
    response
}

/// What the upstream says of rates itself stands.
fn rate_limit(exchange: &Exchange, policy: &Policy, head: &mut Head) {
    let Some((rate, standing)) = policy.rate.as_ref().zip(exchange.standing.get()) else { return };
    let told = |name: &[u8]| {
        [&b"ratelimit"[..], b"ratelimit-policy"].iter().any(|own| name.eq_ignore_ascii_case(own))
    };
    if !head.fields().any(|field| told(field.name)) {
        head.push(b"ratelimit-policy", rate.policy.as_bytes());
        head.push(b"ratelimit", standing.as_bytes());
    }
}

/// Vary is added to, for what else an answer differs by stays true. How long a fault's page may be kept is not the site's to say.
fn headers(headers: &Headers, head: &mut Head, is_fault: bool) {
    if headers.set.is_empty() && headers.remove.is_empty() {
        return;
    }
    let ours = |name: &str| is_fault && name == "cache-control";
    let set = headers.set.iter().filter(|(name, _)| !ours(name));
    let replaced = set.clone().map(|(name, _)| name).filter(|name| *name != "vary");
    let gone = replaced.chain(headers.remove.iter().filter(|name| !ours(name)));
    head.retain(|_, own| !gone.clone().any(|name| own.eq_ignore_ascii_case(name.as_bytes())));
    for (name, value) in set {
        head.push(name.as_bytes(), value.as_bytes());
    }
}

/// RFC 6797, for answers over TLS; what the upstream says itself stands.
fn strict_transport_security(exchange: &Exchange, response: &mut Response) {
    let Some(age) = exchange.site.as_ref().and_then(|site| site.hsts) else { return };
    if response.head.first(Known::StrictTransportSecurity).is_none() {
        let value = format!("max-age={}", age.as_secs());
        response.head.push(b"strict-transport-security", value.as_bytes());
    }
}
