//! The daemon's life: connect, stay connected, end in good order.

use std::future::Future;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::board::{Board, Phase};
use super::connect_error::ConnectError;
use super::control::{Control, StatusRequest};
use super::domains::Domains;
use super::options::UpOptions;
use super::status::Status;
use super::traffic::TrafficSource;
use crate::failure::{ExitCode, Failure};
use crate::helper::HelperClient;

/// A whole attempt; each of its waits has a limit of its own, which is shorter.
const CONNECT_WITHIN: Duration = Duration::from_secs(90);
/// Between attempts to connect again: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Time that a session has to say goodbye, and a command to hear how it ended.
const GOODBYE_WITHIN: Duration = Duration::from_secs(3);

/// What a session is made with.
#[derive(Clone)]
pub struct ConnectContext {
    /// What the user wants.
    pub options: UpOptions,
    /// The privileged part.
    pub helper: HelperClient,
    /// Shows the steps as they are taken.
    pub board: Board,
    /// Is told where traffic is counted.
    pub traffic: TrafficSource,
    /// The domains that the user added: is told of the cluster, and answers them.
    pub domains: Domains,
}

/// Makes sessions, one after another. What outlives a session (the TUN, its routes) is its to keep.
pub trait Connector: Send {
    /// What it makes.
    type Session: Session;

    /// Connects, proves that names and packets work, and returns.
    ///
    /// May be dropped at any await, when the daemon is told to end or the time is over.
    fn connect(
        &mut self,
        context: &ConnectContext,
    ) -> impl Future<Output = Result<Self::Session, ConnectError>> + Send;
}

/// A session that stands.
pub trait Session: Send {
    /// Returns when the session is lost, with the cause. May be dropped and called again.
    fn lost(&mut self) -> impl Future<Output = String> + Send;

    /// Fills in what it knows of the status.
    fn fill(&self, status: &mut Status);

    /// Says goodbye and ends.
    fn close(self) -> impl Future<Output = ()> + Send;
}

enum End {
    Told,
    Failed(Failure),
}

/// Runs the daemon to its end.
///
/// `starter` is a control connection to the command that started it.
///
/// # Errors
/// When it can't connect the first time, or the helper ends.
pub async fn run<C: Connector>(
    helper: HelperClient,
    options: UpOptions,
    mut connector: C,
    starter: StdStream,
    domains: Domains,
) -> Result<(), Failure> {
    let (sender, mut requests) = mpsc::channel(16);
    let control = Control::new(sender, domains);
    let context = ConnectContext {
        options,
        helper: helper.clone(),
        board: control.board.clone(),
        traffic: control.traffic.clone(),
        domains: control.domains.clone(),
    };
    let end = match begin(&control, &context, starter).await {
        Ok(()) => live(&context, &mut connector, &mut requests, &control.stop).await,
        Err(failure) => End::Failed(failure),
    };
    let (phase, result) = match end {
        End::Told => (Phase::Stopping, Ok(())),
        End::Failed(failure) => {
            tracing::error!(%failure, "the daemon ends");
            (
                Phase::Failed {
                    failure: failure.clone(),
                },
                Err(failure),
            )
        }
    };
    control.board.enter(phase);
    drop(connector);
    // The helper undoes what is its to undo before a command hears that it is over.
    if tokio::time::timeout(GOODBYE_WITHIN, helper.close())
        .await
        .is_err()
    {
        tracing::warn!("the helper does not end");
    }
    control.hang_up.cancel();
    control.tasks.close();
    let _ = tokio::time::timeout(GOODBYE_WITHIN, control.tasks.wait()).await;
    result
}

async fn begin(
    control: &Control,
    context: &ConnectContext,
    starter: StdStream,
) -> Result<(), Failure> {
    let setup = |error: std::io::Error| {
        Failure::new(
            ExitCode::General,
            format!("The daemon can't be set up: {error}"),
            "Try again",
        )
    };
    starter.set_nonblocking(true).map_err(setup)?;
    let starter = UnixStream::from_std(starter).map_err(setup)?;
    let (serve, foreground) = (control.clone(), context.options.foreground);
    control.tasks.spawn(async move {
        serve.serve(starter).await;
        if foreground {
            serve.stop.cancel();
        }
    });
    stop_on_signals(&control.stop).map_err(setup)?;
    let listener = context.helper.control_socket().await?;
    control.listen(listener).map_err(setup)
}

fn stop_on_signals(stop: &CancellationToken) -> std::io::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
        });
    }
    Ok(())
}

async fn live<C: Connector>(
    context: &ConnectContext,
    connector: &mut C,
    requests: &mut mpsc::Receiver<StatusRequest>,
    stop: &CancellationToken,
) -> End {
    let board = &context.board;
    // An agent that is deployed on the way takes its own time.
    let within = if context.options.deploy {
        CONNECT_WITHIN + crate::deploy::READY_WITHIN
    } else {
        CONNECT_WITHIN
    };
    let mut first = true;
    let mut pause = FIRST_PAUSE;
    loop {
        board.attempt();
        let attempt = tokio::time::timeout(within, connector.connect(context));
        let attempt = match meanwhile(attempt, context, requests, stop).await {
            Ok(done) => done.unwrap_or_else(|_| Err(too_slow(board, within))),
            Err(end) => return end,
        };
        match attempt {
            Ok(mut session) => {
                first = false;
                pause = FIRST_PAUSE;
                board.enter(Phase::Connected);
                let ended = stay(&mut session, context, requests, stop).await;
                if tokio::time::timeout(GOODBYE_WITHIN, session.close())
                    .await
                    .is_err()
                {
                    tracing::warn!("the session does not end in time");
                }
                match ended {
                    Ok(cause) => board.enter(Phase::Reconnecting { cause }),
                    Err(end) => return end,
                }
            }
            Err(error) if first => return End::Failed(error.failure),
            Err(error) => {
                tracing::warn!(failure = %error.failure, "connect again");
                board.enter(Phase::Reconnecting {
                    cause: error.failure.cause,
                });
                let wait = if error.transient {
                    pause
                } else {
                    LONGEST_PAUSE
                };
                pause = (pause * 2).min(LONGEST_PAUSE);
                let until = tokio::time::sleep_until(Instant::now() + wait);
                if let Err(end) = meanwhile(until, context, requests, stop).await {
                    return end;
                }
            }
        }
    }
}

fn too_slow(board: &Board, within: Duration) -> ConnectError {
    let step = board
        .view()
        .steps
        .pop()
        .map(|s| format!(" (while {})", s.text))
        .unwrap_or_default();
    let failure = Failure::new(
        ExitCode::Unreachable,
        format!("No connection within {} s{step}", within.as_secs()),
        "Try again; `pmz up --foreground -v` shows more",
    );
    ConnectError {
        failure,
        transient: true,
    }
}

async fn stay<S: Session>(
    session: &mut S,
    context: &ConnectContext,
    requests: &mut mpsc::Receiver<StatusRequest>,
    stop: &CancellationToken,
) -> Result<String, End> {
    loop {
        tokio::select! {
            cause = session.lost() => return Ok(cause),
            () = stop.cancelled() => return Err(End::Told),
            () = context.helper.gone() => return Err(End::Failed(helper_gone())),
            Some(request) = requests.recv() => {
                let mut status = blank(context);
                session.fill(&mut status);
                context.board.fill(&mut status);
                // Who asked may be gone.
                let _ = request.send(status);
            }
        }
    }
}

/// Awaits something while the daemon answers, without a session, and may be told to end.
async fn meanwhile<T>(
    wait: impl Future<Output = T>,
    context: &ConnectContext,
    requests: &mut mpsc::Receiver<StatusRequest>,
    stop: &CancellationToken,
) -> Result<T, End> {
    tokio::pin!(wait);
    loop {
        tokio::select! {
            done = &mut wait => return Ok(done),
            () = stop.cancelled() => return Err(End::Told),
            () = context.helper.gone() => return Err(End::Failed(helper_gone())),
            Some(request) = requests.recv() => {
                let mut status = blank(context);
                context.board.fill(&mut status);
                let _ = request.send(status);
            }
        }
    }
}

fn blank(context: &ConnectContext) -> Status {
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        context: context.options.target.context.clone().unwrap_or_default(),
        domains: context.domains.count(),
        ..Status::default()
    }
}

fn helper_gone() -> Failure {
    Failure::new(
        ExitCode::General,
        "The privileged helper has ended, and with it the tunnel",
        "Run `pmz up` again",
    )
}
