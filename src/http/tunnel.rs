//! Two streams joined: what one says, the other hears, until both have said all.

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

/// How much is read at once, each way, in octets.
const BUFFER: usize = 8 * 1024;

/// Copies both ways, half-closes passed on, until both ends have ended or one breaks.
pub(super) async fn join<A, B>(client: &mut A, upstream: &mut B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    // How it ended is nobody's fault: either side may leave a WebSocket without a word.
    let _ = copy_bidirectional_with_sizes(client, upstream, BUFFER, BUFFER).await;
}
