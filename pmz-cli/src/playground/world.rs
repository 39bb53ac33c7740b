//! The whole playground: machines, the Kubernetes API, agents, and pmz on the laptop.

use std::fs::Permissions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::addresses;
use super::api::{self, ApiServer, Binding, Identity, PodDialer, Rule, ServiceAccountFiles, Store};
use super::cluster::AGENT_NAMESPACE;
use super::kubelet::{AgentLog, AgentProcess, Environment};
use super::machine::{Machine, MachineFile};
use super::model::Model;
use super::{Options, Playground};

/// The developer: may do what a user of pmz needs, in the agent's namespace alone.
pub const DEVELOPER: &str = "dev";
/// A user who may see pods, and not connect to them.
pub const STRANGER: &str = "stranger";
pub use super::machines::{CONFIG_HOME, KUBECONFIG};

/// Where the other user's lies.
pub const STRANGER_KUBECONFIG: &str = "/run/playground/stranger.kubeconfig";

const AGENT_ACCOUNT: &str = "pmz-agent";
const SERVICE_ACCOUNT_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long an agent may take to become ready.
const AGENT_WITHIN: Duration = Duration::from_secs(30);
/// `pmz up` has limits of its own, which are shorter.
const UP_WITHIN: Duration = Duration::from_secs(120);

/// A running playground with everything in it.
pub struct World {
    /// Agents end first: they are told to, and wait for nothing.
    agents: Vec<AgentProcess>,
    api: Arc<ApiServer>,
    _follower: api::Follower,
    account: ServiceAccountFiles,
    playground: Arc<Playground>,
    agent_environment: Vec<(String, String)>,
    log: AgentLog,
}

impl World {
    /// Builds it, with one agent, ready. Must be called in a tokio runtime. With `verbose` the agents'
    /// logs go to stderr.
    pub async fn start(options: Options, verbose: bool) -> Result<Self> {
        let agent_environment = options.agent_environment.clone();
        let log = match &options.agent_log {
            Some(path) => AgentLog::File(path.clone()),
            None if verbose => AgentLog::Stderr,
            None => AgentLog::Nowhere,
        };
        let congestion = options.api_congestion.clone();
        let playground = Arc::new(Playground::start(options).await?);
        let store = Store::new();
        let follower = api::follow(store.clone(), playground.model())?;
        let api = Arc::new(start_api(&playground, store, congestion.as_deref())?);
        let account = api
            .service_account_files(AGENT_NAMESPACE, AGENT_ACCOUNT)
            .context("the agent has no service account")?;
        for (user, path) in [(DEVELOPER, KUBECONFIG), (STRANGER, STRANGER_KUBECONFIG)] {
            let kubeconfig = api
                .kubeconfig(user)
                .with_context(|| format!("no user {user}"))?;
            playground
                .laptop()
                .write_file(path, kubeconfig.as_bytes())?;
        }
        playground.laptop().run_in(make_config_home)??;
        let mut world = Self {
            agents: Vec::new(),
            api,
            _follower: follower,
            account,
            playground,
            agent_environment,
            log,
        };
        world.add_agent().await?;
        Ok(world)
    }

    /// Adds an agent's pod, and returns its place in [`Self::agents`] when it is ready.
    pub async fn add_agent(&mut self) -> Result<usize> {
        let files = self.account.files();
        let files = files.iter().map(|(name, content)| MachineFile {
            path: format!("{SERVICE_ACCOUNT_FOLDER}/{name}").into(),
            content: content.as_bytes().to_vec(),
        });
        let machine = self.playground.add_agent_pod(files.collect()).await?;
        let environment = self.environment(&machine)?;
        let agent = AgentProcess::start(
            self.playground.clone(),
            machine,
            environment,
            self.log.clone(),
        );
        agent.ready(AGENT_WITHIN).await?;
        self.agents.push(agent);
        Ok(self.agents.len() - 1)
    }

    fn environment(&self, machine: &Machine) -> Result<Environment> {
        let model = self.playground.model().get();
        let pod = model
            .pod(AGENT_NAMESPACE, machine.name())
            .context("the agent's pod is gone")?;
        Ok(Environment {
            pod: pod.name.clone(),
            namespace: pod.namespace.clone(),
            pod_ips: pod.addresses.clone(),
            host_ips: model.node.addresses.clone(),
            api: api_service(&model)?,
            more: self.agent_environment.clone(),
        })
    }

    /// The machines and what is in the cluster.
    pub fn playground(&self) -> &Arc<Playground> {
        &self.playground
    }

    /// The agents, in the order in which they were added.
    pub fn agents(&self) -> &[AgentProcess] {
        &self.agents
    }

    /// The API server, to make it misbehave.
    pub fn api(&self) -> &Arc<ApiServer> {
        &self.api
    }

    /// A command on the laptop, with the developer's kubeconfig in its environment.
    pub fn laptop(&self, program: &str) -> std::process::Command {
        let mut command = self.playground.laptop().command(program);
        command.env("KUBECONFIG", KUBECONFIG);
        command.env("XDG_CONFIG_HOME", CONFIG_HOME);
        command
    }

    /// pmz itself on the laptop, as [`Self::laptop`].
    pub fn pmz(&self) -> std::process::Command {
        let mut command = self.playground.laptop().pmz();
        command.env("KUBECONFIG", KUBECONFIG);
        command.env("XDG_CONFIG_HOME", CONFIG_HOME);
        command
    }

    /// `pmz up` on the laptop. What it says goes to stderr when it fails or `talk` is set.
    pub async fn up(&self, arguments: &[&str], talk: bool) -> Result<()> {
        let mut command = Command::from(self.pmz());
        command
            .arg("up")
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if talk {
            let stderr = io::stderr().as_fd().try_clone_to_owned()?;
            command.stdout(Stdio::from(stderr));
        } else {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let output = timeout(UP_WITHIN, command.output())
            .await
            .context("`pmz up` does not end")??;
        if !output.status.success() {
            bail!(
                "`pmz up` failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Runs a command of [`Self::laptop`] or [`Self::pmz`] to its end.
    pub async fn run(&self, command: std::process::Command) -> Result<ExitStatus> {
        Ok(Command::from(command).kill_on_drop(true).status().await?)
    }

    /// Ends everything, and waits for it.
    pub async fn shutdown(mut self) {
        self.agents.clear();
        self.api.stop().await;
        if let Ok(playground) = Arc::try_unwrap(self.playground) {
            playground.shutdown().await;
        }
    }
}

/// Whoever started the playground by sudo is the laptop's user, too.
fn make_config_home() -> io::Result<()> {
    std::fs::create_dir_all(CONFIG_HOME)?;
    std::fs::set_permissions(CONFIG_HOME, Permissions::from_mode(0o1777))
}

/// Where pods find the API: the ClusterIP of `kubernetes`.
fn api_service(model: &Model) -> Result<SocketAddr> {
    let service = model
        .service("default", "kubernetes")
        .context("no service `kubernetes`")?;
    let address = service
        .cluster_ips()
        .first()
        .context("`kubernetes` has no address")?;
    let port = service.ports.first().context("`kubernetes` has no port")?;
    Ok(SocketAddr::new(*address, port.port))
}

fn start_api(playground: &Playground, store: Store, congestion: Option<&str>) -> Result<ApiServer> {
    let model = playground.model().get();
    let node = model
        .node
        .addresses
        .first()
        .context("the node has no address")?;
    let service = model
        .service("default", "kubernetes")
        .context("no service `kubernetes`")?;
    let port = service
        .ports
        .first()
        .map_or(addresses::API_PORT, |p| p.target_port);
    let advertised = SocketAddr::new(*node, port);
    let listener = playground
        .node()
        .in_netns(|| TcpListener::bind(("::", port)))?
        .with_context(|| format!("listen on port {port} of the node"))?;
    if let Some(name) = congestion {
        // Connections inherit it from the socket that accepts them.
        SockRef::from(&listener)
            .set_tcp_congestion(name.as_bytes())
            .with_context(|| format!("set the API server's congestion control to {name}"))?;
    }
    let mut addresses = model.node.addresses.clone();
    addresses.extend(service.cluster_ips());
    let identity = |name: &str| Identity {
        name: name.to_owned(),
        groups: Vec::new(),
    };
    let agent = format!("system:serviceaccount:{AGENT_NAMESPACE}:{AGENT_ACCOUNT}");
    let config = api::Config {
        advertised,
        addresses,
        users: vec![identity(DEVELOPER), identity(STRANGER)],
        service_accounts: vec![(AGENT_NAMESPACE.to_owned(), AGENT_ACCOUNT.to_owned())],
        bindings: vec![
            bind(&agent, None, &["list", "watch"], "", &["services"]),
            bind(
                &agent,
                None,
                &["list", "watch"],
                "discovery.k8s.io",
                &["endpointslices"],
            ),
            bind(
                &agent,
                None,
                &["list"],
                "networking.k8s.io",
                &["servicecidrs"],
            ),
            bind(
                DEVELOPER,
                Some(AGENT_NAMESPACE),
                &["get", "list"],
                "",
                &["pods"],
            ),
            bind(
                DEVELOPER,
                Some(AGENT_NAMESPACE),
                &["get", "create"],
                "",
                &["pods/portforward"],
            ),
            bind(
                STRANGER,
                Some(AGENT_NAMESPACE),
                &["get", "list"],
                "",
                &["pods"],
            ),
        ],
    };
    let dialer = Kubelet(Arc::downgrade(playground.machines()));
    Ok(ApiServer::start(listener, config, store, dialer)?)
}

fn bind(
    user: &str,
    namespace: Option<&str>,
    verbs: &[&str],
    group: &str,
    resources: &[&str],
) -> Binding {
    Binding {
        name: format!("{user} {}", resources.join(" ")),
        namespace: namespace.map(str::to_owned),
        users: vec![user.to_owned()],
        groups: Vec::new(),
        rules: vec![Rule::on(verbs, group, resources)],
    }
}

/// Connects to a pod's loopback, as a node's kubelet does for port-forwards.
struct Kubelet(std::sync::Weak<super::machines::Machines>);

impl PodDialer for Kubelet {
    async fn dial(&self, namespace: &str, pod: &str, port: u16) -> io::Result<TcpStream> {
        let machine = self
            .0
            .upgrade()
            .and_then(|machines| machines.pod(&format!("{namespace}/{pod}")))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the pod is gone"))?;
        let stream = tokio::task::spawn_blocking(move || {
            machine.in_netns(|| std::net::TcpStream::connect(("127.0.0.1", port)))?
        })
        .await
        .map_err(io::Error::other)??;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }
}
