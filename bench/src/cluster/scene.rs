//! What all rows share: a cluster with an agent, and one pod of servers behind a Service.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::cluster::AGENT_SELECTOR;
use pmz_cli::playground::netns::NetNs;
use pmz_tests::lab::{Cluster, Foreign, Lab, Programs};
use pmz_tests::{eventually, run};
use tokio::task::block_in_place;

use super::host::{Host, Pod};
use super::image;
use super::laptop::{Here, Laptop};
use super::load::Reach;
use super::server::{ECHO, RESET, SHORT};
use crate::kube::Kube;
use crate::processes::Processes;

/// The pod's name, and its Service's. The Service has the pod's ports.
pub(super) const SERVERS: &str = "servers";
/// A pod beside it, where the node itself is out of reach.
const CLIENT: &str = "client";
/// nginx.
pub(super) const HTTP: u16 = 8080;
pub(super) const IPERF3: u16 = 5201;

/// Of the namespace that is made for the servers.
const LABEL: &str = "app.kubernetes.io/managed-by: pmz-bench";
/// `pmz status`, where there is no daemon.
const NOT_RUNNING: i32 = pmz_cli::failure::ExitCode::NotRunning as i32;

/// All ports.
pub(super) fn ports() -> impl Iterator<Item = u16> {
    [ECHO, RESET, HTTP, IPERF3].into_iter().chain(SHORT)
}

/// Controllers and kube-proxy have heard of the pod by then.
const SERVED: Duration = Duration::from_secs(30);

/// A cluster that is ready to be measured. It goes with this value.
pub(super) struct Scene {
    place: Place,
    pub(super) programs: Programs,
    /// Of the servers.
    pub(super) namespace: String,
    /// Of the Service.
    pub(super) cluster_ip: IpAddr,
}

/// Where the cluster is, and where from it is measured.
enum Place {
    /// On this machine, booted for this run; from laptops on its lan.
    Lab {
        lab: Lab,
        /// Of the node, which runs it all.
        node: NetNs,
        /// For laptops: what `pmz up` needs, and `kubectl port-forward` to the pod.
        kubeconfig: String,
    },
    /// Wherever it is; from where this runs.
    Foreign {
        cluster: Foreign,
        kubeconfig: PathBuf,
        here: NetNs,
    },
}

impl Place {
    /// Boots it. Blocks for ten to twenty seconds.
    fn booted(folder: &Path, programs: &Programs) -> Result<Lab> {
        let lab = Lab::of(folder, &std::env::current_exe()?, programs)?;
        let archive = lab.scratch().join("load.tar");
        image::write(&archive, &image::default_name()?, programs)?;
        lab.load_image(&archive)?;
        std::fs::remove_file(archive)?;
        Ok(lab)
    }

    async fn foreign(kubeconfig: &Path, agent_image: Option<&str>) -> Result<Self> {
        let kubeconfig = std::path::absolute(kubeconfig)?;
        let program = std::env::current_exe()?;
        let mut status = Command::new(&program);
        status.arg("status");
        let status = run(status).await?;
        ensure!(
            status.code == Some(NOT_RUNNING),
            "pmz connects this machine already; `pmz down` ends that: {}{}",
            status.stdout,
            status.stderr
        );
        let namespace = format!("pmz-bench-{}", std::process::id());
        let cluster = block_in_place(|| {
            let beside = servers_of(&namespace);
            let beside = [beside.as_str()];
            Foreign::of(
                &kubeconfig,
                namespace.clone(),
                &beside,
                program,
                agent_image,
            )
        })?;
        Ok(Self::Foreign {
            cluster,
            kubeconfig,
            here: NetNs::current()?,
        })
    }

    fn cluster(&self) -> &Cluster {
        match self {
            Self::Lab { lab, .. } => lab,
            Self::Foreign { cluster, .. } => cluster,
        }
    }
}

/// The namespace of the servers of an agent in that one, which is for what needs no privilege.
fn servers_of(agent: &str) -> String {
    format!("{agent}-load")
}

impl Scene {
    /// Boots the cluster, or connects to it; puts agent and servers into it.
    ///
    /// # Errors
    /// Where there are no programs to load it with, or something does not come up.
    pub(super) async fn new(kube: Kube<'_>) -> Result<Self> {
        let programs = Programs::from_env()?;
        let (place, image) = match kube {
            Kube::Booted(folder) => {
                let lab = block_in_place(|| Place::booted(folder, &programs))?;
                let place = Place::Lab {
                    node: lab.node_netns(1)?,
                    kubeconfig: lab.developer("bench").await?,
                    lab,
                };
                (place, image::default_name()?.to_string())
            }
            Kube::Foreign {
                kubeconfig,
                image,
                agent_image,
            } => {
                let place = Place::foreign(kubeconfig, agent_image).await?;
                (place, image.to_owned())
            }
        };
        let cluster = place.cluster();
        let namespace = servers_of(cluster.namespace());
        cluster.apply(&of_namespace(&namespace)).await?;
        let account = format!("get serviceaccount default -n {namespace}");
        let made = async || Ok(cluster.ask(&account).await.is_ok().then_some(()));
        eventually("a service account", SERVED, made).await?;
        let fill = |text: &str| {
            text.replace("NAMESPACE", &namespace)
                .replace("IMAGE", &image)
        };
        cluster.apply(&fill(include_str!("pod.yaml"))).await?;
        cluster.ready(&namespace, SERVERS).await?;
        if let Place::Foreign { .. } = place {
            cluster.apply(&fill(include_str!("client.yaml"))).await?;
            cluster.ready(&namespace, CLIENT).await?;
        }
        let get = format!("get service {SERVERS} -n {namespace} -o jsonpath={{.spec.clusterIP}}");
        let scene = Self {
            cluster_ip: cluster.ask(&get).await?.parse().context("no ClusterIP")?,
            namespace,
            programs,
            place,
        };
        served(&scene.inside(), scene.cluster_ip).await?;
        Ok(scene)
    }

    /// Where clients are inside: on the node that all of it runs on, or in a pod beside the servers.
    pub(super) fn inside(&self) -> Host {
        match &self.place {
            Place::Lab { node, .. } => self.host(node),
            Place::Foreign {
                kubeconfig, here, ..
            } => Host::Pod(Pod {
                kubeconfig: kubeconfig.clone(),
                namespace: self.namespace.clone(),
                name: CLIENT,
                netns: here.clone(),
            }),
        }
    }

    /// Clients in a network namespace of this machine.
    pub(super) fn host(&self, netns: &NetNs) -> Host {
        Host::Here {
            netns: netns.clone(),
            programs: self.programs.clone(),
        }
    }

    /// A developer's machine: one of its own, or this one.
    ///
    /// # Errors
    /// Where it can't be made.
    pub(super) async fn laptop(&self, hostname: &str) -> Result<Laptop> {
        match &self.place {
            Place::Lab {
                lab, kubeconfig, ..
            } => Ok(Laptop::OnLan(lab.laptop(hostname, kubeconfig).await?)),
            Place::Foreign {
                cluster,
                kubeconfig,
                here,
            } => Ok(Laptop::Here(Here {
                program: std::env::current_exe()?,
                kubeconfig: kubeconfig.clone(),
                namespace: cluster.namespace().to_owned(),
                netns: here.clone(),
            })),
        }
    }

    /// The cluster, for its administrator.
    pub(super) fn cluster(&self) -> &Cluster {
        self.place.cluster()
    }

    /// kubectl, as the cluster's administrator.
    pub(super) fn kubectl(&self) -> Command {
        self.place.cluster().kubectl()
    }

    /// A folder for files that go with this value.
    pub(super) fn scratch(&self) -> &Path {
        match &self.place {
            Place::Lab { lab, .. } => lab.scratch(),
            Place::Foreign { cluster, .. } => cluster.scratch(),
        }
    }

    /// The cluster, and where from it is measured, for a reader.
    ///
    /// # Errors
    /// Where it doesn't tell.
    pub(super) async fn description(&self) -> Result<String> {
        let versions = "get nodes -o jsonpath={.items[*].status.nodeInfo.kubeletVersion}";
        let versions = self.place.cluster().ask(versions).await?;
        let version = versions.split_whitespace().next().unwrap_or_default();
        let count = match versions.split_whitespace().count() {
            1 => "one node".to_owned(),
            count => format!("{count} nodes"),
        };
        let from = match &self.place {
            Place::Lab { .. } => "from laptops on the lan of its node, which is this machine",
            Place::Foreign { .. } => {
                "from this machine; \"inside\" is a pod on the node of the servers"
            }
        };
        Ok(format!("Kubernetes {version}, {count}; {from}"))
    }

    /// The agent's process.
    ///
    /// # Errors
    /// Where there is none on this machine.
    pub(super) async fn agent(&self) -> Result<Processes> {
        let cluster = self.place.cluster();
        let id = "{.items[0].status.containerStatuses[0].containerID}";
        let namespace = cluster.namespace();
        let get = format!("get pods -n {namespace} -l {AGENT_SELECTOR} -o jsonpath={id}");
        let id = cluster.ask(&get).await?;
        let (_, id) = id.split_once("://").context("the agent has no container")?;
        Processes::of_container(id)
    }

    /// Takes away what was made. Blocks.
    ///
    /// # Errors
    /// Where something stays.
    pub(super) fn end(self) -> Result<()> {
        match self.place {
            Place::Lab { .. } => Ok(()),
            Place::Foreign { cluster, .. } => cluster.end(),
        }
    }
}

/// iperf3's server has a capability that clusters may refuse to namespaces that don't ask for it.
fn of_namespace(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata:
  name: {name}
  labels: {{{LABEL}, pod-security.kubernetes.io/enforce: privileged}}
"
    )
}

/// Waits until each of the ports is connected to.
pub(super) async fn served(from: &Host, at: IpAddr) -> Result<()> {
    let reach = Reach(ports().map(|port| SocketAddr::new(at, port)).collect());
    let mut last = None;
    let connected = async || match from.run(&reach).await {
        Ok(()) => Ok(Some(())),
        Err(error) => {
            last = Some(error);
            Ok(None)
        }
    };
    let found = eventually("all servers are connected to", SERVED, connected).await;
    found.with_context(|| last.map(|error| format!("{error:#}")).unwrap_or_default())
}
