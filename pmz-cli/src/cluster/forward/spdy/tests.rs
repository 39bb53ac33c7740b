use tokio::io::{DuplexStream, duplex};

use super::*;

/// A stream was taken.
fn reply(stream: u8) -> [u8; 14] {
    [0x80, 3, 0, 2, 0, 0, 0, 6, 0, 0, 0, stream, 9, 9]
}

/// A stream to port 7600, and the other end of its connection, which has taken it.
async fn pair(buffer: usize) -> (SpdyStream<DuplexStream>, DuplexStream) {
    let (ours, mut theirs) = duplex(buffer);
    let begin = SpdyStream::begin(ours, 7600);
    let taken = async {
        let headers = |kind| [("streamtype", kind), ("port", "7600"), ("requestid", "0")];
        for (stream, kind) in [(ERROR, "error"), (DATA, "data")] {
            let expected = frame::syn_stream(stream, &headers(kind), stream == ERROR);
            let mut got = vec![0; expected.len()];
            theirs.read_exact(&mut got).await.unwrap();
            assert_eq!(got, expected);
        }
        theirs.write_all(&reply(1)).await.unwrap();
        theirs.write_all(&reply(3)).await.unwrap();
        let mut end = [0; HEADER_LEN];
        theirs.read_exact(&mut end).await.unwrap();
        assert_eq!(end, frame::data(ERROR, FIN, 0));
    };
    let (client, ()) = futures::join!(begin, taken);
    (client.unwrap(), theirs)
}

fn frame_of(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    [&frame::data(stream, flags, bytes.len())[..], bytes].concat()
}

#[tokio::test]
async fn bytes_go_both_ways_without_their_frames() {
    let (mut client, mut server) = pair(1 << 20).await;
    server.write_all(&frame_of(DATA, 0, b"hel")).await.unwrap();
    server.write_all(&frame_of(DATA, 0, b"lo")).await.unwrap();
    let mut heard = [0; 5];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    client.write_all(b"world").await.unwrap();
    client.flush().await.unwrap();
    let mut got = [0; HEADER_LEN + 5];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(&got[..], frame_of(DATA, 0, b"world"));
}

#[tokio::test]
async fn a_stream_is_used_only_when_both_were_taken() {
    let (ours, mut theirs) = duplex(1 << 20);
    let begin = SpdyStream::begin(ours, 7600);
    tokio::pin!(begin);
    theirs.write_all(&reply(1)).await.unwrap();
    assert!(futures::poll!(&mut begin).is_pending(), "after one");
    theirs.write_all(&reply(3)).await.unwrap();
    assert!(begin.await.is_ok());

    let refusals = [
        (
            &[0x80, 3, 0, 3, 0, 0, 0, 8][..],
            io::ErrorKind::ConnectionReset,
        ),
        (&[0, 0, 0, 3, 0, 0, 0, 1, 7][..], io::ErrorKind::InvalidData),
        (&[], io::ErrorKind::UnexpectedEof),
    ];
    for (answer, kind) in refusals {
        let (ours, mut theirs) = duplex(1 << 20);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let error = SpdyStream::begin(ours, 7600).await.err().unwrap();
        assert_eq!(error.kind(), kind, "{answer:?}");
    }
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_told_in_the_nodes_words() {
    let (mut client, mut server) = pair(1 << 20).await;
    let words = b"connection refused to port 7600";
    server.write_all(&frame_of(ERROR, 0, words)).await.unwrap();
    server.write_all(&frame_of(ERROR, FIN, b"")).await.unwrap();
    server.write_all(&frame_of(DATA, FIN, b"")).await.unwrap();
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains("port 7600"), "{error}");
}

#[tokio::test]
async fn the_data_stream_s_end_is_the_end_and_so_is_the_connection_s_between_frames() {
    let (mut client, mut server) = pair(1 << 20).await;
    // That nothing went wrong is told first.
    server.write_all(&frame_of(ERROR, FIN, b"")).await.unwrap();
    server.write_all(&frame_of(DATA, FIN, b"x")).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'x');
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);

    let (mut client, server) = pair(1 << 20).await;
    drop(server);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_connection_that_breaks_within_a_frame_is_an_error() {
    for cut in [1, HEADER_LEN, HEADER_LEN + 2] {
        let (mut client, mut server) = pair(1 << 20).await;
        let frame = frame_of(DATA, 0, b"abc");
        server.write_all(&frame[..cut]).await.unwrap();
        drop(server);
        let read = client.read_to_end(&mut Vec::new()).await;
        let kind = read.unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::UnexpectedEof, "after {cut}");
    }
}

#[tokio::test]
async fn hostile_frames_are_errors() {
    let (strange, no_spdy) = (frame_of(5, 0, b"x"), *b"HTTP/1.1 200 OK\r\n");
    let ping: &[u8] = &[0x80, 3, 0, 6, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 2, 9];
    let other_version: &[u8] = &[0x80, 2, 0, 2, 0, 0, 0, 0];
    for bad in [&strange[..], &no_spdy, ping, other_version] {
        let (mut client, mut server) = pair(1 << 20).await;
        server.write_all(bad).await.unwrap();
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad:?}: {error}");
    }
    let (mut client, mut server) = pair(1 << 20).await;
    let reset = [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5];
    server.write_all(&reset).await.unwrap();
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_other_end_s_pings_are_sent_back_and_answers_to_none_are_not() {
    let (mut client, mut server) = pair(1 << 20).await;
    server.write_all(&frame::ping([0, 0, 1, 3])).await.unwrap();
    server.write_all(&frame::ping([0, 0, 1, 2])).await.unwrap();
    server.write_all(&frame_of(DATA, 0, b"x")).await.unwrap();
    client.read_u8().await.unwrap();
    client.write_all(b"y").await.unwrap();
    client.flush().await.unwrap();
    let expected = [frame::ping([0, 0, 1, 2]), frame_of(DATA, 0, b"y")].concat();
    let mut got = vec![0; expected.len()];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_slow_network_pushes_back_after_one_frame() {
    let (mut client, mut server) = pair(1 << 10).await;
    let chunk = [7u8; MAX_FRAME];
    assert_eq!(client.write(&chunk).await.unwrap(), MAX_FRAME);
    let second = client.write(&chunk);
    tokio::pin!(second);
    assert!(
        futures::poll!(&mut second).is_pending(),
        "a second frame was taken"
    );
    let mut first = vec![0; HEADER_LEN + MAX_FRAME];
    let (second, first) = futures::join!(second, server.read_exact(&mut first));
    assert_eq!(
        (second.unwrap(), first.unwrap()),
        (MAX_FRAME, HEADER_LEN + MAX_FRAME)
    );
}

#[tokio::test]
async fn shutting_down_tells_the_end_of_the_stream_and_of_the_connection() {
    let (mut client, mut server) = pair(1 << 20).await;
    client.write_all(b"x").await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    let end = [
        frame_of(DATA, 0, b"x"),
        frame_of(DATA, FIN, b""),
        frame::goaway(),
    ];
    assert_eq!(got, end.concat());
}

#[tokio::test]
async fn large_transfers_arrive_whole() {
    let (client, server) = pair(8 << 10).await;
    let (mut read, mut write) = tokio::io::split(client);
    let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.flush().await.unwrap();
    });
    // Frames are the same both ways.
    let (mut from, mut to) = tokio::io::split(server);
    let echo = tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
    let mut heard = vec![0; expected.len()];
    read.read_exact(&mut heard).await.unwrap();
    assert!(heard == expected);
    writer.await.unwrap();
    echo.abort();
}
