//! Cloudflare's API, version 4: a zone by its name, records by zone, name and content.

use std::fmt::Write as _;

use bytes::Bytes;
use hickory_proto::rr::Name;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::client::Client;
use super::dns01::{TTL, Trouble};
use crate::tls::upstream::ClientTls;

/// What the API says where the very record is there already.
const EXISTS: [i64; 2] = [81057, 81058];

pub(super) struct Cloudflare {
    api: String,
    authorization: HeaderValue,
    client: Client,
}

impl Cloudflare {
    /// `api` is the URL without a slash at its end. The error says what to do.
    pub(super) fn new(api: String, token: &[u8]) -> Result<Self, String> {
        let wrong = || {
            "this is not an API token; Cloudflare's dashboard makes one, with the right Zone.DNS".to_owned()
        };
        let token = std::str::from_utf8(token).map_err(|_| wrong())?.trim();
        if token.is_empty() || token.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(wrong());
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| wrong())?;
        authorization.set_sensitive(true);
        Ok(Self { api, authorization, client: Client::new(ClientTls::new()) })
    }

    /// Adds a value; others at the same name stay.
    pub(super) async fn add(&self, name: &Name, value: &str) -> Result<(), Trouble> {
        let zone = self.zone(name).await?;
        let record = json!({
            "type": "TXT", "name": bare(name), "content": format!("\"{value}\""), "ttl": TTL,
            "comment": "a challenge of vestibule's, removed by itself",
        });
        let answer = self.ask(Method::POST, &format!("zones/{zone}/dns_records"), Some(&record)).await?;
        if answer.body.errors.iter().any(|error| EXISTS.contains(&error.code)) {
            return Ok(());
        }
        answer.result("writing the record").map(drop)
    }

    /// Takes this value away; others at the same name stay.
    pub(super) async fn remove(&self, name: &Name, value: &str) -> Result<(), Trouble> {
        let zone = self.zone(name).await?;
        let path = format!("zones/{zone}/dns_records?type=TXT&name={}&per_page=100", bare(name));
        let records = self.ask(Method::GET, &path, None).await?.list("listing records")?;
        for record in records.iter().filter(|record| record.content.trim_matches('"') == value) {
            let path = format!("zones/{zone}/dns_records/{}", record.id()?);
            let answer = self.ask(Method::DELETE, &path, None).await?;
            if answer.status != StatusCode::NOT_FOUND {
                answer.result("removing the record")?;
            }
        }
        Ok(())
    }

    /// The id of the zone that has the name: the longest that the token may see.
    async fn zone(&self, name: &Name) -> Result<String, Trouble> {
        let mut zone = name.clone();
        while zone.num_labels() > 1 {
            zone = zone.base_name();
            let path = format!("zones?name={}", bare(&zone));
            let found = self.ask(Method::GET, &path, None).await?.list("looking the zone up")?;
            if let Some(first) = found.first() {
                return first.id().map(str::to_owned);
            }
        }
        Err(Trouble::Cloudflare(format!(
            "has no zone with {name} that this token may see; give it Zone.DNS:Edit there"
        )))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Trouble> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.api))
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Trouble::Unfit(error.to_string()))?;
        let (parts, body) = self.client.exchange(request).await?.into_parts();
        Ok(Answer { status: parts.status, body: serde_json::from_slice(&body).unwrap_or_default() })
    }
}

/// What the API said.
struct Answer {
    status: StatusCode,
    /// Empty where that was nothing of this API's.
    body: Envelope,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Envelope {
    success: bool,
    errors: Vec<ApiError>,
    result: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiError {
    code: i64,
    message: String,
}

/// A zone or a record.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    id: String,
    content: String,
}

impl Answer {
    /// What was asked for.
    fn result(self, doing: &str) -> Result<Value, Trouble> {
        if self.status.is_success() && self.body.success {
            return Ok(self.body.result);
        }
        let mut why = String::new();
        for ApiError { code, message } in self.body.errors.iter().take(3) {
            let message: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
            let _ = write!(why, "; {code} {message}");
        }
        let fix = match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; give the token Zone.DNS:Edit for the zone",
            _ if why.is_empty() => ", which is no answer of this API",
            _ => "",
        };
        Err(Trouble::Cloudflare(format!("answered {} while {doing}{why}{fix}", self.status.as_u16())))
    }

    fn list(self, doing: &str) -> Result<Vec<Entry>, Trouble> {
        let odd =
            |error| Trouble::Cloudflare(format!("gave something else than a list while {doing}: {error}"));
        serde_json::from_value(self.result(doing)?).map_err(odd)
    }
}

impl Entry {
    /// Fit to stand in a path.
    fn id(&self) -> Result<&str, Trouble> {
        let plain = !self.id.is_empty() && self.id.bytes().all(|octet| octet.is_ascii_alphanumeric());
        let odd = || Trouble::Cloudflare("gave an entry without an id".to_owned());
        plain.then_some(self.id.as_str()).ok_or_else(odd)
    }
}

fn bare(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_lowercase()
}
