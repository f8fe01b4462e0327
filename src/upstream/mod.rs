//! What stands behind the edge: targets, pools, and sending.
