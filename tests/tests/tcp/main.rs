//! The agent's TCP against Linux' kernel, feature by feature: real namespaces, a NAT on a TUN, the link
//! emulator between, and what each side says of the other.

mod ecn;
mod endings;
mod kernel;
mod options;
mod pair;
mod repair;
mod sizes;
mod stage;
mod windows;
