//! A name server whose answers a test changes as it likes. It has port 53 of 127.0.0.1: for a network namespace.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// A running name server. It ends with the process.
pub(crate) struct Dns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By name without its last dot: addresses and their TTL.
    names: HashMap<String, (Vec<IpAddr>, u32)>,
    mood: Mood,
    asked: usize,
}

/// How it answers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As it should.
    #[default]
    Well,
    /// Not at all.
    Silent,
    /// Bytes that are no answer.
    Garbage,
    /// That it has failed.
    Failing,
}

impl Dns {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let dns = Self(Arc::clone(&state));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let answer = answer(&buffer[..length], &mut state.lock().unwrap());
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        dns
    }

    /// What a name leads to from now on; nothing: there is no such name.
    pub(crate) fn set(&self, name: &str, addresses: &[IpAddr], ttl: u32) {
        self.0.lock().unwrap().names.insert(name.to_owned(), (addresses.to_vec(), ttl));
    }

    pub(crate) fn be(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    /// How many questions there were.
    pub(crate) fn asked(&self) -> usize {
        self.0.lock().unwrap().asked
    }
}

fn answer(question: &[u8], state: &mut State) -> Option<Vec<u8>> {
    state.asked += 1;
    let mut message = Message::from_vec(question).ok()?;
    let query = message.queries.first()?.clone();
    match state.mood {
        Mood::Silent => return None,
        Mood::Garbage => return Some([&question[..2], b"\xff\xc0\x0c garbage"].concat()),
        Mood::Well | Mood::Failing => {}
    }
    message.additionals.clear();
    message.edns = None;
    let mut message = message.into_response();
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    match state.names.get(&name).filter(|(addresses, _)| !addresses.is_empty()) {
        _ if state.mood == Mood::Failing => message.metadata.response_code = ResponseCode::ServFail,
        Some((addresses, ttl)) => {
            let records =
                addresses.iter().filter_map(|ip| record(query.name(), *ip, *ttl, query.query_type()));
            message.answers.extend(records);
        }
        None => message.metadata.response_code = ResponseCode::NXDomain,
    }
    message.to_vec().ok()
}

fn record(name: &Name, ip: IpAddr, ttl: u32, kind: RecordType) -> Option<Record> {
    let data = match (ip, kind) {
        (IpAddr::V4(ip), RecordType::A) => RData::A(ip.into()),
        (IpAddr::V6(ip), RecordType::AAAA) => RData::AAAA(ip.into()),
        _ => return None,
    };
    Some(Record::from_rdata(name.clone(), ttl, data))
}
