//! `pmz up`: starts helper and daemon, and shows how the connection is made.

mod networks;

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode as Code;
use std::time::Duration;

use clap::Args;
use pmz_net::route::SteerPolicy;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use networks::NetworkArgs;

use super::{Global, broken, daemon, runtime};
use crate::daemon::launch::{self, Started};
use crate::daemon::process::log_path;
use crate::daemon::{
    Ask, CarrierChoice, CarrierKind, ControlClient, DnsChoice, EbpfChoice, Phase, SearchWish,
    Status, Tell, UpOptions, View,
};
use crate::deploy::READY_WITHIN;
use crate::domains::KubeName;
use crate::environment::Environment;
use crate::failure::{ExitCode, Failure, Offer};
use crate::show::{Progress, Style};

/// The daemon's own limit is shorter.
const CONNECTED_WITHIN: Duration = Duration::from_secs(120);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Options of `pmz up`.
#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// How packets may travel
    #[arg(
        long = "transport",
        value_enum,
        default_value_t,
        value_name = "CARRIER"
    )]
    carrier: CarrierChoice,
    #[command(flatten)]
    networks: NetworkArgs,
    /// Steer by eBPF programs on the tunnel's device
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    ebpf: EbpfChoice,
    /// How DNS queries reach pmz, instead of PMZ_DNS or the config file's
    #[arg(long, value_enum, value_name = "HOW")]
    dns: Option<DnsChoice>,
    /// Find this namespace's services by `name` alone, too, as those of --namespace where it is given; repeatable, up to
    /// three times; instead of the config file's
    #[arg(long, value_name = "NAMESPACE")]
    search: Vec<KubeName>,
    /// Deploy an agent where the cluster has none, as `pmz agent deploy` does it without options
    #[arg(long)]
    deploy: bool,
    /// Stay, log to stderr, and disconnect on Ctrl-C
    #[arg(long)]
    foreground: bool,
}

pub(super) fn run(global: &Global, args: &UpArgs) -> Result<Code, Failure> {
    let mut target = global.target();
    if nix::unistd::geteuid().is_root() {
        // Only the daemon reads these files, as the user behind sudo.
        let environment = Environment::behind_sudo();
        let kubeconfig = environment.as_ref().and_then(|e| e.get("KUBECONFIG"));
        target = target.or_search(kubeconfig);
    }
    let runtime = runtime()?;
    if let Some(client) = runtime.block_on(daemon())? {
        return runtime.block_on(join(client, global.context.as_deref()));
    }
    // Wrong names are found before anybody types a password. Behind sudo the files are the user's to read,
    // and the daemon, which becomes the user, does it.
    let mut dns = args.dns;
    let search = SearchWish::new(global.namespace.as_deref(), args.search.clone())?;
    if !nix::unistd::geteuid().is_root() {
        runtime.block_on(target.load())?;
        dns = Some(DnsChoice::find(dns)?);
        search.find()?;
    }
    if dns == Some(DnsChoice::Ebpf) && args.ebpf == EbpfChoice::Off {
        return Err(Failure::new(
            ExitCode::Usage,
            "`--dns ebpf` catches queries by eBPF programs, and `--ebpf off` does without",
            "Give one of the two",
        ));
    }
    let networks = args.networks.resolve(|what| agrees(what, "Do it?"))?;
    if networks.steer == SteerPolicy::Tc && args.ebpf == EbpfChoice::Off {
        return Err(Failure::new(
            ExitCode::Usage,
            "`--steer tc` takes packets over by an eBPF program, and `--ebpf off` does without",
            "Give one of the two",
        ));
    }
    let mut options = UpOptions {
        target,
        carrier: args.carrier,
        pods: !args.networks.no_pods,
        overlap: networks.overlap,
        pool: networks.pool,
        steer: networks.steer,
        include: networks.include,
        exclude: networks.exclude,
        ebpf: args.ebpf,
        dns,
        search,
        deploy: args.deploy,
        verbose: global.verbose,
        foreground: args.foreground,
        run_as: None,
    };
    match start(&runtime, &options) {
        Err(failure)
            if failure.offer == Some(Offer::Deploy) && agrees(&failure.cause, "Deploy one?") =>
        {
            options.deploy = true;
            start(&runtime, &options)
        }
        result => result,
    }
}

fn start(runtime: &Runtime, options: &UpOptions) -> Result<Code, Failure> {
    let Started { control, daemon } = launch::start(options.clone())?;
    let result = runtime.block_on(follow(control, options));
    if options.foreground {
        let mut daemon = daemon;
        // It ends by itself: its control connection is closed.
        let _ = daemon.wait();
    }
    result
}

/// Asks, where there is somebody to ask.
fn agrees(cause: &str, question: &str) -> bool {
    let (mut stdin, stderr) = (std::io::stdin().lock(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return false;
    }
    eprint!("{cause}. {question} [y/N] ");
    let mut answer = String::new();
    let read = stdin.read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// A daemon is there already: waits until it is connected, if it is the same cluster.
async fn join(mut client: ControlClient, context: Option<&str>) -> Result<Code, Failure> {
    let status = status(&mut client).await?;
    if let Some(wanted) = context.filter(|wanted| *wanted != status.context) {
        return Err(Failure::new(
            ExitCode::General,
            format!(
                "pmz is connected to context {:?}, not to {wanted:?}",
                status.context
            ),
            "Run `pmz down` first: one cluster at a time",
        ));
    }
    let mut progress = Progress::new();
    watch(&mut client, &mut progress).await?;
    connected(&mut client, &progress).await
}

async fn follow(
    control: std::os::unix::net::UnixStream,
    options: &UpOptions,
) -> Result<Code, Failure> {
    let within = if options.deploy {
        CONNECTED_WITHIN + READY_WITHIN
    } else {
        CONNECTED_WITHIN
    };
    let gone = |error: std::io::Error| broken(&error);
    control.set_nonblocking(true).map_err(gone)?;
    let mut client = ControlClient::new(UnixStream::from_std(control).map_err(gone)?);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(gone)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(gone)?;
    let mut progress = Progress::new();
    let watched = tokio::select! {
        watched = tokio::time::timeout(within, watch(&mut client, &mut progress)) => {
            watched.unwrap_or_else(|_| Err(too_slow(within)))
        }
        _ = interrupt.recv() => Err(interrupted()),
        _ = terminate.recv() => Err(interrupted()),
    };
    if let Err(failure) = watched {
        progress.finish();
        // Nothing half-made stays behind.
        end(&mut client).await;
        return Err(failure);
    }
    let code = connected(&mut client, &progress).await?;
    if !options.foreground {
        return Ok(code);
    }
    let lost = tokio::select! {
        lost = stay_until_lost(&mut client, &progress) => Some(lost),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    if let Some(failure) = lost {
        return Err(failure);
    }
    end(&mut client).await;
    Ok(Code::SUCCESS)
}

/// Shows the steps until the connection stands.
async fn watch(client: &mut ControlClient, progress: &mut Progress) -> Result<(), Failure> {
    // A daemon that fails at once has said so and gone before it was asked: its words are still to be read.
    let asked = client.ask(&Ask::Watch).await;
    loop {
        let told = client.next().await;
        if asked.is_err() && told.is_err() {
            return Err(died());
        }
        match told.map_err(|e| broken(&e))? {
            Some(Tell::View(view)) => {
                progress.show(&view);
                match view.phase {
                    Phase::Connected => return Ok(()),
                    Phase::Failed { failure } => return Err(failure),
                    Phase::Stopping => return Err(interrupted()),
                    Phase::Connecting | Phase::Reconnecting { .. } => {}
                }
            }
            Some(Tell::Status(_) | Tell::Traffic(_) | Tell::Domain(_) | Tell::Names(_)) => {}
            None => return Err(died()),
        }
    }
}

/// In the foreground: tells what happens, until it is over.
async fn stay_until_lost(client: &mut ControlClient, progress: &Progress) -> Failure {
    let mut last = Phase::Connected;
    loop {
        match client.next().await {
            Ok(Some(Tell::View(View { phase, .. }))) if phase != last => {
                match &phase {
                    Phase::Connected => progress.line("Connected again."),
                    Phase::Reconnecting { cause } => {
                        progress.line(&format!("Reconnecting: {cause}."))
                    }
                    Phase::Failed { failure } => return failure.clone(),
                    Phase::Connecting | Phase::Stopping => {}
                }
                last = phase;
            }
            Ok(Some(_)) => {}
            Ok(None) if last == Phase::Stopping => return interrupted(),
            Ok(None) => return died(),
            Err(error) => return broken(&error),
        }
    }
}

async fn connected(client: &mut ControlClient, progress: &Progress) -> Result<Code, Failure> {
    progress.finish();
    // The connection that watches is busy with that; the status comes by another.
    let status = match daemon().await? {
        Some(mut other) => status(&mut other).await?,
        None => status(client).await?,
    };
    let style = Style::of(&std::io::stderr());
    eprintln!("{} {}", style.good("Connected"), summary(&status));
    Ok(Code::SUCCESS)
}

fn summary(status: &Status) -> String {
    let carrier = status
        .carrier
        .as_ref()
        .map_or_else(String::new, |carrier| match carrier.kind {
            CarrierKind::Udp => format!(" by UDP ({})", carrier.endpoint),
            CarrierKind::Stream => " through the API server".to_owned(),
        });
    let services = if status.services == 1 {
        "service"
    } else {
        "services"
    };
    format!(
        "to {}{carrier}: {} {services} have names here.",
        status.context, status.services
    )
}

async fn status(client: &mut ControlClient) -> Result<Status, Failure> {
    let answer = async {
        client.ask(&Ask::Status).await.map_err(|_| died())?;
        loop {
            match client.next().await.map_err(|e| broken(&e))? {
                Some(Tell::Status(status)) => return Ok(*status),
                Some(Tell::View(_) | Tell::Traffic(_) | Tell::Domain(_) | Tell::Names(_)) => {}
                None => return Err(died()),
            }
        }
    };
    tokio::time::timeout(ANSWER_WITHIN, answer)
        .await
        .unwrap_or_else(|_| Err(silent()))
}

/// Has the daemon end, and waits for it.
async fn end(client: &mut ControlClient) {
    let ended = async {
        if client.ask(&Ask::Down).await.is_ok() {
            while let Ok(Some(_)) = client.next().await {}
        }
    };
    let _ = tokio::time::timeout(super::down::ENDED_WITHIN, ended).await;
}

fn interrupted() -> Failure {
    Failure::new(
        ExitCode::Interrupted,
        "Interrupted: nothing is connected",
        "",
    )
}

fn too_slow(within: Duration) -> Failure {
    Failure::new(
        ExitCode::Unreachable,
        format!("No connection within {} s", within.as_secs()),
        "`pmz up --foreground -v` shows what it waits for",
    )
}

fn silent() -> Failure {
    Failure::new(
        ExitCode::General,
        "The daemon runs, but does not answer",
        "`pmz down` ends it",
    )
}

fn died() -> Failure {
    let log = log_path(nix::unistd::geteuid());
    let next = match log {
        Some(path) => format!(
            "{} may say why; `pmz up --foreground -v` certainly does",
            path.display()
        ),
        None => "`pmz up --foreground -v` shows why".to_owned(),
    };
    Failure::new(
        ExitCode::General,
        "The daemon has ended without a word",
        next,
    )
}
