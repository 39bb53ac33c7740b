//! What a kubelet does for an agent's container: starts it, starts it again when it ends, and says when it
//! is ready.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Playground;
use super::machine::Machine;

/// The port whose being open is readiness.
const CONTROL_PORT: u16 = pmz_agent::CONTROL_PORT;
/// How often readiness is looked at. A kubelet takes seconds.
const PROBE: Duration = Duration::from_millis(50);
/// The first and the longest pause before the container is started again.
const RESTART: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A container that ran for this long is started again at once.
const STABLE: Duration = Duration::from_secs(10);

/// What the pod's specification puts into the container's environment.
pub(super) struct Environment {
    pub(super) pod: String,
    pub(super) namespace: String,
    pub(super) pod_ips: Vec<IpAddr>,
    pub(super) host_ips: Vec<IpAddr>,
    pub(super) api: SocketAddr,
    /// What this pod has beside what every agent has.
    pub(super) more: Vec<(String, String)>,
}

/// Where an agent's log goes.
#[derive(Clone, Debug)]
pub(super) enum AgentLog {
    Nowhere,
    /// This process's stderr.
    Stderr,
    /// To the end of a file.
    File(PathBuf),
}

/// What is known of the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// The process that runs it, seen from the playground.
    pid: Option<u32>,
    ready: bool,
    restarts: u64,
}

/// An agent in its pod. Ends when dropped.
pub struct AgentProcess {
    pod: String,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl AgentProcess {
    pub(super) fn start(
        playground: Arc<Playground>,
        machine: Arc<Machine>,
        environment: Environment,
        log: AgentLog,
    ) -> Self {
        let (sender, state) = watch::channel(State::default());
        let stop = CancellationToken::new();
        let pod = environment.pod.clone();
        let container = Container {
            playground,
            machine,
            environment,
            log,
            state: sender,
        };
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = container.keep() => {}
                () = stopped.cancelled() => {}
            }
        });
        Self {
            pod,
            state,
            stop,
            task,
        }
    }

    /// Its pod's name.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn ready(&self, within: Duration) -> Result<()> {
        let mut state = self.state.clone();
        timeout(within, state.wait_for(|s| s.ready))
            .await
            .with_context(|| format!("the agent {} is not ready after {within:?}", self.pod))??;
        Ok(())
    }

    /// Kills it as `kill -9` does, and returns when it is gone; it is started again after that.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self) -> Result<()> {
        let mut state = self.state.clone();
        let before = *state.borrow();
        let pid = before.pid.context("the agent does not run")?;
        let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
        state.wait_for(|s| s.restarts > before.restarts).await?;
        Ok(())
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

struct Container {
    playground: Arc<Playground>,
    machine: Arc<Machine>,
    environment: Environment,
    log: AgentLog,
    state: watch::Sender<State>,
}

impl Container {
    async fn keep(self) {
        let mut pause = RESTART.0;
        loop {
            let begun = tokio::time::Instant::now();
            let ended = match self.spawn() {
                Ok(child) => self.watch(child).await,
                Err(error) => Err(error),
            };
            self.set_ready(false);
            self.state.send_modify(|s| {
                s.pid = None;
                s.restarts += 1;
            });
            match ended {
                Ok(status) => {
                    tracing::info!(pod = self.environment.pod, %status, "the agent ended")
                }
                Err(error) => tracing::warn!(pod = self.environment.pod, %error, "no agent"),
            }
            pause = if begun.elapsed() >= STABLE {
                RESTART.0
            } else {
                (pause * 2).min(RESTART.1)
            };
            sleep(pause).await;
        }
    }

    fn spawn(&self) -> Result<Child> {
        let e = &self.environment;
        let mut command = self.machine.pmz();
        command
            .args(["agent", "serve"])
            .env_clear()
            .env("POD_NAME", &e.pod)
            .env("POD_NAMESPACE", &e.namespace)
            .env("POD_IPS", join(&e.pod_ips))
            .env("HOST_IPS", join(&e.host_ips))
            .env("KUBERNETES_SERVICE_HOST", e.api.ip().to_string())
            .env("KUBERNETES_SERVICE_PORT", e.api.port().to_string())
            .envs(e.more.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let level = std::env::var("PMZ_LOG").unwrap_or_else(|_| "info".into());
        match &self.log {
            AgentLog::Nowhere => {
                command.stderr(Stdio::null());
            }
            AgentLog::Stderr => {
                command.env("PMZ_LOG", level);
            }
            AgentLog::File(path) => {
                let file = File::options().create(true).append(true).open(path)?;
                command.env("PMZ_LOG", level).stderr(file);
            }
        }
        let child = Command::from(command).kill_on_drop(true).spawn()?;
        self.state.send_modify(|s| s.pid = child.id());
        Ok(child)
    }

    async fn watch(&self, mut child: Child) -> Result<ExitStatus> {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            () = self.opens() => {}
        }
        self.set_ready(true);
        Ok(child.wait().await?)
    }

    fn set_ready(&self, ready: bool) {
        self.playground
            .set_ready(&self.environment.namespace, &self.environment.pod, ready);
        self.state.send_modify(|s| s.ready = ready);
    }

    /// Ends when the control port takes a connection.
    async fn opens(&self) {
        loop {
            let machine = self.machine.clone();
            let open = tokio::task::spawn_blocking(move || {
                machine
                    .in_netns(|| std::net::TcpStream::connect(("127.0.0.1", CONTROL_PORT)).is_ok())
            });
            if matches!(open.await, Ok(Ok(true))) {
                return;
            }
            sleep(PROBE).await;
        }
    }
}

fn join(addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}
