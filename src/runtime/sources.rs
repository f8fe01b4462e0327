//! Sources that move: files that change, addresses that belong for a while, and a gateway that is nobody's address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::server::Edge;
use crate::addr::{CidrSet, ClientAddr};
use crate::admin::leases::{LeaseStatus, LeaseWish, LeasesTold};
use crate::config::model::{Config, Stamp, Use};
use crate::config::{self, show_duration};
use crate::firewall::leases::{Lease, Leases};
use crate::firewall::moment::Moment;
use crate::net::gateway;

/// What moves, and what is known about it.
#[derive(Debug, Default)]
pub(super) struct Moving {
    leases: Leases,
    /// The gateways of a container's networks: everybody's address, where a proxy hides the true one.
    gateways: &'static [IpAddr],
    /// Files that were wrong when they looked so, so that this is told once.
    wrong: HashMap<PathBuf, Stamp>,
}

impl Moving {
    /// What the store has kept.
    pub(super) fn load(config: &Config) -> Self {
        let gateways = gateway::own();
        let (leases, why) = Leases::load(&config.store.path, &Moment::now());
        if let Some(why) = why {
            tracing::error!(why, "leases that cannot be read, or that no edge can have given, do not hold");
        }
        for gateway in gateways {
            let client = ClientAddr::new(*gateway);
            for source in config.sources.iter().filter(|source| source.contains(client)) {
                tracing::warn!(source = %source.name, %gateway, help = gateway::HELP, "a source holds the gateway of this \
                                container's network, where everybody may come from; it does not count");
            }
        }
        Self { leases, gateways, wrong: HashMap::new() }
    }

    /// Puts the members of this moment into every list of a configuration.
    pub(super) fn settle(&self, config: &mut Config) {
        let leased = |name: &str| -> Option<Arc<CidrSet>> {
            let mut networks = self.leases.of(name).peekable();
            networks.peek()?;
            Some(Arc::new(networks.collect()))
        };
        for source in &mut config.sources {
            source.leased = leased(&source.name);
        }
        let lists: HashMap<_, _> =
            config.sources.iter().map(|source| (Arc::clone(&source.name), source.clone())).collect();
        let admitted: HashMap<_, _> = lists
            .iter()
            .map(|(name, source)| {
                let mut source = source.clone();
                source.members = source.members.map(|set| self.without_gateways(set));
                source.leased = source.leased.map(|set| self.without_gateways(set));
                (Arc::clone(name), source)
            })
            .collect();
        config.change_sources(|whom, source| {
            let lists = if whom == Use::Allow { &admitted } else { &lists };
            if let Some(own) = lists.get(&source.name).filter(|_| !source.is_public()) {
                source.clone_from(own);
            }
        });
    }

    fn without_gateways(&self, set: Arc<CidrSet>) -> Arc<CidrSet> {
        let held = self.gateways.iter().any(|gateway| set.contains(ClientAddr::new(*gateway)));
        if held { Arc::new(set.without(self.gateways)) } else { set }
    }

    pub(super) fn leases(&self) -> Vec<LeaseStatus> {
        let now = Moment::now();
        self.leases.list().iter().map(|lease| status(lease, &now)).collect()
    }
}

fn status(lease: &Lease, now: &Moment) -> LeaseStatus {
    LeaseStatus {
        source: lease.source.clone(),
        network: lease.network,
        until: text(lease.until),
        seconds_left: lease.left(now).as_secs(),
    }
}

fn text(at: OffsetDateTime) -> String {
    at.truncate_to_second().format(&Rfc3339).unwrap_or_default()
}

impl Edge {
    /// Ends the leases whose time is over, and takes up files that have changed.
    pub(super) async fn look_after_sources(&mut self) {
        let config = Arc::clone(&self.live.load().config);
        let ended = self.moving.leases.purge(&Moment::now(), &config.store.path);
        if !ended.is_empty() {
            self.swap_sources(config.as_ref().clone()).await;
        }
        for lease in ended {
            tracing::info!(source = lease.source, network = %lease.network, "a lease has ended");
        }
        self.look_at_files().await;
    }

    async fn look_at_files(&mut self) {
        let snapshot = self.live.load();
        let changed = self.moving.changed_files(&snapshot.config);
        if changed.is_empty() {
            return;
        }
        let paths: Vec<_> = changed.iter().map(|(_, path, _)| path.clone()).collect();
        // Its panic is in the log; the next look is a new one.
        let read = move || paths.iter().map(|path| config::read_source(path)).collect::<Vec<_>>();
        let Ok(read) = tokio::task::spawn_blocking(read).await else { return };
        let mut config = snapshot.config.as_ref().clone();
        let mut taken = Vec::new();
        for ((name, path, stamp), read) in changed.into_iter().zip(read) {
            let networks = self.moving.take_up(&mut config, &name, path, stamp, read);
            taken.extend(networks.map(|networks| (name, networks)));
        }
        self.swap_sources(config).await;
        for (source, networks) in taken {
            tracing::info!(%source, networks, "a source's file has changed, and was read again");
        }
    }

    /// Does what is wished, in the store first.
    pub(super) async fn lease(&mut self, wish: LeaseWish) -> LeasesTold {
        let snapshot = self.live.load();
        let done = self.moving.obey(&wish, &snapshot.config);
        if done.is_ok() && wish != LeaseWish::List {
            self.swap_sources(snapshot.config.as_ref().clone()).await;
        }
        let ok = done.is_ok();
        LeasesTold { ok, message: done.unwrap_or_else(|why| why), leases: self.moving.leases() }
    }

    /// Swaps a configuration in that differs in the members of sources alone.
    async fn swap_sources(&self, mut config: Config) {
        self.moving.settle(&mut config);
        let next = self.live.load().with_sources(config);
        self.live.swap(next);
        // Connections without a request are asked again whether they may stay.
        self.workers.look().await;
    }
}

impl Moving {
    /// The files of sources that look other than when they were read: name, path and looks.
    fn changed_files(&self, config: &Config) -> Vec<(Arc<str>, PathBuf, Stamp)> {
        let files = config.source_files.iter();
        files
            .filter_map(|file| {
                // A file that is gone for a moment, as editors have it, is no reason to do anything.
                let now = Stamp::of(&file.path)?;
                let known = Some(now) == file.stamp || self.wrong.get(&file.path) == Some(&now);
                (!known).then(|| (Arc::clone(&file.name), file.path.clone(), now))
            })
            .collect()
    }

    /// Takes a file's addresses up, and returns how many they are; or says why the ones before stay.
    fn take_up(
        &mut self,
        config: &mut Config,
        name: &Arc<str>,
        path: PathBuf,
        stamp: Stamp,
        read: Result<CidrSet, String>,
    ) -> Option<usize> {
        if Stamp::of(&path) != Some(stamp) {
            // It is being written just now: the next look finds it whole.
            return None;
        }
        let told =
            |why| tracing::error!(source = %name, why, "a source's file is wrong; the addresses before stay");
        let Ok(set) = read.map_err(told) else {
            self.wrong.insert(path, stamp);
            return None;
        };
        self.wrong.remove(&path);
        let set = Arc::new(set);
        for source in config.sources.iter_mut().filter(|source| source.name == *name) {
            source.members = Some(Arc::clone(&set));
        }
        for file in config.source_files.iter_mut().filter(|file| file.name == *name) {
            file.stamp = Some(stamp);
        }
        Some(set.len())
    }

    /// The answer, or why not.
    fn obey(&mut self, wish: &LeaseWish, config: &Config) -> Result<String, String> {
        let store = &config.store.path;
        match wish {
            LeaseWish::List => Ok(String::new()),
            LeaseWish::Grant { source, network, duration } => {
                known(config, source)?;
                if self.gateways.iter().any(|gateway| network.contains(gateway)) {
                    return Err(format!(
                        "{network} holds the gateway of this container's network, which is everybody's address"
                    ));
                }
                let lease = self.leases.grant(source, *network, *duration, &Moment::now(), store);
                let until = text(lease.map_err(|error| error.to_string())?.until);
                tracing::info!(source, %network, until, "a lease was given");
                Ok(format!(
                    "{} belongs to {source} for {}, until {until}",
                    plain(network),
                    show_duration(*duration)
                ))
            }
            LeaseWish::End { source, network } => {
                let found = self.leases.end(source, *network, store).map_err(|error| error.to_string())?;
                if !found {
                    return Err(format!("{} has no lease in {source}", plain(network)));
                }
                tracing::info!(source, %network, "a lease was ended by command");
                Ok(format!("{} belongs to {source} no longer by a lease", plain(network)))
            }
        }
    }
}

/// A source that leases can be given in.
fn known(config: &Config, name: &str) -> Result<(), String> {
    if name == "public" {
        return Err("\"public\" is everyone already".into());
    }
    if config.sources.iter().any(|source| &*source.name == name) {
        return Ok(());
    }
    let names: Vec<&str> = config.sources.iter().map(|source| &*source.name).collect();
    Err(match names.as_slice() {
        [] => format!("no source is named {name:?}: [sources] is empty"),
        names => format!("no source is named {name:?}; there is {}", names.join(", ")),
    })
}

/// One address stands without its prefix.
fn plain(network: &ipnet::IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}
