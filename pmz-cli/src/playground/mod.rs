//! `pmz playground`: a small cluster and a laptop beside it, made of namespaces of this machine.
//!
//! | machine | what it has |
//! |---|---|
//! | laptop | the lan, and no route to anything else |
//! | node | the lan, a cable to each pod, and the services' rules |
//! | a pod | a cable to the node, which is its router |
//!
//! All of it hangs on this process: see [`machine`]. The pods' servers run in it, too. What is above
//! the network (the Kubernetes API's stand-in, agents, `pmz up`) is started in these machines by
//! whoever made the playground.

pub mod addresses;
pub mod api;
pub mod cluster;
mod errand;
mod kubelet;
pub mod link;
pub mod machine;
mod machines;
pub mod model;
pub mod netlink;
pub mod netns;
mod network;
pub mod nft;
pub mod servers;
mod services;
mod shell;
pub mod tour;
pub mod world;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use cluster::{AGENT_NAMESPACE, Role};
use link::{LinkEmulator, LinkSpec};
use machine::{Machine, MachineFile, MachineSpec};
use machines::Machines;
use model::{Model, PodSpec, SharedModel};
use nft::ServiceTable;

pub use machines::LAPTOP;
pub use shell::shell_command;

/// What a playground is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// The pmz binary, whose hidden commands machines need. As it is for the binary itself; a test gives
    /// the path.
    pub program: PathBuf,
    /// What the link between laptop and node is like; none: a plain cable.
    pub link: Option<LinkSpec>,
    /// Where the link's chances come from.
    pub seed: u64,
    /// What agents have in their environment beside what every pod has.
    pub agent_environment: Vec<(String, String)>,
    /// A file that agents' logs are added to, in full; none: stderr where the playground talks.
    pub agent_log: Option<PathBuf>,
    /// The kernel's name of the TCP congestion control of the API server's connections; none: the
    /// machine's default.
    pub api_congestion: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            link: None,
            seed: 0,
            agent_environment: Vec::new(),
            agent_log: None,
            api_congestion: None,
        }
    }
}

/// A running playground. Dropping it ends all of its machines.
#[derive(Debug)]
pub struct Playground {
    program: PathBuf,
    agent_hash: String,
    model: SharedModel,
    link: Option<LinkEmulator>,
    machines: Arc<Machines>,
    _services: services::ServiceProxy,
    _door: shell::Door,
}

impl Playground {
    /// Builds it all; the pods serve when this returns. Must be called in a tokio runtime, which runs the
    /// servers.
    pub async fn start(options: Options) -> Result<Self> {
        require_root()?;
        machine::raise_open_files();
        let (model, roles) = cluster::initial()?;
        let program = &options.program;
        let laptop = start_machine(program, laptop_spec()).await?;
        let node = start_machine(program, node_spec(&model)).await?;
        let link = options.link.map(|spec| (spec, options.seed));
        let link = network::join_lan(&laptop, &node, link).await?;
        let table = ServiceTable::open(node.netns(), network::node_network())?;
        let shared = SharedModel::new(model.clone());
        let machines = Arc::new(Machines::new(laptop, node));
        let playground = Self {
            program: options.program,
            agent_hash: format!("{:010x}", rand::random::<u64>() >> 24),
            _services: services::start(table, &shared)?,
            _door: shell::open(&machines)?,
            machines,
            model: shared,
            link,
        };
        let pods = model.pods.iter().zip(roles);
        futures::future::try_join_all(
            pods.map(|(pod, role)| playground.run_pod(pod, Some(role), Vec::new())),
        )
        .await?;
        Ok(playground)
    }

    /// The machine that plays the developer's laptop.
    pub fn laptop(&self) -> &Arc<Machine> {
        &self.machines.laptop
    }

    /// The cluster's node.
    pub fn node(&self) -> &Arc<Machine> {
        &self.machines.node
    }

    /// A pod's machine by its `name`, which is looked for in namespace `default` first, or by
    /// `namespace/name`.
    pub fn pod(&self, name: &str) -> Option<Arc<Machine>> {
        self.machines.pod(name)
    }

    /// The machine of that name: `laptop`, `node`, or a pod as [`Self::pod`] has it.
    pub fn machine(&self, name: &str) -> Option<Arc<Machine>> {
        self.machines.get(name)
    }

    /// All machines, by name.
    pub(in crate::playground) fn machines(&self) -> &Arc<Machines> {
        &self.machines
    }

    /// The cluster's objects. A change of them changes the services' rules at once.
    pub fn model(&self) -> &SharedModel {
        &self.model
    }

    /// The link between laptop and node, where it is an emulated one.
    pub fn link(&self) -> Option<&LinkEmulator> {
        self.link.as_ref()
    }

    /// Makes another pod for an agent, with these files (the service account's) in it. It is running and
    /// not ready: whoever starts the agent in it says so by [`Self::set_ready`], and its NodePort leads
    /// to it from then on. The pod's name is its machine's.
    pub async fn add_agent_pod(&self, files: Vec<MachineFile>) -> Result<Arc<Machine>> {
        let mut added = Err(anyhow::anyhow!("no pod was made"));
        // Its name and addresses are taken from the moment on at which they were found free.
        self.model.update(|model| {
            added = cluster::agent_pod(model, &self.agent_hash);
            if let Ok(pod) = &added {
                model.pods.push(pod.clone());
            }
        });
        let pod = added?;
        match self.run_pod(&pod, None, files).await {
            Ok(machine) => Ok(machine),
            Err(error) => {
                self.forget_pod(AGENT_NAMESPACE, &pod.name);
                Err(error)
            }
        }
    }

    /// Sets a pod's `Ready` condition.
    pub fn set_ready(&self, namespace: &str, name: &str, ready: bool) {
        self.model.update(|model| {
            for pod in &mut model.pods {
                if pod.namespace == namespace && pod.name == name {
                    pod.ready = ready;
                }
            }
        });
    }

    /// Deletes a pod and ends what runs in it.
    pub async fn remove_pod(&self, namespace: &str, name: &str) -> Result<()> {
        let Some(spec) = self.model.get().pod(namespace, name).cloned() else {
            bail!("there is no pod {name} in namespace {namespace}");
        };
        self.machines.remove_pod(namespace, name);
        network::part_pod(self.node(), &spec.addresses).await?;
        self.forget_pod(namespace, name);
        Ok(())
    }

    /// Ends all machines, and waits for it.
    pub async fn shutdown(self) {
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    async fn run_pod(
        &self,
        pod: &PodSpec,
        role: Option<Role>,
        files: Vec<MachineFile>,
    ) -> Result<Arc<Machine>> {
        let machine = start_machine(&self.program, pod_spec(pod, files)).await?;
        let running = async {
            network::join_pod(self.node(), &machine, &pod.addresses).await?;
            role.map(|role| servers::start(&machine, &pod.addresses, role))
                .transpose()
        };
        let server = running.await.with_context(|| format!("pod {}", pod.name))?;
        self.machines
            .add_pod(&pod.namespace, &pod.name, Arc::clone(&machine), server);
        Ok(machine)
    }

    fn forget_pod(&self, namespace: &str, name: &str) {
        self.model.update(|model| {
            model
                .pods
                .retain(|pod| pod.namespace != namespace || pod.name != name)
        });
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        // All of them end at the same time; each is waited for when it is dropped.
        self.machines.begin_end();
    }
}

async fn start_machine(program: &Path, spec: MachineSpec) -> Result<Arc<Machine>> {
    let program = program.to_owned();
    let started = tokio::task::spawn_blocking(move || Machine::start(&program, &spec)).await?;
    Ok(Arc::new(started?))
}

fn laptop_spec() -> MachineSpec {
    MachineSpec {
        hostname: LAPTOP.into(),
        hosts: hosts(LAPTOP, &addresses::LAPTOP),
        resolv_conf: "# There is no name server on this lan.\n".into(),
        sysctls: network::laptop_sysctls(),
        files: Vec::new(),
    }
}

fn node_spec(model: &Model) -> MachineSpec {
    MachineSpec {
        hostname: model.node.name.clone(),
        hosts: hosts(&model.node.name, &model.node.addresses),
        resolv_conf: "# There is no name server on this lan.\n".into(),
        sysctls: network::node_sysctls(),
        files: Vec::new(),
    }
}

fn pod_spec(pod: &PodSpec, files: Vec<MachineFile>) -> MachineSpec {
    let search = format!(
        "{}.svc.cluster.local svc.cluster.local cluster.local",
        pod.namespace
    );
    MachineSpec {
        hostname: pod.name.clone(),
        hosts: hosts(&pod.name, &pod.addresses),
        resolv_conf: format!("search {search}\noptions ndots:5\n"),
        sysctls: network::pod_sysctls(),
        files,
    }
}

fn hosts(name: &str, addresses: &[std::net::IpAddr]) -> String {
    let own = addresses
        .iter()
        .map(|address| format!("{address} {name}\n"));
    format!(
        "127.0.0.1 localhost\n::1 localhost\n{}",
        own.collect::<String>()
    )
}

/// Says what to do where the rights to make namespaces are missing.
fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let program = std::env::current_exe().unwrap_or_else(|_| "pmz".into());
    bail!(
        "the playground is made of network namespaces, and making them needs root. Run this, which builds nothing \
         as root and leaves nothing behind:\n\n    sudo {} playground",
        program.display()
    )
}

/// Runs the playground's hidden commands: `None` if `args`, with the program's name first, are another
/// command's. To be called first of all in `main`, while the process has one thread.
pub fn hidden_command(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    match args.next()?.to_str()? {
        machine::INIT_COMMAND => Some(machine::init_main()),
        machine::ENTER_COMMAND => Some(machine::enter_main(args)),
        errand::ERRAND_COMMAND => Some(errand::errand_main(args)),
        _ => None,
    }
}
