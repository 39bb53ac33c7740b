//! TCP through the NAT.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use smoltcp::socket::tcp::State;

use crate::client::Client;
use crate::services::{echo, fill, nobody, one, verify};

/// Sends `data` and asserts that it comes back.
fn echoes(client: &mut Client, handle: smoltcp::iface::SocketHandle, data: &[u8]) {
    client.tcp(handle).send_slice(data).unwrap();
    let mut got = Vec::new();
    client.until("the echo", |c| {
        let socket = c.tcp(handle);
        if socket.can_recv() {
            socket
                .recv(|bytes| {
                    got.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        got.len() >= data.len()
    });
    assert_eq!(got, data);
}

#[test]
fn bytes_come_back_from_an_echo_service_over_both_families() {
    for v6 in [false, true] {
        let mut client = Client::new();
        let handle = client.connected(echo(v6), 64 << 10);
        echoes(&mut client, handle, b"hello");
        echoes(&mut client, handle, &[7; 30_000]);
        assert_eq!(client.counters().tcp_flows, 1);
    }
}

#[test]
fn a_refused_connection_is_refused_to_the_client_at_once() {
    for v6 in [false, true] {
        let mut client = Client::new();
        let service = nobody(v6);
        let begin = Instant::now();
        let handle = client.connect(service, 4096);
        client.until("the reset", |c| c.state(handle) == State::Closed);
        assert!(begin.elapsed() < Duration::from_millis(500));
        let counters = client.counters();
        assert_eq!((counters.dials_refused, counters.flows), (1, 0));
    }
}

#[test]
fn half_closing_carries_both_ways() {
    let mut client = Client::new();
    let (service, accepted) = one(false);
    let handle = client.connected(service, 64 << 10);
    let mut stream = accepted.recv().unwrap();

    client.tcp(handle).send_slice(b"question").unwrap();
    client.tcp(handle).close();
    let reader = std::thread::spawn(move || {
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        (stream, got)
    });
    client.until("the service read to the end", |_| reader.is_finished());
    let (mut stream, got) = reader.join().unwrap();
    assert_eq!(got, "question");

    stream.write_all(b"answer").unwrap();
    client.until("the answer", |c| c.tcp(handle).recv_queue() == 6);
    assert_eq!(client.state(handle), State::FinWait2);
    stream.shutdown(Shutdown::Write).unwrap();
    client.until("the end", |c| c.state(handle) == State::TimeWait);
    client.until("the flow is gone", |c| c.counters().flows == 0);
}

#[test]
fn the_service_may_close_first_and_still_receive() {
    let mut client = Client::new();
    let (service, accepted) = one(true);
    let handle = client.connected(service, 64 << 10);
    let mut stream = accepted.recv().unwrap();
    stream.write_all(b"bye").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    client.until("the close", |c| c.state(handle) == State::CloseWait);

    client.tcp(handle).send_slice(b"last words").unwrap();
    client.tcp(handle).close();
    let reader = std::thread::spawn(move || {
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        got
    });
    client.until("the service read to the end", |_| reader.is_finished());
    assert_eq!(reader.join().unwrap(), "last words");
    client.until("closed", |c| c.state(handle) == State::Closed);
    client.until("the flow is gone", |c| c.counters().flows == 0);
}

#[test]
fn a_reset_by_the_service_resets_the_client() {
    let mut client = Client::new();
    let (service, accepted) = one(false);
    let handle = client.connected(service, 4096);
    let stream = socket2::Socket::from(accepted.recv().unwrap());
    stream.set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    client.until("the reset", |c| c.state(handle) == State::Closed);
    client.until("the flow is gone", |c| c.counters().flows == 0);
}

#[test]
fn a_reset_by_the_client_resets_the_service() {
    let mut client = Client::new();
    let (service, accepted) = one(false);
    let handle = client.connected(service, 4096);
    let mut stream = accepted.recv().unwrap();
    client.tcp(handle).abort();
    let reader = std::thread::spawn(move || stream.read(&mut [0; 16]));
    client.until("the service noticed", |_| reader.is_finished());
    let error = reader.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    client.until("the flow is gone", |c| c.counters().flows == 0);
}

const BULK: u64 = 64 << 20;

#[test]
fn a_large_download_arrives_whole_over_both_families() {
    for v6 in [false, true] {
        let mut client = Client::new();
        let (service, accepted) = one(v6);
        let handle = client.connected(service, 1 << 20);
        let mut stream = accepted.recv().unwrap();
        let writer = std::thread::spawn(move || {
            let mut buf = vec![0; 256 << 10];
            let mut at = 0;
            while at < BULK {
                fill(3, at, &mut buf);
                stream.write_all(&buf).unwrap();
                at += buf.len() as u64;
            }
        });
        let mut at = 0;
        client.until("the whole download", |c| {
            let socket = c.tcp(handle);
            while socket.can_recv() {
                let got = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
                verify(3, at, &got);
                at += got.len() as u64;
            }
            at == BULK && c.state(handle) == State::CloseWait
        });
        writer.join().unwrap();
        let counters = client.counters();
        let mean = counters.bytes_out / counters.frames_out;
        assert!(mean > 20_000, "super-packets, not {mean} bytes a frame");
    }
}

#[test]
fn a_large_upload_arrives_whole_over_both_families() {
    for v6 in [false, true] {
        let mut client = Client::new();
        let (service, accepted) = one(v6);
        let handle = client.connected(service, 1 << 20);
        let mut stream = accepted.recv().unwrap();
        let reader = std::thread::spawn(move || {
            let mut buf = vec![0; 256 << 10];
            let mut at = 0;
            loop {
                match stream.read(&mut buf).unwrap() {
                    0 => return at,
                    n => {
                        verify(4, at, &buf[..n]);
                        at += n as u64;
                    }
                }
            }
        });
        let mut at = 0;
        client.until("the whole upload", |c| {
            let socket = c.tcp(handle);
            while at < BULK && socket.can_send() {
                let n = socket
                    .send(|room| {
                        let n = room.len().min((BULK - at) as usize);
                        fill(4, at, &mut room[..n]);
                        (n, n)
                    })
                    .unwrap();
                at += n as u64;
                if at == BULK {
                    socket.close();
                }
            }
            reader.is_finished()
        });
        assert_eq!(reader.join().unwrap(), BULK);
    }
}
