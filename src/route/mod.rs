//! From a host and a path to a site and a route.

pub mod path;
mod policy;
pub mod table;

pub use path::{BadPath, normalize};
pub use policy::Policy;
pub use table::{RouteAction, RouteEntry, SiteEntry, Table};
