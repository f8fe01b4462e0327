//! A worker's one read buffer: connections that wait hold none of their own.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// How much one read of a head or of small data may bring, in octets.
pub const SIZE: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into_boxed_slice());
    /// What nothing came into yet.
    static LARGE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// Reads once into the worker's buffer and copies what came behind `buffer`, which so grows by what is there and
/// not by what might come. 0 is the end.
pub fn poll_read_into<S: AsyncRead + Unpin>(
    io: &mut S,
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut read = ReadBuf::new(scratch);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
}

/// Reads `most` octets at most behind what `buffer` has. Much of it stays where it was read, and its memory is the buffer's
/// from then on; little is copied, so that a piece holds no memory far beyond its length. 0 is the end.
pub fn poll_read_most<S: AsyncRead + Unpin>(
    io: &mut S,
    buffer: &mut BytesMut,
    most: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if most <= SIZE {
        return poll_read_into(&mut io.take(most as u64), buffer, cx);
    }
    let wanted = buffer.len() + most;
    let mut large = LARGE.take();
    if !(wanted..=wanted + SIZE).contains(&large.capacity()) {
        large = BytesMut::with_capacity(wanted);
    }
    large.extend_from_slice(buffer);
    let read = pin!(io.read_buf(&mut (&mut large).limit(most))).poll(cx);
    if matches!(read, Poll::Ready(Ok(read)) if read > SIZE) {
        *buffer = large;
        return read;
    }
    buffer.extend_from_slice(large.get(buffer.len()..).unwrap_or_default());
    large.clear();
    LARGE.set(large);
    read
}
