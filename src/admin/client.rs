//! The commands' side of the socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// How long a command waits for the edge: a reload reads a million rows and every certificate.
const PATIENCE: Duration = Duration::from_mins(1);

/// Why the running edge did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("no edge answers at {} ({source}); is `vestibule serve` running, and is this its [admin] socket?", path.display())]
    Nobody {
        /// The socket.
        path: PathBuf,
        /// What connecting met.
        source: io::Error,
    },
    /// The socket belongs to somebody else.
    #[error("{} may be opened by the edge's own user and by root alone", .0.display())]
    Forbidden(PathBuf),
    /// It answered something else than 200.
    #[error("the edge at {} answered {status}; is it of another version?", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The status that it answered with.
        status: u16,
    },
    /// What came is not an answer.
    #[error("the answer of {} broke off or is not understood: {source}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What was met.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("the edge at {} did not answer within {} s", .0.display(), .1.as_secs())]
    TooLong(PathBuf, Duration),
}

/// Sends one request, without a body, to the edge behind the socket.
pub async fn ask<T: DeserializeOwned>(path: &Path, method: Method, target: &str) -> Result<T, ClientError> {
    ask_within(PATIENCE, path, method, target).await
}

/// The same, for what takes longer.
pub async fn ask_within<T: DeserializeOwned>(
    patience: Duration,
    path: &Path,
    method: Method,
    target: &str,
) -> Result<T, ClientError> {
    match tokio::time::timeout(patience, exchange(path, method, target)).await {
        Ok(answer) => answer,
        Err(_) => Err(ClientError::TooLong(path.to_owned(), patience)),
    }
}

async fn exchange<T: DeserializeOwned>(path: &Path, method: Method, target: &str) -> Result<T, ClientError> {
    let stream = UnixStream::connect(path).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Forbidden(path.to_owned()),
        _ => ClientError::Nobody { path: path.to_owned(), source },
    })?;
    let (status, body) = speak(stream, method, target)
        .await
        .map_err(|source| ClientError::Broken { path: path.to_owned(), source: source.into() })?;
    if status != 200 {
        return Err(ClientError::Refused { path: path.to_owned(), status });
    }
    serde_json::from_slice(&body)
        .map_err(|source| ClientError::Broken { path: path.to_owned(), source: source.into() })
}

async fn speak(stream: UnixStream, method: Method, target: &str) -> Result<(u16, Bytes), hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = target.parse().unwrap_or_default();
    request.headers_mut().insert(HOST, hyper::header::HeaderValue::from_static("localhost"));
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
