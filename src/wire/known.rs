//! The field names that the edge decides about.

use memchr::memchr;

macro_rules! known {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A field name that the edge decides about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Known {
            $($(#[$doc])* #[doc = concat!("`", $name, "`")] $variant,)*
            /// Any other `x-forwarded…`
            XForwarded,
            /// `x-accel-…`
            XAccel,
            /// A name with an underscore, which WSGI cannot tell from a hyphen.
            Underscored,
            /// A name that only ever passes by.
            Other,
        }

        const NAMES: Names<{ [$($name),*].len() }> = Names::sorted([$(($name.as_bytes(), Known::$variant)),*]);
    };
}

known! {
    Accept = "accept",
    Authorization = "authorization",
    CfConnectingIp = "cf-connecting-ip",
    ClientIp = "client-ip",
    Connection = "connection",
    ContentLength = "content-length",
    ContentType = "content-type",
    Cookie = "cookie",
    DaphneRootPath = "daphne-root-path",
    Date = "date",
    Expect = "expect",
    FastlyClientIp = "fastly-client-ip",
    Forwarded = "forwarded",
    ForwardedFor = "forwarded-for",
    FrontEndHttps = "front-end-https",
    Host = "host",
    Http2Settings = "http2-settings",
    KeepAlive = "keep-alive",
    PathInfo = "path-info",
    Proxy = "proxy",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    Referer = "referer",
    ScriptName = "script-name",
    SecWebSocketAccept = "sec-websocket-accept",
    SecWebSocketKey = "sec-websocket-key",
    StrictTransportSecurity = "strict-transport-security",
    Te = "te",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    TrueClientIp = "true-client-ip",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Via = "via",
    XClientIp = "x-client-ip",
    XClusterClientIp = "x-cluster-client-ip",
    XForwardedFor = "x-forwarded-for",
    XOriginalForwardedFor = "x-original-forwarded-for",
    XOriginalUrl = "x-original-url",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
    XRewriteUrl = "x-rewrite-url",
    XScheme = "x-scheme",
    XUrlScheme = "x-url-scheme",
}

impl Known {
    /// Looks a name up, whatever its case.
    pub fn of(name: &[u8]) -> Self {
        let first = name.first().map(u8::to_ascii_lowercase);
        NAMES
            .of_length(name.len())
            .iter()
            // The first letter settles nearly all of it.
            .find(|(known, _)| known.first().copied() == first && known.eq_ignore_ascii_case(name))
            .map_or_else(|| Self::of_family(name), |(_, known)| *known)
    }

    fn of_family(name: &[u8]) -> Self {
        let begins =
            |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|own| own.eq_ignore_ascii_case(prefix));
        match name.first() {
            _ if memchr(b'_', name).is_some() => Self::Underscored,
            Some(b'x' | b'X') if begins(b"x-forwarded") => Self::XForwarded,
            Some(b'x' | b'X') if begins(b"x-accel-") => Self::XAccel,
            _ => Self::Other,
        }
    }
}

/// The names in the order of their lengths, so that a look-up compares with those alone that are as long.
struct Names<const N: usize> {
    names: [(&'static [u8], Known); N],
    /// For each length, how many names are shorter.
    starts: [usize; LONGEST + 2],
}

/// The longest name, in octets.
const LONGEST: usize = 32;

impl<const N: usize> Names<N> {
    #[expect(
        clippy::indexing_slicing,
        reason = "evaluated at compile time, where a panic is a build that fails"
    )]
    const fn sorted(mut names: [(&'static [u8], Known); N]) -> Self {
        let mut starts = [N; LONGEST + 2];
        let (mut length, mut placed) = (0, 0);
        while length <= LONGEST {
            starts[length] = placed;
            let mut at = placed;
            while at < N {
                if names[at].0.len() == length {
                    (names[at], names[placed]) = (names[placed], names[at]);
                    placed += 1;
                }
                at += 1;
            }
            length += 1;
        }
        assert!(placed == N, "a name is longer than LONGEST");
        Self { names, starts }
    }

    fn of_length(&self, length: usize) -> &[(&'static [u8], Known)] {
        let (start, end) = (self.starts.get(length), self.starts.get(length + 1));
        start.zip(end).and_then(|(start, end)| self.names.get(*start..*end)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_whatever_its_case() {
        for (name, known) in NAMES.names {
            assert_eq!((Known::of(name), Known::of(&name.to_ascii_uppercase())), (known, known));
        }
        assert_eq!(Known::of(b"hosts"), Known::Other);
        assert_eq!(Known::of(b""), Known::Other);
        assert_eq!(Known::of(&[b'a'; 100]), Known::Other);
        assert_eq!(Known::of(b"X-Forwarded-Anything"), Known::XForwarded);
        assert_eq!(Known::of(b"x_real_ip"), Known::Underscored);
    }
}
