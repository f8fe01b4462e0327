//! One order, from its making to a checked chain, or from wherever a killed process left it.
//!
//! The order's URL and the key of its certificate are stored as soon as the order exists, before anything else is done with
//! it. Every later step looks at the order's state first, so that the same order is taken up again after a crash at any
//! point, and no second one is made while it is valid.

use std::cell::RefCell;
use std::time::Duration;

use http::StatusCode;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, Error, Identifier, NewOrder, Order, OrderStatus,
    Problem,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::account::Ca;
use super::failure::{Failure, late, patiently, refusal};
use super::pace::Pace;
use super::progress::Under;
use super::prove::{Looks, heard, read_authorizations, reason, told};
use super::solve::dns01::Dns;
use super::solve::{Answers, Method};
use super::store::{Bundle, EventKind, PendingOrder, Record, Retry, Secret};
use super::watchful::text;
use crate::client::one_line;
use crate::name::HostPattern;
use crate::tls;

/// An order that is older than any CA keeps one is not asked for again.
const ORDER_LIFE: time::Duration = time::Duration::days(8);
/// The longest chain that is served: clients refuse those of a hundred certificates, and every handshake would carry them.
const MAX_CHAIN: usize = 10;
/// The same in octets of PEM.
const MAX_PEM: usize = 64 * 1024;
/// The most of what a CA says of a name that it refuses, in characters.
const MAX_REFUSAL: usize = 500;

/// What is ordered, and how.
pub(super) struct Job<'a> {
    pub(super) ca: &'a Ca,
    /// The names to order: all of the record's, or those of them that are not refused.
    pub(super) names: &'a [HostPattern],
    pub(super) answers: &'a Answers,
    /// Who writes records, for the challenge dns-01.
    pub(super) dns: Option<&'a Dns>,
    pub(super) method: Method,
    /// The ARI identifier of the certificate that this one replaces.
    pub(super) replaces: Option<&'a str>,
    /// Where new orders are counted, where the CA has limits that matter.
    pub(super) pace: Option<&'a RefCell<Pace>>,
    /// Where it is told how far it is.
    pub(super) under: &'a Under,
}

/// Writes the record down; called whenever something is known that a crash must not lose.
pub(super) trait Keep {
    async fn keep(&mut self, record: &Record) -> Result<(), Failure>;
}

impl Job<'_> {
    /// Orders, or goes on with the record's pending order. Afterwards the record has its bundle, and has been kept. Returns
    /// where other chains are, for [`Job::prefer`].
    pub(super) async fn run(
        &self,
        record: &mut Record,
        keep: &mut impl Keep,
    ) -> Result<Vec<String>, Failure> {
        let account = self.ca.account().await?;
        let mut order = match self.resume(&account, record).await? {
            Some(order) => order,
            None => self.begin(record, keep).await?,
        };
        let done = self.finish(&mut order, record, keep).await;
        if done.as_ref().is_err_and(leads_nowhere) {
            record.order = None;
        }
        let (bundle, alternates) = done?;
        record.take_up(bundle);
        let by = self.method.name();
        record.note(
            OffsetDateTime::now_utc(),
            EventKind::Obtained,
            format!("by {by} from {}", self.ca.directory),
        );
        record.order = None;
        record.ari = None;
        record.alarm = None;
        // Another CA may have asked to be left alone, and the next process is to know.
        let ca_pause = record.retry.ca_pause.take().filter(|pause| pause.directory != self.ca.directory);
        record.retry = Retry { ca_pause, ..Retry::default() };
        keep.keep(record).await?;
        Ok(alternates)
    }

    /// The record's order, where it is this CA's, for these names, and still of use.
    async fn resume(&self, account: &Account, record: &mut Record) -> Result<Option<Order>, Failure> {
        let now = OffsetDateTime::now_utc();
        let is_ours = |order: &&PendingOrder| {
            order.directory == self.ca.directory
                && order.names == self.names
                && (now - order.created).abs() < ORDER_LIFE
        };
        let Some(pending) = record.order.as_ref().filter(is_ours) else { return Ok(None) };
        let url = pending.url.clone();
        let found = patiently("asking for the order", true, async || account.order(url.clone()).await).await;
        let mut order = match found {
            Ok(order) => order,
            // Whatever else the CA says of it, it is not there.
            Err(Failure::Ca { source, .. }) if is_gone(&*source) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        if order.state().status == OrderStatus::Invalid {
            return Ok(None);
        }
        tracing::info!(order = url, state = ?order.state().status, "an order is taken up again");
        record.note(now, EventKind::Resumed, url);
        Ok(Some(order))
    }

    /// Makes an order and keeps it, with the key that its certificate will have.
    async fn begin(&self, record: &mut Record, keep: &mut impl Keep) -> Result<Order, Failure> {
        let key =
            KeyPair::generate().map_err(|error| Failure::Unfit(format!("no key could be made: {error}")))?;
        let now = OffsetDateTime::now_utc();
        if let Some(pace) = self.pace {
            pace.borrow_mut().take(&self.ca.directory, now).map_err(Failure::Crowded)?;
        }
        self.under.step(format!("asking {} for an order", self.ca.host()));
        let (order, replaces) = self.make(self.names).await?;
        let now = OffsetDateTime::now_utc();
        record.order = Some(PendingOrder {
            url: order.url().to_owned(),
            directory: self.ca.directory.clone(),
            key_pem: Secret::new(key.serialize_pem()),
            names: self.names.to_vec(),
            created: now,
            replaces,
        });
        record.note(now, EventKind::Ordered, order.url());
        keep.keep(record).await?;
        Ok(order)
    }

    /// `replaces` is left out where the CA may have refused it, and an account that the CA does not know is made anew, once.
    async fn make(&self, names: &[HostPattern]) -> Result<(Order, Option<String>), Failure> {
        let mut account = self.ca.account().await?;
        let (mut replaces, mut recreated) = (self.replaces, false);
        loop {
            match self.ask(&account, names, replaces).await {
                Ok(made) => return Ok(made),
                Err(failure) if replaces.is_some() && may_reject_replaces(&failure) => replaces = None,
                Err(failure) if !recreated && self.is_unknown(&failure).await => {
                    recreated = true;
                    account = self.ca.recreate().await?;
                }
                Err(failure) => return Err(refused_names(self.ca.judge(failure))),
            }
        }
    }

    /// Whether the CA does not know the account. One that was deactivated it knows.
    async fn is_unknown(&self, failure: &Failure) -> bool {
        match failure.kind() {
            "accountDoesNotExist" => true,
            "unauthorized" | "malformed" => self.ca.is_lost().await,
            _ => false,
        }
    }

    /// The order, and what it says that it replaces.
    async fn ask(
        &self,
        account: &Account,
        names: &[HostPattern],
        mut replaces: Option<&str>,
    ) -> Result<(Order, Option<String>), Failure> {
        let identifiers: Vec<_> = names.iter().map(|name| Identifier::Dns(name.to_string())).collect();
        patiently("making an order", false, async || {
            let mut new = NewOrder::new(&identifiers);
            if let Some(profile) = &self.ca.profile {
                new = new.profile(profile);
            }
            if let Some(id) = replaces.and_then(certificate_identifier) {
                new = new.replaces(id);
            }
            let order = account.new_order(&new).await;
            // Pebble's word for a certificate that it does not find, as one whose serial number begins with a zero.
            if order
                .as_ref()
                .is_err_and(|error| refusal(error).is_some_and(|why| why.kind() == "serverInternal"))
            {
                replaces = None;
            }
            order.map(|order| (order, replaces.map(str::to_owned)))
        })
        .await
    }

    /// From any state to the certificate, and to where its other chains are.
    async fn finish(
        &self,
        order: &mut Order,
        record: &mut Record,
        keep: &mut impl Keep,
    ) -> Result<(Bundle, Vec<String>), Failure> {
        let Some(pending) = record.order.clone() else {
            return Err(Failure::Unfit("an order without a record".to_owned()));
        };
        let (mut looks, mut asked) = (Looks::new(), None);
        loop {
            let before = order.state().status;
            match before {
                OrderStatus::Pending => {
                    self.prove(order, record, keep).await?;
                    looks = Looks::new();
                }
                OrderStatus::Ready => asked = self.finalize(order, &pending).await?,
                OrderStatus::Valid => break,
                OrderStatus::Processing => {}
                OrderStatus::Invalid => return Err(invalid(order).await),
            }
            if matches!(order.state().status, OrderStatus::Valid) {
                break;
            }
            if looks.are_over() {
                return Err(late("waiting for the CA to finish the order"));
            }
            if order.state().status == OrderStatus::Processing {
                looks.wait(asked).await;
            }
            asked = self.look(order).await?;
            if order.state().status == before && before != OrderStatus::Processing {
                looks.wait(asked).await;
            }
        }
        self.under.step(format!("fetching the certificate from {}", self.ca.host()));
        let url = order.state().certificate.clone().unwrap_or_default();
        self.ca.client.keep_aside(&url);
        let fetched = patiently("fetching the certificate", true, async || order.certificate().await).await;
        let answer = self.ca.client.taken_aside(&url);
        let pem = fetched?.ok_or_else(|| late("the certificate was not there yet"))?;
        let alternates = answer.map(|answer| self.alternates(&pem, answer.headers())).unwrap_or_default();
        let mut bundle = self.bundle(pem, &pending)?;
        bundle.lacks = record.names.iter().filter(|name| !self.names.contains(name)).cloned().collect();
        Ok((bundle, alternates))
    }

    async fn finalize(&self, order: &mut Order, pending: &PendingOrder) -> Result<Option<Duration>, Failure> {
        let csr =
            request(pending).map_err(|error| Failure::Unfit(format!("no request could be made: {error}")))?;
        self.under.step(format!("waiting for {} to sign", self.ca.host()));
        let before = order.state().status;
        let sent = patiently("finalizing the order", false, async || order.finalize_csr(&csr).await).await;
        let Err(failure) = sent else { return Ok(None) };
        // It may have been heard all the same.
        let asked = self.look(order).await?;
        if order.state().status == before { Err(refused_names(failure)) } else { Ok(asked) }
    }

    /// Reads the order's state. Returns how long the CA asks to wait before the next look.
    async fn look(&self, order: &mut Order) -> Result<Option<Duration>, Failure> {
        let url = order.url().to_owned();
        let asked = heard(&self.ca.client, &url, async || {
            patiently("asking for the order", true, async || order.refresh().await.map(drop)).await
        });
        Ok(asked.await?.1)
    }

    fn bundle(&self, pem: String, pending: &PendingOrder) -> Result<Bundle, Failure> {
        let key_pem = pending.key_pem.clone();
        let count = CertificateDer::pem_slice_iter(pem.as_bytes()).take(MAX_CHAIN + 1).count();
        if count > MAX_CHAIN || pem.len() > MAX_PEM {
            let why = format!("over {MAX_CHAIN} certificates, or over {} KiB", MAX_PEM / 1024);
            return Err(Failure::Unfit(format!("the CA's chain is too long to be served: {why}")));
        }
        tls::fits(pem.as_bytes(), key_pem.expose().as_bytes(), self.names)
            .map_err(|why| Failure::Unfit(format!("the CA's certificate is not fit to be served: {why}")))?;
        let leaf = Leaf::read(&pem)
            .ok_or_else(|| Failure::Unfit("the CA's certificate does not parse".to_owned()))?;
        let now = OffsetDateTime::now_utc();
        if now < leaf.not_before || leaf.not_after <= now {
            // It would take the place of a good one.
            let (from, to) = (text(leaf.not_before), text(leaf.not_after));
            return Err(Failure::Unfit(format!(
                "the CA's certificate is valid from {from} to {to}, and not now"
            )));
        }
        Ok(Bundle {
            key_pem,
            chain_pem: pem,
            directory: self.ca.directory.clone(),
            profile: self.ca.profile.clone(),
            issued: now,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            ari_id: leaf.ari_id,
            imported: false,
            lacks: Vec::new(),
        })
    }
}

/// What a leaf says of itself.
pub(super) struct Leaf {
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
    /// RFC 9773 section 4.1; None where it has no authority key identifier.
    pub(super) ari_id: Option<String>,
    pub(super) der: CertificateDer<'static>,
}

impl Leaf {
    /// The first certificate of a PEM text.
    pub(super) fn read(pem: &str) -> Option<Self> {
        let der = CertificateDer::pem_slice_iter(pem.as_bytes()).next()?.ok()?;
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        let validity = parsed.validity();
        let (not_before, not_after) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        let ari_id = CertificateIdentifier::try_from(&der).ok().map(|id| id.to_string());
        Some(Self { not_before, not_after, ari_id, der })
    }
}

/// An identifier as the library has it (RFC 9773 section 4.1).
pub(super) fn certificate_identifier(id: &str) -> Option<CertificateIdentifier<'static>> {
    let (authority, serial) = id.split_once('.')?;
    Some(CertificateIdentifier {
        authority_key_identifier: authority.to_owned().into(),
        serial: serial.to_owned().into(),
    })
}

/// The names behind an order that the CA has given up.
async fn invalid(order: &mut Order) -> Failure {
    let (mut failed, error) = match &order.state().error {
        Some(problem) => (names_of(problem), Some(told(problem))),
        None => (Vec::new(), None),
    };
    let _ = read_authorizations(order).await;
    let mut handles = order.authorizations();
    while let Some(Ok(handle)) = handles.next().await {
        let name = handle.identifier().to_string();
        if matches!(handle.status, AuthorizationStatus::Invalid)
            && !failed.iter().any(|(own, _)| *own == name)
        {
            failed.push((name, reason(&handle)));
        }
    }
    match error {
        _ if !failed.is_empty() => Failure::Names(failed),
        Some(error) => Failure::Unfit(format!("the CA has given the order up: {error}")),
        None => Failure::Unfit("the CA has given the order up, and does not say why".to_owned()),
    }
}

/// The signing request (RFC 2986): the names, no subject, the stored key.
fn request(pending: &PendingOrder) -> Result<Vec<u8>, rcgen::Error> {
    let key = KeyPair::from_pem(pending.key_pem.expose())?;
    let names: Vec<String> = pending.names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&key)?.der().to_vec())
}

/// An order that the CA does not have, or that is not this account's.
fn is_gone(source: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let Some(error) = source.downcast_ref::<Error>() else { return false };
    refusal(error).is_some_and(|refusal| {
        matches!(
            refusal.status,
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED
        ) || matches!(refusal.kind(), "malformed" | "accountDoesNotExist" | "orderNotFound")
    })
}

/// Whether the refusal may be about what is replaced (RFC 9773 section 5): a certificate that the CA does not know, that it has
/// replaced, or that another account ordered, as certbot's did. Pebble says `serverInternal` of one that it does not find, as
/// of its own whose serial number begins with a zero. A CA without ARI is asked for nothing by the library, and one that does
/// not repeat what is replaced is not believed.
fn may_reject_replaces(failure: &Failure) -> bool {
    let by_library = match failure {
        Failure::Ca { source, .. } => match source.downcast_ref() {
            Some(Error::Unsupported(_)) => true,
            Some(Error::Other(other)) => other.to_string().starts_with("replaces field mismatch"),
            _ => false,
        },
        _ => false,
    };
    by_library || matches!(failure.kind(), "alreadyReplaced" | "conflict" | "malformed" | "unauthorized")
}

/// Whether the order is of no use any more: its names or its key will not do.
fn leads_nowhere(failure: &Failure) -> bool {
    matches!(failure, Failure::Names(_) | Failure::Unfit(_))
        || matches!(failure.kind(), "badCSR" | "badPublicKey")
}

/// A refusal that names identifiers is told by name.
fn refused_names(failure: Failure) -> Failure {
    let Failure::Ca { source, .. } = &failure else { return failure };
    let Some(refusal) = source.downcast_ref::<Error>().and_then(refusal) else {
        return failure;
    };
    let Some(problem) = &refusal.problem else { return failure };
    let names = names_of(problem);
    if names.is_empty() { failure } else { Failure::Names(names) }
}

/// The names that a problem is about, and what the CA says of each (RFC 8555 section 6.7.1).
fn names_of(problem: &Problem) -> Vec<(String, String)> {
    let names = problem.subproblems.iter().filter_map(|problem| {
        let name = problem.identifier.as_ref()?.authorized(false).to_string();
        Some((name, one_line(problem.detail.as_deref().unwrap_or("refused"), MAX_REFUSAL)))
    });
    names.collect()
}
