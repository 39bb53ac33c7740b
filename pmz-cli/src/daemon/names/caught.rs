//! Queries that eBPF programs catch.

use std::net::SocketAddr;
use std::sync::Arc;

use pmz_net::capture::{CaptureSockets, Slot, Slots};
use pmz_net::dns::{CapturedQueries, Servers};
use tokio_util::sync::DropGuard;

use super::server::{NoWay, Server};
use crate::failure::{ExitCode, Failure};
use crate::helper::{Caught, HelperClient};

const DNS_PORT: u16 = 53;

/// The programs catch queries for as long as the helper lives, or until it is told to leave them alone.
pub(super) struct Catching {
    /// A server takes copies: these are the next one's.
    sockets: CaptureSockets,
    slots: Slots,
    servers: Arc<Helper>,
    /// Ends what the last server does with them.
    serving: Option<DropGuard>,
}

impl Catching {
    /// Has the helper catch the queries of this machine's programs, and the server answer them.
    pub(super) async fn begin(server: &Server<'_>) -> Result<Self, NoWay> {
        let Caught {
            sockets,
            slots,
            knock,
        } = server.helper.catch_queries().await?;
        let mut catching = Self {
            sockets,
            slots,
            servers: Arc::new(Helper(server.helper.clone())),
            serving: None,
        };
        // Before anything is asked: what we send on would come back.
        if let Err(error) = knock.announce() {
            server.helper.release_queries().await?;
            return Err(NoWay::Impossible(error.to_string()));
        }
        if let Err(failure) = catching.serve(server) {
            server.helper.release_queries().await?;
            return Err(NoWay::Broken(failure.into()));
        }
        Ok(catching)
    }

    /// Has the server answer what is caught.
    pub(super) fn serve(&mut self, server: &Server<'_>) -> Result<(), Failure> {
        let serve = || {
            server.handle.serve_captured(CapturedQueries {
                sockets: self.sockets.try_clone()?,
                slots: self.slots,
                servers: self.servers.clone(),
            })
        };
        let serving = serve().map_err(|error| {
            Failure::new(
                ExitCode::General,
                format!("Caught DNS queries can't be served: {error}"),
                "Run `pmz up` again",
            )
        })?;
        self.serving = Some(serving);
        Ok(())
    }
}

/// It has loaded the programs, and reads their maps: a user may not, where unprivileged eBPF is turned off.
struct Helper(HelperClient);

#[async_trait::async_trait]
impl Servers for Helper {
    async fn server(&self, slot: Slot) -> Option<SocketAddr> {
        match self.0.asked_server(slot).await {
            Ok(server) => server.map(|ip| SocketAddr::new(ip, DNS_PORT)),
            Err(error) => {
                tracing::warn!(%error, "the server of a caught query is not known");
                None
            }
        }
    }
}
