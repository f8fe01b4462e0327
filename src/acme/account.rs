//! One CA, and the account there: made when it is first needed, so that a CA which is down keeps nothing from starting.

use std::sync::Arc;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, Key, NewAccount};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio::sync::{Mutex, Semaphore};

use super::client::Client;
use super::failure::{Failure, patiently};
use super::settings::CaSettings;
use super::store::{AccountRecord, Store, StoreError};

/// How many threads wait for the store at once: a thousand certificates are no reason for a thousand threads.
static DISK: Semaphore = Semaphore::const_new(4);
/// How long an account's key is used.
const KEY_LIFE: time::Duration = time::Duration::days(365);

/// An external account binding (RFC 8555 section 7.3.4).
#[derive(Clone)]
pub(super) struct Binding {
    pub(super) key_id: String,
    /// The key itself, decoded.
    pub(super) hmac: Vec<u8>,
}

/// One CA.
pub(super) struct Ca {
    /// The URL of its directory.
    pub(super) directory: String,
    /// The profile to order with.
    pub(super) profile: Option<String>,
    /// The common name of the root that chains are to lead to.
    pub(super) preferred_chain: Option<String>,
    pub(super) client: Client,
    contacts: Vec<String>,
    binding: Option<Binding>,
    store: Arc<Store>,
    account: Mutex<Option<Account>>,
}

impl Ca {
    pub(super) fn new(settings: CaSettings, client: Client, email: Option<&str>, store: Arc<Store>) -> Self {
        let contacts = email.map(|email| format!("mailto:{email}")).into_iter().collect();
        let CaSettings { directory, profile, preferred_chain, binding, .. } = settings;
        Self {
            directory,
            profile,
            preferred_chain,
            client,
            contacts,
            binding,
            store,
            account: Mutex::default(),
        }
    }

    /// The host of its directory, for people.
    pub(super) fn host(&self) -> &str {
        let rest = self.directory.strip_prefix("https://").unwrap_or(&self.directory);
        rest.split('/').next().unwrap_or_default()
    }

    /// The account: the stored one, else a new one. Contacts that changed are told to the CA first.
    pub(super) async fn account(&self) -> Result<Account, Failure> {
        let mut held = self.account.lock().await;
        if let Some(account) = &*held {
            return Ok(account.clone());
        }
        let account = match self.load().await? {
            Some(record) => {
                let is_old = OffsetDateTime::now_utc() - record.created > KEY_LIFE;
                let account = self.restore(record).await?;
                if is_old { self.with_new_key(account).await } else { account }
            }
            None => self.create().await?,
        };
        Ok(held.insert(account).clone())
    }

    /// Forgets an account that the CA does not know, and makes another.
    pub(super) async fn recreate(&self) -> Result<Account, Failure> {
        tracing::warn!(directory = self.directory, "the CA does not know the account; another is made");
        let mut held = self.account.lock().await;
        Ok(held.insert(self.create().await?).clone())
    }

    /// Gives the stored account a new key. False where there is no account yet. No order may be under way meanwhile.
    pub(super) async fn rekey(&self) -> Result<bool, Failure> {
        let mut held = self.account.lock().await;
        let account = match (&*held, self.load().await?) {
            (Some(account), _) => account.clone(),
            (None, Some(record)) => self.restore(record).await?,
            (None, None) => return Ok(false),
        };
        *held = Some(self.roll(account).await?);
        Ok(true)
    }

    /// Whether the CA knows no account by the stored key: where a process died between a change of it and the disk.
    pub(super) async fn is_lost(&self) -> bool {
        let Ok(Some(record)) = self.load().await else { return false };
        let found = patiently("looking for the account", true, async || {
            let key = key_of(&record).ok_or(Error::Str("a stored key that is none"))?;
            let builder = Account::builder_with_http(Box::new(self.client.clone()));
            builder.from_key(key, self.directory.clone()).await.map(drop)
        });
        found.await.is_err_and(|failure| failure.kind() == "accountDoesNotExist")
    }

    /// The account with a new key; where that fails, the old one goes on until the next start.
    async fn with_new_key(&self, account: Account) -> Account {
        let rolled = self.roll(account.clone()).await;
        rolled.unwrap_or_else(|failure| {
            tracing::warn!(directory = self.directory, %failure, "the account's key was not changed");
            account
        })
    }

    /// Gives the account a new key (RFC 8555 section 7.3.5). The CA knows the new one alone from then on, so that the disk is
    /// tried before.
    async fn roll(&self, mut account: Account) -> Result<Account, Failure> {
        on_disk(&self.store, Store::probe).await?;
        let rolled = patiently("changing the account's key", false, async || account.update_key().await);
        let credentials = rolled.await?;
        match self.save(&credentials, self.contacts.clone()).await {
            Ok(()) => tracing::info!(directory = self.directory, "the account has a new key"),
            Err(failure) => {
                tracing::error!(directory = self.directory, %failure, "the account's new key could not be stored, and goes with this process");
            }
        }
        Ok(account)
    }

    /// Tells a failure that is the account's own, and that no later try will cure.
    pub(super) fn judge(&self, failure: Failure) -> Failure {
        let (what, fix) = match failure.kind() {
            "unauthorized" => (
                format!("may not be used ({failure})"),
                "if it was deactivated, move its file in the store's acme/accounts away, and a new one is made",
            ),
            "externalAccountRequired" => (
                "needs a binding to a customer's account".to_owned(),
                "name it as [acme] eab; `vestibule certs renew NAME` tries at once",
            ),
            "userActionRequired" => (format!("needs a person ({failure})"), "follow the CA's link"),
            _ => return failure,
        };
        Failure::Account { directory: self.directory.clone(), what, fix }
    }

    /// The same of an account that is not there yet.
    fn judge_new(&self, failure: Failure) -> Failure {
        if self.binding.is_none() || !matches!(failure.kind(), "unauthorized" | "malformed") {
            return self.judge(failure);
        }
        Failure::Account {
            directory: self.directory.clone(),
            what: format!("was not made ({failure})"),
            fix: "look at the key of its `eab`; `vestibule certs renew NAME` tries at once",
        }
    }

    async fn restore(&self, record: AccountRecord) -> Result<Account, Failure> {
        let account = patiently("reading the CA's directory", true, async || {
            let credentials: AccountCredentials = serde_json::from_value(record.credentials.clone())?;
            Account::builder_with_http(Box::new(self.client.clone())).from_credentials(credentials).await
        })
        .await?;
        if record.contacts == self.contacts {
            return Ok(account);
        }
        let contacts: Vec<&str> = self.contacts.iter().map(String::as_str).collect();
        let told = patiently("changing the account's contact", true, async || {
            account.update_contacts(&contacts).await
        })
        .await;
        match told {
            Ok(()) => {
                let record = AccountRecord { contacts: self.contacts.clone(), ..record };
                self.save_record(record).await?;
                Ok(account)
            }
            // Orders find the same, and make another account.
            Err(failure) if failure.kind() == "accountDoesNotExist" => Ok(account),
            // The account is good all the same: a certificate must not wait for an address.
            Err(failure) if matches!(failure.kind(), "invalidContact" | "unsupportedContact") => {
                tracing::warn!(directory = self.directory, %failure, "the CA refuses the address in [acme] email, and keeps the one before");
                Ok(account)
            }
            Err(failure) => Err(self.judge(failure)),
        }
    }

    async fn create(&self) -> Result<Account, Failure> {
        let contact: Vec<&str> = self.contacts.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let binding = self.binding.as_ref().map(|own| ExternalAccountKey::new(own.key_id.clone(), &own.hmac));
        let made = patiently("making an account", true, async || {
            let builder = Account::builder_with_http(Box::new(self.client.clone()));
            builder.create(&new, self.directory.clone(), binding.as_ref()).await
        });
        let (account, credentials) = made.await.map_err(|failure| self.judge_new(failure))?;
        self.save(&credentials, self.contacts.clone()).await?;
        tracing::info!(directory = self.directory, account = account.id(), "an account was made");
        Ok(account)
    }

    async fn save(&self, credentials: &AccountCredentials, contacts: Vec<String>) -> Result<(), Failure> {
        let credentials = serde_json::to_value(credentials)
            .map_err(|error| Failure::of("keeping the account", Error::from(error)))?;
        let created = OffsetDateTime::now_utc();
        self.save_record(AccountRecord { credentials, contacts, created }).await
    }

    async fn save_record(&self, record: AccountRecord) -> Result<(), Failure> {
        let directory = self.directory.clone();
        on_disk(&self.store, move |store| store.save_account(&directory, &record)).await
    }

    async fn load(&self) -> Result<Option<AccountRecord>, Failure> {
        let directory = self.directory.clone();
        on_disk(&self.store, move |store| store.account(&directory)).await
    }
}

/// The account's key, out of what the library wants back.
fn key_of(record: &AccountRecord) -> Option<(Key, PrivateKeyDer<'static>)> {
    let text = record.credentials.get("key_pkcs8")?.as_str()?;
    let der = PrivatePkcs8KeyDer::from(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?);
    Some((Key::from_pkcs8_der(der.clone_key()).ok()?, der.into()))
}

/// Waits for the disk on a thread that may.
pub(super) async fn on_disk<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    let _turn = DISK.acquire().await;
    let store = Arc::clone(store);
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failure::Unfit("a mistake of the edge's own; the log says more".to_owned())),
    }
}
