//! Connections to an agent's control port, through the API server.

use std::future::Future;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::cluster::{AgentPod, Cluster, ClusterError, PortStream, SocketTuner, Target};
use crate::helper::HelperClient;
use crate::session::{Dial, Dialed};

/// The helper, for sockets whose congestion control a user may not choose.
pub struct HelperTuner(pub HelperClient);

impl SocketTuner for HelperTuner {
    fn set_congestion<'a>(
        &'a self,
        socket: BorrowedFd<'a>,
        algorithm: &'static str,
    ) -> BoxFuture<'a, ()> {
        async move {
            if let Err(error) = self.0.set_congestion(socket, algorithm).await {
                tracing::debug!(%error, "no {algorithm} for the API server's sockets");
            }
        }
        .boxed()
    }
}

/// Dials agents of one cluster.
pub struct ClusterDial {
    target: Target,
    tuner: Option<Arc<dyn SocketTuner>>,
    cluster: Mutex<Cluster>,
}

impl ClusterDial {
    /// Reads the kubeconfig and gets the credentials.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn open(
        target: Target,
        tuner: Option<Arc<dyn SocketTuner>>,
    ) -> Result<Self, ClusterError> {
        let cluster = Mutex::new(Cluster::open(&target, tuner.clone()).await?);
        Ok(Self {
            target,
            tuner,
            cluster,
        })
    }

    /// The cluster, with the credentials of now.
    pub fn cluster(&self) -> Cluster {
        self.cluster.lock().clone()
    }

    /// Connects to the agent's pod of that name, or to the newest that is ready; where one can't be
    /// reached, to the next.
    ///
    /// # Errors
    /// That of the first agent tried; see [`ClusterError`].
    pub async fn connect(
        &self,
        agent: Option<&str>,
    ) -> Result<(PortStream, AgentPod), ClusterError> {
        match self.try_connect(agent).await {
            // Credentials that have run out may have been renewed in the kubeconfig.
            Err(ClusterError::Unauthorized { .. }) => {
                let renewed = Cluster::open(&self.target, self.tuner.clone()).await?;
                *self.cluster.lock() = renewed;
                self.try_connect(agent).await
            }
            result => result,
        }
    }

    async fn try_connect(
        &self,
        agent: Option<&str>,
    ) -> Result<(PortStream, AgentPod), ClusterError> {
        let cluster = self.cluster();
        let agents = match agent {
            Some(name) => vec![AgentPod {
                namespace: cluster.namespace().to_owned(),
                name: name.to_owned(),
                uid: String::new(),
                node: None,
            }],
            None => cluster.find_agents().await?,
        };
        let mut first_error = None;
        for agent in agents {
            match cluster.port_forward(&agent).dial().await {
                Ok(stream) => return Ok((stream, agent)),
                // It is refused for one pod as for another.
                Err(error @ ClusterError::Forbidden { .. }) => return Err(error),
                Err(error) => {
                    tracing::info!(agent = agent.name, %error, "not this agent");
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| ClusterError::NoAgent {
            namespace: cluster.namespace().to_owned(),
        }))
    }
}

impl Dial for ClusterDial {
    fn dial<'a>(
        &'a self,
        agent: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = anyhow::Result<Dialed>> + Send + 'a>> {
        Box::pin(async move {
            let (stream, agent) = self.connect(agent).await?;
            Ok(Dialed {
                io: Box::new(stream),
                agent: agent.name,
            })
        })
    }
}
