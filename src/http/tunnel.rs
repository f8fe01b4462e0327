//! Two streams joined: what one says, the other hears, until both have said all.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, copy, split};
use tokio::time::timeout;

/// How long one side may go on after the other has ended.
const HALF_OPEN: Duration = Duration::from_secs(30);

/// Copies both ways, half-closes passed on, until both ends have ended or one breaks.
pub(super) async fn join<A, B>(client: A, upstream: B)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (from_client, to_client) = split(client);
    let (from_upstream, to_upstream) = split(upstream);
    let mut up = pin!(pump(from_client, to_upstream));
    let mut down = pin!(pump(from_upstream, to_client));
    // How it ends is nobody's fault: either side may leave a WebSocket without a word.
    tokio::select! {
        ended = &mut up => finish(ended, down).await,
        ended = &mut down => finish(ended, up).await,
    }
}

async fn pump<R: AsyncRead, W: AsyncWrite>(mut from: ReadHalf<R>, mut to: WriteHalf<W>) -> io::Result<()> {
    copy(&mut from, &mut to).await?;
    to.shutdown().await
}

async fn finish(ended: io::Result<()>, other: impl Future<Output = io::Result<()>>) {
    if ended.is_ok() {
        let _ = timeout(HALF_OPEN, other).await;
    }
}
