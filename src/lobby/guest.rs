//! What a worker knows of each of its connections, for a person who asks which there are.

use std::time::SystemTime;

use crate::addr::ClientAddr;
use crate::config::model::Bind;
use crate::observe::metrics::Series;

/// A connection that was let in.
#[derive(Debug, Clone, Copy)]
pub struct Guest {
    /// Who is at its other end.
    pub client: ClientAddr,
    /// The row that it came in on.
    pub row: Bind,
    /// When it was let in.
    pub since: SystemTime,
    /// How far it is.
    pub stage: Stage,
    /// How many requests began on it.
    pub requests: u32,
    /// The site that it is for, as a series of the metrics; that of none where none is known.
    pub series: Series,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing yet: it is being met.
    Handshake,
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// A WebSocket that began as HTTP/1.1.
    WebSocket,
    /// Whatever the target of a forward row speaks.
    Forward,
}

impl Guest {
    /// A connection that has just been let in.
    pub(super) fn new(client: ClientAddr, row: Bind) -> Self {
        let (since, stage) = (SystemTime::now(), Stage::Handshake);
        Self { client, row, since, stage, requests: 0, series: Series::NONE }
    }
}

impl Stage {
    /// In one word.
    pub fn token(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Http1 => "h1",
            Self::Http2 => "h2",
            Self::WebSocket => "websocket",
            Self::Forward => "forward",
        }
    }
}

/// The oldest of them, so many at most, the oldest first.
pub fn oldest(mut guests: Vec<Guest>, most: usize) -> Vec<Guest> {
    guests.sort_unstable_by_key(|guest| guest.since);
    guests.truncate(most);
    guests
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_come_first_and_the_rest_is_left_out() {
        let guest = |seconds| Guest {
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            ..Guest::new(ClientAddr::new(IpAddr::from([192, 0, 2, 1])), Bind::All(443))
        };
        let listed = oldest([3, 1, 4, 2].map(guest).into(), 3);
        let seconds = |guest: &Guest| guest.since.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(listed.iter().map(seconds).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_guest_costs_little() {
        assert!(size_of::<Guest>() <= 80, "{}", size_of::<Guest>());
    }
}
