//! A well-behaved HTTP/2 client, for tests that are not about frames.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Request, Response as Head};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::PATIENCE;
use super::client::{self, Response};

/// One connection, driven whenever its owner waits for something.
pub(crate) struct H2Client {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
}

impl H2Client {
    /// Connects and waits for the edge's SETTINGS.
    pub(crate) fn connect(address: SocketAddr, ca: &Path, name: &str) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connector = TlsConnector::from(client::config(ca, &[b"h2"]));
        let server = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let sender = runtime.block_on(async {
            let tcp = TcpStream::connect(address).await?;
            let tls = connector.connect(server, tcp).await?;
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 21);
            let (sender, connection) = builder.handshake(tls).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Ok::<_, io::Error>(sender)
        })?;
        Ok(Self { runtime, sender })
    }

    /// Sends a request and reads the whole response.
    pub(crate) fn ask(&mut self, request: Request<()>, body: Bytes) -> io::Result<Response> {
        let sender = self.sender.clone();
        self.wait(async move {
            let (head, mut stream) = open(sender, request, body).await?;
            let mut body = Vec::new();
            while let Some(data) = stream.data().await {
                let data = data.map_err(io::Error::other)?;
                let _ = stream.flow_control().release_capacity(data.len());
                body.extend_from_slice(&data);
            }
            let trailers = stream.trailers().await.map_err(io::Error::other)?.unwrap_or_default();
            let trailers = fields(&trailers);
            Ok(Response { status: head.status().as_u16(), headers: fields(head.headers()), body, trailers })
        })
    }

    /// Sends a request and reads the head; the rest is the caller's.
    pub(crate) fn begin(&mut self, request: Request<()>) -> io::Result<(Head<()>, RecvStream)> {
        let sender = self.sender.clone();
        self.wait(open(sender, request, Bytes::new()))
    }

    /// An extended CONNECT (RFC 8441), once the edge has said that it takes them.
    pub(crate) fn connect_websocket(
        &mut self,
        request: Request<()>,
    ) -> io::Result<(Head<()>, SendStream<Bytes>, RecvStream)> {
        let sender = self.sender.clone();
        self.wait(async move {
            let mut sender = sender.ready().await.map_err(io::Error::other)?;
            if !sender.is_extended_connect_protocol_enabled() {
                return Err(io::Error::other("the edge does not offer extended CONNECT"));
            }
            let (response, send) = sender.send_request(request, false).map_err(io::Error::other)?;
            let (parts, receive) = response.await.map_err(io::Error::other)?.into_parts();
            Ok((Head::from_parts(parts, ()), send, receive))
        })
    }

    /// Waits for something on this connection.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await? })
    }
}

async fn open(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    mut body: Bytes,
) -> io::Result<(Head<()>, RecvStream)> {
    let mut sender = sender.ready().await.map_err(io::Error::other)?;
    let (response, mut send) = sender.send_request(request, body.is_empty()).map_err(io::Error::other)?;
    while !body.is_empty() {
        send.reserve_capacity(body.len());
        let Some(granted) = std::future::poll_fn(|context| send.poll_capacity(context)).await else {
            break; // the edge has heard enough: its answer says why
        };
        let Ok(granted) = granted else { break };
        let piece = body.split_to(granted.min(body.len()));
        if send.send_data(piece, body.is_empty()).is_err() {
            break;
        }
    }
    let (parts, receive) = response.await.map_err(io::Error::other)?.into_parts();
    Ok((Head::from_parts(parts, ()), receive))
}

fn fields(map: &http::HeaderMap) -> client::Fields {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
