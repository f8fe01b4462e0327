//! Reloads and the edge's end, with connections open.

use nix::sys::signal::Signal;

use super::*;

#[test]
fn connections_keep_what_they_began_with() {
    let (first, second) = (Target::new(), Target::new());
    let mut edge = Edge::start(&first.row(""));
    let (mut client, mut upstream) = joined(&edge, &first);
    says(&mut client, &mut upstream, "hello");
    for config in [second.row(""), first.row(", deny = [\"here\"]"), rows("")] {
        edge.write_config(&config);
        assert!(edge.reload());
        says(&mut client, &mut upstream, "still there?");
        says(&mut upstream, &mut client, "still there");
    }
    assert!(edge.is_running());
    edge.write_config(&second.row(""));
    assert!(edge.reload());
    let mark = edge.mark();
    drop(client);
    assert_eq!(rest(&mut upstream).unwrap(), b"");
    drop(upstream);
    assert_eq!(ended(&edge, mark).0, "client_closed");
}

#[test]
fn a_reload_takes_new_connections_to_the_new_target() {
    let (first, second) = (Target::new(), Target::new());
    let edge = Edge::start(&first.row(""));
    let (mut client, mut upstream) = joined(&edge, &first);
    says(&mut client, &mut upstream, "hello");
    edge.write_config(&second.row(", send_proxy = \"v1\""));
    assert!(edge.reload());
    let mut client = client::tcp(edge.address(ROW)).unwrap();
    let mut upstream = second.accept();
    std::io::Write::write_all(&mut client, b"hello").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(rest(&mut upstream).unwrap().starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.3 "));
}

#[test]
fn an_edge_that_leaves_waits_for_what_it_forwards() {
    let target = Target::new();
    let mut edge = Edge::start(&target.row(""));
    let (mut client, mut upstream) = joined(&edge, &target);
    says(&mut client, &mut upstream, "hello");
    let mark = edge.log().mark();
    edge.signal(Signal::SIGTERM);
    edge.log().wait_json(mark, "leaving", |line| text(line, "message").starts_with("leaving"));
    says(&mut client, &mut upstream, "go on");
    drop(client);
    assert_eq!(rest(&mut upstream).unwrap(), b"");
    drop(upstream);
    assert!(edge.wait().success());
    assert_eq!(ended(&edge, 0).0, "client_closed");
}

#[test]
fn what_is_still_open_when_grace_is_over_is_told() {
    let target = Target::new();
    let mut edge = Edge::start(&(target.row("") + "[process]\ngrace = \"300ms\"\n"));
    let (mut client, mut upstream) = joined(&edge, &target);
    says(&mut client, &mut upstream, "hello");
    edge.signal(Signal::SIGTERM);
    assert!(edge.wait().success());
    let (end, line) = ended(&edge, 0);
    assert_eq!((end.as_str(), &line["request_bytes"]), ("edge_left", &5.into()));
}

#[test]
fn a_file_without_sites_forwards() {
    let target = Target::new();
    let mut edge = Edge::start(&format!("[ports]\n\"{ROW}\" = {{ {} }}\n", target.keys("")));
    let (mut client, mut upstream) = joined(&edge, &target);
    says(&mut client, &mut upstream, "hello");
    assert!(edge.reload());
    says(&mut upstream, &mut client, "hello yourself");
    drop(client);
    assert_eq!(rest(&mut upstream).unwrap(), b"");
    drop(upstream);
    assert_eq!(ended(&edge, 0).0, "client_closed");
    edge.signal(Signal::SIGTERM);
    assert!(edge.wait().success());
}

/// What `check` cannot see, a connection does not try: each would make another, until no descriptor is left.
#[test]
fn a_row_that_forwards_to_itself_passes_nothing_on() {
    let target = Target::new();
    let edge = Edge::start(&target.row(""));
    let own = edge.address(ROW);
    edge.write_config(&row(&format!("forward = \"{own}\", allow = [\"public\"]")));
    assert!(edge.reload());
    for _ in 0..3 {
        let mark = edge.mark();
        let mut client = client::tcp(own).unwrap();
        assert!(rest(&mut client).map_or_else(|error| client::ended(&error), |bytes| bytes.is_empty()));
        let (end, line) = ended(&edge, mark);
        assert_eq!((end.as_str(), &line["refused"]), ("refused", &"loop".into()));
    }
}
