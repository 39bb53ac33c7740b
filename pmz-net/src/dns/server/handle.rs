//! A server from outside: what it is told while it runs, and its end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::{Name, RecordType};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::dns::resolve::Answer;
use crate::dns::zone::Zone;

/// How long an orderly stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A running server. It stops when this is dropped.
#[derive(Debug)]
pub struct DnsHandle {
    pub(in crate::dns) shared: Arc<Shared>,
    pub(in crate::dns) stop: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

impl DnsHandle {
    /// Changes what is ours: the cluster's prefixes have become known, say.
    pub fn set_zone(&self, zone: Zone) {
        *self.shared.zone.write() = Arc::new(zone);
    }

    /// Changes who is asked for the rest: the machine has joined another network, say.
    pub fn set_upstream(&self, upstream: Vec<SocketAddr>) {
        self.shared.set_upstream(upstream);
    }

    /// The addresses of a name that is ours, as a client is told them; none where it is not.
    pub async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let Ok(name) = Name::from_ascii(name) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for record_type in [RecordType::A, RecordType::AAAA] {
            if let Answer::Records { answers, .. } = self.shared.look_up(&name, record_type).await {
                found.extend(answers.iter().filter_map(|record| record.data.ip_addr()));
            }
        }
        found
    }

    /// Whether the server still serves.
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Stops serving and closes the sockets; they are closed when this returns.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_TIMEOUT, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
        }
    }
}

impl Drop for DnsHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
