//! Where commands look for what was not named.

use std::path::{Path, PathBuf};

use super::{Failure, RunningEdge};
use crate::config;
use crate::config::model::Admin;

/// Looked for in this order.
const CONFIGS: [&str; 2] = ["config/vestibule.toml", "/etc/vestibule/vestibule.toml"];

/// The configuration file: the one that was named, else the first default that exists.
pub(super) fn config_file(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    named.or_else(default_config).ok_or_else(|| {
        let [here, machine] = CONFIGS;
        Failure::new(format_args!(
            "there is no {here} here and no {machine}; name the configuration with --config FILE"
        ))
    })
}

/// The first default configuration file that exists.
pub(super) fn default_config() -> Option<PathBuf> {
    CONFIGS.map(Path::new).into_iter().find(|path| path.exists()).map(Path::to_owned)
}

/// The running edge's socket. The file that names it may be wrong in any other way: it is then that the edge is asked.
pub(super) fn socket(edge: &RunningEdge) -> Result<PathBuf, Failure> {
    match (&edge.socket, &edge.config) {
        (Some(socket), _) => Ok(socket.clone()),
        (None, Some(config)) => Ok(config::admin_socket(config)?),
        (None, None) => Ok(Admin::default_socket()),
    }
}

/// Where `up` keeps its CA: in the user's data directory, so that a root is trusted once and not once a project.
pub(super) fn up_store() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || Some(set("HOME")?.join(".local/share"));
    let data = set("XDG_DATA_HOME").filter(|path| path.is_absolute()).or_else(home);
    data.map_or_else(|| PathBuf::from("certs"), |data| data.join("vestibule/certs"))
}
