//! HTTP/1.1 to a CA's API: a deadline on everything, a limit on every body, and a refusal that keeps what it said.
//!
//! The ACME library sees successes and `badNonce` (which it answers with the nonce that came along); every other answer
//! ends here as a [`CaError`], for the library would lose its status and its Retry-After.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{HOST, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
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
/// The most of a foreign body that an error shows, in characters.
const MAX_EXCERPT: usize = 120;
/// The most of a problem's own words that an error shows, in characters.
const MAX_DETAIL: usize = 600;
/// When a CA that does not say so is asked again about renewal, in seconds (RFC 9773 section 4.3.3).
const POLL: u32 = 6 * 60 * 60;
/// How long a connection may have rested to be used again: shorter than any server's own limit.
const REST: Duration = Duration::from_secs(4);
/// The longest wait that a CA may ask for.
pub(super) const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// A client of one CA. Clones share its connection.
#[derive(Clone)]
pub(super) struct Client(Arc<Shared>);

struct Shared {
    tls: ClientTls,
    idle: Mutex<Option<Idle>>,
    /// Answers that are wanted whole, by URL.
    aside: Mutex<HashMap<String, Option<Response<Bytes>>>>,
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

/// What kept a CA from doing what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaError {
    /// It could not be reached, or did not answer to the end.
    #[error("{authority} {what}: {source}")]
    Unreachable { authority: String, what: &'static str, source: io::Error },
    /// It answered with something else than was asked for.
    #[error(transparent)]
    Refused(Box<Refusal>),
}

/// A CA's refusal, with all that it said.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// How long to wait before the next try, at most [`LONGEST_WAIT`].
    pub(super) retry_after: Option<Duration>,
    /// The problem document (RFC 7807), where the body was one.
    pub(super) problem: Option<Problem>,
    /// The beginning of any other body.
    pub(super) excerpt: String,
    /// Where it sends the client instead.
    pub(super) location: Option<String>,
}

impl Client {
    pub(super) fn new(tls: ClientTls) -> Self {
        Self(Arc::new(Shared { tls, idle: Mutex::default(), aside: Mutex::default() }))
    }

    /// One request and its whole answer.
    pub(super) async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, CaError> {
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
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), CaError> {
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

    /// Keeps the next good answer from this URL for [`Client::taken_aside`]: the library gives no headers.
    pub(super) fn keep_aside(&self, url: &str) {
        self.0.aside.lock().unwrap_or_else(PoisonError::into_inner).insert(url.to_owned(), None);
    }

    /// What was kept, and forgets it.
    pub(super) fn taken_aside(&self, url: &str) -> Option<Response<Bytes>> {
        self.0.aside.lock().unwrap_or_else(PoisonError::into_inner).remove(url)?
    }

    fn note(&self, url: &str, answer: &Response<Bytes>) {
        if !answer.status().is_success() {
            return;
        }
        if let Some(place) = self.0.aside.lock().unwrap_or_else(PoisonError::into_inner).get_mut(url) {
            *place = Some(answer.clone());
        }
    }

    fn judge(response: Response<Bytes>) -> Result<BytesResponse, CaError> {
        let (mut parts, body) = response.into_parts();
        let wait = parts.headers.get(RETRY_AFTER).and_then(retry_after);
        if parts.status.is_success() {
            // The library adds the value to a clock without looking at its size.
            match wait {
                Some(wait) => parts.headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs())),
                None => parts.headers.remove(RETRY_AFTER),
            };
            return Ok(BytesResponse { parts, body: Box::new(body) });
        }
        let problem = serde_json::from_slice::<Problem>(&body).ok().map(bounded);
        if parts.status == StatusCode::BAD_REQUEST && problem.as_ref().is_some_and(is_bad_nonce) {
            return Ok(BytesResponse { parts, body: Box::new(body) });
        }
        let excerpt = if problem.is_some() { String::new() } else { excerpt(&body) };
        let location = parts.headers.get(LOCATION).filter(|_| parts.status.is_redirection());
        let location = location.map(|to| one_line(&String::from_utf8_lossy(to.as_bytes()), MAX_EXCERPT));
        let refusal = Refusal { status: parts.status, retry_after: wait, problem, excerpt, location };
        Err(CaError::Refused(Box::new(refusal)))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let request = Request::from_parts(parts, Full::new(body));
            let (url, plain) = (request.uri().to_string(), request.method() == Method::GET);
            let answer = client.exchange(request).await;
            let answer = answer.inspect(|answer| client.note(&url, answer)).and_then(Client::judge);
            let answer = answer.map(|answer| if plain { with_poll(answer) } else { answer });
            answer.map_err(|error| Error::Other(Box::new(error)))
        })
    }
}

impl Refusal {
    /// The problem's type without its prefix, as in `rateLimited`.
    pub(super) fn kind(&self) -> &str {
        let name = self.problem.as_ref().and_then(|problem| problem.r#type.as_deref()).unwrap_or_default();
        name.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(name)
    }

    fn text(&self) -> String {
        let status = self.status.as_u16();
        if let Some(location) = &self.location {
            return format!(
                "the CA answered with {status}: it has moved to {location}; write that as the directory"
            );
        }
        match &self.problem {
            Some(problem) => {
                let detail = problem.detail.as_deref().unwrap_or("no detail given");
                format!("the CA refused with {status} {}: {detail}", self.kind())
            }
            None if self.excerpt.is_empty() => format!("the CA answered with {status}"),
            None => format!("the CA answered with {status} and no ACME problem: {}", self.excerpt),
        }
    }
}

/// Renewal information is asked for by GET, and the library gives up where the answer does not say when to ask again.
fn with_poll(mut answer: BytesResponse) -> BytesResponse {
    answer.parts.headers.entry(RETRY_AFTER).or_insert(HeaderValue::from(POLL));
    answer
}

/// A CA repeats what strangers' servers said, in any length and with any character.
fn bounded(mut problem: Problem) -> Problem {
    for text in [&mut problem.r#type, &mut problem.detail] {
        *text = text.take().map(|text| one_line(&text, MAX_DETAIL));
    }
    problem
}

pub(super) fn is_bad_nonce(problem: &Problem) -> bool {
    problem.r#type.as_deref().is_some_and(|name| name.ends_with(":badNonce"))
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

    fn unreachable(&self, what: &'static str) -> impl FnOnce(io::Error) -> CaError + use<> {
        let authority = self.authority.clone();
        move |source| CaError::Unreachable { authority, what, source }
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
pub(super) fn retry_after(value: &HeaderValue) -> Option<Duration> {
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

/// The beginning of a body.
fn excerpt(body: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(body), MAX_EXCERPT)
}

/// One line without control characters, of so many characters at most, for logs and terminals.
pub(super) fn one_line(text: &str, most: usize) -> String {
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

    #[test]
    fn a_refusal_tells_what_was_said() {
        let answer = |status: u16, body: &'static str| {
            let response = Response::builder().status(status).header(RETRY_AFTER, "90");
            match Client::judge(response.body(Bytes::from_static(body.as_bytes())).unwrap()) {
                Err(CaError::Refused(refusal)) => refusal,
                Err(other) => panic!("{other}"),
                Ok(_) => panic!("{body} was taken"),
            }
        };
        let html = answer(503, "<html>\r\n<h1>Down\u{7}</h1></html>");
        assert_eq!(html.retry_after, Some(Duration::from_secs(90)));
        let text = html.to_string();
        assert_eq!(text, "the CA answered with 503 and no ACME problem: <html> <h1>Down </h1></html>");
        let limited = answer(429, r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}"#);
        assert_eq!(limited.kind(), "rateLimited");
        assert_eq!(limited.to_string(), "the CA refused with 429 rateLimited: too many");
        let loud = format!(r#"{{"type":"x","detail":"a\u001b[2J{}"}}"#, "b".repeat(10_000));
        let response = Response::builder().status(400).body(Bytes::from(loud)).unwrap();
        let Err(loud) = Client::judge(response) else { panic!("a refusal was taken") };
        let loud = loud.to_string();
        assert!(loud.starts_with("the CA refused with 400 x: a [2Jbbb") && loud.len() < 700, "{loud}");
        let moved = Response::builder().status(301).header(LOCATION, "https://ca.test/v2").body(Bytes::new());
        let Err(moved) = Client::judge(moved.unwrap()) else { panic!("a redirection was taken") };
        assert!(moved.to_string().ends_with("moved to https://ca.test/v2; write that as the directory"));
        let nonce = r#"{"type":"urn:ietf:params:acme:error:badNonce"}"#;
        let response = Response::builder().status(400).body(Bytes::from_static(nonce.as_bytes())).unwrap();
        assert!(Client::judge(response).is_ok(), "the library sees a bad nonce");
    }

    #[tokio::test(start_paused = true)]
    async fn a_ca_that_says_nothing_is_given_up() {
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
