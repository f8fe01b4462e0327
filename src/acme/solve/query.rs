//! One question to one name server: over UDP, then over TCP where that brings nothing or not all. Both have a deadline.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::rr::{TSigVerifier, TSigner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::dns01::Trouble;

/// How long a datagram's answer is waited for.
const UDP: Duration = Duration::from_secs(3);
/// How long a whole exchange over TCP may take.
const TCP: Duration = Duration::from_secs(5);
/// The longest datagram that crosses every network whole, in octets.
const PAYLOAD: u16 = 1232;

/// A question (RFC 1035 section 4.1.2). `recursive` asks the server to ask others.
pub(super) fn question(name: &Name, kind: RecordType, recursive: bool) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(name.clone(), kind));
    message.metadata.recursion_desired = recursive;
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD);
    message.set_edns(edns);
    message
}

/// Sends a message, signed where there is a key, and returns the answer, whatever its response code. With a key, only an
/// answer that the same key signed is one (RFC 8945 section 5.3).
pub(super) async fn ask(
    server: SocketAddr,
    mut message: Message,
    key: Option<&TSigner>,
) -> Result<Message, Trouble> {
    let unfit = |error: &dyn std::fmt::Display| Trouble::Unfit(format!("no question could be made: {error}"));
    let verifier = match key {
        None => None,
        Some(key) => message.finalize(key, now()).map_err(|error| unfit(&error))?,
    };
    let bytes = message.to_vec().map_err(|error| unfit(&error))?;
    let answer = match within(UDP, by_udp(server, &bytes)).await {
        Ok(answer) if !is_truncated(&answer) => answer,
        _ => within(TCP, by_tcp(server, &bytes))
            .await
            .map_err(|source| Trouble::Silent { server: server.to_string(), source })?,
    };
    read(server, &answer, key.zip(verifier))
}

fn read(
    server: SocketAddr,
    bytes: &[u8],
    signed: Option<(&TSigner, TSigVerifier)>,
) -> Result<Message, Trouble> {
    let wrong = |why: &str| Trouble::Odd { server: server.to_string(), why: why.to_owned() };
    let message = Message::from_vec(bytes)
        .map_err(|error| wrong(&format!("an answer that cannot be read: {error}")))?;
    let Some((key, mut verifier)) = signed else { return Ok(message) };
    let signature = message.signature();
    if let Some(error) = signature.and_then(|record| record.data.error) {
        return Err(refused_key(server, key, error));
    }
    match (signature, message.response_code) {
        // A server that refuses may be unable to sign; to believe it does no harm.
        (None, ResponseCode::NoError) => Err(wrong("an answer that is not signed")),
        (None, _) => Ok(message),
        (Some(_), _) => match verifier.verify(bytes) {
            Ok(_) => Ok(message),
            Err(error) => Err(wrong(&format!("an answer whose signature is not right: {error}"))),
        },
    }
}

/// RFC 8945 section 5.2.
fn refused_key(server: SocketAddr, key: &TSigner, error: TsigError) -> Trouble {
    let (name, algorithm) = (key.signer_name().to_ascii(), key.algorithm());
    let (what, fix) = match error {
        TsigError::BadKey => (
            format!("does not know the key {name} with {algorithm} (BADKEY)"),
            "give its configuration the same key, under the same name and with the same algorithm",
        ),
        TsigError::BadSig => {
            (format!("has another secret for the key {name} (BADSIG)"), "give both sides the same secret")
        }
        TsigError::BadTime => {
            ("has a clock that differs by more than five minutes (BADTIME)".to_owned(), "set both clocks")
        }
        other => (
            format!("refuses the signature by the key {name} (TSIG error {})", u16::from(other)),
            "its log says why",
        ),
    };
    Trouble::Refused { server: server.to_string(), what, fix: fix.to_owned() }
}

async fn by_udp(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        // Anything else may be a late answer, or somebody's guess.
        if answers(message, answer) {
            return Ok(answer.to_vec());
        }
    }
}

/// RFC 7766 section 8.
async fn by_tcp(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut tcp = TcpStream::connect(server).await?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    tcp.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    let mut answer = vec![0; usize::from(tcp.read_u16().await?)];
    tcp.read_exact(&mut answer).await?;
    if answers(message, &answer) { Ok(answer) } else { Err(io::Error::other("it answers another question")) }
}

/// Whether an answer has the question's identifier, and is one.
fn answers(question: &[u8], answer: &[u8]) -> bool {
    question.get(..2) == answer.get(..2) && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")),
    }
}

/// As people search for it.
pub(super) fn mnemonic(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::NXDomain => "NXDOMAIN".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::NotAuth => "NOTAUTH".into(),
        ResponseCode::NotZone => "NOTZONE".into(),
        other => format!("response code {}", u16::from(other)),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::OpCode;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::super::tsig;
    use super::*;

    const KEY: &[u8] =
        b"key k { algorithm hmac-sha256; secret \"c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IDEyMzQ=\"; };";

    /// What a server makes of a question, over UDP and over TCP; None is silence.
    type Answers = fn(&[u8]) -> Option<Vec<u8>>;

    /// A name server on a port of its own.
    async fn server(udp: Answers, tcp: Answers) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                if let Some(answer) = udp(&buffer[..length]) {
                    socket.send_to(b"\0\0", peer).await.unwrap();
                    socket.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut question).await.unwrap();
                if let Some(answer) = tcp(&question) {
                    let length = u16::try_from(answer.len()).unwrap();
                    stream.write_all(&[&length.to_be_bytes(), &answer[..]].concat()).await.unwrap();
                }
            }
        });
        address
    }

    /// An answer with this code, as a server without a key gives it.
    fn plain(question: &[u8], code: ResponseCode, truncated: bool) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).unwrap();
        let mut answer = Message::error_msg(question.id, OpCode::Query, code);
        answer.metadata.truncation = truncated;
        answer.to_vec().ok()
    }

    fn empty(question: &[u8]) -> Option<Vec<u8>> {
        plain(question, ResponseCode::NoError, false)
    }

    fn truncated(question: &[u8]) -> Option<Vec<u8>> {
        plain(question, ResponseCode::NoError, true)
    }

    fn refused(question: &[u8]) -> Option<Vec<u8>> {
        plain(question, ResponseCode::Refused, false)
    }

    fn garbage(question: &[u8]) -> Option<Vec<u8>> {
        Some([question.get(..2)?, &[0x80; 4]].concat())
    }

    /// The question itself, with its own signature: not the one of an answer.
    fn echo(question: &[u8]) -> Option<Vec<u8>> {
        let mut answer = question.to_vec();
        *answer.get_mut(2)? |= 0x80;
        Some(answer)
    }

    fn silence(_: &[u8]) -> Option<Vec<u8>> {
        None
    }

    async fn asked(udp: Answers, tcp: Answers, signed: bool) -> Result<ResponseCode, String> {
        let address = server(udp, tcp).await;
        let key = tsig::read(KEY).unwrap();
        let message = question(&Name::from_ascii("a.test.").unwrap(), RecordType::TXT, false);
        let answer = ask(address, message, signed.then_some(&key)).await;
        answer.map(|answer| answer.response_code).map_err(|trouble| trouble.to_string())
    }

    #[tokio::test]
    async fn what_does_not_fit_comes_over_tcp() {
        assert_eq!(asked(empty, silence, false).await, Ok(ResponseCode::NoError));
        assert_eq!(asked(truncated, refused, false).await, Ok(ResponseCode::Refused));
        assert!(asked(garbage, silence, false).await.unwrap_err().contains("an answer that cannot be read"));
    }

    #[tokio::test]
    async fn with_a_key_only_a_signed_answer_is_one() {
        assert!(
            asked(empty, silence, true).await.unwrap_err().ends_with("gave an answer that is not signed")
        );
        assert!(
            asked(echo, silence, true).await.unwrap_err().contains("an answer whose signature is not right")
        );
        assert_eq!(
            asked(refused, silence, true).await,
            Ok(ResponseCode::Refused),
            "a refusal may be unsigned"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends() {
        let begin = Instant::now();
        let error = asked(silence, silence, false).await.unwrap_err();
        assert!(error.contains("does not answer"), "{error}");
        assert!(begin.elapsed() <= UDP + TCP);
    }
}
