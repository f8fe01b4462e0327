//! Pages of a site's own for what the edge itself answers: read once, when a configuration is put to use.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use crate::config;
use crate::config::model::{Errors, Occasion, PageFile, Place};
use crate::files;

/// The largest page in octets.
const MAX_PAGE: u64 = 1 << 20;
/// What a page may say of its occasion.
const STATUS: &[u8] = b"{status}";
const REQUEST_ID: &[u8] = b"{request_id}";

/// The pages of one site.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pages(Vec<(Occasion, Arc<Page>)>);

/// A page.
#[derive(Debug, PartialEq)]
pub struct Page {
    /// As Content-Type says it.
    pub content_type: &'static str,
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq)]
enum Piece {
    Text(Bytes),
    Status,
    RequestId,
}

impl Pages {
    /// Reads the pages. The error is all that is wrong with them: where, what, and what to do.
    pub fn load(errors: &Errors) -> Result<Self, Vec<(Place, String, String)>> {
        let (mut pages, mut wrong) = (Vec::new(), Vec::new());
        for PageFile { occasion, path, place } in &errors.pages {
            match Page::load(path) {
                Ok(page) => pages.push((*occasion, Arc::new(page))),
                Err((message, help)) => {
                    wrong.push((place.clone(), format!("{}: {message}", path.display()), help.to_owned()));
                }
            }
        }
        if wrong.is_empty() { Ok(Self(pages)) } else { Err(wrong) }
    }

    /// The page for a status: its own, else that of its class.
    pub fn status(&self, status: StatusCode) -> Option<&Arc<Page>> {
        let status = status.as_u16();
        self.of(Occasion::Status(status)).or_else(|| self.of(Occasion::Class(status / 100)))
    }

    /// The page for maintenance, else that of its status.
    pub fn maintenance(&self) -> Option<&Arc<Page>> {
        self.of(Occasion::Maintenance).or_else(|| self.status(StatusCode::SERVICE_UNAVAILABLE))
    }

    fn of(&self, occasion: Occasion) -> Option<&Arc<Page>> {
        self.0.iter().find(|(own, _)| *own == occasion).map(|(_, page)| page)
    }
}

impl Page {
    /// The page for one request.
    pub fn render(&self, status: StatusCode, request_id: &str) -> Bytes {
        if let [Piece::Text(text)] = &self.pieces[..] {
            return text.clone();
        }
        let mut out = BytesMut::new();
        for piece in &self.pieces {
            out.extend_from_slice(match piece {
                Piece::Text(text) => text,
                Piece::Status => status.as_str().as_bytes(),
                Piece::RequestId => request_id.as_bytes(),
            });
        }
        out.freeze()
    }

    /// Whether programs can read it.
    pub fn is_json(&self) -> bool {
        self.content_type == "application/json"
    }

    fn load(path: &Path) -> Result<Self, (String, &'static str)> {
        let Some(content_type) = files::content_type(path) else {
            return Err(("its name does not say what it is".into(), "call it 502.html, or 502.json"));
        };
        let text = read(path).map_err(|error| (error.to_string(), help(&error)))?;
        Ok(Self { content_type, pieces: pieces(text.into()) })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let text = config::read_bounded(path, MAX_PAGE)?;
    if text.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    Ok(text)
}

fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "let the user that the edge runs as read it",
        io::ErrorKind::InvalidInput => "name the page itself",
        io::ErrorKind::FileTooLarge => "leave pictures out: it is kept in memory",
        _ => "",
    }
}

/// Cuts a page at its placeholders.
fn pieces(mut text: Bytes) -> Vec<Piece> {
    let mut pieces = Vec::new();
    loop {
        let next = [(STATUS, Piece::Status), (REQUEST_ID, Piece::RequestId)];
        let found = next
            .into_iter()
            .filter_map(|(mark, piece)| memchr::memmem::find(&text, mark).map(|at| (at, mark.len(), piece)));
        let Some((at, length, piece)) = found.min_by_key(|(at, ..)| *at) else { break };
        let before = text.split_to(at);
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(piece);
        drop(text.split_to(length));
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in() {
        for (text, expected) in [
            ("plain", "plain"),
            ("{status}", "502"),
            ("<h1>{status}</h1>{request_id}{status}.", "<h1>502</h1>7a502."),
            ("{ status } {{status}} {request_id", "{ status } {502} {request_id"),
            ("body{color:red}", "body{color:red}"),
        ] {
            let page = Page { content_type: "text/html", pieces: pieces(Bytes::from(text)) };
            assert_eq!(page.render(StatusCode::BAD_GATEWAY, "7a"), expected, "{text}");
        }
    }

    #[test]
    fn a_status_has_its_own_page_before_that_of_its_class() {
        let page = |name: &'static str| Arc::new(Page { content_type: name, pieces: Vec::new() });
        let pages = Pages(vec![
            (Occasion::Class(5), page("5xx")),
            (Occasion::Status(502), page("502")),
            (Occasion::Status(404), page("404")),
        ]);
        for (status, expected) in [(502, Some("502")), (503, Some("5xx")), (404, Some("404")), (403, None)] {
            let got = pages.status(StatusCode::from_u16(status).unwrap()).map(|page| page.content_type);
            assert_eq!(got, expected, "{status}");
        }
        assert_eq!(pages.maintenance().unwrap().content_type, "5xx");
    }
}
