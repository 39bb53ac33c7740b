//! Queries that were caught on their way to another server.
//!
//! What is ours is answered. All else goes on to the server that was meant, as bytes that nobody has touched, and so
//! does what comes back: by the same transport, from a socket for each of the client's, for as long as the client may
//! wait. Nothing is said in the server's place, but that it can't be reached.

mod datagrams;
mod flows;
pub(super) mod refusal;
mod stream;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{MessageType, OpCode};
use hickory_proto::rr::DNSClass;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::reply::{self, Reply};
use super::server::{DnsHandle, Shared, Whose};
use crate::capture::{CaptureSockets, Slot, Slots};
use flows::Flows;

/// Datagrams that are looked at or sent on at a time; what is beyond them is lost, as on any network, and asked again.
const MAX_QUERIES: usize = 1024;
/// Connections at a time.
const MAX_CONNECTIONS: usize = 256;

/// Knows which server a query was sent to.
#[async_trait::async_trait]
pub trait Servers: Send + Sync + 'static {
    /// The server that a slot stands for, for good; `None` where it stands for none.
    async fn server(&self, slot: Slot) -> Option<SocketAddr>;
}

/// Where caught queries arrive, and what is known of them.
pub struct CapturedQueries {
    /// Where they arrive.
    pub sockets: CaptureSockets,
    /// Which addresses there stand for servers.
    pub slots: Slots,
    /// For which ones. Asked once for each slot.
    pub servers: Arc<dyn Servers>,
}

impl DnsHandle {
    /// Serves caught queries, until the server stops or what is returned is dropped. Needs a tokio runtime.
    ///
    /// The process must be left alone by who catches them: [`crate::capture::Knock::announce`].
    ///
    /// # Errors
    /// Where a socket can't be used.
    pub fn serve_captured(&self, captured: CapturedQueries) -> io::Result<DropGuard> {
        let CapturedQueries {
            sockets,
            slots,
            servers,
        } = captured;
        let stop = self.stop.child_token();
        let catcher = Arc::new(Catcher {
            shared: self.shared.clone(),
            slots,
            servers,
            known: RwLock::default(),
            flows: Flows::default(),
            queries: Arc::new(Semaphore::new(MAX_QUERIES)),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            stop: stop.clone(),
        });
        for (udp, tcp) in [Some(sockets.v4), sockets.v6].into_iter().flatten() {
            let udp = tokio::net::UdpSocket::from_std(udp)?;
            let tcp = tokio::net::TcpListener::from_std(tcp)?;
            tokio::spawn(datagrams::serve(catcher.clone(), Arc::new(udp)));
            tokio::spawn(stream::serve(catcher.clone(), tcp));
        }
        Ok(stop.drop_guard())
    }
}

struct Catcher {
    shared: Arc<Shared>,
    slots: Slots,
    servers: Arc<dyn Servers>,
    /// As many as there are slots, at most.
    known: RwLock<HashMap<Slot, SocketAddr>>,
    flows: Flows,
    queries: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Catcher {
    async fn server(&self, slot: Slot) -> Option<SocketAddr> {
        if let Some(known) = self.known.read().get(&slot) {
            return Some(*known);
        }
        let server = self.servers.server(slot).await?;
        if self.slots.slot(server.ip()).is_some() {
            tracing::warn!(%server, "somebody asks an address of which pmz alone should know");
            return None;
        }
        self.known.write().insert(slot, server);
        Some(server)
    }
}

impl Shared {
    /// What we say to a query in the place of `server`; `None` where we say nothing.
    pub(super) async fn answer_in_place_of(
        &self,
        server: SocketAddr,
        query: &[u8],
        from: SocketAddr,
        protocol: Protocol,
    ) -> Option<Vec<u8>> {
        // What can't be read is the server's to judge.
        let request = Request::from_bytes(query.to_vec(), from, protocol).ok()?;
        let question = reply::asked(&request)?;
        let is_plain = request.metadata.message_type == MessageType::Query
            && request.metadata.op_code == OpCode::Query
            && request.version() == 0
            && question.query_class() == DNSClass::IN;
        if !is_plain {
            return None;
        }
        let (name, record_type) = (question.original().name(), question.query_type());
        let upstream = [server];
        match self.whose(name, record_type, &upstream, query).await {
            Whose::Ours => {}
            Whose::Outside(said) => return Reply::from(said).encode(&request),
            Whose::Unknown => return None,
        }
        let reply = self.reply(name, record_type, &upstream).await?;
        reply.encode(&request)
    }
}

#[cfg(test)]
mod tests;
