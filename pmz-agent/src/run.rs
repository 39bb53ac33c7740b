//! The agent as a whole: what it starts, in which order, and how it ends.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use pmz_net::carrier::udp::UdpCarrier;
use pmz_net::engine::stop::Stop;
use pmz_net::engine::{Engine, inbound};
use pmz_net::nat::{Nat, NatConfig, NatCounters};
use pmz_net::tunnel::Tunnel;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::addresses::Addresses;
use crate::args::Args;
use crate::control::{self, Control};
use crate::egress::{NatLocal, TunnelEgress};
use crate::guard::Guards;
use crate::sessions::Sessions;
use crate::watch::{self as kubernetes, WatchConfig};

/// How long the first lists of services may take: 20,000 services on a slow API server.
const WATCH_WITHIN: Duration = Duration::from_secs(60);
/// How often the log tells of dropped packets, at the most.
const TELL_DROPS: Duration = Duration::from_secs(5);
/// How long a leaving agent goes on for clients that have not found another one yet: the pod's grace period
/// is 30 s, and the replacement of an agent without replicas is starting meanwhile.
const DRAIN: Duration = Duration::from_secs(25);
/// A client that has not been heard for longer is not waited for: it would have asked whether anybody is here.
const LATELY: Duration = Duration::from_secs(15);

/// Runs an agent until SIGTERM or SIGINT.
///
/// # Errors
/// Where a port is taken, Kubernetes can't be reached at all, or a thread of the packet path fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    raise_open_files();
    let addresses = Addresses::draw(&mut rand::rng());
    let own_addresses = addresses.own().to_vec();

    let socket = UdpCarrier::bind(args.tunnel_port)
        .with_context(|| format!("bind UDP port {} for the tunnel", args.tunnel_port))?;
    let udp = UdpCarrier::new(socket).context("set up the tunnel's UDP socket")?;
    let guards = Arc::new(if args.guard {
        Guards::attach(udp.as_fd(), args.tunnel_port, &args.pod_ips)?
    } else {
        Guards::default()
    });
    let nat = Nat::new(NatConfig {
        own_addresses: own_addresses.clone(),
        tcp: args.tcp,
        congestion: args.congestion,
        ..NatConfig::default()
    })
    .context("set up the NAT")?;
    let inbox = nat.inbox();
    let (engine, _) = Engine::new(Tunnel::generate(), Some(udp), Arc::new(NatLocal::new(&nat)));
    engine.set_own_addresses(own_addresses.clone());
    let counters = nat.counters();
    let _nat = nat
        .start(Box::new(TunnelEgress::new(engine.clone())))
        .context("start the NAT")?;

    let stop = CancellationToken::new();
    let _receiver = spawn_receiver(engine.clone(), stop.clone())?;
    let timers = engine.clone();
    tokio::spawn(async move { timers.run_timers().await });

    let client = kube::Client::try_default()
        .await
        .context("find the cluster's API")?;
    let cluster_domain = args.cluster_domain.clone().unwrap_or_else(cluster_domain);
    let watch = kubernetes::start(client, watch_config(&args));

    // An open control port is readiness: who comes in finds the catalog and the prefixes there.
    tokio::time::timeout(WATCH_WITHIN, watch.ready()).await.map_err(|_| {
        let problem = watch.problem.borrow().clone();
        anyhow::anyhow!(
            "services can't be watched: {}; the agent's ServiceAccount must list and watch services and \
             endpointslices",
            problem.unwrap_or_else(|| "the API server does not answer".to_owned())
        )
    })?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.control_port))
        .await
        .with_context(|| format!("bind the control port {} on loopback", args.control_port))?;
    let (leave, leaving) = watch::channel(None);
    let (admitting, forgetting) = (guards.clone(), guards.clone());
    let control = Arc::new(Control {
        sessions: Sessions::new(
            engine.clone(),
            addresses,
            args.max_peers,
            Box::new(move |peer| admitting.add_peer(peer.id())),
            Box::new(move |peer| {
                forgetting.remove_peer(peer.id());
                inbox.peer_gone(peer.id());
            }),
        ),
        engine,
        watch,
        name: args.name.clone(),
        cluster_domain,
        own_addresses,
        leaving,
        stop: stop.clone(),
    });
    tracing::info!(
        control_port = args.control_port,
        tunnel_port = args.tunnel_port,
        "agent ready"
    );

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut served = pin!(control::serve(control.clone(), listener));
    let ended = |result: std::io::Result<()>| {
        result.context("the control port failed")?;
        anyhow::bail!("the packet path stopped")
    };
    tokio::select! {
        result = &mut served => return ended(result),
        () = expire(&control, Duration::from_secs(args.peer_timeout.max(1))) => {}
        () = tell_drops(&control, &counters, &guards) => {}
        () = guards.follow(&control.sessions) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(sessions = control.sessions.count(), "agent leaving");
    leave.send_replace(Some(format!("agent {} is shutting down", args.name)));
    tokio::select! {
        result = &mut served => return ended(result),
        () = control.sessions.all_closed(LATELY) => {}
        () = tokio::time::sleep(DRAIN) => {
            let sessions = control.sessions.count();
            tracing::warn!(sessions, "some clients found no other agent in time");
        }
        // Told a second time, it does not wait.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    Ok(())
}

/// Each flow is a descriptor: as many as the pod may have.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is; it bounds the flows");
    }
}

async fn expire(control: &Control, timeout: Duration) {
    let mut ticks = tokio::time::interval((timeout / 4).max(Duration::from_millis(250)));
    loop {
        ticks.tick().await;
        control.sessions.expire(timeout);
    }
}

/// Tells what was dropped whenever there is more of it, at most once in [`TELL_DROPS`].
async fn tell_drops(control: &Control, nat: &NatCounters, guards: &Guards) {
    let mut ticks = tokio::time::interval(TELL_DROPS);
    let mut told = (control.engine.drops(), nat.snapshot());
    let mut guarded = guards.report();
    loop {
        ticks.tick().await;
        let drops = control.engine.drops();
        if drops != told.0 {
            told = (drops, nat.snapshot());
            tracing::info!(drops = ?told.0, nat = ?told.1, "packets were dropped");
        }
        let report = guards.report();
        if report.dropped() != guarded.dropped() {
            guarded = report;
            tracing::info!(?guarded, "the guard has dropped what can't be WireGuard");
        }
    }
}

/// Ends the receiving thread when dropped.
struct Receiver {
    stop: Stop,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // It has logged why it ended.
            let _ = thread.join();
        }
    }
}

fn spawn_receiver(engine: Arc<Engine>, token: CancellationToken) -> anyhow::Result<Receiver> {
    let stop = Stop::new().context("make an eventfd")?;
    let stopped = stop.clone();
    let thread = thread::Builder::new()
        .name("pmz-udp-in".into())
        .spawn(move || {
            if let Err(error) = inbound::run(&engine, &stopped) {
                tracing::error!(%error, "receiving UDP failed; the agent ends");
                token.cancel();
            }
        })?;
    Ok(Receiver {
        stop,
        thread: Some(thread),
    })
}

fn watch_config(args: &Args) -> WatchConfig {
    WatchConfig {
        namespace: args.namespace.clone(),
        service: args.service.clone(),
        tunnel_port: args.tunnel_port,
        host_addresses: args.host_ips.clone(),
        pod_addresses: args.pod_ips.clone(),
        udp_candidates: args.udp_candidates.clone(),
        service_prefixes: args.service_cidrs.clone(),
        pod_prefixes: args.pod_cidrs.clone(),
    }
}

/// The domain of the cluster, out of the search list that the kubelet gives each pod
/// (`<namespace>.svc.<domain> svc.<domain> <domain>`).
fn cluster_domain() -> String {
    let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    domain_of(&resolv).unwrap_or_else(|| "cluster.local".to_owned())
}

fn domain_of(resolv: &str) -> Option<String> {
    resolv
        .lines()
        .filter_map(|line| line.trim().strip_prefix("search"))
        .flat_map(str::split_whitespace)
        .find_map(|domain| domain.strip_prefix("svc."))
        .map(|domain| domain.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_domain_is_found_in_a_pods_resolv_conf() {
        let resolv =
            "nameserver 10.96.0.10\nsearch pmz.svc.corp.example svc.corp.example corp.example\n";
        assert_eq!(domain_of(resolv).as_deref(), Some("corp.example"));
        assert_eq!(domain_of("nameserver 1.1.1.1\nsearch example.org\n"), None);
    }
}
