//! Makes the daemon's session on the real parts: agent, TUN, routes, names.
//!
//! What it makes comes back by itself after a loss ([`crate::session`]); to the daemon's loop a loss is
//! the end of one [`Standing`] and the wait for the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pmz_net::carrier::choice::Transport;
use pmz_net::catalog::SharedMirror;
use pmz_net::session::{Hello, Welcome};
use pmz_net::tunnel::Tunnel;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::attachment::Attachment;
use super::choices::{CarrierChoice, EbpfChoice};
use super::congestion;
use super::connect_error::ConnectError;
use super::connect_failure::{CARRIER_WITHIN, ended, no_carrier, open_failure};
use super::dial::{ClusterDial, HelperTuner};
use super::guarding;
use super::names::{DnsChoice, NameWants};
use super::options::UpOptions;
use super::outside::OutsideName;
use super::progress::{Progress, reporter};
use super::proof::prove;
use super::report;
use super::run::{ConnectContext, Connector, Session};
use super::running::Running;
use super::status::{Status, SteeringStatus};
use super::steering::Steering;
use super::wants::{Wants, host_and_port};
use crate::cluster::{ClusterError, may_become_ready};
use crate::failure::{ExitCode, Failure};
use crate::helper::{Family, HelperError, Refusal};
use crate::session::{self, Dial, Dialed, Link, OpenError, SessionOptions, hello};

/// Name of the TUN.
const DEVICE: &str = "pmz0";
/// Stream connections where few flows, or near ones, share them: the more streams, the less each wakes API server, kubelet
/// and containerd for (docs/performance.md).
const STREAMS: u16 = 2;
/// How long an agent that is starting is waited for.
const AGENT_WITHIN: Duration = Duration::from_secs(20);
/// How often it is looked at meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long the helper may take to end connections.
const ABORT_WITHIN: Duration = Duration::from_secs(2);

/// Makes [`Standing`] sessions.
#[derive(Default)]
pub struct ClusterConnector {
    running: Option<Running>,
}

/// A session that carries packets and answers names.
pub struct Standing {
    progress: watch::Receiver<Progress>,
    opened: u64,
    attachment: Arc<Attachment>,
    fill: Box<dyn Fn(&mut Status) + Send + Sync>,
}

impl Connector for ClusterConnector {
    type Session = Standing;

    async fn connect(&mut self, context: &ConnectContext) -> Result<Standing, ConnectError> {
        if let Some(running) = &self.running
            && running.task.is_finished()
        {
            // The packet path failed: all of it is made anew.
            self.running = None;
        }
        let running = match self.running.take() {
            Some(running) => running,
            None => begin(context).await?,
        };
        let running = self.running.insert(running);
        settle(running, context).await?;
        let fill = report::filler(running, context.options.carrier);
        let opened = running.progress.borrow().opened;
        Ok(Standing {
            progress: running.progress.clone(),
            opened,
            attachment: running.attachment.clone(),
            fill,
        })
    }
}

impl Session for Standing {
    async fn lost(&mut self) -> String {
        loop {
            let progress = self.progress.borrow_and_update().clone();
            if let Some(cause) = self.cause(&progress) {
                return cause;
            }
            if let Some(welcome) = &progress.welcome {
                self.attachment.follow(welcome).await;
            }
            if self.progress.changed().await.is_err() {
                return "the packet path ended".to_owned();
            }
        }
    }

    fn fill(&self, status: &mut Status) {
        (self.fill)(status);
    }

    async fn close(self) {
        // The session itself goes on, and comes back: it ends with the connector.
    }
}

impl Standing {
    /// Why it is lost, once it is.
    fn cause(&self, progress: &Progress) -> Option<String> {
        let down = progress.control_down.clone();
        if progress.opened != self.opened {
            let gone = down.map(|why| format!("the agent is gone: {why}"));
            return Some(gone.unwrap_or_else(|| "the agent was replaced".to_owned()));
        }
        let silent = || "no carrier answers any more".to_owned();
        (!progress.carried).then(|| down.unwrap_or_else(silent))
    }
}

/// The first connection: agent, TUN, and the session's task.
async fn begin(context: &ConnectContext) -> Result<Running, ConnectError> {
    let ConnectContext {
        options,
        helper,
        board,
        domains,
        ..
    } = context;
    board.step("reading the kubeconfig");
    let tuner = Arc::new(HelperTuner(helper.clone()));
    let dial = Arc::new(ClusterDial::open(options.target.clone(), Some(tuner)).await?);
    let cluster = dial.cluster();
    board.done(format!("context {}", cluster.context()));
    let namespace = cluster.client().default_namespace().to_owned();
    let api = host_and_port(cluster.server()).map(|(host, _)| host);
    let dns = DnsChoice::find(options.dns)?;
    let search = options.search.find()?;
    // Where names are left to themselves, nothing can happen to others.
    let outside = (dns != DnsChoice::Off).then(|| OutsideName::ask(api.as_deref()));
    let entered = domains.enter(cluster.context(), &namespace, api.as_deref());
    if let Err(failure) = entered.await {
        // Everything else works without them.
        board.fault(format!("no added domain is answered: {failure}"));
    }
    if options.deploy {
        crate::deploy::deploy_missing(&cluster, board).await?;
    }

    board.step("connecting to the agent");
    // A key for this session alone: it lives in this process's memory and nowhere else.
    let tunnel = Tunnel::generate();
    let hello = hello(STANDARD.encode(tunnel.public_key()), client_name());
    let (dialed, welcome) = open(&*dial, &hello).await.map_err(open_failure)?;
    board.done(format!("{} {}", welcome.agent, welcome.version));

    let mirror = SharedMirror::new();
    let wants = Wants::new(options, cluster.server());
    let names = NameWants {
        dns,
        ebpf: options.ebpf,
        search,
    };
    let attachment = Attachment::new(helper.clone(), mirror.clone(), wants, names);
    let attachment = Arc::new(attachment.with_domains(domains.shared()));
    board.step("comparing networks");
    let found = attachment.check(&welcome).await?;
    board.done(match found.told.is_empty() {
        true => "nothing is in the way".to_owned(),
        false => found.to_string(),
    });

    board.step("opening the TUN device");
    let tun = helper
        .open_tun(DEVICE, welcome.mtu, &welcome.addresses)
        .await?;
    let udp = match helper.open_udp(Family::V6).await {
        Ok(socket) => socket,
        Err(_) => helper.open_udp(Family::V4).await?,
    };
    let (link, answers) = Link::start(tunnel, tun.fd, udp).map_err(|error| {
        Failure::new(
            ExitCode::General,
            format!("The packet path could not be started: {error:#}"),
            "Run `pmz up` again",
        )
    })?;
    board.done(tun.name.clone());

    let link = Arc::new(link);
    let (steering, steering_status) = steer(context, &mirror).await?;
    domains.look_into(&mirror, steering.as_ref(), &welcome.cluster_domain);
    let (changes, progress) = watch::channel(Progress::default());
    let reporter = reporter(changes, mirror.clone());
    let aborting = helper.clone();
    let abort_connections: session::AbortConnections = Box::new(move || {
        let helper = aborting.clone();
        Box::pin(async move {
            if let Ok(Err(error)) = timeout(ABORT_WITHIN, helper.abort_connections()).await {
                tracing::warn!(%error, "connections through the old agent end by themselves at best");
            }
        })
    });
    let session = session::Session::new(
        dial,
        link.clone(),
        answers,
        mirror.clone(),
        SessionOptions {
            transport: transport(options),
            streams: STREAMS,
            pods: options.pods,
            included: options.include.clone(),
            excluded: options.exclude.clone(),
        },
        reporter,
        abort_connections,
    );
    let carriers = session.state();
    let stop = CancellationToken::new();
    attachment
        .opened(welcome.addresses.clone(), steering.clone())
        .await;
    let mut followers = Vec::new();
    let guard = guarding::Shown::default();
    if options.ebpf != EbpfChoice::Off {
        let guarding = guarding::run(
            helper.clone(),
            link.clone(),
            carriers.clone(),
            guard.clone(),
        );
        followers.push(AbortOnDropHandle::new(tokio::spawn(guarding)));
    }
    let congestion = congestion::Shown::default();
    let leads = congestion::run(helper.clone(), progress.clone(), congestion.clone());
    followers.push(AbortOnDropHandle::new(tokio::spawn(leads)));
    if let Some(steering) = steering.clone() {
        let follows = async move { steering.run().await };
        followers.push(AbortOnDropHandle::new(tokio::spawn(follows)));
        let diverting = attachment.diverting().clone();
        let diverts = async move { diverting.run().await };
        followers.push(AbortOnDropHandle::new(tokio::spawn(diverts)));
    }
    let task = tokio::spawn(session.run(hello, dialed, welcome, stop.clone()));
    Ok(Running {
        link,
        mirror,
        carriers,
        progress,
        device: tun.name,
        attachment,
        outside,
        names_proven: false,
        steering,
        steering_status,
        guard,
        congestion,
        _followers: followers,
        server: cluster.server().to_owned(),
        context: cluster.context().to_owned(),
        namespace: cluster.namespace().to_owned(),
        stop,
        task,
    })
}

/// Loads the eBPF programs that steer, where that is wanted and the machine can do it.
async fn steer(
    context: &ConnectContext,
    mirror: &SharedMirror,
) -> Result<(Option<Arc<Steering>>, SteeringStatus), ConnectError> {
    let ConnectContext {
        options,
        helper,
        board,
        traffic,
        ..
    } = context;
    let routes = |missing: String| {
        traffic.missing(missing.clone());
        let status = SteeringStatus {
            how: "routes".to_owned(),
            missing: Some(missing),
            ..SteeringStatus::default()
        };
        (None, status)
    };
    if options.ebpf == EbpfChoice::Off {
        return Ok(routes("turned off by --ebpf off".to_owned()));
    }
    board.step("loading the steering programs");
    let how = match helper.attach_steering().await {
        Ok(how) => how,
        Err(HelperError::Refused(refusal @ Refusal::NoEbpf { .. }))
            if options.ebpf == EbpfChoice::Auto =>
        {
            tracing::warn!(%refusal, "plain routes steer");
            board.done(format!("plain routes instead: {refusal}"));
            return Ok(routes(refusal.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    let how = match how {
        pmz_net::steer::Attachment::Tcx => "tcx",
        pmz_net::steer::Attachment::Clsact => "clsact",
    };
    board.done(how);
    let steering = Arc::new(Steering::new(helper.clone(), mirror.clone()));
    traffic.count(&steering);
    let status = SteeringStatus {
        how: how.to_owned(),
        ..SteeringStatus::default()
    };
    Ok((Some(steering), status))
}

/// Opens a session, with an agent that may only be starting.
async fn open(dial: &dyn Dial, hello: &Hello) -> Result<(Dialed, Welcome), OpenError> {
    let until = Instant::now() + AGENT_WITHIN;
    loop {
        let error = match session::open(dial, None, hello.clone()).await {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        let is_starting = match &error {
            OpenError::Closed(_) => true,
            OpenError::Dial(error) => match error.downcast_ref::<ClusterError>() {
                Some(ClusterError::AgentNotReady { state, .. }) => may_become_ready(state),
                Some(_) | None => false,
            },
            OpenError::Refused { .. } | OpenError::Codec { .. } | OpenError::Mute { .. } => false,
        };
        if !is_starting || Instant::now() >= until {
            return Err(error);
        }
        tracing::info!(%error, "the agent is not there yet");
        // A watch would tell when, but is a right more than a user needs.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits until the session carries packets, sets up what hangs on its addresses, and proves it.
async fn settle(running: &mut Running, context: &ConnectContext) -> Result<(), ConnectError> {
    let ConnectContext {
        options,
        board,
        domains,
        ..
    } = context;
    let begun = Instant::now();
    board.step("waiting for the tunnel");
    let mut progress = running.progress.clone();
    let carried = timeout(CARRIER_WITHIN, progress.wait_for(|p| p.carried)).await;
    let progress = match carried.map(|progress| progress.map(|p| p.clone())) {
        Ok(Ok(progress)) => progress,
        Ok(Err(_)) => return Err(ended(running).await),
        Err(_) => return Err(no_carrier(running, options)),
    };
    let carrier = running.carriers.lock().carrier;
    board.done(report::describe(carrier, begun.elapsed()));
    let Some(welcome) = progress.welcome else {
        return Err(ended(running).await);
    };

    if let Some(outside) = &mut running.outside {
        outside.settle().await;
    }
    running.attachment.settle(&welcome, board).await?;
    let led = domains.shared().get();
    let proven = prove(running, &welcome.cluster_domain, &led, board).await?;
    board.done(proven);
    Ok(())
}

fn transport(options: &UpOptions) -> Transport {
    match options.carrier {
        CarrierChoice::Auto => Transport::Auto,
        CarrierChoice::Udp => Transport::Udp,
        CarrierChoice::Stream => Transport::Stream,
    }
}

fn client_name() -> String {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    host.unwrap_or_default()
}
