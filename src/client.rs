//! HTTP/1.1 to servers that the edge asks on its own account: CAs, DNS APIs, webhooks, collectors of traces. A deadline on
//! everything, a limit on every body.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::tls::upstream::ClientTls;

/// How long one address may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long looking a name up, or a handshake, may take.
const SETUP: Duration = Duration::from_secs(10);
/// How long an answer's head, and then its body, may take. CAs sign while the client waits.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest answer, in octets: a chain has about ten thousand.
const MAX_BODY: usize = 1024 * 1024;
/// How long a connection may have rested to be used again: shorter than any server's own limit.
const REST: Duration = Duration::from_secs(4);
/// The longest wait that a server may ask for.
pub const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// A client of one server. Clones share its connection.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    tls: ClientTls,
    idle: Mutex<Option<Idle>>,
}

struct Idle {
    origin: Origin,
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

/// Who is spoken to, and whether with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    secure: bool,
    authority: String,
}

/// A server could not be reached, or did not answer to the end.
#[derive(Debug, thiserror::Error)]
#[error("{authority} {what}: {source}")]
pub struct Unreachable {
    /// The server.
    pub authority: String,
    /// What it did.
    pub what: &'static str,
    /// What that was found by.
    pub source: io::Error,
}

impl Client {
    /// A client without a connection. TLS is spoken to what is written `https`.
    pub fn new(tls: ClientTls) -> Self {
        Self(Arc::new(Shared { tls, idle: Mutex::default() }))
    }

    /// One request and its whole answer.
    pub async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Unreachable> {
        let origin = Origin::of(request.uri());
        let (mut sender, response) = self.send(&origin, request).await?;
        let (parts, body) = response.into_parts();
        let body = within(ANSWER, collect(body)).await.map_err(origin.unreachable("cut its answer short"))?;
        if within(Duration::from_millis(1), async { sender.ready().await.map_err(io::Error::other) })
            .await
            .is_ok()
        {
            self.rest(origin, sender);
        }
        Ok(Response::from_parts(parts, body))
    }

    /// Sends over the resting connection, where there is one; a request that it never took goes over a new one.
    async fn send(
        &self,
        origin: &Origin,
        request: Request<Full<Bytes>>,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), Unreachable> {
        let unreachable = |what| origin.unreachable(what);
        let mut request = origin_form(request);
        if let Some(mut sender) = self.rested(origin) {
            let sent = within(ANSWER, async { Ok(sender.try_send_request(request).await) }).await;
            match sent.map_err(unreachable("did not answer"))? {
                Ok(response) => return Ok((sender, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(unreachable("did not answer")(io::Error::other(error.into_error()))),
                },
            }
        }
        let mut sender = self.connect(origin).await.map_err(unreachable("cannot be reached"))?;
        let sent = async { sender.send_request(request).await.map_err(io::Error::other) };
        let response = within(ANSWER, sent).await.map_err(unreachable("did not answer"))?;
        Ok((sender, response))
    }

    async fn connect(&self, origin: &Origin) -> io::Result<SendRequest<Full<Bytes>>> {
        let (host, port) = origin.host_and_port();
        let tcp = dial(host, port).await?;
        tcp.set_nodelay(true)?;
        if !origin.secure {
            return begin(tcp).await;
        }
        begin(within(SETUP, self.0.tls.connect(host, tcp)).await?).await
    }

    fn rested(&self, origin: &Origin) -> Option<SendRequest<Full<Bytes>>> {
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let usable = idle.origin == *origin && idle.since.elapsed() < REST && !idle.sender.is_closed();
        usable.then_some(idle.sender)
    }

    fn rest(&self, origin: Origin, sender: SendRequest<Full<Bytes>>) {
        let idle = Idle { origin, sender, since: Instant::now() };
        *self.0.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(idle);
    }
}

async fn collect(mut body: Incoming) -> io::Result<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        if whole.len() + data.len() > MAX_BODY {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the answer is too long"));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")),
    }
}

/// Each address in turn, so that a family without a way out costs seconds and no more.
async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let found = within(SETUP, tokio::net::lookup_host((host, port))).await?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in found {
        match within(CONNECT, TcpStream::connect(address)).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn begin<IO>(io: IO) -> io::Result<SendRequest<Full<Bytes>>>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended");
        }
    });
    Ok(sender)
}

impl Origin {
    fn of(uri: &Uri) -> Self {
        Self { secure: uri.scheme_str() != Some("http"), authority: authority(uri) }
    }

    fn host_and_port(&self) -> (&str, u16) {
        let usual = if self.secure { 443 } else { 80 };
        let whole = || (self.authority.trim_matches(['[', ']']), usual);
        let Some((host, port)) = self.authority.rsplit_once(':') else { return whole() };
        port.parse().map_or_else(|_| whole(), |port| (host.trim_matches(['[', ']']), port))
    }

    fn unreachable(&self, what: &'static str) -> impl FnOnce(io::Error) -> Unreachable + use<> {
        let authority = self.authority.clone();
        move |source| Unreachable { authority, what, source }
    }
}

fn authority(uri: &Uri) -> String {
    uri.authority().map(ToString::to_string).unwrap_or_default()
}

/// A server is asked for a path, and told its name (RFC 9112 section 3.2.1).
fn origin_form(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let authority = authority(request.uri());
    let path = request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    if let (Ok(uri), Ok(host)) = (Uri::try_from(path), HeaderValue::try_from(authority)) {
        *request.uri_mut() = uri;
        request.headers_mut().insert(HOST, host);
    }
    let agent = HeaderValue::from_static(concat!("vestibule/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(USER_AGENT, agent);
    request
}

/// Seconds or a date (RFC 9110 section 10.2.3), at most [`LONGEST_WAIT`].
pub fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) if text.bytes().all(|octet| octet.is_ascii_digit()) && !text.is_empty() => LONGEST_WAIT,
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            date.duration_since(SystemTime::now()).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// One line without control characters, of so many characters at most, for logs and terminals.
pub fn one_line(text: &str, most: usize) -> String {
    let words = text.split(|letter: char| letter.is_whitespace() || letter.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    line.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_and_bounded() {
        let date = |ahead: i64| {
            let at = SystemTime::now() + Duration::from_secs(u64::try_from(ahead).unwrap());
            httpdate::fmt_http_date(at)
        };
        for (value, least, most) in [
            ("120".to_owned(), 120, 120),
            (" 7 ".to_owned(), 7, 7),
            ("0".to_owned(), 0, 0),
            ("18446744073709551615".to_owned(), 86_400, 86_400),
            ("99999999999999999999999".to_owned(), 86_400, 86_400),
            (date(600), 590, 600),
            (date(10_000_000), 86_400, 86_400),
            ("Thu, 01 Jan 1970 00:00:00 GMT".to_owned(), 0, 0),
        ] {
            let wait = retry_after(&HeaderValue::try_from(&value).unwrap()).unwrap().as_secs();
            assert!((least..=most).contains(&wait), "{value}: {wait}");
        }
        for wrong in ["", "soon", "-1", "1.5"] {
            assert_eq!(retry_after(&HeaderValue::from_str(wrong).unwrap()), None, "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_given_up() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(ClientTls::trusting(&any_root()).unwrap());
        let uri = format!("https://{}/dir", silent.local_addr().unwrap());
        let request = Request::builder().uri(uri).body(Full::default()).unwrap();
        let begin = tokio::time::Instant::now();
        let error = client.exchange(request).await.unwrap_err();
        assert!(error.to_string().ends_with("cannot be reached: it took too long"), "{error}");
        assert!(begin.elapsed() <= SETUP + CONNECT, "{:?}", begin.elapsed());
    }

    fn any_root() -> Vec<u8> {
        let params = rcgen::CertificateParams::default();
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().into_bytes()
    }

    #[test]
    fn authorities_are_split() {
        for (uri, expected) in [
            ("https://ca.test/dir", ("ca.test", 443)),
            ("http://hooks/x", ("hooks", 80)),
            ("https://ca.test:14000/", ("ca.test", 14000)),
            ("https://[::1]:14000/", ("::1", 14000)),
            ("https://[2001:db8::ca]/", ("2001:db8::ca", 443)),
        ] {
            assert_eq!(Origin::of(&uri.parse().unwrap()).host_and_port(), expected);
        }
    }
}
