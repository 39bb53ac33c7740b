//! The session's loop: what comes from the control connection, the streams, the probes and the clock is
//! brought together here.

mod load;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use ipnet::IpNet;
use parking_lot::Mutex;
use pmz_net::carrier::breadth::Breadth;
use pmz_net::carrier::choice::{Carrier, Choice, Event, Path, PathReport, Transport};
use pmz_net::carrier::distance::Distance;
use pmz_net::catalog::SharedMirror;
use pmz_net::engine::probe::{Answer, Probe};
use pmz_net::engine::{Paths, Via};
use pmz_net::route::{cut, outermost};
use pmz_net::session::{Hello, Networks, PROTOCOL, ToClient, Welcome};
use pmz_net::tunnel::Peer;
use rand::RngCore;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::control::capabilities;
use super::keeper::{ControlEvent, Keeper};
use super::streams::{Common, StreamEvent, Streams};
use super::{Dial, Dialed, Link};

/// While no WireGuard session stands, a handshake is begun this often.
const HANDSHAKE_RETRY: Duration = Duration::from_millis(500);

/// What a user chose.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Which carriers may be used.
    pub transport: Transport,
    /// Stream connections at rest; where many flows come from far away, there are more.
    pub streams: u16,
    /// Pods' prefixes lead into the tunnel, beside the services'.
    pub pods: bool,
    /// So do these.
    pub included: Vec<IpNet>,
    /// Nothing of these does.
    pub excluded: Vec<IpNet>,
}

/// What happens to a session, for the log, `status` and whoever sets up what hangs on it.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new session stands: with another agent, or a restarted one.
    Opened(Box<Welcome>),
    /// Packets go by this carrier, proven end to end.
    Carrier(Carrier),
    /// The agent is so far away, as packets go.
    Distance(Distance),
    /// The cluster's networks have changed.
    Networks(Networks),
    /// No carrier answers any more.
    Lost,
    /// The control connection is gone, or back (`None`).
    Control(Option<String>),
}

/// Ends the connections that went through the agent before; called before packets go to another one.
pub type AbortConnections = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Hears of changes.
pub type Reporter = Box<dyn Fn(Change) + Send + Sync>;

/// The state of carriers, for `status`.
#[derive(Clone, Debug, Default)]
pub struct CarrierState {
    /// The one in use.
    pub carrier: Option<Carrier>,
    /// All paths.
    pub paths: Vec<PathReport>,
    /// Why streams ended last.
    pub stream_fault: Option<String>,
    /// Sessions after the first.
    pub reconnects: u64,
}

/// A session that runs.
pub struct Session {
    dial: Arc<dyn Dial>,
    link: Arc<Link>,
    answers: mpsc::Receiver<Answer>,
    mirror: SharedMirror,
    options: SessionOptions,
    report: Reporter,
    abort_connections: AbortConnections,
    state: Arc<Mutex<CarrierState>>,
    choice: Choice,
    /// As it was reported.
    distance: Distance,
    candidates: HashSet<SocketAddr>,
    /// The candidates as the agent told them last.
    told: Vec<SocketAddr>,
    /// What leads into the tunnel: an address in there can't carry it.
    inside: Vec<IpNet>,
    streams: Option<Streams>,
    breadth: Breadth,
    stream_events: mpsc::Receiver<StreamEvent>,
    token: String,
    last_handshake: Option<Instant>,
}

/// The first words of a client with this public key.
pub fn hello(public_key: String, client: String) -> Hello {
    Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        public_key,
        capabilities: capabilities(),
        resume: None,
        addresses: Vec::new(),
        client,
    }
}

impl Session {
    /// A session over `link`, whose probes are answered in `answers`.
    pub fn new(
        dial: Arc<dyn Dial>,
        link: Arc<Link>,
        answers: mpsc::Receiver<Answer>,
        mirror: SharedMirror,
        options: SessionOptions,
        report: Reporter,
        abort_connections: AbortConnections,
    ) -> Self {
        let now = Instant::now();
        let choice = Choice::new(options.transport, rand::rng().next_u64(), now);
        let breadth = Breadth::new(options.streams, now);
        Self {
            dial,
            link,
            answers,
            mirror,
            options,
            report,
            abort_connections,
            state: Arc::default(),
            choice,
            distance: Distance::default(),
            candidates: HashSet::new(),
            told: Vec::new(),
            inside: Vec::new(),
            streams: None,
            breadth,
            stream_events: mpsc::channel(1).1,
            token: String::new(),
            last_handshake: None,
        }
    }

    /// The state of carriers, kept up to date while the session runs.
    pub fn state(&self) -> Arc<Mutex<CarrierState>> {
        self.state.clone()
    }

    /// Runs the session that `welcome` opened on `dialed` until `stop`; comes back by itself after any
    /// loss.
    ///
    /// # Errors
    /// Where the packet path on this machine fails: the TUN is gone.
    pub async fn run(
        mut self,
        hello: Hello,
        dialed: Dialed,
        welcome: Welcome,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let (events, mut control) = mpsc::channel(64);
        let keeper = Keeper {
            dial: self.dial.clone(),
            hello: Hello {
                resume: Some(welcome.token.clone()),
                addresses: welcome.addresses.clone(),
                ..hello
            },
            agent: dialed.agent.clone(),
            events,
            stop: stop.clone(),
        };
        self.adopt(&dialed.agent, welcome)?;
        let keeper = tokio::spawn(keeper.keep(dialed.io));
        let engine = self.link.engine().clone();
        let timers = tokio::spawn(async move { engine.run_timers().await });
        let result = loop {
            let wake = tokio::time::Instant::from_std(self.next_wake());
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                () = self.link.failed() => break Err(anyhow::anyhow!("the TUN device is gone")),
                Some(event) = control.recv() => self.handle_control(event).await?,
                Some(event) = self.stream_events.recv() => self.handle_stream(event),
                Some(answer) = self.answers.recv() => self.handle_answer(&answer),
                () = tokio::time::sleep_until(wake) => {}
            }
            self.handle_timeout();
        };
        timers.abort();
        drop(self);
        // It says goodbye; that has a limit of its own.
        let _ = keeper.await;
        result
    }

    /// Makes a new session the one that packets take.
    fn adopt(&mut self, agent: &str, welcome: Welcome) -> anyhow::Result<()> {
        let peer = self.link.attach(&welcome)?;
        let now = Instant::now();
        self.choice = Choice::new(self.options.transport, rand::rng().next_u64(), now);
        self.candidates.clear();
        self.token.clone_from(&welcome.token);
        self.inside = inside(&welcome.networks, &self.options);
        self.set_candidates(&welcome.udp_candidates);
        // The streams of the session before end here.
        self.streams = None;
        if self.options.transport != Transport::Udp {
            peer.attached.send_on(self.options.streams);
            let (mut streams, events) = Streams::new(Common {
                dial: self.dial.clone(),
                engine: self.link.engine().clone(),
                peer,
                agent: agent.to_owned(),
                token: welcome.token.clone(),
            });
            self.breadth = Breadth::new(self.options.streams, now);
            streams.keep(self.breadth.count());
            self.streams = Some(streams);
            self.stream_events = events;
        }
        self.last_handshake = None;
        (self.report)(Change::Opened(Box::new(welcome)));
        Ok(())
    }

    fn set_networks(&mut self, networks: Networks) {
        self.inside = inside(&networks, &self.options);
        let candidates = std::mem::take(&mut self.told);
        self.set_candidates(&candidates);
        (self.report)(Change::Networks(networks));
    }

    fn set_candidates(&mut self, candidates: &[SocketAddr]) {
        let now = Instant::now();
        self.told = candidates.to_vec();
        // One that the tunnel leads to would answer through the tunnel, and then carry itself.
        let reaches = |to: &SocketAddr| !self.inside.iter().any(|net| net.contains(&to.ip()));
        let candidates: Vec<_> = candidates.iter().copied().filter(reaches).collect();
        let new: HashSet<SocketAddr> = candidates.iter().copied().collect();
        for gone in self.candidates.difference(&new) {
            if let Some(event) = self.choice.remove(Path::Udp(*gone), now) {
                Self::apply(&self.link, &self.report, &self.state, event);
            }
        }
        for candidate in candidates {
            self.choice.add(Path::Udp(candidate), now);
        }
        self.candidates = new;
    }

    async fn handle_control(&mut self, event: ControlEvent) -> anyhow::Result<()> {
        match event {
            ControlEvent::Open(agent, welcome) => {
                (self.report)(Change::Control(None));
                if welcome.token == self.token {
                    self.set_networks(welcome.networks);
                    self.set_candidates(&welcome.udp_candidates);
                    return Ok(());
                }
                tracing::info!(
                    agent,
                    "a new session with another agent, or a restarted one"
                );
                self.state.lock().reconnects += 1;
                (self.abort_connections)().await;
                self.adopt(&agent, *welcome)?;
            }
            ControlEvent::Down(cause) => (self.report)(Change::Control(Some(cause))),
            ControlEvent::Message(message) => self.handle_message(message),
        }
        Ok(())
    }

    fn handle_message(&mut self, message: ToClient) {
        match message {
            ToClient::Snapshot(snapshot) => {
                if let Err(error) = self.mirror.apply_snapshot(snapshot) {
                    tracing::warn!(%error, "the agent's catalog can't be used");
                }
            }
            ToClient::Delta(delta) => {
                // The agent sends a snapshot wherever it can't give every step.
                if let Err(error) = self.mirror.apply_delta(delta) {
                    tracing::warn!(%error, "the catalog skipped a step");
                }
            }
            ToClient::Candidates { udp_candidates } => self.set_candidates(&udp_candidates),
            ToClient::Networks(networks) => self.set_networks(networks),
            ToClient::Leaving { reason } => {
                tracing::info!(
                    reason,
                    "the agent is leaving; another one is looked for, and this one serves on"
                );
            }
            ToClient::Pong { .. } | ToClient::Unknown => {}
        }
    }

    fn handle_stream(&mut self, event: StreamEvent) {
        let now = Instant::now();
        let count = self.streams.as_ref().map_or(0, Streams::count);
        let event = match event {
            // It was given up meanwhile.
            StreamEvent::Open(queue) if queue.index() >= count => None,
            StreamEvent::Open(queue) => {
                self.choice.add(Path::Stream(queue.index()), now);
                None
            }
            StreamEvent::Down(index, cause) => {
                tracing::debug!(index, cause, "a stream ended");
                self.state.lock().stream_fault = Some(cause);
                self.choice.remove(Path::Stream(index), now)
            }
            StreamEvent::SessionGone(message) => {
                // The control connection meets the same and opens a new session.
                tracing::debug!(message, "the agent does not know the session");
                None
            }
        };
        if let Some(event) = event {
            Self::apply(&self.link, &self.report, &self.state, event);
        }
    }

    fn handle_answer(&mut self, answer: &Answer) {
        let path = match &answer.via {
            Via::Udp(from) => Path::Udp(*from),
            Via::Stream(stream) => Path::Stream(stream.index()),
        };
        if let Some(event) = self
            .choice
            .handle_answer(path, answer.nonce, Instant::now())
        {
            Self::apply(&self.link, &self.report, &self.state, event);
        }
    }

    fn next_wake(&self) -> Instant {
        let mut wake = self.choice.poll_timeout();
        if self.streams.is_some() {
            wake = wake.min(self.breadth.poll_timeout());
        }
        match (self.link.peer(), self.last_handshake) {
            (Some(peer), Some(at)) if !peer.has_session() => wake.min(at + HANDSHAKE_RETRY),
            _ => wake,
        }
    }

    fn handle_timeout(&mut self) {
        let now = Instant::now();
        while let Some(event) = self.choice.handle_timeout(now) {
            Self::apply(&self.link, &self.report, &self.state, event);
        }
        let distance = self.choice.distance();
        if distance != self.distance {
            self.distance = distance;
            (self.report)(Change::Distance(distance));
        }
        self.look_at_load(now);
        let Some(peer) = self.link.peer() else { return };
        let due = !peer.has_session()
            && self
                .last_handshake
                .is_none_or(|at| now >= at + HANDSHAKE_RETRY);
        if due {
            // Which way works is not known yet: the first to arrive counts, the others are replays.
            self.last_handshake = Some(now);
            let vias: Vec<Via> = self
                .choice
                .paths()
                .filter_map(|path| via(&peer, path))
                .collect();
            self.link.engine().initiate_on(&peer, &vias);
        }
        while let Some(probe) = self.choice.poll_transmit(now) {
            let Some(via) = via(&peer, probe.path) else {
                continue;
            };
            let probe = Probe {
                nonce: probe.nonce,
                is_answer: false,
                select: probe.select,
            };
            self.link.engine().probe(&peer, &via, probe);
        }
        self.state.lock().paths = self.choice.report(now);
    }

    fn apply(link: &Link, report: &Reporter, state: &Mutex<CarrierState>, event: Event) {
        match event {
            Event::Switched(carrier) => {
                link.switch(carrier);
                state.lock().carrier = Some(carrier);
                report(Change::Carrier(carrier));
            }
            Event::StreamDead(index) => {
                tracing::info!(
                    index,
                    "a stream does not answer any more; it is dialled again"
                );
                let stream = link.peer().and_then(|peer| {
                    peer.attached
                        .streams()
                        .into_iter()
                        .find(|s| s.index() == index)
                });
                if let Some(stream) = stream {
                    stream.close();
                }
            }
            Event::Dead => {
                state.lock().carrier = None;
                report(Change::Lost);
            }
        }
    }
}

/// The prefixes that lead into the tunnel of that session.
fn inside(networks: &Networks, options: &SessionOptions) -> Vec<IpNet> {
    let mut inside = networks.services.prefixes.clone();
    if options.pods {
        inside.extend(&networks.pods.prefixes);
    }
    inside.extend(&options.included);
    let pieces = inside
        .into_iter()
        .flat_map(|net| cut(net, &options.excluded));
    outermost(pieces)
}

fn via(peer: &Peer<Paths>, path: Path) -> Option<Via> {
    match path {
        Path::Udp(to) => Some(Via::Udp(to)),
        Path::Stream(index) => {
            let streams = peer.attached.streams();
            streams
                .into_iter()
                .find(|s| s.index() == index)
                .map(Via::Stream)
        }
    }
}
