//! What a request has to pass behind the allow lists: its route's rate, and its door.

use super::exchange::Exchange;
use super::request::Request;
use crate::auth::{Denied, Door};
use crate::config::model::Per;
use crate::fault::Fault;
use crate::limit::network;
use crate::limit::rate::{Key, Over, Rate};
use crate::route::Policy;
use crate::wire::{Head, Known};

/// Asks what the route's policy has to say about whether the request may go on.
pub(super) async fn pass(exchange: &Exchange, request: &Request, policy: &Policy) -> Result<(), Fault> {
    if let Some(rate) = &policy.rate {
        count(exchange, request, rate)?;
    }
    match &policy.door {
        Some(door) => Box::pin(enter(exchange, request, door)).await,
        None => Ok(()),
    }
}

/// Asks for a password.
async fn enter(exchange: &Exchange, request: &Request, door: &Door) -> Result<(), Fault> {
    let field = request.head.single(Known::Authorization).ok().flatten();
    let user = door.enter(exchange.client, field, exchange.start).await.map_err(|denied| match denied {
        Denied::Stranger => Fault::Stranger { challenge: door.challenge.clone() },
        Denied::TooMany(Over(wait)) => Fault::TooMany { wait },
        Denied::Busy => Fault::Unavailable("too many passwords are being looked at"),
    })?;
    let _ = exchange.user.set(user.into());
    Ok(())
}

/// Counts the request against the rate. What the client is told of it, it is told whatever the answer will be.
fn count(exchange: &Exchange, request: &Request, rate: &Rate) -> Result<(), Fault> {
    let standing = rate.take(key(exchange, request, rate), exchange.start);
    let _ = exchange.standing.set(rate.told(standing));
    standing.map(drop).map_err(|Over(wait)| Fault::TooMany { wait })
}

fn key(exchange: &Exchange, request: &Request, rate: &Rate) -> Key {
    let said = match &rate.per {
        Per::Client => None,
        Per::All => return rate.key(()),
        Per::Header(name) => header(&request.head, name),
        Per::Cookie(name) => cookie(&request.head, name),
    };
    said.map_or_else(|| rate.key(network(exchange.client)), |said| rate.key(said))
}

fn header<'h>(head: &'h Head, name: &str) -> Option<&'h [u8]> {
    head.fields().find(|field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
}

/// The value of the first cookie of that name (RFC 6265 section 5.4).
fn cookie<'h>(head: &'h Head, name: &str) -> Option<&'h [u8]> {
    let mut pairs =
        head.all(Known::Cookie).flat_map(|line| line.split(|octet| *octet == b';')).map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_names() {
        let mut head = Head::default();
        head.push(b"X-Key", b"one");
        head.push(b"x-key", b"two");
        head.push(b"Cookie", b"a=1; sessionid=x=y; sessionid=z");
        head.push(b"cookie", b"b = 2;c=");
        assert_eq!((header(&head, "x-key"), header(&head, "x-keys")), (Some(&b"one"[..]), None));
        for (name, value) in [
            ("a", Some("1")),
            ("sessionid", Some("x=y")),
            ("session", None),
            ("A", None),
            ("b", None),
            ("c", Some("")),
        ] {
            assert_eq!(cookie(&head, name), value.map(str::as_bytes), "{name}");
        }
    }
}
