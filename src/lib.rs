//! vestibule: the room between the street and Django.
//!
//! # Rooms
//! Imports flow one way, and a test holds it:
//! `cli → runtime → {admin, http, l4, acme, firewall} → lobby → snapshot → route → {upstream, files, auth, client} → {tls, limit, net} →
//! wire → config::model → {name, addr, password, fault}`. `observe` is a leaf that all may use. `config::raw` is seen by
//! `config` alone.
//!
//! | room | what is in it |
//! |---|---|
//! | [`cli`] | the commands: arguments, what they print, exit codes |
//! | [`runtime`] | start, worker threads, reload, drain, signals, upgrades, what service managers are told |
//! | [`admin`] | the socket that the commands speak to |
//! | [`http`] | a connection, an exchange, and the pipeline that every request goes through |
//! | [`l4`] | forward rows: TCP passed on byte for byte, with TLS ended before it or not |
//! | [`acme`] | certificates that look after themselves, and the store that they are kept in |
//! | [`firewall`] | the table of ports for the host itself: planned, rendered for nftables, applied |
//! | [`lobby`] | what every connection goes through: the row's gate, the PROXY header, the counts |
//! | [`snapshot`] | the running configuration, frozen, behind one pointer |
//! | [`route`] | from a host and a path to a site and a route |
//! | [`files`] | directories whose files are served, and what upstreams hand over by X-Accel-Redirect |
//! | [`auth`] | passwords that are asked for at the edge |
//! | [`upstream`] | targets and the addresses that they lead to, who is well, who waits, pools, and one request's call |
//! | [`client`] | HTTP to servers that the edge asks on its own account: CAs, webhooks, collectors of traces |
//! | [`tls`] | policy, handshakes, certificates, tickets |
//! | [`limit`], [`net`] | counted connections, rates; listening, accepting, the PROXY protocol |
//! | [`wire`] | HTTP/1.1's heads, framing and chunks, as both sides of the edge speak it |
//! | [`config`] | what was typed, what is wrong with it, and what is true |
//! | [`name`], [`addr`], [`password`], [`fault`] | hosts, addresses and their permits, stored passwords, every bad end |
//! | [`observe`] | the log, the access lines, what the workers count, and spans on their way to a collector |
//!
//! # A request's way
//! [`net::accept`] takes a socket from the worker's own listener, and [`lobby::Lobby::enter`] brings it through the
//! row's gate ([`addr::Gate::admit`]) before a byte is read, and through a PROXY header where the row wants one;
//! [`http::Worker::serve`] through the handshake ([`tls::accept`]), where the server name chooses the site before a certificate is shown. ALPN picks
//! `http::h1` or `http::h2`; both make the same request of what they read, and hand it to `http::pipeline`, which reads
//! from top to bottom: host, server name, route, gates, rate, size, answer. `http::forward` writes the head anew and gives it,
//! with the route's permit, to [`upstream::Upstream::call`]. Names were looked up, and addresses asked whether they are well, by
//! the [`upstream::Keeper`] on the control thread before. The answer's body is pulled from the upstream as the client
//! takes it, in the client's own task. A route with files is answered by [`files::serve()`], with the same permit, and so is a request that an
//! upstream hands over with X-Accel-Redirect. Every [`fault::Fault`] becomes a page in `http::respond`; dropping the exchange writes
//! the one access line, counts the request and, where its trace is sampled, leaves a span for `runtime::exporter`.
//!
//! # A forwarded connection's way
//! The same entrance; then [`l4::Worker::serve`] ends TLS where the row says so ([`tls::accept_as`]), dials with the port's
//! permit ([`upstream::Upstream::connect`]), writes a PROXY header, and passes bytes on both ways until both sides have
//! ended. It keeps what it began with: a reload does not concern it.
//!
//! # A certificate's way
//! [`tls::SiteTls::load`] reads and checks files, or has [`tls::Authority`] issue a leaf; a handshake takes what is there.
//! The control thread looks at the files every two seconds ([`tls::SiteTls::refresh`]), and swaps in what passes the
//! same checks; what does not is told in the log, and the old one stays.
//!
//! One from a CA: [`acme::manager`] looks at the clock, `acme::tend` loads the record, decides ([`acme::renewal::decide`]),
//! locks, loads and decides again; `acme::order` makes an order, or goes on with the one that the record has, stored with its
//! key before anything else is done. `acme::solve` puts the answers into [`tls::challenges::Book`], where handshakes and
//! `http::validation` find them, or into the DNS; the chain is checked, stored, and taken up by [`tls::SiteTls::install`].
//! How far that is stands in [`acme::progress`], for the log and the commands; `acme::notice` tells others how it ended.
//!
//! # A reload's way
//! [`config::load`] gives all that is true or all that is wrong; [`snapshot::Snapshot::build`] loads the certificates and
//! keeps the upstreams that did not change; rows that are new are bound; then one pointer is swapped, and what is gone is
//! drained. Whatever fails on the way drops the prepared half, and the running one never noticed.
//!
//! # An upgrade's way
//! USR2 has `runtime::handover` start the program that is there by now, with the listening sockets from descriptor 3 on
//! ([`net::inherit`]) and the ticket keys in memory that both see. The new process prepares all that can fail, says that it is
//! ready, and waits; the old one lets go of locks and the admin socket, tells it to go, and drains. It keeps its sockets until
//! it leaves: a new process that dies before then is replaced by the old one.

pub mod acme;
pub mod addr;
pub mod admin;
pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod fault;
pub mod files;
pub mod firewall;
pub mod http;
pub mod l4;
pub mod limit;
pub mod lobby;
pub mod name;
pub mod net;
pub mod observe;
pub mod password;
pub mod route;
pub mod runtime;
pub mod snapshot;
pub mod tls;
pub mod upstream;
pub mod wire;
