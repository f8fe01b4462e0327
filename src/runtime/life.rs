//! What a running edge does between its start and its end: it obeys signals and the admin socket, hands over, and leaves.

use std::rc::Rc;

use tokio::sync::mpsc;
use tokio::task::spawn_local;

use super::drain::{self, Drained};
use super::handover::Successor;
use super::notify::Notifier;
use super::server::{Edge, RunError, system};
use super::signals::{Others, Signals, Told};
use super::workers::Workers;
use crate::admin::{Ask, Reloaded};

/// How often it is looked whether a source has moved.
const SOURCES: std::time::Duration = std::time::Duration::from_secs(2);

impl Edge {
    /// Serves until it is told to leave, or until another process has taken over and all is done here.
    pub(super) async fn run(
        &mut self,
        mut signals: Signals,
        mut asks: mpsc::Receiver<Ask>,
    ) -> Result<(), RunError> {
        self.notifier.ready(self.summary());
        loop {
            // A file that cannot be read to its end, on a disk that hangs, keeps nobody from having it leave.
            let Signals { leave, others } = &mut signals;
            let successor = tokio::select! {
                biased;
                () = leave.told() => None,
                successor = self.serve(others, &mut asks) => successor?,
            };
            match &successor {
                Some(successor) => self.step_back(successor).await,
                None => self.leave(),
            }
            match drain::drain(self, &mut signals, &mut asks, successor).await {
                Drained::Gone => return Ok(()),
                Drained::Needed => self.resume()?,
            }
        }
    }

    /// Obeys until a process is ready to take over.
    async fn serve(
        &mut self,
        signals: &mut Others,
        asks: &mut mpsc::Receiver<Ask>,
    ) -> Result<Option<Successor>, RunError> {
        let mut ticks = tokio::time::interval(SOURCES);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Leave => return Ok(None),
                    Told::Reload => drop(self.reload_unless_upgrading().await),
                    Told::Reopen => self.access.reopen(),
                    Told::HandOver => self.begin_upgrade(),
                },
                Some(ask) = asks.recv() => match ask {
                    Ask::Reload(reply) => drop(reply.send(self.reload_unless_upgrading().await)),
                    Ask::Lease(wish, reply) if self.succession.upgrade.is_none() => {
                        drop(reply.send(self.lease(wish).await));
                    }
                    ask => self.answer(ask),
                },
                _ = ticks.tick() => self.look_after_sources().await,
                outcome = async {
                    match &mut self.succession.upgrade {
                        Some(upgrade) => upgrade.outcome().await,
                        None => std::future::pending().await,
                    }
                } => if let Some(successor) = self.end_upgrade(outcome) {
                    return Ok(Some(successor));
                },
                () = self.watchdog.due() => self.prove_life(),
                Some(()) = self.workers.ended() => return Err(RunError::WorkerLost),
            }
        }
    }

    async fn reload_unless_upgrading(&mut self) -> Reloaded {
        if self.succession.upgrade.is_some() {
            tracing::error!("reload refused: an upgrade is under way");
            let problems = "error: an upgrade is under way; reload when it has ended\n".to_owned();
            return Reloaded::refused(self.live.load().generation, problems);
        }
        self.notifier.reloading();
        let reloaded = self.reload().await;
        if reloaded.ok {
            self.notifier.ready(self.summary());
        } else {
            self.notifier.ready("a reload was refused, and the log says why; the configuration stays");
        }
        reloaded
    }

    /// Tells the service manager that it lives once every worker has shown that it does.
    fn prove_life(&self) {
        let (proof, notifier) = (self.workers.prove_life(), Rc::clone(&self.notifier));
        spawn_local(async move {
            proof.await;
            notifier.alive();
        });
    }

    fn leave(&mut self) {
        self.notifier.stopping();
        self.succession.upgrade = None;
        self.listeners.let_go();
    }

    /// Lets the other process take over. What it needs is let go of before it is told.
    async fn step_back(&mut self, successor: &Successor) {
        tracing::info!(pid = successor.pid.as_raw(), "upgrade: the new process is ready and takes over");
        self.tasks.shutdown().await;
        self.server.leave();
        if let Some(listener) = &mut self.listener {
            listener.pause();
        }
        self.notifier.main_pid(successor.pid);
        // From here on the service manager listens to the other one alone.
        self.notifier = Rc::default();
        if let Some(predecessor) = &self.succession.predecessor {
            predecessor.pass();
        }
        successor.go();
    }

    /// Serves again, on the sockets that were kept. Its old threads finish what they have.
    fn resume(&mut self) -> Result<(), RunError> {
        let config = std::sync::Arc::clone(&self.live.load().config);
        let count = config.process.workers;
        let workers = Workers::start(
            count,
            &self.live,
            &self.access,
            &self.metrics,
            &self.connections,
            &self.scraped.rooms,
        );
        let workers = workers.map_err(system("a worker thread"))?;
        self.former.push(std::mem::replace(&mut self.workers, workers));
        let again = self.listeners.again(&config.rows, count);
        for (bind, bound) in again.map_err(|error| RunError::Bind(vec![error]))? {
            self.workers.listen(bind, bound);
        }
        self.server.take();
        self.leaving.end();
        if let Some(listener) = &mut self.listener {
            listener.resume(&self.desk);
        }
        self.begin_tasks(None);
        self.notifier = Rc::new(Notifier::from_environment());
        self.notifier.main_pid(nix::unistd::Pid::this());
        self.notifier.ready(self.summary());
        self.upgrade_failed("the new process ended soon after it had taken over; the log says how");
        Ok(())
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.former.iter().chain([&self.workers]).map(Workers::open).sum()
    }

    fn summary(&self) -> String {
        let snapshot = self.live.load();
        let (sites, rows) = (snapshot.config.sites.len(), snapshot.config.rows.len());
        format!("serving: sites {sites}, ports {rows}, generation {}", snapshot.generation)
    }
}
