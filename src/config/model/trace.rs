//! Where spans go.

use http::{HeaderName, HeaderValue};

use super::Secret;

/// Fields that are the edge's own to set.
const OWN: [&str; 7] = [
    "host",
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "user-agent",
];

/// `[trace]`: spans of sampled traces are sent to a collector, by OTLP.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// The whole URL that they are posted to.
    pub url: String,
    /// Header fields for it, as a secret.
    pub headers: Option<Secret>,
    /// What the edge is called.
    pub service: String,
    /// Of the traces that begin here, how many are sampled: from 0 to 1.
    pub sample: f64,
}

impl Tracing {
    /// Reads the header fields, now. The error says what to do, and shows nothing of them.
    pub fn read_headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let Some(secret) = &self.headers else { return Ok(Vec::new()) };
        let text = String::from_utf8(secret.read()?).map_err(|_| malformed())?;
        let items = text.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty());
        let fields: Vec<_> = items.map(|item| field(item).ok_or_else(malformed)).collect::<Result<_, _>>()?;
        if fields.is_empty() { Err(malformed()) } else { Ok(fields) }
    }
}

fn malformed() -> String {
    let own = OWN.join(", ");
    format!(
        "the secret is no list of header fields, as in authorization=Bearer%20…,x-scope-orgid=1, without {own}"
    )
}

/// `name=value`, as `OTEL_EXPORTER_OTLP_HEADERS` has them.
fn field(item: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = item.split_once('=')?;
    let name = HeaderName::try_from(name.trim()).ok().filter(|name| !OWN.contains(&name.as_str()))?;
    let mut value = HeaderValue::try_from(decoded(value.trim())).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// Without percent-encoding.
fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let hex = more.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let octet = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(octet.unwrap_or(*first));
        rest = if octet.is_some() { more.get(2..).unwrap_or_default() } else { more };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Place, SecretSource};

    #[test]
    fn header_fields_are_read_as_opentelemetry_writes_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        let source = SecretSource::File(path.clone());
        let headers = Some(Secret { source, place: Place::default() });
        let tracing = Tracing { url: String::new(), headers, service: String::new(), sample: 1.0 };
        for (text, expected) in [
            ("Authorization=Basic dTpw=", Some(vec![("authorization", "Basic dTpw=")])),
            ("a=b%20c, x-b = 1%\n", Some(vec![("a", "b c"), ("x-b", "1%")])),
            ("\n", None),
            ("authorization", None),
            ("a b=c", None),
            ("a=b%0ac", None),
            ("Content-Length=1", None),
        ] {
            std::fs::write(&path, text).unwrap();
            let read = tracing.read_headers();
            let read = read.as_ref().map(|fields| {
                fields
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                    .collect::<Vec<_>>()
            });
            assert_eq!(read.ok(), expected, "{text}");
        }
        std::fs::write(&path, b"a=B\xfcr").unwrap();
        assert!(tracing.read_headers().is_err());
        let error = {
            std::fs::write(&path, "hunter2").unwrap();
            tracing.read_headers().unwrap_err()
        };
        assert!(!error.contains("hunter2"), "{error}");
    }
}
