//! Clients that send exactly the bytes they are told to.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::PATIENCE;
use super::edge::Edge;

/// The name of most tests' site.
pub(crate) const NAME: &str = "app.localhost";

/// A TLS connection, verified against the edge's own CA.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects to the edge's https row as a client of [`NAME`] that speaks HTTP/1.1.
pub(crate) fn connect(edge: &Edge) -> Wire<Tls> {
    connect_to(edge, NAME)
}

/// The same, as a client of another name.
pub(crate) fn connect_to(edge: &Edge, name: &str) -> Wire<Tls> {
    Wire::new(tls(edge.https(), &edge.ca(), name, &[b"http/1.1"]).unwrap())
}

/// A TLS connection with a finished handshake. An address as the name sends no SNI (RFC 6066 section 3).
pub(crate) fn tls(address: SocketAddr, ca: &Path, name: &str, alpn: &[&[u8]]) -> io::Result<Tls> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(config(ca, alpn), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, tcp(address)?);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// A client's TLS configuration that trusts this CA alone.
pub(crate) fn config(ca: &Path, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = versions.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// A TCP connection on which nothing waits for ever.
pub(crate) fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A byte stream on which HTTP/1.1 responses are read one after another.
pub(crate) struct Wire<S> {
    stream: S,
    /// What was read and not yet used.
    buffer: Vec<u8>,
}

/// Field lines.
pub(crate) type Fields = Vec<(String, String)>;

/// One HTTP/1.1 response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case, in their order.
    pub(crate) headers: Fields,
    /// Without its framing.
    pub(crate) body: Vec<u8>,
    /// After a chunked body.
    pub(crate) trailers: Fields,
}

impl Response {
    /// The first field line of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// The first value of this name in a list of field lines.
pub(crate) fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

impl<S: Read + Write> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Sends a request and reads its response.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> io::Result<Response> {
        let request = request.as_ref();
        self.send(request)?;
        if request.starts_with(b"HEAD ") { self.response_to_head() } else { self.response() }
    }

    /// GETs a path of [`NAME`].
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Response> {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n"))
    }

    /// The next final response; 100 and 103 are passed over.
    pub(crate) fn response(&mut self) -> io::Result<Response> {
        loop {
            let response = self.any_response(true)?;
            if response.status >= 200 || response.status == 101 {
                return Ok(response);
            }
        }
    }

    /// The next response, interim ones included. `body` is false for an answer to HEAD.
    pub(crate) fn any_response(&mut self, body: bool) -> io::Result<Response> {
        let head = self.until(b"\r\n\r\n")?;
        let mut response = parse_head(&head)?;
        if body && response.status >= 200 && response.status != 204 && response.status != 304 {
            self.read_body(&mut response)?;
        }
        Ok(response)
    }

    /// Exactly this many bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.more()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Bytes up to and with the mark.
    pub(crate) fn until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        let mut from = 0;
        loop {
            let found =
                self.buffer.get(from..).unwrap_or_default().windows(mark.len()).position(|w| w == mark);
            if let Some(position) = found {
                return Ok(self.buffer.drain(..from + position + mark.len()).collect());
            }
            from = self.buffer.len().saturating_sub(mark.len() - 1);
            self.more()?;
        }
    }

    /// Whatever still comes until the edge closes; an error when it does not close.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.more() {
                Ok(()) => {}
                Err(error) if ended(&error) => return Ok(std::mem::take(&mut self.buffer)),
                Err(error) => return Err(error),
            }
        }
    }

    fn response_to_head(&mut self) -> io::Result<Response> {
        loop {
            let response = self.any_response(false)?;
            if response.status >= 200 {
                return Ok(response);
            }
        }
    }

    fn read_body(&mut self, response: &mut Response) -> io::Result<()> {
        if response.header("transfer-encoding").is_some() {
            (response.body, response.trailers) = self.chunks()?;
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            response.body = self.exactly(length)?;
        } else {
            response.body = self.rest()?;
        }
        Ok(())
    }

    fn chunks(&mut self) -> io::Result<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            let size = std::str::from_utf8(&line).unwrap_or_default().trim_end();
            match usize::from_str_radix(size, 16).map_err(io::Error::other)? {
                0 => break,
                size => body.extend(self.exactly(size)?),
            }
            if self.exactly(2)? != b"\r\n" {
                return Err(io::Error::other("no CRLF after a chunk"));
            }
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            if line == b"\r\n" {
                return Ok((body, trailers));
            }
            trailers.push(field_line(&line));
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let mut block = [0; 16 * 1024];
        let count = self.stream.read(&mut block)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(block.get(..count).unwrap_or_default());
        Ok(())
    }
}

impl Wire<Tls> {
    /// Whether the session was resumed.
    pub(crate) fn handshake_kind(&self) -> Option<rustls::HandshakeKind> {
        self.stream.conn.handshake_kind()
    }

    /// Says that nothing more will be sent (a `close_notify`), and goes on reading.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.stream.conn.send_close_notify();
        self.stream.flush()
    }

    /// Leaves without a word: the socket is reset where the kernel can.
    pub(crate) fn vanish(self) {
        let socket = socket2::SockRef::from(&self.stream.sock);
        let _ = socket.set_linger(Some(std::time::Duration::ZERO));
    }
}

/// Whether the error is the other side's having left.
pub(crate) fn ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

fn parse_head(head: &[u8]) -> io::Result<Response> {
    let mut lines = head.split_inclusive(|&octet| octet == b'\n');
    let status = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let number = status.split(' ').nth(1).and_then(|word| word.trim_end().parse().ok());
    let (true, Some(number)) = (status.starts_with("HTTP/1.1 "), number) else {
        return Err(io::Error::other(format!("no status line: {status:?}")));
    };
    let headers = lines.filter(|line| line != b"\r\n").map(field_line).collect();
    Ok(Response { status: number, headers, body: Vec::new(), trailers: Vec::new() })
}

fn field_line(line: &[u8]) -> (String, String) {
    let line = String::from_utf8_lossy(line);
    let (name, value) = line.split_once(':').unwrap_or((&line, ""));
    (name.to_ascii_lowercase(), value.trim().to_owned())
}
