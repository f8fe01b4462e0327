//! Leaving: nothing new is accepted, what is in flight has `grace` to finish.

use std::future::pending;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::handover::Successor;
use super::server::Edge;
use super::signals::{Signals, Told};
use super::workers::Workers;
use crate::admin::{Ask, Reloaded};

/// How long the last access lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How long the last spans may take to be exported, within `grace` or the time for the last lines.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// How long idle clients have for one more request where another process has taken over.
const LAST_CALL: Duration = Duration::from_secs(5);

/// How leaving ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// With nothing left to do.
    Gone,
    /// The process that took over is no more.
    Needed,
}

/// Drains the workers. Returns when no connection is left, when `grace` is over, at a second TERM or INT, or when the
/// process that took over has failed.
pub(super) async fn drain(
    edge: &mut Edge,
    signals: &mut Signals,
    asks: &mut mpsc::Receiver<Ask>,
    mut successor: Option<Successor>,
) -> Drained {
    let grace = edge.live.load().config.process.grace;
    tracing::info!(connections = edge.open(), grace = ?grace, "leaving: requests in flight may finish");
    edge.leaving.begin();
    // Nobody listens once this process has left; beside another one there is time for clients to hear of the end.
    edge.workers.drain(if successor.is_some() { LAST_CALL } else { Duration::ZERO });
    let over = tokio::time::sleep(grace);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = all_ended(&mut edge.former, &mut edge.workers) => break tracing::info!("drained"),
            () = &mut over => break cut(edge, "grace is over").await,
            told = signals.next() => match told {
                Told::Leave => break cut(edge, "told again to leave").await,
                Told::HandOver => tracing::warn!("USR2: refused, for this process is leaving"),
                Told::Reopen => edge.access.reopen(),
                Told::Reload => {}
            },
            Some(ask) = asks.recv() => answer(edge, ask),
            // Its workers leave one by one, so that they prove nothing any more.
            () = edge.watchdog.due() => edge.notifier.alive(),
            why = failed(&mut successor) => {
                tracing::error!(why, "the process that took over is no more: this one serves again");
                return Drained::Needed;
            }
        }
    }
    let left = over.deadline().saturating_duration_since(Instant::now());
    edge.exporter.finish(left.clamp(LAST_LINES, LAST_SPANS)).await;
    if !edge.access.flush(LAST_LINES) {
        tracing::warn!("the last access lines could not be written in time");
    }
    Drained::Gone
}

/// Returns once every worker has ended. May be dropped at any time.
async fn all_ended(former: &mut [Workers], workers: &mut Workers) {
    for workers in former.iter_mut().chain([workers]) {
        while workers.ended().await.is_some() {}
    }
}

async fn failed(successor: &mut Option<Successor>) -> String {
    match successor {
        Some(successor) => {
            let pid = successor.pid;
            format!("process {pid} {}", successor.failed().await)
        }
        None => pending().await,
    }
}

async fn cut(edge: &mut Edge, why: &'static str) {
    tracing::warn!(connections = edge.open(), why, "connections were cut off");
    for workers in edge.former.iter_mut().chain([&mut edge.workers]) {
        workers.cut().await;
    }
}

fn answer(edge: &Edge, ask: Ask) {
    match ask {
        Ask::Reload(reply) => {
            let generation = edge.live.load().generation;
            drop(reply.send(Reloaded::refused(generation, "error: the edge is leaving\n".to_owned())));
        }
        ask => edge.answer(ask),
    }
}
