//! Services on loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// A listener on the loopback of a family.
pub(crate) fn listener(v6: bool) -> (TcpListener, SocketAddr) {
    let address = if v6 { "[::1]:0" } else { "127.0.0.1:0" };
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A service that runs `serve` for each connection.
pub(crate) fn service(
    v6: bool,
    serve: impl Fn(TcpStream) + Send + Sync + Copy + 'static,
) -> SocketAddr {
    let (listener, address) = listener(v6);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Sends everything back; closes when the client has.
pub(crate) fn echo(v6: bool) -> SocketAddr {
    service(v6, |mut stream| {
        let mut buf = vec![0; 256 << 10];
        while let Ok(n) = stream.read(&mut buf) {
            if n == 0 || stream.write_all(&buf[..n]).is_err() {
                return;
            }
        }
    })
}

/// One connection, for the test to play with.
pub(crate) fn one(v6: bool) -> (SocketAddr, Receiver<TcpStream>) {
    let (listener, address) = listener(v6);
    let (to_test, from_service) = channel();
    thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            let _ = to_test.send(stream);
        }
    });
    (address, from_service)
}

/// A port where nobody listens.
pub(crate) fn nobody(v6: bool) -> SocketAddr {
    listener(v6).1
}

/// Byte `i` of a stream that depends on its seed.
pub(crate) fn byte(seed: u64, i: u64) -> u8 {
    let word = (i >> 3)
        .wrapping_add(seed)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (word ^ (word >> 29)).to_le_bytes()[(i & 7) as usize]
}

/// Fills a buffer with the stream from `at` on.
pub(crate) fn fill(seed: u64, at: u64, buf: &mut [u8]) {
    for (i, b) in buf.iter_mut().enumerate() {
        *b = byte(seed, at + i as u64);
    }
}

/// Asserts that these are the stream's bytes from `at` on.
pub(crate) fn verify(seed: u64, at: u64, buf: &[u8]) {
    let wrong = buf
        .iter()
        .enumerate()
        .find(|(i, b)| **b != byte(seed, at + *i as u64));
    assert_eq!(wrong.map(|(i, _)| at + i as u64), None, "first wrong byte");
}
