//! What PostgreSQL's clients say in plain text where TLS is wanted ("Message Flow" and "Message Formats" of its manual's
//! chapter on the protocol). No TLS record begins with the octet 0, and everything that they say there does.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// TLS is next, or something that the handshake will refuse.
    Tls,
    /// A request to cancel a query: clients send it without TLS, as PostgreSQL itself takes it, for it shows a secret of
    /// its own. The whole message.
    Cancel(Vec<u8>),
    /// A client that will not have TLS. It was told.
    Plain,
    /// None of the protocol's messages.
    Unknown,
}

/// Hears a client out until TLS begins. Reads nothing of it.
pub(super) async fn opening(tcp: &mut TcpStream) -> io::Result<Opening> {
    let mut first = [0];
    // A client may ask once for each kind of encryption.
    for _ in 0..2 {
        if tcp.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first != [0] {
            return Ok(Opening::Tls);
        }
        if let Some(opening) = message(tcp).await? {
            return Ok(opening);
        }
    }
    Ok(Opening::Unknown)
}

/// Answers one message. None where another is to follow.
async fn message(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Option<Opening>> {
    let (length, code) = (io.read_u32().await?, io.read_u32().await?);
    match (length, code) {
        (HEAD, SSL_REQUEST) => {
            io.write_all(b"S").await?;
            Ok(Some(Opening::Tls))
        }
        (HEAD, GSSENC_REQUEST) => io.write_all(b"N").await.map(|()| None),
        (16..=MAX_CANCEL, CANCEL_REQUEST) => {
            let mut whole = [length.to_be_bytes(), code.to_be_bytes()].concat();
            io.take(u64::from(length - HEAD)).read_to_end(&mut whole).await?;
            let cut = whole.len() < length as usize;
            if cut { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Some(Opening::Cancel(whole))) }
        }
        (HEAD..=MAX_STARTUP, VERSION_2..VERSION_4) => {
            // What is left unread would make the close a reset, and destroy the answer.
            let mut rest = (&mut *io).take(u64::from(length - HEAD));
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
            io.write_all(&refusal()).await?;
            io.shutdown().await?;
            Ok(Some(Opening::Plain))
        }
        _ => Ok(Some(Opening::Unknown)),
    }
}

/// An `ErrorResponse`, as a server that has `hostssl` lines alone would send it.
fn refusal() -> Vec<u8> {
    let fields = b"SFATAL\0VFATAL\0C28000\0Mthis port takes connections with TLS alone (sslmode=require)\0\0";
    let length = u32::try_from(fields.len() + 4).unwrap_or_default();
    [&b"E"[..], &length.to_be_bytes(), fields].concat()
}

/// A length and a code.
const HEAD: u32 = 8;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// Protocol 3.2 has keys of up to 256 octets.
const MAX_CANCEL: u32 = 12 + 256;
/// The longest startup message that PostgreSQL takes.
const MAX_STARTUP: u32 = 10_000;
const VERSION_2: u32 = 2 << 16;
const VERSION_4: u32 = 4 << 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(length: u32, code: u32, rest: &[u8]) -> Vec<u8> {
        [&length.to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
    }

    /// What a message leads to, and what the client hears.
    async fn heard(bytes: &[u8]) -> (io::Result<Option<Opening>>, Vec<u8>) {
        let (mut client, mut edge) = tokio::io::duplex(64 * 1024);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let opening = message(&mut edge).await;
        drop(edge);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        (opening, answer)
    }

    #[tokio::test]
    async fn messages() {
        let cancel = said(16, CANCEL_REQUEST, b"\0\0\0\x01\0\0\0\x02");
        for (sent, opening, answer) in [
            (said(8, SSL_REQUEST, b""), Some(Opening::Tls), &b"S"[..]),
            (said(8, GSSENC_REQUEST, b""), None, b"N"),
            (cancel.clone(), Some(Opening::Cancel(cancel)), b""),
            (said(9, SSL_REQUEST, b"x"), Some(Opening::Unknown), b""),
            (said(12, CANCEL_REQUEST, b"xxxx"), Some(Opening::Unknown), b""),
            (said(4, 3 << 16, b""), Some(Opening::Unknown), b""),
            (said(u32::MAX, 3 << 16, b""), Some(Opening::Unknown), b""),
            (said(8, 4 << 16, b""), Some(Opening::Unknown), b""),
        ] {
            let (seen, heard) = heard(&sent).await;
            assert_eq!((seen.unwrap(), heard.as_slice()), (opening, answer), "{sent:?}");
        }
        let (seen, answer) = heard(&said(17, 3 << 16, b"user\0me\0\0")).await;
        assert_eq!(seen.unwrap(), Some(Opening::Plain));
        assert_eq!(
            (answer[0], answer.len()),
            (b'E', 1 + u32::from_be_bytes(answer[1..5].try_into().unwrap()) as usize)
        );
        assert!(heard(&said(16, CANCEL_REQUEST, b"cut")).await.0.is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(heard(&bytes));
        }
    }
}
