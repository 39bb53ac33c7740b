use super::*;

fn encoded(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    for frame in frames {
        stream.extend(encode_header(frame.len()));
        stream.extend(frame);
    }
    stream
}

/// Feeds the stream in pieces of the given lengths, then the rest, and takes all frames after each piece.
fn decoded(stream: &[u8], pieces: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    let mut rest = stream;
    let mut pieces = pieces.into_iter();
    while !rest.is_empty() {
        let piece = pieces.next().unwrap_or(rest.len()).clamp(1, rest.len());
        let space = decoder.buffer();
        assert!(!space.is_empty());
        let n = piece.min(space.len());
        space[..n].copy_from_slice(&rest[..n]);
        decoder.advance(n);
        rest = &rest[n..];
        while let Some(frame) = decoder.next().unwrap() {
            frames.push(frame.to_vec());
        }
    }
    frames
}

fn sample_frames() -> Vec<Vec<u8>> {
    vec![
        b"first".to_vec(),
        vec![2; 300],
        vec![3],
        b"the last".to_vec(),
    ]
}

#[test]
fn a_stream_may_be_cut_at_every_byte() {
    let frames = sample_frames();
    let stream = encoded(&frames);
    for cut in 0..=stream.len() {
        assert_eq!(decoded(&stream, [cut]), frames, "cut at {cut}");
    }
    assert_eq!(decoded(&stream, std::iter::repeat(1)), frames);
}

#[test]
fn keepalives_are_passed_over() {
    let frames = sample_frames();
    let mut stream = Vec::new();
    for frame in &frames {
        stream.extend([0; 12]);
        stream.extend(encoded(std::slice::from_ref(frame)));
    }
    stream.extend([0; 4]);
    assert_eq!(decoded(&stream, []), frames);
    assert_eq!(decoded(&stream, std::iter::repeat(3)), frames);
}

#[test]
fn frames_of_the_largest_size_pass() {
    let frames: Vec<_> = (0..20)
        .map(|i| vec![i; MAX_FRAME_LEN - usize::from(i)])
        .collect();
    let stream = encoded(&frames);
    for piece in [1460, 40_000, 65_536, usize::MAX] {
        assert_eq!(decoded(&stream, std::iter::repeat(piece)), frames);
    }
}

#[test]
fn a_frame_that_is_too_large_ends_the_stream() {
    let mut decoder = Decoder::new();
    let mut stream = encoded(&[b"good".to_vec()]);
    stream.extend((MAX_FRAME_LEN as u32 + 1).to_be_bytes());
    stream.extend(encoded(&[b"never seen".to_vec()]));
    decoder.buffer()[..stream.len()].copy_from_slice(&stream);
    decoder.advance(stream.len());
    assert_eq!(decoder.next().unwrap().unwrap(), b"good");
    for _ in 0..2 {
        assert_eq!(decoder.next(), Err(FrameError::TooLarge(MAX_FRAME_LEN + 1)));
    }
}

#[test]
fn frames_can_be_changed_where_they_are() {
    let stream = encoded(&[b"abc".to_vec(), b"def".to_vec()]);
    let mut decoder = Decoder::new();
    decoder.buffer()[..stream.len()].copy_from_slice(&stream);
    decoder.advance(stream.len());
    decoder.next().unwrap().unwrap().fill(0xff);
    assert_eq!(decoder.next().unwrap().unwrap(), b"def");
    assert_eq!(decoder.next().unwrap(), None);
}

#[test]
fn frames_that_nobody_takes_stop_the_reading_but_are_not_lost() {
    let frames: Vec<_> = (0..9).map(|i| vec![i; 60_000]).collect();
    let stream = encoded(&frames);
    let mut decoder = Decoder::new();
    let mut rest = &stream[..];
    loop {
        let space = decoder.buffer();
        if space.is_empty() {
            break;
        }
        let n = rest.len().min(space.len());
        space[..n].copy_from_slice(&rest[..n]);
        decoder.advance(n);
        rest = &rest[n..];
        assert!(!rest.is_empty(), "the buffer takes no end of bytes");
    }
    assert_eq!(decoder.next().unwrap().unwrap(), frames[0]);
    assert_eq!(decoder.next().unwrap().unwrap(), frames[1]);
    assert!(!decoder.buffer().is_empty());
    assert_eq!(decoder.next().unwrap().unwrap(), frames[2]);
}
