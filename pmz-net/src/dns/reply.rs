//! An answer on its way to the client.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::BinEncoder;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use hickory_server::zone_handler::MessageResponseBuilder;

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

    /// The bytes of the answer to that request, cut to what its client can take; `None` where they can't be made.
    pub(super) fn encode(&self, request: &Request) -> Option<Vec<u8>> {
        let (metadata, edns) = self.heading(request);
        let limit = match request.protocol() {
            Protocol::Udp => edns.as_ref().map_or(PLAIN_DATAGRAM, Edns::max_payload),
            _ => u16::MAX,
        };
        let response = MessageResponseBuilder::new(&request.queries, edns.as_ref()).build(
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
            Ok(_) => Some(bytes),
            Err(error) => {
                tracing::debug!(%error, "an answer can't be written down");
                None
            }
        }
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
