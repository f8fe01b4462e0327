//! One client connection as its requests see it: who is on the other end, and what the configuration of this moment
//! says of that.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::worker::Worker;
use crate::addr::{ClientAddr, Permit, Port, Refused};
use crate::config::model::{Bind, RowId, Serve};
use crate::lobby::Seat;
use crate::name::Hostname;
use crate::route::SiteEntry;
use crate::snapshot::Snapshot;
use crate::tls::SiteConfig;

/// A client connection behind its handshake.
pub(super) struct Link {
    pub(super) worker: Rc<Worker>,
    pub(super) seat: Seat,
    /// The row that it came in on.
    pub(super) bind: Bind,
    /// The row as the configuration names it.
    pub(super) row_name: String,
    /// The address that it came in at.
    pub(super) local: SocketAddr,
    /// The other end, or the client that a PROXY header named.
    pub(super) peer: ClientAddr,
    /// None on an http row.
    pub(super) tls: Option<TlsFacts>,
    standing: RefCell<Rc<Standing>>,
}

/// What a handshake settled.
pub(super) struct TlsFacts {
    pub(super) name: Hostname,
    /// What the client was let in by.
    pub(super) config: Arc<SiteConfig>,
    pub(super) version: &'static str,
    pub(super) suite: &'static str,
    pub(super) resumed: bool,
}

/// How a connection stands with one snapshot.
pub(super) struct Standing {
    pub(super) permit: Permit<Port>,
    /// The site that the TLS server name chose; None on an http row, or where a reload took the name away.
    pub(super) site: Option<Arc<SiteEntry>>,
    pub(super) row: RowId,
    pub(super) snapshot: Arc<Snapshot>,
}

impl Link {
    pub(super) fn new(
        worker: Rc<Worker>,
        seat: Seat,
        (bind, local): (Bind, SocketAddr),
        peer: ClientAddr,
        tls: Option<TlsFacts>,
    ) -> Result<Rc<Self>, Refused> {
        let standing = Standing::of(&worker, bind, peer, tls.as_ref())?;
        if let Some(site) = &standing.site {
            seat.is_for(site.series);
        }
        let row_name = bind.to_string();
        Ok(Rc::new(Self {
            worker,
            seat,
            bind,
            row_name,
            local,
            peer,
            tls,
            standing: RefCell::new(Rc::new(standing)),
        }))
    }

    /// How the connection stands now. The gate is asked again when the configuration changed, so that a
    /// connection which is kept alive obeys a new allow list, and a site that asks for client certificates now.
    pub(super) fn standing(&self) -> Result<Rc<Standing>, Refused> {
        let mut standing = self.standing.borrow_mut();
        if !self.worker.lobby.live.is_current(&standing.snapshot) {
            *standing = Rc::new(Standing::of(&self.worker, self.bind, self.peer, self.tls.as_ref())?);
            if let Some(site) = &standing.site {
                self.seat.is_for(site.series);
            }
        }
        Ok(Rc::clone(&standing))
    }
}

impl Standing {
    fn of(worker: &Worker, bind: Bind, peer: ClientAddr, tls: Option<&TlsFacts>) -> Result<Self, Refused> {
        let snapshot = worker.lobby.live.load();
        let (row, rule) = snapshot.row(bind).ok_or(Refused)?;
        let served = if tls.is_some() { Serve::Https } else { Serve::Http };
        if rule.serve() != Some(served) {
            return Err(Refused);
        }
        let permit = rule.gate.admit(peer)?;
        let site = tls.and_then(|tls| snapshot.table.site(row, tls.name.as_str())).cloned();
        let is_let_in = |(tls, site): (&TlsFacts, &Arc<SiteEntry>)| tls.suffices(&snapshot, site);
        if !tls.zip(site.as_ref()).is_none_or(is_let_in) {
            return Err(Refused);
        }
        Ok(Self { permit, site, row, snapshot })
    }
}

impl TlsFacts {
    /// Whether the site would let the client in by the certificate that it has shown, or by none.
    fn suffices(&self, snapshot: &Snapshot, site: &SiteEntry) -> bool {
        let Some(own) = snapshot.tls(site) else { return true };
        own.config(&self.name).map_or(!own.asks_clients(), |now| now.admits_like(&self.config))
    }
}
