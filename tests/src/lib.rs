//! What the end-to-end tests share: a playground for each test, and how one looks at it.

mod binary;
mod client;
mod ebpf;
pub mod lab;
mod scene;
mod sight;
mod skip;
pub mod tcp;
mod wireguard;

pub use binary::pmz_binary;
pub use client::{Http, connect, ping, socket, udp};
pub use ebpf::abandoned_links;
pub use scene::{LINK_AS_A_CABLE, options, scene, scene_for};
pub use sight::{
    Log, Ran, eventually, run, run_for, script, status, wait_for_carrier, wait_for_state,
};
pub use skip::skipped;
pub use wireguard::{
    BORINGTUN, GOTATUN, WIREGUARD_GO, WireguardConfig, WireguardDevice, WireguardProgram,
};
