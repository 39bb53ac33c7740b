//! Frames of SPDY/3.1, as far as a port-forward has them (draft-mbelshe-httpbis-spdy-00, section 2).

/// Bytes before what a frame carries.
pub(super) const HEADER_LEN: usize = 8;
/// What a data frame can carry at most; its length has 24 bits.
pub(super) const MAX_DATA: usize = (1 << 24) - 1;
/// Nothing comes after this on its stream.
pub(super) const FIN: u8 = 1;

const CONTROL: u16 = 0x8000;
const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// A zlib stream without a dictionary, whose blocks may be stored as they are (RFC 1950).
const ZLIB: [u8; 2] = [0x78, 0x01];

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Data {
        stream: u32,
        fin: bool,
        len: usize,
    },
    /// A stream was taken. What follows begins with its number.
    Reply {
        len: usize,
    },
    /// A stream was ended before its time. What follows are the stream's number and the reason's.
    Reset {
        len: usize,
    },
    /// To be sent back where the other end has begun it. What follows is its number.
    Ping {
        len: usize,
    },
    /// Settings and windows, which say nothing that matters here: all data is on one stream, and the
    /// connection's own window is the stream's.
    Other {
        len: usize,
    },
    /// Another version of SPDY, or no SPDY.
    Unknown,
}

impl Header {
    pub(super) fn decode(bytes: [u8; HEADER_LEN]) -> Self {
        let [a, b, c, d, flags, x, y, z] = bytes;
        let len = u32::from_be_bytes([0, x, y, z]) as usize;
        let first = u16::from_be_bytes([a, b]);
        if first & CONTROL == 0 {
            return Self::Data {
                stream: u32::from_be_bytes([a, b, c, d]),
                fin: flags & FIN != 0,
                len,
            };
        }
        if first != CONTROL | VERSION {
            return Self::Unknown;
        }
        match u16::from_be_bytes([c, d]) {
            SYN_REPLY => Self::Reply { len },
            RST_STREAM => Self::Reset { len },
            PING => Self::Ping { len },
            _ => Self::Other { len },
        }
    }
}

/// The header of a data frame with `len` bytes, at most [`MAX_DATA`].
pub(super) fn data(stream: u32, flags: u8, len: usize) -> [u8; HEADER_LEN] {
    debug_assert!(len <= MAX_DATA && stream & (1 << 31) == 0);
    let [a, b, c, d] = stream.to_be_bytes();
    let [_, x, y, z] = (len as u32).to_be_bytes();
    [a, b, c, d, flags, x, y, z]
}

/// A ping's answer: the ping itself.
pub(super) fn ping(number: [u8; 4]) -> Vec<u8> {
    control(PING, &number)
}

/// No stream is opened any more, all went well.
pub(super) fn goaway() -> Vec<u8> {
    control(GOAWAY, &[0; 8])
}

/// Opens a stream with those headers, whose names are in lower case. Headers of all such frames are one zlib stream,
/// whose own header stands in the first.
pub(super) fn syn_stream(stream: u32, headers: &[(&str, &str)], is_first: bool) -> Vec<u8> {
    let mut block = (headers.len() as u32).to_be_bytes().to_vec();
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        block.extend((text.len() as u32).to_be_bytes());
        block.extend(text.as_bytes());
    }
    // Associated with no other stream, of the highest priority.
    let mut body = [stream.to_be_bytes(), [0; 4]].concat();
    body.extend([0; 2]);
    if is_first {
        body.extend(ZLIB);
    }
    for block in [&block[..], &[]] {
        // A block that is stored, and not the last one (RFC 1951, section 3.2.4). An empty one makes readers give out what
        // they have, as a compressor's flush does.
        let len = block.len() as u16;
        body.push(0);
        body.extend(len.to_le_bytes());
        body.extend((!len).to_le_bytes());
        body.extend(block);
    }
    control(SYN_STREAM, &body)
}

fn control(kind: u16, body: &[u8]) -> Vec<u8> {
    let [_, x, y, z] = (body.len() as u32).to_be_bytes();
    let mut frame = (CONTROL | VERSION).to_be_bytes().to_vec();
    frame.extend(kind.to_be_bytes());
    frame.extend([0, x, y, z]);
    frame.extend(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_frame_s_header_is_read_as_it_was_written() {
        let header = data(3, FIN, MAX_DATA);
        assert_eq!(header, [0, 0, 0, 3, 1, 0xff, 0xff, 0xff]);
        let read = Header::Data {
            stream: 3,
            fin: true,
            len: MAX_DATA,
        };
        assert_eq!(Header::decode(header), read);
    }

    #[test]
    fn control_frames_are_told_apart_and_another_version_is_not_read() {
        let first = |frame: &[u8]| Header::decode(*frame.first_chunk().unwrap());
        assert_eq!(first(&ping([0, 0, 0, 2])), Header::Ping { len: 4 });
        assert_eq!(first(&goaway()), Header::Other { len: 8 });
        assert_eq!(
            first(&[0x80, 3, 0, 3, 0, 0, 0, 8]),
            Header::Reset { len: 8 }
        );
        assert_eq!(first(&[0x80, 2, 0, 1, 0, 0, 0, 8]), Header::Unknown);
        assert_eq!(first(b"\xffTTP/1.1"), Header::Unknown);
    }

    /// By hand out of the draft and RFC 1950, 1951.
    #[test]
    fn a_stream_is_opened_with_headers_that_are_stored_and_not_compressed() {
        let frame = syn_stream(1, &[("port", "80")], true);
        let expected = [
            &[0x80, 3, 0, 1, 0, 0, 0, 40][..], // SYN_STREAM of version 3, 40 bytes
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0],   // stream 1, for itself
            &[0x78, 0x01],                     // a zlib stream without a dictionary
            &[0, 18, 0, 0xed, 0xff],           // 18 bytes, stored; more blocks come
            &[0, 0, 0, 1],                     // a header
            &[0, 0, 0, 4],
            b"port",
            &[0, 0, 0, 2],
            b"80",
            &[0, 0, 0, 0xff, 0xff], // nothing, stored
        ]
        .concat();
        assert_eq!(frame, expected);
        let second = syn_stream(3, &[("port", "80")], false);
        assert_eq!(second.len(), frame.len() - 2);
        assert_eq!(second[18..], frame[20..]);
    }
}
