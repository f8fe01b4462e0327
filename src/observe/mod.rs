//! What the edge says about itself: the log and the access lines.
