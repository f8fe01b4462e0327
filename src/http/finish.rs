//! What an answer goes through before it goes out, whoever made it: header fields set and taken off, HSTS, compression.

use http::StatusCode;

use super::compress::compress;
use super::exchange::Exchange;
use super::response::Response;
use crate::config::model::Headers;
use crate::route::Policy;
use crate::wire::{Head, Known};

/// Makes an answer what the site and the route say that answers are.
pub(super) fn finish(exchange: &Exchange, response: &mut Response) {
    if let Some(policy) = &exchange.policy
        && response.status != StatusCode::SWITCHING_PROTOCOLS
    {
        rate_limit(exchange, policy, &mut response.head);
        headers(&policy.headers, &mut response.head);
    }
    strict_transport_security(exchange, response);
    if let Some(rules) = exchange.policy.as_ref().and_then(|policy| policy.compress.as_ref()) {
        compress(exchange, rules, response);
    }
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

fn headers(headers: &Headers, head: &mut Head) {
    if headers.set.is_empty() && headers.remove.is_empty() {
        return;
    }
    let set = headers.set.iter().map(|(name, _)| name);
    head.retain(|_, own| {
        !set.clone().chain(&headers.remove).any(|name| own.eq_ignore_ascii_case(name.as_bytes()))
    });
    for (name, value) in &headers.set {
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
