//! HTTP to a CA's API: a refusal keeps what it said.
//!
//! The ACME library sees successes and `badNonce` (which it answers with the nonce that came along); every other answer
//! ends here as a [`CaError`], for the library would lose its status and its Retry-After.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};

use crate::client::{self, Unreachable, one_line, retry_after};
use crate::tls::upstream::ClientTls;

/// The most of a foreign body that an error shows, in characters.
const MAX_EXCERPT: usize = 120;
/// The most of a problem's own words that an error shows, in characters.
const MAX_DETAIL: usize = 600;
/// When a CA that does not say so is asked again about renewal, in seconds (RFC 9773 section 4.3.3).
const POLL: u32 = 6 * 60 * 60;
/// A client of one CA. Clones share its connection.
#[derive(Clone)]
pub(super) struct Client {
    http: client::Client,
    /// Answers that are wanted whole, by URL.
    aside: Aside,
}

type Aside = Arc<Mutex<HashMap<String, Option<Response<Bytes>>>>>;

/// What kept a CA from doing what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaError {
    /// It could not be reached, or did not answer to the end.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// It answered with something else than was asked for.
    #[error(transparent)]
    Refused(Box<Refusal>),
}

/// A CA's refusal, with all that it said.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// How long to wait before the next try, at most [`client::LONGEST_WAIT`].
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
        Self { http: client::Client::new(tls), aside: Arc::default() }
    }

    /// One request and its whole answer.
    pub(super) async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, CaError> {
        Ok(self.http.exchange(request).await?)
    }

    /// Keeps the next good answer from this URL for [`Client::taken_aside`]: the library gives no headers.
    pub(super) fn keep_aside(&self, url: &str) {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).insert(url.to_owned(), None);
    }

    /// What was kept, and forgets it.
    pub(super) fn taken_aside(&self, url: &str) -> Option<Response<Bytes>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).remove(url)?
    }

    fn note(&self, url: &str, answer: &Response<Bytes>) {
        if !answer.status().is_success() {
            return;
        }
        if let Some(place) = self.aside.lock().unwrap_or_else(PoisonError::into_inner).get_mut(url) {
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

/// The beginning of a body.
fn excerpt(body: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(body), MAX_EXCERPT)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
