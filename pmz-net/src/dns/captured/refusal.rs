//! What is said where the server that was asked can't be reached: the client would have heard of it from the kernel.

const HEADER: usize = 12;
/// Bytes of the longest name (RFC 1035, section 2.3.4).
const NAME: usize = 255;
/// After the name: type and class.
const TYPE_AND_CLASS: usize = 4;

/// 'Server failure' to a query (RFC 1035, section 4.1.1); `None` where it is none.
pub(in crate::dns) fn servfail(query: &[u8]) -> Option<Vec<u8>> {
    let &[id_high, id_low, flags, _, questions_high, questions_low, ..] = query else {
        return None;
    };
    let is_response = flags & 0x80 != 0;
    if is_response || [questions_high, questions_low] != [0, 1] {
        return None;
    }
    let mut end = HEADER;
    loop {
        let length = usize::from(*query.get(end)?);
        end += 1;
        match length {
            0 => break,
            // A question's name has nothing before it that it could point to.
            64.. => return None,
            _ => end += length,
        }
    }
    if end - HEADER > NAME {
        return None;
    }
    let question = query.get(HEADER..end + TYPE_AND_CLASS)?;
    // A response, with the query's operation and 'recursion desired'; recursion available, server failure.
    let flags = [0x80 | flags & 0x79, 0x80 | 2];
    let mut reply = vec![id_high, id_low, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, 0];
    reply.extend_from_slice(question);
    Some(reply)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    #[test]
    fn a_failure_answers_the_query_that_it_is_made_of() {
        let mut query = Message::new(0xbeef, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        let name: Name = "WwW.ExAmPlE.org.".parse().unwrap();
        query.add_query(Query::query(name, RecordType::AAAA));
        let bytes = query.to_vec().unwrap();
        let reply = servfail(&bytes).unwrap();
        let read = Message::from_vec(&reply).unwrap();
        assert_eq!(read.metadata.id, 0xbeef);
        assert_eq!(read.metadata.message_type, MessageType::Response);
        assert_eq!(read.metadata.response_code, ResponseCode::ServFail);
        assert!(read.metadata.recursion_desired);
        assert_eq!(read.queries, query.queries);
        assert!(reply.ends_with(bytes.get(12..).unwrap()), "letter case");
    }

    #[test]
    fn what_is_no_query_gets_no_failure() {
        let mut query = Message::new(1, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(Name::root(), RecordType::A));
        let whole = query.to_vec().unwrap();
        assert!(servfail(&whole).is_some());
        for end in 0..whole.len() {
            assert_eq!(servfail(&whole[..end]), None, "{end} bytes");
        }
        let mut response = whole.clone();
        response[2] |= 0x80;
        assert_eq!(servfail(&response), None);
        let mut pointer = whole.clone();
        pointer[12] = 0xc0;
        assert_eq!(servfail(&pointer), None);
        let label = [&[63][..], &[b'a'; 63]].concat();
        let long = [&whole[..12], &label.repeat(4), &[0, 0, 1, 0, 1]].concat();
        assert_eq!(servfail(&long), None);
    }
}
