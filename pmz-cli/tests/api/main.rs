//! The playground's API server, asked by a real client over loopback. Needs no root.
#![allow(clippy::unwrap_used)]

mod access;
mod cluster;
mod objects;
mod portforward;
mod raw;
mod reading;
mod words;
