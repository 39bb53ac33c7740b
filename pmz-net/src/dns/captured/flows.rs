//! Datagrams between a client's socket and the server that it has asked: for each such pair there is a socket of ours, as
//! an address translator has it. A query's source port is as hard to guess as the client's own.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::refusal::servfail;
use crate::capture::send;
use crate::dns::forward::{Own, any_like};
use crate::dns::server::Shared;

/// Sockets at a time; the one that was used least recently makes way.
const MAX_FLOWS: usize = 512;
/// While an answer is due: longer than clients wait.
const PATIENCE: Duration = Duration::from_secs(60);
/// While none is: a client may ask again.
const LINGER: Duration = Duration::from_secs(10);
/// An answer, or that the server is not reached: to the kernel a datagram socket's error is nothing to read.
const HEARD: Interest = Interest::READABLE.add(Interest::ERROR);
/// Bytes of a message's id, which is its beginning.
const ID: usize = 2;
/// Of a query, what is needed to say that it can't be answered.
const REMEMBERED: usize = 12 + 255 + 4;
/// Queries of one socket that are remembered while no answer has come. libc asks for both families at once.
const MAX_DUE: usize = 16;

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    pub(super) client: SocketAddr,
    /// The address at which the client believes the server to be.
    pub(super) at: IpAddr,
    pub(super) server: SocketAddr,
}

/// The sockets.
#[derive(Default)]
pub(super) struct Flows(Arc<Mutex<HashMap<Way, Flow>>>);

struct Flow {
    upstream: Arc<UdpSocket>,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

impl Flow {
    /// For another query.
    fn once_more(&self, query: &[u8]) -> Arc<UdpSocket> {
        let mut state = self.state.lock();
        state.used = Instant::now();
        state.ask(query);
        self.upstream.clone()
    }
}

struct State {
    used: Instant,
    /// The beginnings of queries without an answer, the last one's last.
    due: VecDeque<Vec<u8>>,
}

impl State {
    fn ask(&mut self, query: &[u8]) {
        if self.due.len() >= MAX_DUE {
            self.due.pop_front();
        }
        self.due.push_back(beginning(query));
    }

    fn answered(&mut self, answer: &[u8]) {
        self.used = Instant::now();
        let is_its = |query: &Vec<u8>| query.get(..ID) == answer.get(..ID);
        if let Some(query) = self.due.iter().position(is_its) {
            self.due.remove(query);
        }
    }

    fn left(&self) -> Duration {
        let limit = if self.due.is_empty() {
            LINGER
        } else {
            PATIENCE
        };
        limit.saturating_sub(self.used.elapsed())
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        for flow in self.0.lock().values() {
            flow.task.abort();
        }
    }
}

impl Flows {
    /// Sends a query on; what comes back goes to the client by `socket`.
    ///
    /// # Errors
    /// Where the server can't be reached.
    pub(super) fn send(
        &self,
        way: Way,
        socket: &Arc<UdpSocket>,
        query: &[u8],
        shared: &Arc<Shared>,
    ) -> io::Result<()> {
        let upstream = match self.used(&way, query) {
            Some(upstream) => upstream,
            None => self.open(way, socket, query, shared)?,
        };
        // Past the runtime, which holds a socket that it has not polled yet for one without room.
        let upstream = SockRef::from(&*upstream);
        match upstream.send(query) {
            // There is no room in the socket's buffer: lost, as on any network.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            // What earlier queries have come to: the kernel says it once.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                for refused in self.take_earlier(&way, query) {
                    refuse(&refused, &way, socket);
                }
                upstream.send(query).map(drop)
            }
            result => result.map(drop),
        }
    }

    /// The queries that were sent before this one, which is the last.
    fn take_earlier(&self, way: &Way, query: &[u8]) -> VecDeque<Vec<u8>> {
        let flows = self.0.lock();
        let Some(flow) = flows.get(way) else {
            return VecDeque::new();
        };
        let last = beginning(query);
        let mut state = flow.state.lock();
        let (earlier, own) = state.due.drain(..).partition(|due| *due != last);
        state.due = own;
        earlier
    }

    fn used(&self, way: &Way, query: &[u8]) -> Option<Arc<UdpSocket>> {
        let flows = self.0.lock();
        flows.get(way).map(|flow| flow.once_more(query))
    }

    fn open(
        &self,
        way: Way,
        socket: &Arc<UdpSocket>,
        query: &[u8],
        shared: &Arc<Shared>,
    ) -> io::Result<Arc<UdpSocket>> {
        let upstream = match connect(way.server) {
            // Too few descriptors for as many as there could be.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                make_way(&mut self.0.lock());
                connect(way.server)?
            }
            result => result?,
        };
        let upstream = Arc::new(upstream);
        // Our server at the tunnel's address would refuse what it takes for its own.
        let own = if shared.is_ourselves(&way.server) {
            None
        } else {
            Some(shared.forwarder.register(upstream.local_addr()?))
        };
        let state = Arc::new(Mutex::new(State {
            used: Instant::now(),
            due: VecDeque::from([beginning(query)]),
        }));
        let mut flows = self.0.lock();
        // The client's other query may have been quicker.
        if let Some(flow) = flows.get(&way) {
            return Ok(flow.once_more(query));
        }
        if flows.len() >= MAX_FLOWS {
            make_way(&mut flows);
        }
        let answers = Answers {
            way,
            upstream: upstream.clone(),
            socket: socket.clone(),
            state: state.clone(),
            _own: own,
        };
        let table = Arc::downgrade(&self.0);
        let task = tokio::spawn(async move {
            answers.pass().await;
            if let Some(table) = table.upgrade() {
                let mut flows = table.lock();
                let is_this = |flow: &Flow| Arc::ptr_eq(&flow.state, &answers.state);
                if flows.get(&way).is_some_and(is_this) {
                    flows.remove(&way);
                }
            }
        });
        let flow = Flow {
            upstream: upstream.clone(),
            state,
            task: task.abort_handle(),
        };
        flows.insert(way, flow);
        Ok(upstream)
    }
}

fn make_way(flows: &mut HashMap<Way, Flow>) {
    let oldest = flows.iter().min_by_key(|(_, flow)| flow.state.lock().used);
    if let Some(way) = oldest.map(|(way, _)| *way)
        && let Some(flow) = flows.remove(&way)
    {
        flow.task.abort();
    }
}

fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(any_like(server))?;
    socket.set_nonblocking(true)?;
    // The kernel takes datagrams from this server alone, and tells of refusals.
    socket.connect(server)?;
    UdpSocket::from_std(socket)
}

fn beginning(query: &[u8]) -> Vec<u8> {
    query.get(..REMEMBERED).unwrap_or(query).to_vec()
}

struct Answers {
    way: Way,
    upstream: Arc<UdpSocket>,
    /// The one that the client has asked at.
    socket: Arc<UdpSocket>,
    state: Arc<Mutex<State>>,
    _own: Option<Own>,
}

impl Answers {
    /// Passes on what the server sends, until there is nothing to wait for.
    async fn pass(&self) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let left = self.state.lock().left();
            if left.is_zero() {
                return;
            }
            let what = match timeout(left, self.upstream.ready(HEARD)).await {
                // A query may have come meanwhile.
                Err(_) => continue,
                Ok(Err(_)) => return,
                // The runtime takes one of them at a time.
                Ok(Ok(ready)) if ready.is_error() => Interest::ERROR,
                Ok(Ok(_)) => Interest::READABLE,
            };
            let taken = self.upstream.try_io(what, || {
                let mut socket = &*SockRef::from(&*self.upstream);
                socket.read(&mut buffer)
            });
            let answer = match taken {
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => {
                    tracing::debug!(server = %self.way.server, %error, "a name server is not reached");
                    let refused = std::mem::take(&mut self.state.lock().due);
                    for query in refused {
                        refuse(&query, &self.way, &self.socket);
                    }
                    continue;
                }
            };
            self.state.lock().answered(answer);
            pass_on(answer, &self.way, &self.socket);
        }
    }
}

/// Says to whoever asked that the server can't be reached.
fn refuse(query: &[u8], way: &Way, socket: &UdpSocket) {
    if let Some(refusal) = servfail(query) {
        pass_on(&refusal, way, socket);
    }
}

fn pass_on(answer: &[u8], way: &Way, socket: &UdpSocket) {
    if let Err(error) = send(socket, answer, way.client, way.at) {
        tracing::debug!(%error, "an answer could not be passed on");
    }
}
