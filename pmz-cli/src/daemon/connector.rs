//! Makes the daemon's session on the real parts: agent, TUN, routes, names.
//!
//! What it makes comes back by itself after a loss ([`crate::session`]); to the daemon's loop a loss is
//! the end of one [`Standing`] and the wait for the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use pmz_net::carrier::choice::Transport;
use pmz_net::catalog::SharedMirror;
use pmz_net::tunnel::Tunnel;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connect_failure::{CARRIER_WITHIN, ended, no_carrier, open_failure};
use super::dial::{ClusterDial, HelperTuner};
use super::names::Names;
use super::options::{CarrierChoice, UpOptions};
use super::proof::prove;
use super::report;
use super::run::{ConnectContext, ConnectError, Connector, Session};
use super::running::{Progress, Running, reporter};
use super::status::Status;
use crate::failure::{ExitCode, Failure};
use crate::helper::Family;
use crate::session::{self, Link, SessionOptions, hello};

/// Name of the TUN.
const DEVICE: &str = "pmz0";
/// Stream connections to start with.
const STREAMS: u16 = 4;
/// How long the proof by name and connection may take.
const PROOF_WITHIN: Duration = Duration::from_secs(10);

/// Makes [`Standing`] sessions.
#[derive(Default)]
pub struct ClusterConnector {
    running: Option<Running>,
}

/// A session that carries packets and answers names.
pub struct Standing {
    progress: watch::Receiver<Progress>,
    opened: u64,
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
        let fill = report::filler(running);
        let opened = running.progress.borrow().opened;
        Ok(Standing {
            progress: running.progress.clone(),
            opened,
            fill,
        })
    }
}

impl Session for Standing {
    async fn lost(&mut self) -> String {
        let opened = self.opened;
        let lost = self
            .progress
            .wait_for(|p| p.opened != opened || !p.carried)
            .await;
        match lost {
            Ok(progress) if progress.opened != opened => progress.control_down.clone().map_or_else(
                || "the agent was replaced".to_owned(),
                |why| format!("the agent is gone: {why}"),
            ),
            Ok(progress) => progress
                .control_down
                .clone()
                .unwrap_or_else(|| "no carrier answers any more".to_owned()),
            Err(_) => "the packet path ended".to_owned(),
        }
    }

    fn fill(&self, status: &mut Status) {
        (self.fill)(status);
    }

    async fn close(self) {
        // The session itself goes on, and comes back: it ends with the connector.
    }
}

/// The first connection: agent, TUN, and the session's task.
async fn begin(context: &ConnectContext) -> Result<Running, ConnectError> {
    let ConnectContext {
        options,
        helper,
        board,
    } = context;
    board.step("reading the kubeconfig");
    let tuner = Arc::new(HelperTuner(helper.clone()));
    let dial = Arc::new(ClusterDial::open(options.target.clone(), Some(tuner)).await?);
    let cluster = dial.cluster();
    board.done(format!("context {}", cluster.context()));
    if options.deploy {
        crate::deploy::deploy_missing(&cluster, board).await?;
    }

    board.step("connecting to the agent");
    // A key for this session alone: it lives in this process's memory and nowhere else.
    let tunnel = Tunnel::generate();
    let hello = hello(STANDARD.encode(tunnel.public_key()), client_name());
    let (dialed, welcome) = session::open(&*dial, None, hello.clone())
        .await
        .map_err(open_failure)?;
    board.done(format!("{} {}", welcome.agent, welcome.version));

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
    let mirror = SharedMirror::new();
    let (changes, progress) = watch::channel(Progress::default());
    let reporter = reporter(changes, mirror.clone());
    let session = session::Session::new(
        dial,
        link.clone(),
        answers,
        mirror.clone(),
        SessionOptions {
            transport: transport(options),
            streams: STREAMS,
            pods: options.pods,
        },
        reporter,
    );
    let carriers = session.state();
    let stop = CancellationToken::new();
    let addresses = welcome.addresses.clone();
    let task = tokio::spawn(session.run(hello, dialed, welcome, stop.clone()));
    Ok(Running {
        link,
        mirror,
        carriers,
        progress,
        device: tun.name,
        routes: Vec::new(),
        names: Names::default(),
        server: cluster.server().to_owned(),
        context: cluster.context().to_owned(),
        namespace: cluster.namespace().to_owned(),
        settled: 0,
        addresses,
        stop,
        task,
        helper: helper.clone(),
    })
}

/// Waits until the session carries packets, sets up what hangs on its addresses, and proves it.
async fn settle(running: &mut Running, context: &ConnectContext) -> Result<(), ConnectError> {
    let ConnectContext { options, board, .. } = context;
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

    if running.settled != progress.opened {
        if running.addresses != welcome.addresses {
            running.helper.set_addresses(&welcome.addresses).await?;
            running.addresses.clone_from(&welcome.addresses);
        }
        let mut wanted = welcome.service_prefixes.clone();
        if options.pods {
            wanted.extend(&welcome.pod_prefixes);
        }
        board.step("setting routes");
        let (gone, new) = difference(&running.routes, &wanted);
        if !gone.is_empty() {
            running.helper.remove_routes(&gone).await?;
        }
        if !new.is_empty() {
            running.helper.add_routes(&new, options.overlap).await?;
        }
        running.routes = wanted;
        board.done(list(&running.routes));

        board.step("answering names");
        let mut reverse = welcome.service_prefixes.clone();
        reverse.extend(&welcome.pod_prefixes);
        running
            .names
            .serve(&running.helper, &running.mirror, &welcome, reverse)
            .await?;
        board.done(welcome.cluster_domain.clone());
        running.settled = progress.opened;
    }
    board.step("proving names and packets");
    let proof = timeout(PROOF_WITHIN, prove(running, &welcome.cluster_domain)).await;
    match proof {
        Ok(Ok(what)) => board.done(what),
        Ok(Err(failure)) => {
            return Err(ConnectError {
                failure,
                transient: true,
            });
        }
        Err(_) => {
            let failure = Failure::new(
                ExitCode::Unreachable,
                format!(
                    "Names and packets were not proven within {} s",
                    PROOF_WITHIN.as_secs()
                ),
                "Look at the agent's log: `kubectl -n pmz logs -l app.kubernetes.io/name=pmz-agent`",
            );
            return Err(ConnectError {
                failure,
                transient: true,
            });
        }
    }
    Ok(())
}

fn transport(options: &UpOptions) -> Transport {
    match options.carrier {
        CarrierChoice::Auto => Transport::Auto,
        CarrierChoice::Udp => Transport::Udp,
        CarrierChoice::Stream => Transport::Stream,
    }
}

fn difference(had: &[IpNet], wanted: &[IpNet]) -> (Vec<IpNet>, Vec<IpNet>) {
    let without = |all: &[IpNet], these: &[IpNet]| {
        all.iter()
            .filter(|net| !these.contains(net))
            .copied()
            .collect()
    };
    (without(had, wanted), without(wanted, had))
}

fn list(prefixes: &[IpNet]) -> String {
    prefixes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn client_name() -> String {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    host.unwrap_or_default()
}
