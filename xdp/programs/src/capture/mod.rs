//! DNS queries of this machine's programs, caught at their sockets: `pmz_connect4` and `6`, `pmz_sendmsg4` and `6` lead
//! them to our server, `pmz_recvmsg4` and `6`, `pmz_peername4` and `6` show the program the server that it has asked.
//!
//! Left alone: other network namespaces; our own server; whoever serves names himself, since what he asks is asked for
//! others; sockets that are bound to a device, from which nothing gets to a loopback address.

mod incoming;
mod maps;
mod outgoing;
mod servers;
mod slots;
mod socket;
