//! What the mirror does not hold below the cluster's domain.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use super::Shared;
use crate::catalog::MirrorState;
use crate::dns::cluster;
use crate::dns::reply::Reply;
use crate::dns::translate::translate;

impl Shared {
    /// What is below the cluster's domain, and nobody can be asked for.
    pub(super) fn unknown(&self) -> Reply {
        let view = self.mirror.read();
        if view.state == MirrorState::Stale || !cluster::servers(&view.mirror).is_empty() {
            return Reply::error(ResponseCode::ServFail);
        }
        let zone = self.zone.read();
        Reply {
            authorities: vec![zone.soa(&zone.domain, view.mirror.version())],
            ..Reply::ours(ResponseCode::NXDomain)
        }
    }

    /// What the cluster's own name server says, where there is one and the tunnel stands.
    pub(super) async fn ask_cluster(
        &self,
        name: &Name,
        record_type: RecordType,
    ) -> Option<Message> {
        let zone = self.zone();
        let mut servers = {
            let view = self.mirror.read();
            if view.state == MirrorState::Stale {
                return None;
            }
            cluster::servers(&view.mirror)
        };
        if let Some(by) = &zone.translate {
            let real: Vec<IpAddr> = servers.iter().map(SocketAddr::ip).collect();
            let used = by.used(&real).await.into_iter();
            servers = servers
                .iter()
                .zip(used)
                .filter_map(|(server, used)| Some(SocketAddr::new(used?, server.port())))
                .collect();
        }
        if servers.is_empty() {
            return None;
        }
        let mut answer = match self.cluster.ask(&servers, name, record_type).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, %name, "the cluster was asked for a name");
                return None;
            }
        };
        if let Some(by) = &zone.translate {
            let Message {
                answers,
                additionals,
                ..
            } = &mut answer;
            if !translate(by.as_ref(), answers, additionals).await {
                return None;
            }
        }
        Some(answer)
    }
}
