//! Queries that are none, or of a kind that nobody here answers, for tests.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};

/// What a server has to say to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// That, with the query's id.
    Code(ResponseCode),
    /// Nothing at all.
    Silence,
}

/// The first two bytes of each.
pub(super) const ID: [u8; 2] = [0x70, 0x6d];

const NAME: &str = "echo.default.svc.";

/// What is wrong, the bytes, and what is to be said to them.
pub(super) fn queries() -> Vec<(&'static str, Vec<u8>, Wanted)> {
    let good = plain().to_vec().unwrap();
    let format = Wanted::Code(ResponseCode::FormErr);
    let unknown = Wanted::Code(ResponseCode::NotImp);
    let mut all = vec![
        ("half a header", good[..11].to_vec(), Wanted::Silence),
        ("an id alone", ID.to_vec(), Wanted::Silence),
        ("a response", patched(&good, 2, 0x81), Wanted::Silence),
        ("no question", question_count(&good[..12], 0), format),
        ("two questions", two_questions(), format),
        ("one question of two", question_count(&good, 2), format),
        ("one of very many", question_count(&good, u16::MAX), format),
        ("a question that is not there", good[..12].to_vec(), format),
        ("no class", good[..good.len() - 2].to_vec(), format),
        ("no end of the name", good[..16].to_vec(), format),
        ("an answer that is not there", patched(&good, 7, 1), format),
        (
            "an additional that is not there",
            patched(&good, 11, 1),
            format,
        ),
        ("a label longer than all", patched(&good, 12, 63), format),
        (
            "a label's length of kind 01",
            patched(&good, 12, 0x44),
            format,
        ),
        (
            "a label's length of kind 10",
            patched(&good, 12, 0x84),
            format,
        ),
        ("a name that is too long", long_name(), format),
        ("a pointer to itself", pointing(&[0xc0, 12]), format),
        ("a pointer ahead", pointing(&[0xc0, 40]), format),
        (
            "a circle of pointers",
            pointing(&[1, b'a', 0xc0, 12]),
            format,
        ),
        (
            "a pointer into the header",
            pointing(&[1, b'a', 0xc0, 2]),
            format,
        ),
        ("two EDNS records", two_edns(), format),
        (
            "an unknown version of EDNS",
            edns_version(1),
            Wanted::Code(ResponseCode::BADVERS),
        ),
        (
            "a class that nobody asks for",
            chaos(),
            Wanted::Code(ResponseCode::Refused),
        ),
        (
            "a zone's transfer",
            of_type(RecordType::AXFR),
            Wanted::Code(ResponseCode::Refused),
        ),
    ];
    // Inverse query, status, notify, update (its question is a zone), and one that is not assigned.
    for op_code in [1_u8, 2, 4, 5, 11] {
        all.push((
            "another operation",
            patched(&good, 2, op_code << 3),
            unknown,
        ));
    }
    all
}

fn plain() -> Message {
    let id = u16::from_be_bytes(ID);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(NAME).unwrap(), RecordType::A));
    message
}

fn of_type(record_type: RecordType) -> Vec<u8> {
    let mut message = plain();
    message.queries[0].set_query_type(record_type);
    message.to_vec().unwrap()
}

fn chaos() -> Vec<u8> {
    let mut message = plain();
    message.queries[0].set_query_class(DNSClass::CH);
    message.to_vec().unwrap()
}

fn two_questions() -> Vec<u8> {
    let mut message = plain();
    message.add_query(message.queries[0].clone());
    message.to_vec().unwrap()
}

fn edns_version(version: u8) -> Vec<u8> {
    let mut message = plain();
    let mut edns = Edns::new();
    edns.set_version(version);
    message.set_edns(edns);
    message.to_vec().unwrap()
}

fn two_edns() -> Vec<u8> {
    let plain = plain().to_vec().unwrap();
    let mut bytes = edns_version(0);
    let record = bytes[plain.len()..].to_vec();
    bytes.extend(record);
    patched(&bytes, 11, 2)
}

fn patched(bytes: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] = byte;
    bytes
}

fn question_count(bytes: &[u8], count: u16) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[4..6].copy_from_slice(&count.to_be_bytes());
    bytes
}

/// Labels of 256 bytes together.
fn long_name() -> Vec<u8> {
    let label = [&[63][..], &[b'a'; 63]].concat();
    pointing(&[label.repeat(4), vec![0]].concat())
}

/// With that name in the question.
fn pointing(name: &[u8]) -> Vec<u8> {
    let header = &plain().to_vec().unwrap()[..12];
    [header, name, &[0, 1, 0, 1]].concat()
}
