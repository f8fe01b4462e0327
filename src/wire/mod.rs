//! HTTP/1.1 on the wire, as both sides of the edge speak it: heads, framing, bodies.
