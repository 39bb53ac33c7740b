//! The networking of pmz: everything between a packet on the developer's machine and a socket in the
//! cluster, at both ends of the tunnel.
//!
//! A packet's way goes straight through the modules: [`device`] reads it from the TUN, [`engine`] finds
//! its peer in [`tunnel`] and seals it, a [`carrier`] takes it to the other end, where the engine opens
//! it and [`nat`] turns it into bytes on a socket.
//!
//! What decides is sans-IO: no socket and no clock; packets and time come in as arguments. What touches
//! the kernel is thin and stands beside it.

pub mod capture;
pub mod carrier;
pub mod catalog;
pub mod device;
pub mod dns;
pub mod engine;
pub mod guard;
pub mod nat;
pub mod packet;
pub mod remap;
pub mod route;
pub mod session;
pub mod steer;
pub mod tcp;
pub mod tunnel;
