//! From a host and a path to a site and a route.

pub mod path;
pub mod table;

pub use path::{BadPath, normalize};
pub use table::{RouteAction, RouteEntry, SiteEntry, Table};
