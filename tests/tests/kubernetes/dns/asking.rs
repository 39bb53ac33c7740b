//! Questions to a name server, from a laptop, and what it says that is worth comparing.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use pmz_tests::lab::Laptop;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// More than any answer here needs.
const PAYLOAD: u16 = 4096;
const PATIENCE: Duration = Duration::from_secs(5);
/// Datagrams may be lost.
const TRIES: usize = 3;

/// A name, with its last dot, and a type.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) of: RecordType,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.of)
    }
}

/// What a server says, without what two servers need not agree on: TTLs, the order of records, how they share the load
/// (the specification prescribes no SRV weight), what a zone's SOA says, and the additional section ("may include").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) rcode: ResponseCode,
    /// Name, type, data.
    pub(crate) answers: BTreeSet<String>,
    /// Whether there is one in the authority section.
    pub(crate) soa: bool,
}

impl Said {
    /// Neither an error nor a record.
    pub(crate) fn is_nodata(&self) -> bool {
        self.rcode == ResponseCode::NoError && self.answers.is_empty()
    }

    pub(crate) fn is_nxdomain(&self) -> bool {
        self.rcode == ResponseCode::NXDomain && self.answers.is_empty()
    }

    /// Whether an answer is of that type.
    pub(crate) fn has(&self, of: &str) -> bool {
        self.answers.iter().any(|answer| is(answer, of))
    }

    /// Whether all answers are of that type, and there is one.
    pub(crate) fn has_only(&self, of: &str) -> bool {
        !self.answers.is_empty() && self.answers.iter().all(|answer| is(answer, of))
    }
}

fn is(answer: &str, of: &str) -> bool {
    answer.split(' ').nth(1) == Some(of)
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let soa = if self.soa { " (SOA)" } else { "" };
        write!(f, "{:?}{soa} {:?}", self.rcode, self.answers)
    }
}

/// A socket on a laptop, towards a name server.
pub(crate) struct Client(UdpSocket);

impl Client {
    pub(crate) async fn of(laptop: &Laptop, server: SocketAddr) -> Result<Self> {
        let socket = laptop.machine().in_netns(|| {
            let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        })??;
        socket.connect(server).await?;
        Ok(Self(socket))
    }

    pub(crate) async fn ask(&self, question: &Question) -> Result<Said> {
        let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(&question.name)?, question.of));
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        message.set_edns(edns);
        let bytes = message.to_vec()?;
        for _ in 0..TRIES {
            self.0.send(&bytes).await?;
            let Ok(answer) = timeout(PATIENCE, self.answer(message.metadata.id)).await else {
                continue;
            };
            return Ok(said(&answer?));
        }
        anyhow::bail!("no answer to {question}")
    }

    async fn answer(&self, id: u16) -> Result<Message> {
        let mut buffer = [0; PAYLOAD as usize];
        loop {
            let length = self.0.recv(&mut buffer).await?;
            let answer = buffer.get(..length).context("no bytes")?;
            let answer = Message::from_vec(answer)?;
            // To an earlier try, otherwise.
            if answer.metadata.id == id {
                return Ok(answer);
            }
        }
    }
}

fn said(answer: &Message) -> Said {
    let is_soa = |record: &Record| record.record_type() == RecordType::SOA;
    Said {
        rcode: answer.metadata.response_code,
        answers: answer.answers.iter().map(line).collect(),
        soa: answer.authorities.iter().any(is_soa),
    }
}

fn line(record: &Record) -> String {
    let data = match &record.data {
        RData::SRV(srv) => format!("{} {}", srv.port, srv.target),
        RData::SOA(_) => String::new(),
        data => data.to_string(),
    };
    let name = record.name.to_string().to_ascii_lowercase();
    let line = format!(
        "{name} {} {}",
        record.record_type(),
        data.to_ascii_lowercase()
    );
    line.trim_end().to_owned()
}
