//! Which rows listen, and where.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::config::model::{Bind, Row};
use crate::net::listen::{self, BindError, Bound};

/// The rows that listen. The sockets themselves are the workers'.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    rows: HashMap<Bind, Vec<SocketAddr>>,
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
    /// Binds those of `rows` that do not listen yet.
    ///
    /// # Errors
    /// Every row that cannot be bound; nothing stays bound then.
    pub(super) fn prepare(&self, rows: &[Row], workers: usize) -> Result<Prepared, Vec<BindError>> {
        let mut held: Vec<SocketAddr> = self.rows.values().flatten().copied().collect();
        let (mut prepared, mut errors) = (Prepared::default(), Vec::new());
        for row in rows.iter().filter(|row| !self.rows.contains_key(&row.bind)) {
            match listen::bind(row.bind, row.backlog, workers, &held) {
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
        for (bind, bound) in prepared.rows {
            self.rows.insert(bind, bound.addresses().to_vec());
            give(bind, bound);
        }
    }

    /// Forgets the rows that are not among `rows`, and hands each to `close`.
    pub(super) fn retain(&mut self, rows: &[Row], mut close: impl FnMut(Bind)) {
        self.rows.retain(|bind, _| {
            let stays = rows.iter().any(|row| row.bind == *bind);
            if !stays {
                close(*bind);
            }
            stays
        });
    }

    /// Where all of them listen.
    pub(super) fn all_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.rows.values().flatten().copied()
    }

    /// Where a row really listens; empty for one that does not.
    pub(super) fn addresses(&self, bind: Bind) -> &[SocketAddr] {
        self.rows.get(&bind).map(Vec::as_slice).unwrap_or_default()
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
        let taken = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [a, b] = taken.each_ref().map(|socket| socket.local_addr().unwrap());
        let rows = [row(&a.to_string()), row("127.0.0.1:0"), row(&b.to_string())];
        let errors = Listeners::default().prepare(&rows, 1).unwrap_err();
        assert_eq!(errors.iter().map(|error| error.address).collect::<Vec<_>>(), [a, b]);
    }

    #[test]
    fn what_listens_is_kept_and_what_is_gone_is_closed() {
        let mut listeners = Listeners::default();
        let (a, b) = (row("127.0.0.1:0"), row("127.0.0.2:0"));
        let prepared = listeners.prepare(&[a.clone(), b.clone()], 2).unwrap();
        assert_ne!(listeners.port(&prepared, a.bind), 0);
        let mut given = Vec::new();
        listeners.commit(prepared, |bind, bound| given.push((bind, bound)));
        assert_eq!(given.len(), 2);
        let again = listeners.prepare(&[a.clone(), b.clone()], 2).unwrap();
        assert!(again.rows.is_empty());
        assert_eq!(listeners.port(&again, a.bind), listeners.addresses(a.bind)[0].port());
        let mut closed = Vec::new();
        listeners.retain(std::slice::from_ref(&a), |bind| closed.push(bind));
        assert_eq!(closed, [b.bind]);
        assert!(listeners.addresses(b.bind).is_empty());
    }
}
