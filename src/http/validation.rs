//! A CA's look at a pending ACME challenge, also from an address that the port's row does not allow. Nothing else is
//! answered there, and nothing is read while no challenge is pending.

use std::sync::Arc;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::request::Request;
use crate::config::model::{Bind, Serve};
use crate::lobby::Turned;
use crate::tls;
use crate::tls::challenges::Book;
use crate::wire::head::Scanner;

/// What every path of a challenge begins with.
const WELL_KNOWN: &[u8] = b"/.well-known/acme-challenge/";
/// The longest head that a CA sends, in octets.
const MAX_HEAD: usize = 4096;

/// Answers one connection that the row does not allow, if it is a CA's; closes any other in silence.
pub(super) async fn answer(turned: Turned, bind: Bind) {
    let Turned::Knocking { tcp, client, serve, place: _place, snapshot } = turned else { return };
    let (book, limits) = (&snapshot.challenges, &snapshot.config.limits);
    let answered = match serve {
        Serve::Http => timeout(limits.header_timeout, http(tcp, book)).await,
        Serve::Https => timeout(limits.handshake_timeout, https(tcp, book)).await,
    };
    if let Ok(Some(())) = answered {
        tracing::debug!(%client, row = %bind, "an ACME challenge was answered at a closed door");
    }
}

/// What a request is answered where it asks for a pending challenge, by its exact path (RFC 8555 section 8.3).
pub(super) fn answer_of(book: &Book, request: &Request) -> Option<Arc<str>> {
    if book.is_empty() || request.method != Method::GET {
        return None;
    }
    let token = request.target().strip_prefix(WELL_KNOWN)?;
    book.http(std::str::from_utf8(token).ok()?)
}

async fn https(tcp: TcpStream, book: &Book) -> Option<()> {
    let end = tls::answer_challenge(tcp, book).await;
    (end.reason == tls::Reason::Challenge).then_some(())
}

async fn http(mut tcp: TcpStream, book: &Book) -> Option<()> {
    let head = read_head(&mut tcp).await?;
    let answer = answer_of(book, &Request::from_h1(&head).ok()?)?;
    let text = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\nconnection: close\r\n\r\n\
         {answer}",
        answer.len()
    );
    tcp.write_all(text.as_bytes()).await.ok()?;
    tcp.shutdown().await.ok()?;
    // What is still on its way would make the close a reset, and destroy the answer.
    let mut rest = tcp.take(MAX_HEAD as u64);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.ok().map(drop)
}

async fn read_head(tcp: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut scanner = Scanner::default();
    loop {
        if tcp.read_buf(&mut head).await.ok()? == 0 || head.len() > MAX_HEAD {
            return None;
        }
        if let Some(end) = scanner.find_end(&head).ok()? {
            head.truncate(end);
            return Some(head);
        }
    }
}
