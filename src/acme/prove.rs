//! Proving the names of an order: the challenges are answered, and the CA is waited for.

use std::collections::HashMap;
use std::time::Duration;

use http::header::RETRY_AFTER;
use instant_acme::{AuthorizationState, AuthorizationStatus, ChallengeStatus, Order, Problem};
use tokio::time::Instant;

use super::client::Client;
use super::failure::{Failure, kind, late, patiently};
use super::order::{Job, Keep};
use super::solve::Method;
use super::store::Record;
use crate::client::{one_line, retry_after};
use crate::tls::challenges::Guard;

/// How long a CA may take to look at the challenges, and then to sign.
pub(super) const PATIENCE: Duration = Duration::from_mins(3);
/// The waits between looks at what a CA is doing, where it asks for none: from the first, each half as long again, to the last.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The most of what a CA says of one name that is told, in characters.
const MAX_REASON: usize = 500;

/// The waits between looks at one thing, until the patience is over.
pub(super) struct Looks {
    deadline: Instant,
    pause: Duration,
}

impl Looks {
    pub(super) fn new() -> Self {
        Self { deadline: Instant::now() + PATIENCE, pause: LOOKS.0 }
    }

    pub(super) fn are_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Waits as long as the CA asked, else a little longer than the last time; never beyond the end.
    pub(super) async fn wait(&mut self, asked: Option<Duration>) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        tokio::time::sleep(asked.unwrap_or(self.pause).max(LOOKS.0).min(left)).await;
        self.pause = (self.pause * 3 / 2).min(LOOKS.1);
    }
}

impl Job<'_> {
    /// Answers every authorization's challenge, and waits until the CA has looked at all of them.
    pub(super) async fn prove(
        &self,
        order: &mut Order,
        record: &mut Record,
        keep: &mut impl Keep,
    ) -> Result<(), Failure> {
        read_authorizations(order).await?;
        let looked = self.show(order, record, keep).await;
        if let Some(dns) = self.dns {
            dns.retract(record).await;
        }
        looked
    }

    async fn show(
        &self,
        order: &mut Order,
        record: &mut Record,
        keep: &mut impl Keep,
    ) -> Result<(), Failure> {
        let (standing, proofs) = self.present(order).await?;
        match self.dns {
            Some(dns) if self.method == Method::Dns01 => {
                dns.publish(proofs, record, keep, self.under).await?;
            }
            _ => {}
        }
        let unheard = tell(order, self.method).await;
        self.under.step(format!("waiting for {} to look, by {}", self.ca.host(), self.method.name()));
        let looked = looked_at(&self.ca.client, order, self.method, unheard).await;
        drop(standing);
        looked
    }

    /// Puts the edge's own answers where the CA will look. Returns what stands while it is held, and what is to stand in
    /// the DNS, by name.
    async fn present(&self, order: &mut Order) -> Result<(Vec<Guard>, Vec<(String, String)>), Failure> {
        let (mut standing, mut proofs) = (Vec::new(), Vec::new());
        let mut handles = order.authorizations();
        while let Some(Ok(mut handle)) = handles.next().await {
            if handle.status != AuthorizationStatus::Pending {
                continue;
            }
            let name = handle.identifier().to_string();
            if !self.names.iter().any(|own| own.to_string() == name) {
                let name = one_line(&name, MAX_REASON);
                return Err(Failure::Unfit(format!(
                    "the CA wants a proof for {name}, which was not ordered"
                )));
            }
            let Some(challenge) = handle.challenge(self.method.kind()) else {
                let why = format!("the CA offers no {} for it", self.method.name());
                return Err(Failure::Names(vec![(name, why)]));
            };
            let proof = challenge.key_authorization();
            standing.extend(self.answers.present(self.method, &name, &challenge.token, &proof)?);
            let domain = name.strip_prefix("*.").unwrap_or(&name);
            proofs.push((domain.to_owned(), proof.dns_value()));
        }
        Ok((standing, proofs))
    }
}

/// Reads every authorization once; the order has them from then on.
pub(super) async fn read_authorizations(order: &mut Order) -> Result<(), Failure> {
    patiently("reading the authorizations", true, async || {
        let mut identifiers = order.identifiers();
        while let Some(read) = identifiers.next().await {
            read?;
        }
        Ok(())
    })
    .await
}

/// Does something whose good answer comes from that URL, and tells how long the CA asks to wait before the next look.
pub(super) async fn heard<T>(
    client: &Client,
    url: &str,
    work: impl AsyncFnOnce() -> Result<T, Failure>,
) -> Result<(T, Option<Duration>), Failure> {
    client.keep_aside(url);
    let done = work().await;
    let answer = client.taken_aside(url);
    Ok((done?, answer.and_then(|answer| retry_after(answer.headers().get(RETRY_AFTER)?))))
}

/// Tells the CA that it may look. Returns the names of those that it may not have heard.
async fn tell(order: &mut Order, method: Method) -> HashMap<String, Failure> {
    let mut unheard = HashMap::new();
    let mut handles = order.authorizations();
    while let Some(Ok(mut handle)) = handles.next().await {
        if handle.status != AuthorizationStatus::Pending {
            continue;
        }
        let name = handle.identifier().to_string();
        let Some(mut challenge) = handle.challenge(method.kind()) else { continue };
        let told = patiently("answering a challenge", true, async || challenge.set_ready().await).await;
        if let Err(failure) = told {
            // A CA that heard it before, from a process that is dead, or in an answer that was lost, may take it ill.
            unheard.insert(name, failure);
        }
    }
    unheard
}

/// Waits until no authorization is pending. The failed ones are told with their names. `unheard` has the names whose
/// challenge may not have reached the CA. An order that the CA only takes long for can still be gone on with.
async fn looked_at(
    client: &Client,
    order: &mut Order,
    method: Method,
    mut unheard: HashMap<String, Failure>,
) -> Result<(), Failure> {
    let (mut looks, mut failed, mut slow) = (Looks::new(), Vec::new(), false);
    let mut handles = order.authorizations();
    while let Some(Ok(mut handle)) = handles.next().await {
        looks.pause = LOOKS.0;
        let mut asked = None;
        while handle.status == AuthorizationStatus::Pending && !looks.are_over() {
            looks.wait(asked).await;
            let url = handle.url().to_owned();
            let refreshed = heard(client, &url, async || {
                patiently("reading an authorization", true, async || handle.refresh().await.map(drop)).await
            });
            ((), asked) = refreshed.await?;
            let own = handle.challenges.iter().find(|own| own.r#type == method.kind());
            if own.is_some_and(|own| own.status == ChallengeStatus::Pending)
                && let Some(failure) = unheard.remove(&handle.identifier().to_string())
            {
                return Err(failure);
            }
        }
        match handle.status {
            AuthorizationStatus::Valid => {}
            AuthorizationStatus::Pending => slow = true,
            _ => failed.push((handle.identifier().to_string(), reason(&handle))),
        }
    }
    match failed.is_empty() {
        true if slow => Err(late("waiting for the CA to look")),
        true => Ok(()),
        false => Err(Failure::Names(failed)),
    }
}

/// Why an authorization failed: what its challenge says.
pub(super) fn reason(state: &AuthorizationState) -> String {
    let problem = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
    problem.map_or_else(|| format!("the authorization is {:?}", state.status).to_lowercase(), told)
}

/// A CA tells what strangers' servers said, in any length.
pub(super) fn told(problem: &Problem) -> String {
    let detail = problem.detail.as_deref().unwrap_or("no detail given");
    format!("{} ({})", one_line(detail, MAX_REASON), kind(problem))
}
