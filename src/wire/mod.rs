//! HTTP/1.1 on the wire, as both sides of the edge speak it: heads, framing, bodies (RFC 9112).
//!
//! Everything here is a pure function or a small state machine over bytes, and stricter than the RFC asks: what
//! two programs could read in two ways is refused.

pub mod chunked;
pub mod coding;
pub mod deadline;
pub mod framing;
pub mod head;
pub mod known;
pub mod octets;
pub mod scratch;
pub mod spare;

pub use framing::Framing;
pub use head::Head;
pub use known::Known;

/// A message body on its way: data and trailers, or the fault that ended it.
pub type Body = Box<dyn http_body::Body<Data = bytes::Bytes, Error = crate::fault::Fault> + Unpin>;
