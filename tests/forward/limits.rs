//! How many there may be, and what they cost.

use std::io::{Read as _, Write as _};

use super::*;

#[test]
fn a_row_takes_so_many_connections_in_all_and_from_one_client() {
    let target = Target::new();
    let edge = Edge::start(&rows(&format!(
        "\"{ROW}\" = {{ {} }}\n\"127.0.0.4:0\" = {{ {} }}",
        target.keys(", max_connections = 2"),
        target.keys(", max_connections_per_client = 2"),
    )));
    for row in [ROW, "127.0.0.4:0"] {
        let connect = || client::tcp(edge.address(row)).unwrap();
        let mut held: Vec<_> = (0..2).map(|_| (connect(), target.accept())).collect();
        for (client, upstream) in &mut held {
            says(client, upstream, "hello");
        }
        let mut third = connect();
        assert!(rest(&mut third).map_or(true, |heard| heard.is_empty()));
        // Another client has as many of its own; a row's total has no room for anybody.
        let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        other.bind(&"127.0.0.77:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        other.set_read_timeout(Some(PATIENCE)).unwrap();
        other.connect(&edge.address(row).into()).unwrap();
        let mut other = TcpStream::from(other);
        if row == ROW {
            assert!(rest(&mut other).map_or(true, |heard| heard.is_empty()));
        } else {
            says(&mut other, &mut target.accept(), "hello");
        }
        // One that ends makes room.
        let mark = edge.mark();
        held.pop();
        ended(&edge, mark);
        says(&mut connect(), &mut target.accept(), "hello");
    }
}

#[test]
fn a_ceiling_that_a_reload_brings_counts_what_is_open() {
    let target = Target::new();
    let edge = Edge::start(&target.row(""));
    let mut held: Vec<_> = (0..2).map(|_| joined(&edge, &target)).collect();
    for (client, upstream) in &mut held {
        says(client, upstream, "hello");
    }
    edge.write_config(&target.row(", max_connections = 2"));
    assert!(edge.reload());
    let mut third = client::tcp(edge.address(ROW)).unwrap();
    assert!(rest(&mut third).map_or(true, |heard| heard.is_empty()));
    for (client, upstream) in &mut held {
        says(client, upstream, "still here");
    }
}

/// A connection that rests holds neither a buffer nor a pipe.
#[test]
fn connections_that_rest_take_little_memory() {
    const MANY: usize = 1000;
    let target = Target::new();
    let edge = Edge::start(&target.row(""));
    let open = |count: usize| -> Vec<_> {
        let mut ends: Vec<_> = (0..count).map(|_| joined(&edge, &target)).collect();
        let piece = "x".repeat(100_000);
        for (client, upstream) in &mut ends {
            says(client, upstream, &piece);
        }
        ends
    };
    let _warm = open(20);
    let before = edge.peak_memory();
    let _held = open(MANY);
    let each = (edge.peak_memory() - before) / MANY as u64;
    assert!(each < 6 * 1024, "{each} octets a connection");
    let links = std::fs::read_dir(format!("/proc/{}/fd", edge.pid())).unwrap();
    let links = links.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let pipes = links.filter(|link| link.to_string_lossy().starts_with("pipe:")).count();
    assert!(pipes < 64, "{pipes} ends of pipes for {MANY} connections at rest");
}

/// Floods of clients that vanish at every step leave nothing behind.
#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let target = Target::new();
    let listener = target.0.try_clone().unwrap();
    // A target that answers whatever it hears with the same, until its listener is gone.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let edge = Edge::start(&rows(&format!(
        "\"{ROW}\" = {{ {} }}\n\"127.0.0.4:0\" = {{ {} }}",
        target.keys(""),
        target.keys(", tls = \"db.localhost\", certificate = \"internal\""),
    )));
    let ssl_request = b"\0\0\0\x08\x04\xd2\x16\x2f";
    let gss_request = b"\0\0\0\x08\x04\xd2\x16\x30";
    let half_record = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
    let pieces: [&[u8]; 6] = [b"", b"hello", ssl_request, gss_request, half_record, b"\0"];
    for (turn, piece) in (0..600).zip(pieces.iter().cycle()) {
        let row = if turn % 2 == 0 { ROW } else { "127.0.0.4:0" };
        let mut client = client::tcp(edge.address(row)).unwrap();
        client.write_all(piece).unwrap();
        if turn % 3 == 0 { reset(client) } else { drop(client) }
    }
    edge.wait_until_no_client();
    let mut client = client::tcp(edge.address(ROW)).unwrap();
    client.write_all(b"still there?").unwrap();
    let mut heard = [0; 12];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still there?");
}
