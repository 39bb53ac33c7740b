//! Big downloads and uploads over HTTP: `GET /N?seed=S` gives N bytes that depend only on S, `POST /`
//! takes a body of any size and says how long it was and what its SHA-256 is.
//!
//! The bytes must cost nothing, since downloads measure the network: they are pieces of one block of
//! random bytes, taken from places that depend on the seed and the piece's number. So a piece that is
//! lost, doubled or swapped shows, and none is ever copied.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

use super::http::{Body, json, query, refuse};

/// Bytes of a piece.
const PIECE: u64 = 64 << 10;
/// Bytes of the block that pieces are taken from.
const BLOCK: u64 = 1 << 20;

pub(super) async fn serve(stream: TcpStream) {
    super::http::serve(stream, answer).await;
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    match *request.method() {
        Method::GET | Method::HEAD => download(&request),
        Method::POST | Method::PUT => upload(request.into_body()).await,
        _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "GET /N?seed=S or POST /"),
    }
}

fn download(request: &Request<Incoming>) -> Response<Body> {
    let len = request.uri().path().trim_start_matches('/').parse();
    let seed = query(request, "seed").map_or(Ok(0), |seed| seed.parse());
    match (len, seed) {
        (Ok(len), Ok(seed)) => Response::new(Download(Pieces::new(len, seed)).boxed()),
        _ => refuse(
            StatusCode::BAD_REQUEST,
            "GET /N?seed=S, both numbers below 2^64",
        ),
    }
}

async fn upload(mut body: Incoming) -> Response<Body> {
    let mut hash = Sha256::new();
    let mut bytes = 0u64;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return refuse(StatusCode::BAD_REQUEST, "the body is broken");
        };
        if let Some(data) = frame.data_ref() {
            bytes += data.len() as u64;
            hash.update(data);
        }
    }
    let mut hex = String::new();
    for byte in hash.finalize() {
        let _ = write!(hex, "{byte:02x}");
    }
    json(&serde_json::json!({ "bytes": bytes, "sha256": hex }))
}

/// The bytes of a download, piece by piece: `len` bytes that depend only on `seed`.
#[derive(Clone, Debug)]
pub struct Pieces {
    block: Bytes,
    seed: u64,
    number: u64,
    left: u64,
}

impl Pieces {
    /// The bytes that `GET /len?seed=seed` gives.
    pub fn new(len: u64, seed: u64) -> Self {
        let block = (0..BLOCK / 8).flat_map(|i| mix(seed ^ mix(i)).to_le_bytes());
        Self {
            block: block.collect(),
            seed,
            number: 0,
            left: len,
        }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let len = self.left.min(PIECE);
        let start = mix(self.seed.wrapping_add(mix(!self.number))) % (BLOCK - PIECE + 1);
        self.number += 1;
        self.left -= len;
        Some(self.block.slice(start as usize..(start + len) as usize))
    }
}

/// A download's body.
struct Download(Pieces);

impl hyper::body::Body for Download {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.left)
    }
}

/// SplitMix64's output function.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: u64, seed: u64) -> Vec<u8> {
        Pieces::new(len, seed).flatten().collect()
    }

    #[test]
    fn a_download_has_its_length_and_depends_on_the_seed_only() {
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
            assert_eq!(bytes(len, 1).len() as u64, len);
        }
        assert_eq!(bytes(100_000, 7), bytes(200_000, 7)[..100_000]);
        assert_ne!(bytes(1000, 7), bytes(1000, 8));
    }

    #[test]
    fn no_two_pieces_of_a_download_are_the_same() {
        let pieces: Vec<_> = Pieces::new(256 * PIECE, 3).collect();
        let mut starts: Vec<_> = pieces.iter().map(|piece| piece.as_ptr()).collect();
        starts.sort();
        starts.dedup();
        assert_eq!(starts.len(), pieces.len());
    }

    #[test]
    fn pieces_come_without_being_copied() {
        let pieces = Pieces::new(10 * PIECE, 3);
        let block = pieces.block.as_ptr_range();
        for piece in pieces.clone() {
            assert_eq!(piece.len() as u64, PIECE);
            assert!(block.contains(&piece.as_ptr()));
        }
    }
}
