//! An answer on its way to the client.

use std::sync::LazyLock;

use hickory_proto::op::{Edns, LowerQuery, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::{BinDecoder, BinEncodable, BinEncoder};
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, ResponseInfo};
use hickory_server::zone_handler::{MessageResponseBuilder, Queries};

/// The largest datagram we send, in bytes, whatever the client can take.
const MAX_DATAGRAM: u16 = 4096;
/// What a client can take that says nothing of it (RFC 1035, section 4.2.1).
const PLAIN_DATAGRAM: u16 = 512;

/// What is said to a client.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) metadata: Metadata,
    /// That of the server that was asked.
    pub(super) edns: Option<Edns>,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
}

impl Reply {
    pub(super) fn error(code: ResponseCode) -> Self {
        let mut metadata = Metadata::new(0, MessageType::Response, OpCode::Query);
        metadata.response_code = code;
        // Clients of stubs expect it: without it some take no answer.
        metadata.recursion_available = true;
        Self {
            metadata,
            edns: None,
            answers: vec![],
            authorities: vec![],
            additionals: vec![],
        }
    }

    pub(super) fn ours(code: ResponseCode) -> Self {
        let mut reply = Self::error(code);
        reply.metadata.authoritative = true;
        reply
    }

    /// The header and the EDNS of the answer to that request.
    pub(super) fn heading(&self, request: &Request) -> (Metadata, Option<Edns>) {
        let mut metadata = self.metadata;
        metadata.id = request.metadata.id;
        metadata.op_code = request.metadata.op_code;
        metadata.recursion_desired = request.metadata.recursion_desired;
        // Who asks without EDNS must get none (RFC 6891), and then 512 bytes are the limit.
        let edns = request.edns.as_ref().map(|_| {
            let mut edns = self.edns.clone().unwrap_or_default();
            edns.set_max_payload(request.max_payload().min(MAX_DATAGRAM));
            edns.set_version(0);
            edns
        });
        (metadata, edns)
    }

    /// Leaves out what the client of that request can't take: additional records without a word, since nobody has asked
    /// for them, and answers by saying so (RFC 2181, section 9).
    pub(super) fn fit(&mut self, request: &Request) {
        let limit = self.limit(request);
        if !self.fits(request, limit) {
            self.cut(request, limit);
        }
    }

    /// The bytes of the answer to that request, cut to what its client can take; `None` where they can't be made.
    pub(super) fn encode(mut self, request: &Request) -> Option<Vec<u8>> {
        let limit = self.limit(request);
        let (info, bytes) = self.write(request, limit)?;
        if self.is_whole(request, &info) {
            return Some(bytes);
        }
        self.cut(request, limit);
        let (_, bytes) = self.write(request, limit)?;
        Some(bytes)
    }

    /// Of what does not fit.
    fn cut(&mut self, request: &Request, limit: u16) {
        self.additionals.clear();
        if self.fits(request, limit) {
            return;
        }
        self.metadata.truncation = true;
        // The EDNS record is written last, and must not be what there is no room for (RFC 6891, section 6.1.1).
        let (_, edns) = self.heading(request);
        let room = limit.saturating_sub(edns.as_ref().map_or(0, size));
        if let Some((info, _)) = self.write(request, room) {
            self.answers.truncate(info.counts().answers.into());
            self.authorities.truncate(info.counts().authorities.into());
        }
    }

    /// How many bytes the client of that request takes.
    fn limit(&self, request: &Request) -> u16 {
        match request.protocol() {
            Protocol::Udp => {
                let (_, edns) = self.heading(request);
                edns.as_ref().map_or(PLAIN_DATAGRAM, Edns::max_payload)
            }
            _ => u16::MAX,
        }
    }

    fn fits(&self, request: &Request, limit: u16) -> bool {
        let written = self.write(request, limit);
        written.is_none_or(|(info, _)| self.is_whole(request, &info))
    }

    /// Whether all of it was written.
    fn is_whole(&self, request: &Request, written: &ResponseInfo) -> bool {
        let counts = written.counts();
        let edns = usize::from(request.edns.is_some());
        usize::from(counts.answers) == self.answers.len()
            && usize::from(counts.authorities) == self.authorities.len()
            && usize::from(counts.additionals) == self.additionals.len() + edns
    }

    /// As much of it as has room.
    fn write(&self, request: &Request, limit: u16) -> Option<(ResponseInfo, Vec<u8>)> {
        let (metadata, edns) = self.heading(request);
        let response = MessageResponseBuilder::new(question(request), edns.as_ref()).build(
            metadata,
            self.answers.iter(),
            self.authorities.iter(),
            [],
            self.additionals.iter(),
        );
        let mut bytes = Vec::with_capacity(usize::from(PLAIN_DATAGRAM));
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(limit);
        match response.destructive_emit(&mut encoder) {
            Ok(info) => Some((info, bytes)),
            Err(error) => {
                tracing::debug!(%error, "an answer can't be written down");
                None
            }
        }
    }
}

/// The question of a request, if it is one: of one name that stands there as a whole.
pub(super) fn asked(request: &Request) -> Option<&LowerQuery> {
    let [query] = request.queries.queries() else {
        return None;
    };
    is_whole(request.queries.as_bytes()).then_some(query)
}

/// What of a request's question is repeated. The library repeats its bytes: a name that points at what is before it, which
/// is the header, would be another one in the answer, or none.
pub(super) fn question(request: &Request) -> &Queries {
    static NONE: LazyLock<Queries> = LazyLock::new(|| {
        Queries::read(&mut BinDecoder::new(&[]), 0).expect("nothing can be read from nothing")
    });
    match asked(request) {
        Some(_) => &request.queries,
        None => &NONE,
    }
}

/// Whether a name has no pointer in it (RFC 1035, section 4.1.4).
fn is_whole(mut name: &[u8]) -> bool {
    loop {
        match name {
            [0, ..] => return true,
            [length @ 1..64, rest @ ..] => {
                let Some(rest) = rest.get(usize::from(*length)..) else {
                    return false;
                };
                name = rest;
            }
            _ => return false,
        }
    }
}

/// Bytes of an EDNS record.
fn size(edns: &Edns) -> u16 {
    let mut bytes = Vec::new();
    match edns.emit(&mut BinEncoder::new(&mut bytes)) {
        Ok(()) => u16::try_from(bytes.len()).unwrap_or(u16::MAX),
        Err(_) => 0,
    }
}

impl From<Message> for Reply {
    fn from(message: Message) -> Self {
        Self {
            metadata: message.metadata,
            edns: message.edns,
            answers: message.answers,
            authorities: message.authorities,
            additionals: message.additionals,
        }
    }
}
