//! The `pmz` program as a library: the binary, the tests and the benches share it.

pub mod cluster;
pub mod cmd;
pub mod config;
pub mod daemon;
pub mod deploy;
pub mod domains;
mod environment;
pub mod failure;
pub mod helper;
pub mod image;
pub mod playground;
pub mod session;
pub mod show;
