//! Leaving: nothing new is accepted, what is in flight has `grace` to finish.

use std::time::Duration;

use tokio::sync::mpsc;

use super::server::Edge;
use super::signals::{Signals, Told};
use crate::admin::{Ask, Reloaded};

/// How long the last access lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Drains the workers. Returns when no connection is left, when `grace` is over, or at a second TERM or INT.
pub(super) async fn drain(edge: &mut Edge, mut signals: Signals, mut asks: mpsc::Receiver<Ask>) {
    let grace = edge.live.load().config.process.grace;
    tracing::info!(connections = edge.workers.open(), grace = ?grace, "leaving: requests in flight may finish");
    edge.leaving.begin();
    edge.workers.drain();
    let over = tokio::time::sleep(grace);
    tokio::pin!(over);
    loop {
        tokio::select! {
            ended = edge.workers.ended() => match ended {
                Some(()) => {}
                None => break tracing::info!("drained"),
            },
            () = &mut over => break cut(edge, "grace is over").await,
            told = signals.next() => if told == Told::Leave {
                break cut(edge, "told again to leave").await;
            },
            Some(ask) = asks.recv() => answer(edge, ask),
        }
    }
    if !edge.access.flush(LAST_LINES) {
        tracing::warn!("the last access lines could not be written in time");
    }
}

async fn cut(edge: &mut Edge, why: &'static str) {
    tracing::warn!(connections = edge.workers.open(), why, "connections were cut off");
    edge.workers.cut().await;
}

fn answer(edge: &Edge, ask: Ask) {
    match ask {
        Ask::Reload(reply) => drop(reply.send(Reloaded {
            ok: false,
            generation: edge.live.load().generation,
            difference: None,
            warnings: String::new(),
            problems: Some("error: the edge is leaving\n".to_owned()),
        })),
        ask => edge.answer(ask),
    }
}
