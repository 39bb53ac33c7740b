//! The session's carrier connections: dialled at once, and again whenever one ends.

use std::sync::Arc;
use std::time::Duration;

use pmz_net::carrier::stream::StreamQueue;
use pmz_net::engine::{Engine, Paths, stream};
use pmz_net::session::RefusalReason;
use pmz_net::tunnel::Peer;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::Dial;
use super::control::{OpenError, open_carrier};

/// Bytes that may stand before one stream; above, the fattest flow loses packets.
const STREAM_QUEUE: usize = 4 << 20;
/// The first and the longest pause before an ended stream is dialled again.
const REDIAL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// What happened to a stream.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// It carries messages now.
    Open(Arc<StreamQueue>),
    /// It ended, or could not be opened; another try follows.
    Down(u16, String),
    /// The agent does not know the session any more.
    SessionGone(String),
}

/// All streams of one session. They end when this is dropped.
pub(super) struct Streams {
    common: Common,
    events: mpsc::Sender<StreamEvent>,
    /// In the order of their numbers.
    tasks: Vec<AbortOnDropHandle<()>>,
}

/// What all of them have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) dial: Arc<dyn Dial>,
    pub(super) engine: Arc<Engine>,
    pub(super) peer: Arc<Peer<Paths>>,
    /// The agent's name.
    pub(super) agent: String,
    /// The session's.
    pub(super) token: String,
}

impl Streams {
    /// None so far; what happens to them comes out of the receiver.
    pub(super) fn new(common: Common) -> (Self, mpsc::Receiver<StreamEvent>) {
        let (events, receiver) = mpsc::channel(64);
        let streams = Self {
            common,
            events,
            tasks: Vec::new(),
        };
        (streams, receiver)
    }

    /// What they have in common.
    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    /// Streams that are open, or dialled.
    pub(super) fn count(&self) -> u16 {
        self.tasks.len() as u16
    }

    /// Keeps so many open from now on, those with the lowest numbers; the others end.
    pub(super) fn keep(&mut self, count: u16) {
        self.tasks.truncate(count.into());
        for index in self.count()..count {
            let keeper = Keeper {
                common: self.common.clone(),
                index,
                events: self.events.clone(),
            };
            let task = tokio::spawn(keeper.keep());
            self.tasks.push(AbortOnDropHandle::new(task));
        }
    }
}

struct Keeper {
    common: Common,
    index: u16,
    events: mpsc::Sender<StreamEvent>,
}

impl Keeper {
    async fn keep(self) {
        let Common {
            dial,
            engine,
            peer,
            agent,
            token,
        } = &self.common;
        let mut pause = REDIAL.0;
        loop {
            let cause = match open_carrier(&**dial, agent, token, self.index).await {
                Ok(io) => {
                    pause = REDIAL.0;
                    let queue = Arc::new(StreamQueue::new(self.index, STREAM_QUEUE));
                    let open = StreamEvent::Open(queue.clone());
                    // First it is the peer's, for as long as it runs, then the session hears of it.
                    let run = stream::run(engine, peer, queue, io);
                    let (result, _) = tokio::join!(run, self.events.send(open));
                    match result {
                        Ok(()) => "closed by the other end".to_owned(),
                        Err(error) => error.to_string(),
                    }
                }
                Err(OpenError::Refused { refusal, .. })
                    if refusal.reason == RefusalReason::Session =>
                {
                    let gone = StreamEvent::SessionGone(refusal.message);
                    // The session is being given up if nobody listens.
                    let _ = self.events.send(gone).await;
                    return;
                }
                Err(error) => format!("{error:#}"),
            };
            if self
                .events
                .send(StreamEvent::Down(self.index, cause))
                .await
                .is_err()
            {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(REDIAL.1);
        }
    }
}
