//! Names that may be the cluster's or the outside's: `name.namespace`, as it was typed.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::time::timeout;

use super::Shared;
use crate::dns::Answer;
use crate::dns::forward::ForwardError;

/// How long the outside may take. A machine that has no network is to find its services all the same.
const WITHIN: Duration = Duration::from_secs(2);

/// Whose a name is.
pub(in crate::dns) enum Whose {
    /// Ours, as far as there is such a name.
    Ours,
    /// The outside's, which says this.
    Outside(Message),
    /// Nobody has looked: it is to be asked of the outside like any other.
    Unknown,
}

impl Shared {
    /// Whose a name is that `query` asks for. A namespace called `dev` must not swallow a domain: where a name could
    /// be either's, the outside, which is `upstream`, has the first word.
    pub(in crate::dns) async fn whose(
        &self,
        name: &Name,
        record_type: RecordType,
        upstream: &[SocketAddr],
        query: &[u8],
    ) -> Whose {
        if !self.zone().is_short(name) {
            return Whose::Ours;
        }
        if self.look_up(name, record_type).await == Answer::NotOurs {
            return Whose::Unknown;
        }
        match timeout(WITHIN, self.forwarder.ask(upstream, query)).await {
            Ok(Ok(outside)) if outside.metadata.response_code != ResponseCode::NXDomain => {
                Whose::Outside(outside)
            }
            Ok(Err(ForwardError::Busy)) => Whose::Unknown,
            Ok(Ok(_) | Err(_)) | Err(_) => Whose::Ours,
        }
    }
}
