//! The session's carrier connections: dialled at once, and again whenever one ends.

use std::sync::Arc;
use std::time::Duration;

use pmz_net::carrier::stream::StreamQueue;
use pmz_net::engine::{Engine, Paths, stream};
use pmz_net::session::RefusalReason;
use pmz_net::tunnel::Peer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

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
    _tasks: JoinSet<()>,
}

impl Streams {
    /// Opens `count` streams to `agent` and keeps them open.
    pub(super) fn start(
        dial: &Arc<dyn Dial>,
        engine: &Arc<Engine>,
        peer: &Arc<Peer<Paths>>,
        agent: &str,
        token: &str,
        count: u16,
    ) -> (Self, mpsc::Receiver<StreamEvent>) {
        let (events, receiver) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        for index in 0..count {
            let keeper = Keeper {
                dial: dial.clone(),
                engine: engine.clone(),
                peer: peer.clone(),
                agent: agent.to_owned(),
                token: token.to_owned(),
                index,
                events: events.clone(),
            };
            tasks.spawn(async move { keeper.keep().await });
        }
        (Self { _tasks: tasks }, receiver)
    }
}

struct Keeper {
    dial: Arc<dyn Dial>,
    engine: Arc<Engine>,
    peer: Arc<Peer<Paths>>,
    agent: String,
    token: String,
    index: u16,
    events: mpsc::Sender<StreamEvent>,
}

impl Keeper {
    async fn keep(self) {
        let mut pause = REDIAL.0;
        loop {
            let cause = match open_carrier(&*self.dial, &self.agent, &self.token, self.index).await
            {
                Ok(io) => {
                    pause = REDIAL.0;
                    let queue = Arc::new(StreamQueue::new(self.index, STREAM_QUEUE));
                    self.peer.attached.add_stream(queue.clone());
                    if self
                        .events
                        .send(StreamEvent::Open(queue.clone()))
                        .await
                        .is_err()
                    {
                        return;
                    }
                    match stream::run(&self.engine, &self.peer, queue, io).await {
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
