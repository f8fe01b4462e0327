//! `vestibule certs`: what there is to know about certificates.

use std::path::Path;

use super::{ConfigFile, Failure, files, print};
use crate::config;
use crate::tls::{Authority, StoreError};

/// `vestibule certs trust`. Without a configuration it is the CA of `vestibule up`.
pub(super) fn run(config: ConfigFile) -> Result<(), Failure> {
    let store = match config.config.or_else(files::default_config) {
        Some(file) => config::load(&file)?.config.store.path,
        None => files::up_store(),
    };
    print(&trust(&store).map_err(Failure::new)?)
}

/// `vestibule certs trust`: where the internal CA's root is, and how to make programs trust it. `store` is
/// `[store] path`. Makes nothing: fails with [`StoreError::Missing`] before the CA exists.
pub fn trust(store: &Path) -> Result<String, StoreError> {
    let root = Authority::root_path(store);
    match root.try_exists() {
        Ok(true) => {}
        Ok(false) => return Err(StoreError::Missing { path: root }),
        Err(source) => return Err(StoreError::Io { doing: "look at", path: root, source }),
    }
    let root = std::path::absolute(&root).unwrap_or(root);
    Ok(instructions(&quoted(&root)))
}

fn instructions(root: &str) -> String {
    format!(
        "\
The internal CA's root certificate:
  {root}

Whoever trusts it trusts every certificate that this edge makes: for development machines only.

curl, for one command:
  curl --cacert {root} https://…

Python (requests, httpx), for one shell:
  export REQUESTS_CA_BUNDLE={root} SSL_CERT_FILE={root}

Debian and Ubuntu, for the whole machine:
  sudo install -m 0644 {root} /usr/local/share/ca-certificates/vestibule-internal-ca.crt
  sudo update-ca-certificates

Chromium (and Chrome) on Linux, for one user (certutil is in libnss3-tools):
  certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n 'vestibule internal CA' -i {root}

Firefox, with PROFILE from about:profiles:
  certutil -d sql:PROFILE -A -t C,, -n 'vestibule internal CA' -i {root}
"
    )
}

/// As a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
