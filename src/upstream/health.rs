//! Asking a member whether it is well.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::conn::Socket;
use super::dial::{connect, is_own};
use super::member::Address;
use crate::config::model::Health;
use crate::tls::upstream::ClientTls;
use crate::wire::head::{Head, MAX_RESPONSE_HEAD, Scanner};

/// Whether the member takes a connection within `limit`, the whole TLS handshake included where it speaks it, and answers
/// the health check, where there is one, as it should. The error is for people. None where the edge itself could not connect.
pub(super) async fn ask(
    address: &Address,
    tls: &ClientTls,
    limit: Duration,
    health: Option<&Health>,
) -> Option<Result<(), String>> {
    let mut socket = match timeout(limit, connect(address, tls)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) if is_own(&error) => return None,
        Ok(Err(error)) => return Some(Err(format!("no connection: {error}"))),
        Err(_) => return Some(Err("connecting took too long".to_owned())),
    };
    let Some(health) = health else { return Some(Ok(())) };
    let path = &health.path;
    Some(match timeout(health.timeout, status(&mut socket, health)).await {
        Ok(Ok(status)) if health.is_well(status.as_u16()) => Ok(()),
        Ok(Ok(status)) => Err(format!("{path} answered {status}{}", hint(status))),
        Ok(Err(error)) => Err(format!("{path}: {error}")),
        Err(_) => Err(format!("{path} gave no answer within {:?}", health.timeout)),
    })
}

/// What people meet.
fn hint(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "; is the site's name in ALLOWED_HOSTS?",
        _ => "",
    }
}

/// The status of the answer.
async fn status(socket: &mut Socket, health: &Health) -> io::Result<StatusCode> {
    let Health { path, host, .. } = health;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: vestibule-health\r\naccept: */*\r\n\
         x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: {host}\r\n\
         x-forwarded-port: 443\r\nconnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    socket.flush().await?;
    let mut buffer = BytesMut::new();
    loop {
        let status = head(socket, &mut buffer).await?;
        if !status.is_informational() {
            return Ok(status);
        }
    }
}

async fn head(socket: &mut Socket, buffer: &mut BytesMut) -> io::Result<StatusCode> {
    let broken = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut scanner = Scanner::default();
    loop {
        let end = scanner.find_end(buffer).map_err(|_| broken("the answer is not HTTP"))?;
        if let Some(end) = end {
            let line = Head::default().parse_response(&buffer.split_to(end));
            return line.map(|line| line.status).map_err(|_| broken("the answer is not HTTP"));
        }
        if buffer.len() > MAX_RESPONSE_HEAD {
            return Err(broken("the answer's head is too long"));
        }
        if socket.read_buf(buffer).await? == 0 {
            return Err(broken("the connection was closed without an answer"));
        }
    }
}
