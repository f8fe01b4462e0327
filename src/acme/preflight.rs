//! A look of our own before a CA looks: does the name resolve, does its port reach this edge? It warns, and keeps nothing
//! from being ordered: a CA may see the name from elsewhere.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::solve::{Answers, Method};
use super::tend::Tending;
use crate::name::HostPattern;

/// How long the look at one name may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How many certificates' names are looked at at once.
static LOOKS: Semaphore = Semaphore::const_new(2);
/// The longest answer that is read, in octets.
const MAX_ANSWER: u64 = 4096;

/// Looks at the names in the background.
pub(super) fn spawn(tending: &Tending, names: &[HostPattern]) {
    if tending.methods.first() == Some(&Method::Dns01) {
        // A CA that reads records goes nowhere else.
        return;
    }
    let (answers, names) = (Rc::clone(&tending.common.answers), names.to_vec());
    let by_http = tending.methods.first() == Some(&Method::Http01);
    spawn_local(async move {
        let _turn = LOOKS.acquire().await;
        for name in names.iter().filter(|name| matches!(name, HostPattern::Exact(_))) {
            let name = name.to_string();
            let seen = timeout(LIMIT, look(&answers, &name, by_http)).await;
            match seen.unwrap_or_else(|_| Err("it does not answer".to_owned())) {
                Ok(()) => tracing::debug!(name, "a name leads here"),
                Err(why) => {
                    tracing::warn!(
                        name,
                        why,
                        "seen from here, a name does not lead to this edge; a CA may refuse it"
                    );
                }
            }
        }
    });
}

async fn look(answers: &Answers, name: &str, by_http: bool) -> Result<(), String> {
    let port = if by_http { 80 } else { 443 };
    let found = tokio::net::lookup_host((name, port))
        .await
        .map_err(|error| format!("it does not resolve: {error}"))?;
    let found: Vec<SocketAddr> = found.collect();
    let Some(first) = found.first() else { return Err("it has no address".to_owned()) };
    let tcp = TcpStream::connect(first).await.map_err(|error| format!("{first}: {error}"))?;
    if !by_http {
        return Ok(());
    }
    let secret = getrandom::u64().map_err(|error| error.to_string())?;
    let (token, proof) = (format!("look-{secret:016x}"), format!("here-{secret:016x}"));
    let _guard = answers.0.challenges().insert_http(&token, &proof);
    let answer = ask(tcp, name, &token).await.map_err(|error| format!("{first}: {error}"))?;
    if answer.ends_with(&proof) { Ok(()) } else { Err(format!("{first}: something else answers there")) }
}

async fn ask(mut tcp: TcpStream, name: &str, token: &str) -> io::Result<String> {
    let request = format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n"
    );
    tcp.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tcp.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
