//! What is true: the configuration after every check. Nothing in here can be wrong, so nothing in here has a
//! `validate`.

mod acme;
mod answer;
mod compress;
mod edge;
mod errors;
mod ports;
mod proxy;
mod site;
mod source;
mod trace;

pub use acme::*;
pub use answer::*;
pub use compress::*;
pub use edge::*;
pub use errors::*;
pub use ports::*;
pub use proxy::*;
pub use site::*;
pub use source::*;
pub use trace::*;

use crate::addr::Source;

/// A whole, valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[sources]`, in the order of the file, without the built-in `public`.
    pub sources: Vec<Source>,
    /// Those of them that are read from files.
    pub source_files: Vec<SourceFile>,
    /// `[ports]`, in the order of the file. Sites name them by index.
    pub rows: Vec<Row>,
    /// The rows of `[ports]` that only the firewall acts on, in the order of the file.
    pub host_rows: Vec<HostRow>,
    /// `[[site]]`, in the order of the file.
    pub sites: Vec<Site>,
    /// What forward rows are called that have a certificate of their own: sites without routes.
    pub named: Vec<Site>,
    /// `[acme]`
    pub acme: Acme,
    /// `[tls]`
    pub tls: Tls,
    /// `[store]`
    pub store: Store,
    /// `[client_address]`; None when the table is missing: the peer is the client.
    pub client_address: Option<ClientAddress>,
    /// `[limits]`
    pub limits: Limits,
    /// `[log]`
    pub log: Log,
    /// `[admin]`
    pub admin: Admin,
    /// `[trace]`; None when the table is missing: nothing is exported.
    pub trace: Option<Tracing>,
    /// `[process]`
    pub process: Process,
}

/// What a source is named for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Its members may come in.
    Allow,
    /// Its members may not.
    Deny,
    /// Its members are believed about who the client is.
    Believe,
}

impl Config {
    /// Every source that a list names, as often as one does.
    pub fn sources_in_use(&self) -> Vec<&Source> {
        let rows = self.rows.iter().map(|row| &row.gate).chain(self.host_rows.iter().map(|row| &row.gate));
        let routes = self.sites.iter().flat_map(|site| &site.routes).map(|route| &route.gate);
        let gates = rows.chain(self.sites.iter().map(|site| &site.gate)).chain(routes);
        let lists = gates.flat_map(|gate| gate.allow.iter().chain(&gate.deny));
        let proxies = self.rows.iter().filter_map(|row| row.proxy_protocol.as_ref()).flatten();
        let trusted = self.client_address.iter().flat_map(|client| &client.trusted);
        let admin = self.admin.listen.iter().flat_map(|listen| &listen.allow);
        let workmen = self.sites.iter().flat_map(|site| &site.errors.allow);
        lists.chain(proxies).chain(trusted).chain(admin).chain(workmen).collect()
    }

    /// Shows every source to `change`, wherever it stands, with what it is named for; `[sources]` itself is left out.
    pub fn change_sources(&mut self, mut change: impl FnMut(Use, &mut Source)) {
        let rows = self.rows.iter_mut().map(|row| (&mut row.gate, row.proxy_protocol.as_mut()));
        let hosts = self.host_rows.iter_mut().map(|row| (&mut row.gate, None));
        for source in self.sites.iter_mut().flat_map(|site| &mut site.errors.allow) {
            change(Use::Allow, source);
        }
        let sites = self.sites.iter_mut().flat_map(|site| {
            std::iter::once(&mut site.gate).chain(site.routes.iter_mut().map(|route| &mut route.gate))
        });
        for (gate, believed) in rows.chain(hosts).chain(sites.map(|gate| (gate, None))) {
            gate.allow.iter_mut().for_each(|source| change(Use::Allow, source));
            gate.deny.iter_mut().for_each(|source| change(Use::Deny, source));
            believed.into_iter().flatten().for_each(|source| change(Use::Believe, source));
        }
        for source in self.client_address.iter_mut().flat_map(|client| &mut client.trusted) {
            change(Use::Believe, source);
        }
        for source in self.admin.listen.iter_mut().flat_map(|listen| &mut listen.allow) {
            change(Use::Allow, source);
        }
    }

    /// Everything that has a certificate: the sites, then what forward rows are called.
    pub fn certified(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter().chain(&self.named)
    }

    /// Whether a certificate comes from a CA at all.
    pub fn asks_a_ca(&self) -> bool {
        self.certified().any(|site| site.certificate == Certificate::Acme)
    }

    /// Everything that it listens on.
    pub fn binds(&self) -> impl Iterator<Item = Bind> {
        let admin = self.admin.listen.iter().map(|listen| listen.bind);
        self.rows.iter().map(|row| row.bind).chain(admin)
    }
}

/// Where in the file something stands, for errors that are found after the file was read. The default is the file
/// as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Byte offsets of the value in the file.
    pub span: std::ops::Range<usize>,
    /// The path of the key, as in `site[0].certificate`.
    pub path: String,
}
