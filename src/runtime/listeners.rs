//! Which rows listen, and where.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::config::model::{Bind, Row};
use crate::net::inherit::Given;
use crate::net::listen::{self, BindError, Bound};

/// The rows that listen.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    rows: HashMap<Bind, Listening>,
}

/// The workers' sockets once more: they are handed on to whoever takes over.
#[derive(Debug)]
struct Listening {
    addresses: Vec<SocketAddr>,
    sockets: Vec<TcpListener>,
}

/// Rows that were bound, and that no worker has yet. Dropping them closes them.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    rows: Vec<(Bind, Bound)>,
}

impl Prepared {
    /// What was bound.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.rows.iter().flat_map(|(_, bound)| bound.addresses()).copied().collect()
    }
}

impl Listeners {
    /// Binds those of `rows` that do not listen yet and that are not among the `given`.
    ///
    /// # Errors
    /// Every row that cannot be bound; nothing stays bound then.
    pub(super) fn prepare(
        &self,
        rows: &[Row],
        workers: usize,
        given: &mut Given,
    ) -> Result<Prepared, Vec<BindError>> {
        let mut held: Vec<SocketAddr> = self.all_addresses().chain(given.addresses()).collect();
        let (mut prepared, mut errors) = (Prepared::default(), Vec::new());
        for row in rows.iter().filter(|row| !self.rows.contains_key(&row.bind)) {
            match listen::adopt(row.bind, row.backlog, workers, &held, given.take(row.bind)) {
                Ok(bound) => {
                    held.extend(bound.addresses());
                    prepared.rows.push((row.bind, bound));
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(prepared) } else { Err(errors) }
    }

    /// The real port of a row that listens, or that is about to.
    pub(super) fn port(&self, prepared: &Prepared, bind: Bind) -> u16 {
        let new = || prepared.rows.iter().find(|(own, _)| *own == bind).map(|(_, bound)| bound.port());
        let old = self.addresses(bind).first().map(SocketAddr::port);
        old.or_else(new).unwrap_or_else(|| bind.port())
    }

    /// Takes the prepared rows up, and hands each to `give`.
    pub(super) fn commit(&mut self, prepared: Prepared, mut give: impl FnMut(Bind, Bound)) {
        for (bind, mut bound) in prepared.rows {
            let (addresses, sockets) = (bound.addresses().to_vec(), bound.take_originals());
            self.rows.insert(bind, Listening { addresses, sockets });
            give(bind, bound);
        }
    }

    /// Forgets the rows that are not among `rows`, and hands each to `close`. The workers' sockets are the last by then.
    pub(super) fn retain(&mut self, rows: &[Row], close: impl FnMut(Bind)) {
        let is_gone = |bind: &Bind, _: &mut Listening| !rows.iter().any(|row| row.bind == *bind);
        let gone: Vec<Bind> = self.rows.extract_if(is_gone).map(|(bind, _)| bind).collect();
        gone.into_iter().for_each(close);
    }

    /// Lets the workers' sockets be the last: what they close is closed.
    pub(super) fn let_go(&mut self) {
        self.rows.values_mut().for_each(|row| row.sockets.clear());
    }

    /// Every socket, with its row.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (Bind, &TcpListener)> {
        self.rows.iter().flat_map(|(bind, row)| row.sockets.iter().map(|socket| (*bind, socket)))
    }

    /// The rows as they are, once more for other workers, as if they were given.
    pub(super) fn again(&self, rows: &[Row], workers: usize) -> Result<Vec<(Bind, Bound)>, BindError> {
        let known = |row: &Row| Some((row.bind, row.backlog, self.rows.get(&row.bind)?));
        let each = rows.iter().filter_map(known).map(|(bind, backlog, listening)| {
            let address = listening.addresses.first().copied().unwrap_or(([0, 0, 0, 0], bind.port()).into());
            let copies = listening.sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>();
            let copies = copies.map_err(|source| BindError { address, source })?;
            Ok((bind, listen::adopt(bind, backlog, workers, &listening.addresses, copies)?))
        });
        each.collect()
    }

    /// Where all of them listen.
    pub(super) fn all_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.rows.values().flat_map(|row| &row.addresses).copied()
    }

    /// Where a row really listens; empty for one that does not.
    pub(super) fn addresses(&self, bind: Bind) -> &[SocketAddr] {
        self.rows.get(&bind).map(|row| row.addresses.as_slice()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Gate;
    use crate::config::model::{Kind, Serve};

    fn row(address: &str) -> Row {
        Row {
            bind: Bind::One(address.parse().unwrap()),
            kind: Kind::Serve(Serve::Http),
            gate: Gate::open(),
            proxy_protocol: None,
            max_connections: None,
            max_connections_per_client: None,
            backlog: 16,
        }
    }

    #[test]
    fn every_row_that_cannot_be_bound_is_told() {
        let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [a, b] = taken.each_ref().map(|socket| socket.local_addr().unwrap());
        let rows = [row(&a.to_string()), row("127.0.0.1:0"), row(&b.to_string())];
        let errors = Listeners::default().prepare(&rows, 1, &mut Given::default()).unwrap_err();
        assert_eq!(errors.iter().map(|error| error.address).collect::<Vec<_>>(), [a, b]);
    }

    #[test]
    fn what_listens_is_kept_and_what_is_gone_is_closed() {
        let mut listeners = Listeners::default();
        let (a, b) = (row("127.0.0.1:0"), row("127.0.0.2:0"));
        let prepared = listeners.prepare(&[a.clone(), b.clone()], 2, &mut Given::default()).unwrap();
        assert_ne!(listeners.port(&prepared, a.bind), 0);
        let mut given = Vec::new();
        listeners.commit(prepared, |bind, bound| given.push((bind, bound)));
        assert_eq!(given.len(), 2);
        let again = listeners.prepare(&[a.clone(), b.clone()], 2, &mut Given::default()).unwrap();
        assert!(again.rows.is_empty());
        assert_eq!(listeners.port(&again, a.bind), listeners.addresses(a.bind)[0].port());
        let mut closed = Vec::new();
        listeners.retain(std::slice::from_ref(&a), |bind| closed.push(bind));
        assert_eq!(closed, [b.bind]);
        assert!(listeners.addresses(b.bind).is_empty());
    }
}
