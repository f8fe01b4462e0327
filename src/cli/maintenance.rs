//! `vestibule maintenance`: a site's page in its place.

use http::Method;

use super::edge::ask;
use super::{Failure, RunningEdge, files, print};
use crate::admin::certificates::Told;
use crate::name::HostPattern;

/// `vestibule maintenance on|off SITE`
pub(super) fn run(on: bool, site: &str, edge: &RunningEdge) -> Result<(), Failure> {
    let site = HostPattern::parse(site).map_err(|error| Failure::new(format_args!("{site:?}: {error}")))?;
    let word = if on { "on" } else { "off" };
    let target = format!("/v1/maintenance/{word}?name={site}");
    let told: Told = ask(&files::socket(edge)?, Method::POST, &target)?;
    if told.ok { print(&format!("{}\n", told.message)) } else { Err(Failure::new(told.message)) }
}
