//! From a host and a path to a site and a route.
