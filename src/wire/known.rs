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

        const NAMES: &[(&[u8], Known)] = &[$(($name.as_bytes(), Known::$variant)),*];
    };
}

known! {
    Accept = "accept",
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
        NAMES
            .iter()
            .find(|(known, _)| known.len() == name.len() && known.eq_ignore_ascii_case(name))
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
