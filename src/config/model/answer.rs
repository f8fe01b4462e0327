//! What the edge does with requests and answers of its own accord.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Compress, PathPattern};
use crate::password::Stored;

/// What a route adds to passing on: its own keys over those of its site. Nothing, by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// What is changed on every answer.
    pub headers: Headers,
    /// How often it may be asked.
    pub rate: Option<Limited>,
    /// Which answers are compressed; None: none.
    pub compress: Option<Compress>,
    /// Who has to say a password.
    pub auth: Option<Auth>,
}

/// A password that is asked for at the edge (RFC 7617).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Auth {
    /// What the password is for, as browsers show it.
    pub realm: String,
    /// The file that names the users.
    pub file: PathBuf,
    /// Those who may come in, at least one, by name; each name stands once.
    pub users: Arc<[(String, Stored)]>,
}

/// A rate, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limited {
    /// The rate.
    pub rate: Rate,
    /// The route that has it for itself; None: the routes of the site that have no other, together.
    pub route: Option<PathPattern>,
}

/// How often something may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rate {
    /// What requests are told apart by.
    pub per: Per,
    /// How many requests in `every`; at least 1.
    pub limit: u64,
    /// Whole seconds, at least one.
    pub every: Duration,
    /// How many may come before they are due.
    pub burst: u64,
}

/// What requests are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Per {
    /// The client's address, of IPv6 the /64.
    Client,
    /// Nothing.
    All,
    /// The value of a header, its name in lower case; the client's address where there is none.
    Header(String),
    /// The value of a cookie; the client's address where there is none.
    Cookie(String),
}

impl Per {
    /// One word for headers.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::All => "all",
            Self::Header(_) => "header",
            Self::Cookie(_) => "cookie",
        }
    }
}

impl std::fmt::Display for Per {
    /// As a person types it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client | Self::All => f.write_str(self.word()),
            Self::Header(name) | Self::Cookie(name) => write!(f, "{}:{name}", self.word()),
        }
    }
}

/// Header fields of answers, names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// These stand once, with this value, whatever the upstream says.
    pub set: Vec<(String, String)>,
    /// These do not stand at all.
    pub remove: Vec<String>,
}
