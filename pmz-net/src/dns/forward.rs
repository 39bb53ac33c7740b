//! What is not ours is asked of the name servers that the machine had before.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long one server has to answer over one transport.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Questions that may be under way at once. Each holds a socket and a task.
const MAX_CONCURRENT: usize = 256;
/// Servers that are tried for one question; resolv.conf has three.
const MAX_SERVERS: usize = 8;

/// Why nobody could be asked, or nobody answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    #[error("there is no server to ask")]
    NoServer,
    #[error("{MAX_CONCURRENT} questions are under way already")]
    Busy,
    #[error("no server answered: {0}")]
    Unanswered(String),
    #[error("the question is none")]
    Question,
}

#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the answer can't be read: {0}")]
    Unreadable(#[from] hickory_proto::serialize::binary::DecodeError),
    #[error("the answer is to another question")]
    Other,
}

/// Asks the machine's original name servers.
#[derive(Clone, Debug)]
pub(super) struct Forwarder {
    permits: Arc<Semaphore>,
    /// Sockets of questions under way: a question from one of them is our own coming back.
    under_way: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl Forwarder {
    pub(super) fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            under_way: Arc::default(),
        }
    }

    /// Whether a question that comes from here is one that we have sent ourselves: servers that ask
    /// each other in a circle would go on for ever.
    pub(super) fn is_own(&self, source: SocketAddr) -> bool {
        self.under_way.lock().contains(&source)
    }

    /// Asks for records of a name, as [`Forwarder::ask`] does.
    pub(super) async fn ask_for(
        &self,
        servers: &[SocketAddr],
        name: &Name,
        record_type: RecordType,
    ) -> Result<Message, ForwardError> {
        let mut question = Message::new(0, MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(name.clone(), record_type));
        let question = question.to_vec().map_err(|_| ForwardError::Question)?;
        self.ask(servers, &question).await
    }

    /// Sends the query as it is, but for its id, to one server after the other until one answers. An
    /// answer that says 'I can't' counts only when no server has a better one.
    pub(super) async fn ask(
        &self,
        servers: &[SocketAddr],
        query: &[u8],
    ) -> Result<Message, ForwardError> {
        if servers.is_empty() {
            return Err(ForwardError::NoServer);
        }
        let parsed = Message::from_vec(query).map_err(|_| ForwardError::Question)?;
        let [question] = parsed.queries.as_slice() else {
            return Err(ForwardError::Question);
        };
        let _permit = self.permits.try_acquire().map_err(|_| ForwardError::Busy)?;
        let mut refusal = None;
        let mut problems = Vec::new();
        for server in servers.iter().take(MAX_SERVERS) {
            match self.ask_one(*server, query, question).await {
                Ok(answer) if useful(&answer) => return Ok(answer),
                Ok(answer) => refusal = Some(answer),
                Err(error) => {
                    tracing::debug!(%server, %error, "a name server did not answer");
                    problems.push(format!("{server}: {error}"));
                }
            }
        }
        refusal.ok_or_else(|| ForwardError::Unanswered(problems.join("; ")))
    }

    async fn ask_one(
        &self,
        server: SocketAddr,
        query: &[u8],
        question: &Query,
    ) -> Result<Message, ExchangeError> {
        // An id of our own: the client's would let others guess it.
        let mut query = query.to_vec();
        let id: u16 = rand::random();
        query
            .get_mut(..2)
            .ok_or(ExchangeError::Other)?
            .copy_from_slice(&id.to_be_bytes());
        let expected = Expected { id, question };
        let answer = timeout(TIMEOUT, self.by_udp(server, &query, &expected))
            .await
            .map_err(|_| ExchangeError::Timeout)??;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        match timeout(TIMEOUT, self.by_tcp(server, &query, &expected)).await {
            Ok(Ok(whole)) => Ok(whole),
            // The part that came, marked as such, lets the client try for itself.
            Ok(Err(_)) | Err(_) => Ok(answer),
        }
    }

    async fn by_udp(
        &self,
        server: SocketAddr,
        query: &[u8],
        expected: &Expected<'_>,
    ) -> Result<Message, ExchangeError> {
        let socket = UdpSocket::bind(any_like(server)).await?;
        // Connected: the kernel takes datagrams from this server alone, and tells of refusals.
        socket.connect(server).await?;
        let _own = self.register(socket.local_addr()?);
        socket.send(query).await?;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let length = socket.recv(&mut buffer).await?;
            // Anybody on the path may send garbage with the server's address: wait for the real one.
            if let Some(answer) = buffer
                .get(..length)
                .and_then(|answer| expected.read(answer).ok())
            {
                return Ok(answer);
            }
        }
    }

    async fn by_tcp(
        &self,
        server: SocketAddr,
        query: &[u8],
        expected: &Expected<'_>,
    ) -> Result<Message, ExchangeError> {
        let socket = if server.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        let mut stream = socket.connect(server).await?;
        let _own = self.register(stream.local_addr()?);
        let length = u16::try_from(query.len()).map_err(|_| ExchangeError::Other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(query);
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        expected.read(&answer)
    }

    /// Marks a socket as one of ours for as long as the guard lives.
    pub(super) fn register(&self, socket: SocketAddr) -> Own {
        self.under_way.lock().insert(socket);
        Own {
            under_way: self.under_way.clone(),
            socket,
        }
    }
}

/// Keeps a socket in [`Forwarder::under_way`].
#[derive(Debug)]
pub(super) struct Own {
    under_way: Arc<Mutex<HashSet<SocketAddr>>>,
    socket: SocketAddr,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.socket);
    }
}

struct Expected<'a> {
    id: u16,
    question: &'a Query,
}

impl Expected<'_> {
    fn read(&self, answer: &[u8]) -> Result<Message, ExchangeError> {
        let answer = Message::from_vec(answer)?;
        let metadata = &answer.metadata;
        let fits = metadata.id == self.id
            && metadata.message_type == MessageType::Response
            // Some servers leave the question out of an error.
            && (answer.queries.is_empty() && !useful(&answer)
                || answer.queries.len() == 1 && answer.queries.iter().all(|it| same(it, self.question)));
        if fits {
            Ok(answer)
        } else {
            Err(ExchangeError::Other)
        }
    }
}

fn same(a: &Query, b: &Query) -> bool {
    a.query_type() == b.query_type()
        && a.query_class() == b.query_class()
        && a.name().eq_ignore_root(b.name())
}

/// Whether a server has said something about the name, and not about itself.
fn useful(answer: &Message) -> bool {
    matches!(
        answer.metadata.response_code,
        ResponseCode::NoError | ResponseCode::NXDomain
    )
}

pub(super) fn any_like(server: SocketAddr) -> SocketAddr {
    let ip = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}
