//! Why an order did not end in a certificate, and which failures pass by themselves within seconds.

use std::time::Duration;

use instant_acme::{Error, Problem};
use time::OffsetDateTime;

use super::client::{CaError, Refusal, is_bad_nonce};
use super::solve::dns01::Trouble;
use super::store::StoreError;

/// How often a nonce may be refused before it is a failure: a third of all good ones refused is outlived for certain.
const NONCES: u32 = 30;
/// The waits before a request that a CA failed to answer is sent again. A wait that the CA asks for and that is longer
/// than the last of these is a failure, and the manager's to keep.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), LONGEST];
const LONGEST: Duration = Duration::from_secs(9);

/// What went wrong, and with what it was being done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The CA could not be reached, or refused.
    #[error("{doing}: {source}")]
    Ca {
        /// As in "making an order".
        doing: &'static str,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
        /// What kind of refusal, by the ACME problem type's last word; empty for anything else.
        kind: String,
        /// Whether the fault is the CA's own (it is down, hung or overloaded) rather than the request's.
        theirs: bool,
    },
    /// Names that could not be proved to be ours, each with the reason.
    #[error("{}", .0.iter().map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>().join("; "))]
    Names(Vec<(String, String)>),
    /// A record of the challenge dns-01 could not be written, or did not come out.
    #[error("{domain}: {doing}: {source}")]
    Dns {
        /// The name that was to be proved.
        domain: String,
        /// As in "writing the record".
        doing: &'static str,
        /// What happened.
        source: Box<Trouble>,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The account cannot be used, and no later try will change that.
    #[error("the account at {directory} {what}; {fix}")]
    Account {
        /// The CA's directory.
        directory: String,
        /// As in "was deactivated".
        what: String,
        /// What to do.
        fix: &'static str,
    },
    /// The CA's limits leave no room before then; nobody was asked.
    #[error("the CA's limits leave no room before {}", super::watchful::text(*.0))]
    Crowded(OffsetDateTime),
    /// The CA's certificate, the order, or a key is not what it must be.
    #[error("{0}")]
    Unfit(String),
}

impl Failure {
    /// How long the CA asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Ca { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The ACME problem's kind, as in `rateLimited`; empty where there is none.
    pub(super) fn kind(&self) -> &str {
        match self {
            Self::Ca { kind, .. } => kind,
            _ => "",
        }
    }

    /// Whether another CA may do better.
    pub(super) fn is_theirs(&self) -> bool {
        matches!(self, Self::Ca { theirs: true, .. } | Self::Account { .. })
            || matches!(self.kind(), "rateLimited" | "serverInternal" | "accountDoesNotExist")
    }

    /// Tells what the library's error is.
    pub(super) fn of(doing: &'static str, error: Error) -> Self {
        let (retry_after, kind, theirs) = match (refusal(&error), &error) {
            (Some(refusal), _) => {
                (refusal.retry_after, refusal.kind().to_owned(), refusal.status.is_server_error())
            }
            (None, Error::Api(problem)) => (None, kind(problem), false),
            (None, Error::Other(_) | Error::Json(_) | Error::Timeout(_)) => (None, String::new(), true),
            (None, _) => (None, String::new(), false),
        };
        Self::Ca { doing, source: Box::new(error), retry_after, kind, theirs }
    }
}

/// Does something at a CA, again and again while a nonce is refused, and a few times while the CA has trouble of its own.
/// `resend` tells whether a request that may have been answered can be sent again.
pub(super) async fn patiently<T>(
    doing: &'static str,
    resend: bool,
    mut work: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Failure> {
    let (mut nonces, mut pauses) = (0, PAUSES.into_iter());
    loop {
        let error = match work().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if matches!(&error, Error::Api(problem) if is_bad_nonce(problem)) && nonces < NONCES {
            nonces += 1;
            continue;
        }
        match passing(&error, resend).and_then(|asked| Some((asked, pauses.next()?))) {
            Some((asked, pause)) if asked <= LONGEST => {
                tracing::debug!(doing, %error, "the CA has trouble; asked again");
                tokio::time::sleep(pause.max(asked)).await;
            }
            _ => return Err(Failure::of(doing, error)),
        }
    }
}

/// A CA that takes longer than is waited for.
pub(super) fn late(doing: &'static str) -> Failure {
    Failure::of(doing, Error::Timeout(None))
}

/// How long the CA asks to wait, for an error that may be gone within seconds.
fn passing(error: &Error, resend: bool) -> Option<Duration> {
    let Error::Other(other) = error else { return None };
    match other.downcast_ref::<CaError>()? {
        CaError::Refused(refusal) if refusal.status.is_server_error() => {
            Some(refusal.retry_after.unwrap_or_default())
        }
        CaError::Unreachable(failed) if resend && failed.source.kind() != std::io::ErrorKind::TimedOut => {
            Some(Duration::ZERO)
        }
        _ => None,
    }
}

/// What the CA said, where it said anything.
pub(super) fn refusal(error: &Error) -> Option<&Refusal> {
    let Error::Other(other) = error else { return None };
    match other.downcast_ref::<CaError>()? {
        CaError::Refused(refusal) => Some(refusal),
        CaError::Unreachable(_) => None,
    }
}

/// The last word of a problem's type.
pub(super) fn kind(problem: &Problem) -> String {
    let name = problem.r#type.as_deref().unwrap_or_default();
    name.rsplit(':').next().unwrap_or_default().to_owned()
}
