//! Telling others what becomes of certificates: a program, and a URL. No renewal waits for either, or fails with them.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use super::client::Client;
use super::program::Program;
use super::tend::shown;
use super::watchful;
use crate::config::model::{Acme, Webhook};
use crate::name::HostPattern;
use crate::tls::upstream::ClientTls;

/// How long the program may take.
const LIMIT: Duration = Duration::from_mins(1);
/// The waits before each try but the first.
const PAUSES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(30), Duration::from_mins(5)];
/// How many are told at once.
const AT_ONCE: usize = 4;
/// The most that wait to be told.
const MAX_WAITING: usize = 1000;

/// What became of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// A new one is in use.
    Obtained,
    /// An attempt failed.
    Failed,
    /// Its end comes near, and nothing newer is there.
    Expiring,
}

/// What is told, as it is posted. A field is never renamed or given another meaning; new ones may appear.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Notice {
    pub(super) event: What,
    pub(super) names: Vec<String>,
    /// When it happened; moments are RFC 3339 in UTC.
    pub(super) at: String,
    /// When the certificate in use ends to be valid; null where there is none.
    pub(super) not_after: Option<String>,
    /// The URL of the CA's directory.
    pub(super) ca: Option<String>,
    /// Why the last attempt failed.
    pub(super) error: Option<String>,
    /// How many failed in a row.
    pub(super) failures: u32,
    /// When the next one is made.
    pub(super) next_try: Option<String>,
    /// The same for a person, under the name that chats read.
    pub(super) text: String,
}

/// Those who are told.
pub(super) struct Notifier {
    targets: Vec<Arc<Target>>,
    turns: Semaphore,
    waiting: Cell<usize>,
}

/// One of them.
enum Target {
    Hook(Program),
    /// With the URL, which is a secret.
    Webhook(Client, String),
}

/// Why somebody was not told, and whether another try is of no use.
struct Untold {
    why: String,
    lasting: bool,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Obtained => "obtained",
            Self::Failed => "failed",
            Self::Expiring => "expiring",
        }
    }
}

impl Notice {
    /// About these names, just now.
    pub(super) fn new(event: What, names: &[HostPattern], text: &str) -> Self {
        Self {
            event,
            names: names.iter().map(ToString::to_string).collect(),
            at: watchful::text(OffsetDateTime::now_utc()),
            not_after: None,
            ca: None,
            error: None,
            failures: 0,
            next_try: None,
            text: format!("{}: {text}", shown(names)),
        }
    }
}

impl Notifier {
    /// Reads the secret that the configuration names. One that cannot be read keeps no certificate from being renewed.
    pub(super) fn of(acme: &Acme) -> Self {
        let hook = acme.hook.clone().map(|command| Target::Hook(Program::new(command, LIMIT)));
        let url = acme.webhook.as_ref().map(Webhook::read).transpose();
        let url = url.unwrap_or_else(|problem| {
            tracing::error!(problem, "[acme] webhook cannot be used; nobody is told by it");
            None
        });
        let webhook = url.map(|url| Target::Webhook(Client::new(ClientTls::new()), url));
        let targets = hook.into_iter().chain(webhook).map(Arc::new).collect();
        Self { targets, turns: Semaphore::new(AT_ONCE), waiting: Cell::new(0) }
    }

    /// Tells everybody, in the background.
    pub(super) fn tell(self: &Rc<Self>, notice: &Notice) {
        for target in &self.targets {
            if self.waiting.get() >= MAX_WAITING {
                tracing::warn!(names = ?notice.names, "nobody is told of a certificate: too many wait to be told");
                return;
            }
            self.waiting.set(self.waiting.get() + 1);
            let (own, target, notice) = (Rc::clone(self), Arc::clone(target), notice.clone());
            spawn_local(async move {
                own.insist(&target, &notice).await;
                own.waiting.set(own.waiting.get() - 1);
            });
        }
    }

    /// Tries a few times.
    async fn insist(&self, target: &Target, notice: &Notice) {
        let mut pauses = PAUSES.into_iter();
        loop {
            let turn = self.turns.acquire().await;
            let told = target.tell(notice).await;
            drop(turn);
            let Err(Untold { why, lasting }) = told else { return };
            let (by, event, names) = (target.name(), notice.event.word(), &notice.names);
            let Some(pause) = pauses.next().filter(|_| !lasting) else {
                tracing::warn!(by, event, ?names, why, "nobody was told of a certificate");
                return;
            };
            tracing::info!(by, event, ?names, why, "telling of a certificate failed; tried again");
            tokio::time::sleep(pause).await;
        }
    }
}

impl Target {
    fn name(&self) -> &'static str {
        match self {
            Self::Hook(_) => "hook",
            Self::Webhook(..) => "webhook",
        }
    }

    async fn tell(&self, notice: &Notice) -> Result<(), Untold> {
        match self {
            Self::Hook(program) => run(program, notice).await,
            Self::Webhook(client, url) => post(client, url, notice).await,
        }
    }
}

async fn run(program: &Program, notice: &Notice) -> Result<(), Untold> {
    let names = notice.names.iter().map(String::as_str);
    let arguments: Vec<&str> = std::iter::once(notice.event.word()).chain(names).collect();
    let ended = program.run(&arguments, &json(notice)).await;
    ended.map_err(|what| Untold { why: format!("{} {what}", program.path()), lasting: false })
}

async fn post(client: &Client, url: &str, notice: &Notice) -> Result<(), Untold> {
    let request = Request::builder().method(Method::POST).uri(url).header(CONTENT_TYPE, "application/json");
    let request = request
        .body(Full::from(Bytes::from(json(notice))))
        .map_err(|error| Untold { why: error.to_string(), lasting: true })?;
    let answer = client.exchange(request).await;
    let answer = answer.map_err(|error| Untold { why: error.to_string(), lasting: false })?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let passing = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    Err(Untold { why: format!("it answered {status}"), lasting: !passing && !status.is_server_error() })
}

fn json(notice: &Notice) -> Vec<u8> {
    serde_json::to_vec(notice).unwrap_or_default()
}

/// Whether the program could be run, and the URL read. Reads the disk.
pub(super) fn check(acme: &Acme) -> (Result<(), String>, Result<(), String>) {
    let hook = acme.hook.clone().map_or(Ok(()), |command| Program::new(command, LIMIT).check());
    (hook, acme.webhook.as_ref().map_or(Ok(()), |webhook| webhook.read().map(drop)))
}
