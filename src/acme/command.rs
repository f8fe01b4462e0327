//! What the manager is asked to do, beyond what it does by itself.

use tokio::sync::oneshot;

use super::store::RecordId;

/// Something to be done with one certificate, or with the accounts. The reply is what was done, or why it was not, in words.
#[derive(Debug)]
pub enum Command {
    /// Order a new one now, whatever its age and whatever failed before.
    Renew(RecordId, oneshot::Sender<Result<String, String>>),
    /// Have the CA revoke it, and order another.
    Revoke(RecordId, oneshot::Sender<Result<String, String>>),
    /// Give the account at every CA a new key.
    Rekey(oneshot::Sender<Result<String, String>>),
}

impl Command {
    /// Says why it is not obeyed.
    pub(super) fn refuse(self, why: String) {
        let (Self::Renew(_, reply) | Self::Revoke(_, reply) | Self::Rekey(reply)) = self;
        // Whoever asked may have left.
        let _ = reply.send(Err(why));
    }
}
