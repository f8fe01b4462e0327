//! Bytes both ways, and each side's end passed on as it was.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;

use proptest::prelude::*;

use super::*;

#[test]
fn bytes_are_passed_on_and_half_closes_too() {
    let target = Target::new();
    let edge = Edge::start(&target.row(""));
    for first in ["client", "upstream"] {
        let mark = edge.mark();
        let (mut client, mut upstream) = joined(&edge, &target);
        says(&mut client, &mut upstream, "hello");
        says(&mut upstream, &mut client, "who is there?");
        let (one, other) =
            if first == "client" { (&mut client, &mut upstream) } else { (&mut upstream, &mut client) };
        one.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(other).unwrap(), b"");
        // The other way is still open.
        says(other, one, "and much later");
        other.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(one).unwrap(), b"");
        let (end, line) = ended(&edge, mark);
        assert_eq!(end, format!("{first}_closed"));
        let (received, sent) = if first == "client" { (5, 27) } else { (19, 13) };
        assert_eq!((&line["request_bytes"], &line["response_bytes"]), (&received.into(), &sent.into()));
        assert_eq!(
            (&line["protocol"], &line["row"], &line["client"]),
            (&"TCP".into(), &ROW.into(), &"127.0.0.1".into())
        );
        assert_eq!(line["upstream"], target.address().to_string());
        assert!(line["total_ms"].is_number() && line["connect_ms"].is_number() && line.get("path").is_none());
    }
}

#[test]
fn resets_are_passed_on_as_resets() {
    let target = Target::new();
    let edge = Edge::start(&target.row(""));
    let mark = edge.mark();
    let (mut client, mut upstream) = joined(&edge, &target);
    says(&mut client, &mut upstream, "hello");
    reset(client);
    assert_eq!(rest(&mut upstream).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(ended(&edge, mark).0, "client_reset");
    let mark = edge.mark();
    let (mut client, mut upstream) = joined(&edge, &target);
    says(&mut upstream, &mut client, "hello");
    reset(upstream);
    assert_eq!(rest(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(ended(&edge, mark).0, "upstream_reset");
}

/// A server that says why it will not have a client closes while the client still sends.
#[test]
fn last_words_are_heard_by_a_client_that_goes_on_sending() {
    let target = Target::new();
    let edge = Edge::start(&target.row(""));
    let (mut client, mut upstream) = joined(&edge, &target);
    client.write_all(b"let me in").unwrap();
    upstream.write_all(b"too many clients").unwrap();
    drop(upstream); // what it did not read makes this a reset
    let mut heard = [0; 16];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"too many clients");
    let _ = rest(&mut client); // an end or a reset, as the kernel had it
}

/// What the other side does not take waits with whoever sends it: the edge holds one buffer of it.
#[test]
fn a_reader_that_never_reads_fills_no_memory_and_loses_nothing() {
    const MANY: usize = 32;
    let target = Target::new();
    let edge = Edge::start(&target.row(""));
    let mut ends: Vec<_> = (0..MANY).map(|_| joined(&edge, &target)).collect();
    let before = edge.peak_memory();
    let piece = vec![7; 1 << 20];
    let mut sent = vec![0_usize; MANY];
    for ((client, _), sent) in ends.iter_mut().zip(&mut sent) {
        client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        // Until the kernel's own buffers are full as well.
        while let Ok(written @ 1..) = client.write(&piece) {
            *sent += written;
        }
    }
    let held = edge.peak_memory() - before;
    assert!(sent.iter().sum::<usize>() > MANY << 20, "{sent:?}");
    assert!(held < (MANY as u64) * 256 * 1024, "{held} octets for {MANY} connections");
    for ((client, mut upstream), sent) in ends.into_iter().zip(sent) {
        client.shutdown(Shutdown::Write).unwrap();
        let bytes = rest(&mut upstream).unwrap();
        assert!(bytes.len() == sent && bytes.iter().all(|byte| *byte == 7), "{} of {sent}", bytes.len());
    }
}

/// Whoever breaks off is missed even by an edge that does not read him.
#[test]
fn a_sender_that_breaks_off_before_a_reader_that_never_reads_is_missed() {
    let target = Target::new();
    let edge = Edge::start(&target.row(""));
    let mark = edge.mark();
    let (mut client, upstream) = joined(&edge, &target);
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let piece = vec![7; 1 << 16];
    while client.write(&piece).is_ok() {}
    reset(client);
    assert_eq!(ended(&edge, mark).0, "client_reset");
    drop(upstream);
}

#[test]
fn every_family_and_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("target.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let six = TcpListener::bind("[::1]:0").unwrap();
    let edge = Edge::start(&rows(&format!(
        "\"{ROW}\" = {{ forward = \"unix:{}\", allow = [\"public\"] }}\n\
         \"[::1]:0\" = {{ forward = \"{}\", allow = [\"here\"] }}\n\
         \"127.0.0.4:0\" = {{ forward = \"localhost:{}\", allow = [\"nobody\"] }}",
        path.display(),
        six.local_addr().unwrap(),
        six.local_addr().unwrap().port(),
    )));
    let mut client = client::tcp(edge.address(ROW)).unwrap();
    let (mut upstream, _) = unix.accept().unwrap();
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    upstream.read_to_string(&mut heard).unwrap();
    upstream.write_all(b"and you").unwrap();
    drop(upstream);
    assert_eq!((heard.as_str(), rest(&mut client).unwrap().as_slice()), ("hello", &b"and you"[..]));
    let mut client = client::tcp(edge.address("[::1]:0")).unwrap();
    let (mut upstream, _) = six.accept().unwrap();
    says(&mut client, &mut upstream, "hello");
    // Whom the row does not allow is told nothing.
    let mut stranger = client::tcp(edge.address("127.0.0.4:0")).unwrap();
    assert!(rest(&mut stranger).map_or(true, |heard| heard.is_empty()));
}

#[derive(Debug, Clone)]
enum Step {
    Up(usize),
    Down(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![1..100_usize, 60_000..70_000_usize, 200_000..400_000_usize];
    let step = prop_oneof![size.clone().prop_map(Step::Up), size.prop_map(Step::Down)];
    proptest::collection::vec(step, 1..12)
}

/// Octets that tell where they belong.
fn bytes(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|at| at.wrapping_mul(31).wrapping_add(seed).to_le_bytes()[0]).collect()
}

/// What is sent arrives, in whatever pieces, both ways at once.
#[test]
fn what_is_sent_arrives() {
    let target = Target::new();
    let edge = Edge::start(&target.row(""));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(24));
    let run = |steps: Vec<Step>| {
        let (client, upstream) = joined(&edge, &target);
        let pick = |up: bool| -> Vec<u8> {
            let sizes = steps.iter().enumerate().filter_map(|(seed, step)| match step {
                Step::Up(size) if up => Some(bytes(*size, seed)),
                Step::Down(size) if !up => Some(bytes(*size, seed)),
                _ => None,
            });
            sizes.collect::<Vec<_>>().concat()
        };
        let (up, down) = (pick(true), pick(false));
        let send = |stream: &TcpStream, bytes: Vec<u8>| {
            let mut stream = stream.try_clone().unwrap();
            std::thread::spawn(move || {
                stream.write_all(&bytes).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            })
        };
        let sending = [send(&client, up.clone()), send(&upstream, down.clone())];
        let [mut client, mut upstream] = [client, upstream];
        let reading = std::thread::spawn(move || rest(&mut upstream).unwrap());
        prop_assert!(rest(&mut client).unwrap() == down);
        prop_assert!(reading.join().unwrap() == up);
        for sending in sending {
            sending.join().unwrap();
        }
        Ok(())
    };
    runner.run(&steps(), run).unwrap();
}
