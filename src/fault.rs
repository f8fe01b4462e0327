//! Every way in which a request can end badly: what the client is told, whether the
//! connection survives, and whether the request may be sent again.

use std::error::Error;
use std::time::Duration;

use http::StatusCode;

/// A request's bad end.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The message is malformed or ambiguous; the text says where. Closes the connection, for what follows
    /// on it cannot be trusted (RFC 9112 section 9.3, section 11.2).
    #[error("{0}")]
    BadRequest(&'static str),
    /// The client's address is not allowed here.
    #[error("the client's address is not allowed here")]
    Forbidden,
    /// The route asks for a password, and the right one was not said.
    #[error("a password is asked for, and the right one was not said")]
    Stranger {
        /// `WWW-Authenticate`.
        challenge: String,
    },
    /// More requests than the route's or the site's `rate` lets pass.
    #[error("more requests than `rate` lets pass")]
    TooMany {
        /// How long the next one has to wait.
        wait: Duration,
    },
    /// The site has nothing at this path.
    #[error("no route of the site matches the path")]
    NoRoute,
    /// No regular file of that name lies in the route's directory.
    #[error("no file of that name is served here")]
    NoFile,
    /// Files are read, and nothing else is done with them.
    #[error("files are only read")]
    ReadOnly,
    /// CONNECT and TRACE are never passed on (RFC 9110 sections 9.3.6 and 9.3.8).
    #[error("the method is not served")]
    MethodNotAllowed,
    /// The client stopped sending before its request was whole.
    #[error("the client did not finish its request in time")]
    RequestTimeout,
    /// The body is longer than a `body` of the configuration says; the log names it.
    #[error("the body is longer than it may be")]
    BodyTooLarge,
    /// The request target alone is over the limit.
    #[error("the request target is too long")]
    TargetTooLong,
    /// The name is not one of the site that the TLS server name chose (RFC 9110 section 15.5.20).
    #[error("the host is not a name of the site that the TLS handshake named")]
    Misdirected,
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    #[error("the expectation cannot be met")]
    ExpectationFailed,
    /// Too many field lines, or too long ones.
    #[error("the request's head is too large")]
    HeadTooLarge,
    /// A transfer coding that is not `chunked` alone (RFC 9112 section 6.1).
    #[error("the transfer coding is not implemented")]
    TransferCoding,
    /// An HTTP version that is not 1.0, 1.1 or 2.
    #[error("the HTTP version is not supported")]
    Version,
    /// The client went away; there is nobody to answer.
    #[error("the client left")]
    ClientGone,
    /// No connection to any target of the upstream could be made. Nothing was sent: safe to try elsewhere.
    #[error("no connection to the upstream: {source}")]
    Unreachable {
        /// What the last attempt met.
        source: std::io::Error,
    },
    /// No target of the upstream took a connection for as long as `hold` says. Nothing was sent.
    #[error("no upstream was up for as long as the request could wait: {source}")]
    Down {
        /// What the last look met.
        source: Box<Fault>,
    },
    /// The connection ended before a byte of the answer came.
    #[error("the upstream closed the connection before it answered: {source}")]
    Unanswered {
        /// What the read or write met.
        source: std::io::Error,
    },
    /// A file cannot be read, or became shorter while it was sent.
    #[error("a file cannot be sent: {source}")]
    FileBroken {
        /// What reading it met.
        source: std::io::Error,
    },
    /// The upstream broke off, or what it sent is not HTTP.
    #[error("the upstream's answer is broken: {reason}")]
    UpstreamBroken {
        /// What was wrong with it.
        reason: &'static str,
        /// What the read or write met, where it was one.
        #[source]
        source: Option<std::io::Error>,
    },
    /// Connecting to the upstream took longer than `connect_timeout`.
    #[error("connecting to the upstream took too long")]
    ConnectTimeout,
    /// The upstream said nothing for longer than `response_timeout`.
    #[error("the upstream did not answer in time")]
    ResponseTimeout,
    /// The upstream has as much to do as it may. Nothing was sent.
    #[error("the upstream has too much to do: {0}")]
    Busy(&'static str),
    /// As much waits at the edge as may, and the request's body finds no room beside it. Nothing was sent.
    #[error("as much waits at the edge as may")]
    NoRoom,
    /// The request's body can wait nowhere: the disk is full, or does not take it, or it is longer than all the room that
    /// there is. Nothing was sent.
    #[error("the request's body can wait nowhere")]
    NoSpace,
    /// The edge is at a limit of its own, or about to leave.
    #[error("the edge cannot take the request now: {0}")]
    Unavailable(&'static str),
    /// The site is in maintenance.
    #[error("the site is in maintenance")]
    Maintenance,
    /// A mistake of ours.
    #[error("internal error: {0}")]
    Internal(Box<dyn Error + Send + Sync>),
}

impl Fault {
    /// The status that the client is told. For [`Fault::ClientGone`] nobody reads it; the access line says 499.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Stranger { .. } => StatusCode::UNAUTHORIZED,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NoRoute | Self::NoFile => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed | Self::ReadOnly => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::ClientGone => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Unreachable { .. } | Self::Unanswered { .. } | Self::UpstreamBroken { .. } => {
                StatusCode::BAD_GATEWAY
            }
            Self::ConnectTimeout | Self::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Unavailable(_) | Self::Busy(_) | Self::Down { .. } | Self::NoRoom | Self::Maintenance => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            Self::Internal(_) | Self::FileBroken { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether an HTTP/1.1 connection must end after the answer, because where the next request begins is
    /// unknown, or because the client has proved that it cannot be understood.
    pub fn closes(&self) -> bool {
        matches!(
            self,
            Self::BadRequest(_)
                | Self::RequestTimeout
                | Self::BodyTooLarge
                | Self::TargetTooLong
                | Self::HeadTooLarge
                | Self::TransferCoding
                | Self::Version
                | Self::ClientGone
                | Self::Internal(_)
        )
    }

    /// Whether no byte of the request reached a worker that may have read it.
    pub fn never_sent(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::ConnectTimeout)
    }

    /// One word for logs and metrics; a bounded set.
    pub fn token(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::Forbidden => "forbidden",
            Self::Stranger { .. } => "password",
            Self::TooMany { .. } => "rate",
            Self::NoRoute => "no_route",
            Self::NoFile => "no_file",
            Self::MethodNotAllowed | Self::ReadOnly => "method",
            Self::RequestTimeout => "request_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::Misdirected => "misdirected",
            Self::ExpectationFailed => "expectation",
            Self::HeadTooLarge => "head_too_large",
            Self::TransferCoding => "transfer_coding",
            Self::Version => "version",
            Self::ClientGone => "client_gone",
            Self::Unreachable { .. } => "unreachable",
            Self::Down { .. } => "down",
            Self::Unanswered { .. } => "unanswered",
            Self::FileBroken { .. } => "file_broken",
            Self::UpstreamBroken { .. } => "upstream_broken",
            Self::ConnectTimeout => "connect_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::Busy(_) => "busy",
            Self::NoRoom => "no_room",
            Self::NoSpace => "no_space",
            Self::Unavailable(_) => "unavailable",
            Self::Maintenance => "maintenance",
            Self::Internal(_) => "internal",
        }
    }

    /// A mistake of ours, with its cause kept.
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }
}
