//! What would keep every certificate from being looked after.

use super::{check_ca_root, check_dns, settings};
use crate::config::Loaded;
use crate::config::model::{Dns, DnsProvider, Place};
use crate::config::problem::Problem;

/// Roots and secrets of `[acme]` that cannot be read, or are not what they should be. Reads the disk, and asks nobody.
pub fn unusable(loaded: &Loaded) -> Vec<Problem> {
    let acme = &loaded.config.acme;
    if !loaded.config.asks_a_ca() {
        return Vec::new();
    }
    let ca_root = check_ca_root(acme).err().map(|why| (loaded.place("acme", "ca_root"), why));
    let bindings = acme.cas.iter().filter_map(|ca| ca.eab.as_ref());
    let bindings = bindings.filter_map(|eab| Some((eab.hmac.place.clone(), settings::binding(eab).err()?)));
    let dns = acme.dns.iter().filter_map(|dns| Some((place(loaded, dns), check_dns(dns).err()?)));
    let all = ca_root.into_iter().chain(bindings).chain(dns);
    all.map(|(place, why)| Problem::new(place, why, "")).collect()
}

fn place(loaded: &Loaded, dns: &Dns) -> Place {
    match &dns.provider {
        DnsProvider::Rfc2136 { key: secret, .. } | DnsProvider::Cloudflare { token: secret, .. } => {
            secret.place.clone()
        }
        DnsProvider::Exec { .. } => loaded.place("acme", "dns"),
    }
}
