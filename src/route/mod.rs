//! From a host and a path to a site and a route.

mod bodies;
mod maintenance;
mod pages;
pub mod path;
mod policy;
pub mod table;

pub use bodies::{Ceiling, Shelf};
pub use maintenance::Maintenance;
pub use pages::{Page, Pages};
pub use path::{BadPath, normalize};
pub use policy::Policy;
pub use table::{RouteAction, RouteEntry, SiteEntry, Table};
