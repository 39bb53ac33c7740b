//! The machines of a playground, by name.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::cluster::NODE_NAME;
use super::machine::Machine;
use super::servers::Server;

/// Name of the machine that plays the laptop.
pub const LAPTOP: &str = "laptop";
/// Where the developer's kubeconfig lies on the laptop.
pub const KUBECONFIG: &str = "/run/playground/kubeconfig";
/// The laptop's folder for what users configure: what they do there is none of the real user's wishes.
pub const CONFIG_HOME: &str = "/run/playground/config";
/// What the node may be called for short.
pub(super) const NODE: &str = "node";

/// Kubernetes namespace and name.
type PodName = (String, String);

#[derive(Debug)]
struct RunningPod {
    // Before the machine: its sockets keep the machine's network namespace alive.
    _server: Option<Server>,
    machine: Arc<Machine>,
}

/// The machines of a playground.
#[derive(Debug)]
pub(super) struct Machines {
    pub(super) laptop: Arc<Machine>,
    pub(super) node: Arc<Machine>,
    pods: Mutex<HashMap<PodName, RunningPod>>,
}

impl Machines {
    pub(super) fn new(laptop: Arc<Machine>, node: Arc<Machine>) -> Self {
        Self {
            laptop,
            node,
            pods: Mutex::default(),
        }
    }

    pub(super) fn add_pod(
        &self,
        namespace: &str,
        name: &str,
        machine: Arc<Machine>,
        server: Option<Server>,
    ) {
        let running = RunningPod {
            _server: server,
            machine,
        };
        self.pods
            .lock()
            .insert((namespace.to_owned(), name.to_owned()), running);
    }

    /// Forgets a pod, and ends what runs in it even if others still hold its machine.
    pub(super) fn remove_pod(&self, namespace: &str, name: &str) {
        let running = self
            .pods
            .lock()
            .remove(&(namespace.to_owned(), name.to_owned()));
        if let Some(pod) = running {
            pod.machine.begin_end();
        }
    }

    /// A pod by `name`, first of all in namespace `default`, or by `namespace/name`.
    pub(super) fn pod(&self, name: &str) -> Option<Arc<Machine>> {
        let (namespace, name) = match name.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, name),
        };
        let pods = self.pods.lock();
        let exact = (namespace.unwrap_or("default").to_owned(), name.to_owned());
        let found = pods.get(&exact).or_else(|| {
            let by_name = pods.iter().find(|((_, of_pod), _)| of_pod == name);
            by_name.filter(|_| namespace.is_none()).map(|(_, pod)| pod)
        });
        found.map(|pod| Arc::clone(&pod.machine))
    }

    /// The laptop, the node or a pod.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Machine>> {
        match name {
            LAPTOP => Some(Arc::clone(&self.laptop)),
            NODE | NODE_NAME => Some(Arc::clone(&self.node)),
            _ => self.pod(name),
        }
    }

    /// What can be asked for by [`Self::get`].
    pub(super) fn names(&self) -> Vec<String> {
        let pods = self.pods.lock();
        let mut pods: Vec<_> = pods.keys().map(|(_, name)| name.clone()).collect();
        pods.sort();
        let mut names = vec![LAPTOP.to_owned(), NODE.to_owned()];
        names.extend(pods);
        names
    }

    /// Tells all of them to end, without waiting.
    pub(super) fn begin_end(&self) {
        for pod in self.pods.lock().values() {
            pod.machine.begin_end();
        }
        self.laptop.begin_end();
        self.node.begin_end();
    }
}
