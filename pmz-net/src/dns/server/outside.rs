//! Names that may be the cluster's or the outside's: `name.namespace`, or `name`, as it was typed.

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
            Ok(Ok(outside)) if outside.metadata.response_code == ResponseCode::NXDomain => {
                Whose::Ours
            }
            // Top-level domains are there, and lead nowhere: `app` and `shop` are such.
            Ok(Ok(outside))
                if is_empty(&outside)
                    && self.zone().is_bare(name)
                    && !self.leads_outside(name, record_type, upstream).await =>
            {
                Whose::Ours
            }
            Ok(Ok(outside)) => Whose::Outside(outside),
            Ok(Err(ForwardError::Busy)) => Whose::Unknown,
            Ok(Err(_)) | Err(_) => Whose::Ours,
        }
    }

    /// Whether the outside has an address of a name, of a family other than `asked`, of which it has none: half of a name
    /// must not be the cluster's.
    async fn leads_outside(&self, name: &Name, asked: RecordType, upstream: &[SocketAddr]) -> bool {
        let families = [RecordType::A, RecordType::AAAA];
        for family in families.into_iter().filter(|family| *family != asked) {
            let said = self.forwarder.ask_for(upstream, name, family);
            if let Ok(Ok(said)) = timeout(WITHIN, said).await
                && !said.answers.is_empty()
            {
                return true;
            }
        }
        false
    }
}

/// Whether a server knows the name, and has nothing of what was asked.
fn is_empty(said: &Message) -> bool {
    said.metadata.response_code == ResponseCode::NoError && said.answers.is_empty()
}
