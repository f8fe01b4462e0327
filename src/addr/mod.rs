//! Addresses, and the permission that they earn.
//!
//! Permission is a value: only [`Gate::admit`] makes a [`Permit`], and what dials an upstream takes one as an
//! argument, so that a path which skips the check does not compile.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;

mod nets;
mod own;
mod parse;
mod set;

pub use self::own::is_own;
pub use self::parse::{CidrError, Excerpt, MAX_ERRORS, parse_cidr, parse_list};
pub use self::set::CidrSet;

/// A client's address, with IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2) folded to IPv4 once and for all.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddr(IpAddr);

impl ClientAddr {
    /// Folds an IPv4-mapped address.
    pub fn new(ip: IpAddr) -> Self {
        Self(ip.to_canonical())
    }

    /// The address, never an IPv4-mapped one.
    pub fn ip(self) -> IpAddr {
        self.0
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A named group of addresses, from `[sources]`.
#[derive(Clone, Debug)]
pub struct Source {
    /// As `[sources]` names it; `public` for the built-in one.
    pub name: Arc<str>,
    /// Who belongs to it; None is everyone.
    pub members: Option<Arc<CidrSet>>,
    /// Who belongs to it for a while; None where nobody does.
    pub leased: Option<Arc<CidrSet>>,
}

impl Source {
    /// Everyone.
    pub fn public() -> Self {
        Self { name: "public".into(), members: None, leased: None }
    }

    /// These, for good.
    pub fn new(name: impl Into<Arc<str>>, members: CidrSet) -> Self {
        Self { name: name.into(), members: Some(Arc::new(members)), leased: None }
    }

    /// Whether everyone belongs to it.
    pub fn is_public(&self) -> bool {
        self.members.is_none()
    }

    /// Whether the address belongs to this source.
    pub fn contains(&self, client: ClientAddr) -> bool {
        self.members.as_ref().is_none_or(|set| set.contains(client))
            || self.leased.as_ref().is_some_and(|set| set.contains(client))
    }
}

/// The permit's scope: a port row's gate was passed.
#[derive(Debug)]
pub enum Port {}
/// The permit's scope: the port's, the site's and the route's gates were passed.
#[derive(Debug)]
pub enum Route {}

/// Proof that a gate was passed. Cannot be made outside this module.
#[derive(Debug)]
pub struct Permit<Scope>(PhantomData<fn() -> Scope>);

impl<Scope> Clone for Permit<Scope> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<Scope> Copy for Permit<Scope> {}

/// An address that a gate turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address is not allowed")]
pub struct Refused;

/// An `allow` list and a `deny` list. Deny is asked first.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Who may pass.
    pub allow: Vec<Source>,
    /// Who may not, even when `allow` names them.
    pub deny: Vec<Source>,
}

impl Gate {
    /// A gate that lets everyone through.
    pub fn open() -> Self {
        Self { allow: vec![Source::public()], deny: Vec::new() }
    }

    /// The port row's decision: before any byte is read.
    pub fn admit(&self, client: ClientAddr) -> Result<Permit<Port>, Refused> {
        if self.passes(client) { Ok(Permit(PhantomData)) } else { Err(Refused) }
    }

    /// The route's decision. `site` is the gate of the site that the route belongs to.
    pub fn admit_route(
        &self,
        _port: Permit<Port>,
        site: &Gate,
        client: ClientAddr,
    ) -> Result<Permit<Route>, Refused> {
        if site.passes(client) && self.passes(client) { Ok(Permit(PhantomData)) } else { Err(Refused) }
    }

    fn passes(&self, client: ClientAddr) -> bool {
        !self.deny.iter().any(|source| source.contains(client))
            && self.allow.iter().any(|source| source.contains(client))
    }
}
