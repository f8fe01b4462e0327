//! What a file is, by its name.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// As Content-Type says it.
    pub(super) content_type: &'static str,
    /// Whether compressing it gains anything.
    pub(super) compresses: bool,
}

/// Nobody guesses at what is not in the table: it is sent with `nosniff`.
const UNKNOWN: Kind = Kind { content_type: "application/octet-stream", compresses: false };

/// Extension, content type, whether it compresses. Sorted, for it is searched by halves.
const KINDS: &[(&str, &str, bool)] = &[
    ("7z", "application/x-7z-compressed", false),
    ("aac", "audio/aac", false),
    ("apng", "image/apng", false),
    ("atom", "application/atom+xml", true),
    ("avi", "video/x-msvideo", false),
    ("avif", "image/avif", false),
    ("bmp", "image/bmp", true),
    ("bz2", "application/x-bzip2", false),
    ("cjs", "text/javascript; charset=utf-8", true),
    ("css", "text/css; charset=utf-8", true),
    ("csv", "text/csv; charset=utf-8", true),
    ("doc", "application/msword", false),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", false),
    ("eot", "application/vnd.ms-fontobject", true),
    ("epub", "application/epub+zip", false),
    ("flac", "audio/flac", false),
    ("geojson", "application/geo+json", true),
    ("gif", "image/gif", false),
    ("gltf", "model/gltf+json", true),
    ("gz", "application/gzip", false),
    ("heic", "image/heic", false),
    ("htm", "text/html; charset=utf-8", true),
    ("html", "text/html; charset=utf-8", true),
    ("ico", "image/vnd.microsoft.icon", true),
    ("ics", "text/calendar; charset=utf-8", true),
    ("jpeg", "image/jpeg", false),
    ("jpg", "image/jpeg", false),
    ("js", "text/javascript; charset=utf-8", true),
    ("json", "application/json", true),
    ("jsonld", "application/ld+json", true),
    ("jxl", "image/jxl", false),
    ("m3u8", "application/vnd.apple.mpegurl", true),
    ("m4a", "audio/mp4", false),
    ("m4v", "video/mp4", false),
    ("map", "application/json", true),
    ("md", "text/markdown; charset=utf-8", true),
    ("mjs", "text/javascript; charset=utf-8", true),
    ("mkv", "video/x-matroska", false),
    ("mov", "video/quicktime", false),
    ("mp3", "audio/mpeg", false),
    ("mp4", "video/mp4", false),
    ("mpd", "application/dash+xml", true),
    ("odp", "application/vnd.oasis.opendocument.presentation", false),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet", false),
    ("odt", "application/vnd.oasis.opendocument.text", false),
    ("oga", "audio/ogg", false),
    ("ogg", "audio/ogg", false),
    ("ogv", "video/ogg", false),
    ("opus", "audio/ogg", false),
    ("otf", "font/otf", true),
    ("pdf", "application/pdf", false),
    ("png", "image/png", false),
    ("ppt", "application/vnd.ms-powerpoint", false),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation", false),
    ("rss", "application/rss+xml", true),
    ("rtf", "application/rtf", true),
    ("svg", "image/svg+xml", true),
    ("tar", "application/x-tar", false),
    ("tif", "image/tiff", false),
    ("tiff", "image/tiff", false),
    ("ts", "video/mp2t", false),
    ("ttf", "font/ttf", true),
    ("txt", "text/plain; charset=utf-8", true),
    ("vtt", "text/vtt; charset=utf-8", true),
    ("wasm", "application/wasm", true),
    ("wav", "audio/wav", false),
    ("weba", "audio/webm", false),
    ("webm", "video/webm", false),
    ("webmanifest", "application/manifest+json", true),
    ("webp", "image/webp", false),
    ("woff", "font/woff", false),
    ("woff2", "font/woff2", false),
    ("xhtml", "application/xhtml+xml", true),
    ("xls", "application/vnd.ms-excel", false),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", false),
    ("xml", "application/xml", true),
    ("xz", "application/x-xz", false),
    ("yaml", "application/yaml", true),
    ("yml", "application/yaml", true),
    ("zip", "application/zip", false),
    ("zst", "application/zstd", false),
];

/// What the file of this name is, by its extension in any case.
pub(super) fn of(name: &[u8]) -> Kind {
    let base = base(name);
    let extension = memchr::memrchr(b'.', base).and_then(|dot| base.get(dot + 1..)).unwrap_or_default();
    let lower = extension.to_ascii_lowercase();
    KINDS
        .binary_search_by(|(known, ..)| known.as_bytes().cmp(&lower))
        .ok()
        .and_then(|at| KINDS.get(at))
        .map_or(UNKNOWN, |(_, content_type, compresses)| Kind { content_type, compresses: *compresses })
}

/// What Content-Type says of a file of this name; None where the name does not tell.
pub fn content_type(name: &Path) -> Option<&'static str> {
    Some(of(name.as_os_str().as_bytes())).filter(|kind| *kind != UNKNOWN).map(|kind| kind.content_type)
}

/// Whether the name has a hash of the content in it, as Django's `ManifestStaticFilesStorage` makes them:
/// `app.0123456789ab.js`, or `app.0123456789ab` of a file without an extension.
pub(super) fn is_hashed(name: &[u8]) -> bool {
    let is_hash =
        |part: &[u8]| part.len() == 12 && part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = base(name).rsplitn(3, |b| *b == b'.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(hash), Some(stem)) if is_hash(hash) => !stem.is_empty(),
        (Some(hash), Some(stem), _) => is_hash(hash) && !stem.is_empty(),
        _ => false,
    }
}

fn base(name: &[u8]) -> &[u8] {
    name.rsplit(|b| *b == b'/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(KINDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn kinds_go_by_the_last_extension() {
        for (name, expected) in [
            ("a.css", "text/css; charset=utf-8"),
            ("A.CSS", "text/css; charset=utf-8"),
            ("b/app.0123456789ab.js", "text/javascript; charset=utf-8"),
            ("a.js.gz", "application/gzip"),
            ("a.css/b", "application/octet-stream"),
            ("a.", "application/octet-stream"),
            ("css", "application/octet-stream"),
            ("a.cssx", "application/octet-stream"),
            (".css", "text/css; charset=utf-8"),
            ("", "application/octet-stream"),
        ] {
            assert_eq!(of(name.as_bytes()).content_type, expected, "{name:?}");
        }
    }

    #[test]
    fn hashed_names_are_djangos() {
        for (name, expected) in [
            ("app.0123456789ab.js", true),
            ("css/app.min.0123456789ab.css", true),
            ("LICENCE.0123456789ab", true),
            ("app.0123456789AB.js", false),
            ("app.0123456789a.js", false),
            ("app.0123456789abc.js", false),
            ("app.0123456789ag.js", false),
            ("app.0123456789ab.js.map", false),
            (".0123456789ab.js", false),
            ("0123456789ab.js", false),
            ("0123456789ab", false),
            (".0123456789ab", false),
            ("app-0123456789ab.js", false),
            ("app.0123456789ab/a.js", false),
            ("app.js", false),
        ] {
            assert_eq!(is_hashed(name.as_bytes()), expected, "{name:?}");
        }
    }
}
