//! What hangs on a session on this machine: the tunnel's addresses, its routes, its names. All of it
//! follows what the agent says, also while the session goes on.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use pmz_net::catalog::SharedMirror;
use pmz_net::session::Welcome;

use super::board::Board;
use super::names::Names;
use super::options::UpOptions;
use super::run::ConnectError;
use super::status::DnsStatus;
use crate::helper::HelperClient;

/// Addresses, routes and names, as they are set up.
pub(super) struct Attachment {
    helper: HelperClient,
    mirror: SharedMirror,
    pods: bool,
    overlap: bool,
    state: tokio::sync::Mutex<State>,
    shown: parking_lot::Mutex<Shown>,
}

#[derive(Default)]
struct State {
    addresses: Vec<IpAddr>,
    routes: Vec<IpNet>,
    names: Names,
    /// What all this was set up for.
    settled: Option<Arc<Welcome>>,
    /// What could not be followed: it is not tried again, and told once.
    refused: Option<Arc<Welcome>>,
}

/// What `status` tells of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) routes: Vec<IpNet>,
    pub(super) dns: Option<DnsStatus>,
}

impl Attachment {
    /// Nothing but the device with its `addresses`.
    pub(super) fn new(
        helper: HelperClient,
        mirror: SharedMirror,
        options: &UpOptions,
        addresses: Vec<IpAddr>,
    ) -> Self {
        let state = State {
            addresses,
            ..State::default()
        };
        Self {
            helper,
            mirror,
            pods: options.pods,
            overlap: options.overlap,
            state: tokio::sync::Mutex::new(state),
            shown: parking_lot::Mutex::default(),
        }
    }

    pub(super) fn shown(&self) -> Shown {
        self.shown.lock().clone()
    }

    /// Sets everything up for that welcome, where it is not, and shows the steps.
    ///
    /// # Errors
    /// Where the helper refuses, or the agent's words make no sense.
    pub(super) async fn settle(
        &self,
        welcome: &Arc<Welcome>,
        board: &Board,
    ) -> Result<(), ConnectError> {
        let mut state = self.state.lock().await;
        if state.settled.as_ref() == Some(welcome) {
            return Ok(());
        }
        board.step("setting routes");
        self.lead(&mut state, welcome).await?;
        board.done(list(&state.routes));
        board.step("answering names");
        self.name(&mut state, welcome).await?;
        board.done(welcome.cluster_domain.clone());
        state.settled = Some(welcome.clone());
        Ok(())
    }

    /// Follows what has changed while the session goes on. Where that fails, what was stays, and the log
    /// says why.
    pub(super) async fn follow(&self, welcome: &Arc<Welcome>) {
        let mut state = self.state.lock().await;
        if [&state.settled, &state.refused].contains(&&Some(welcome.clone())) {
            return;
        }
        let followed = async {
            self.lead(&mut state, welcome).await?;
            self.name(&mut state, welcome).await
        };
        match followed.await {
            Ok(()) => {
                tracing::info!(routes = %list(&state.routes), "the cluster's networks have changed");
                state.settled = Some(welcome.clone());
            }
            Err(error) => {
                tracing::warn!(failure = %error.failure, "the cluster's networks have changed, and can't be followed");
                state.refused = Some(welcome.clone());
            }
        }
    }

    async fn lead(&self, state: &mut State, welcome: &Welcome) -> Result<(), ConnectError> {
        if state.addresses != welcome.addresses {
            self.helper.set_addresses(&welcome.addresses).await?;
            state.addresses.clone_from(&welcome.addresses);
        }
        let mut wanted = welcome.networks.services.prefixes.clone();
        if self.pods {
            wanted.extend(&welcome.networks.pods.prefixes);
        }
        let (gone, new) = difference(&state.routes, &wanted);
        // The new ones first: a wider prefix that takes a narrower one's place leaves no gap.
        if !new.is_empty() {
            self.helper.add_routes(&new, self.overlap).await?;
        }
        if !gone.is_empty() {
            self.helper.remove_routes(&gone).await?;
        }
        state.routes = wanted;
        self.shown.lock().routes.clone_from(&state.routes);
        Ok(())
    }

    async fn name(&self, state: &mut State, welcome: &Welcome) -> Result<(), ConnectError> {
        let mut reverse = welcome.networks.services.prefixes.clone();
        reverse.extend(&welcome.networks.pods.prefixes);
        let names = &mut state.names;
        names
            .serve(&self.helper, &self.mirror, welcome, reverse)
            .await?;
        self.shown.lock().dns = names.address().map(|server| DnsStatus {
            how: "resolv.conf".to_owned(),
            server,
            domain: names.domain.clone(),
        });
        Ok(())
    }
}

fn difference(had: &[IpNet], wanted: &[IpNet]) -> (Vec<IpNet>, Vec<IpNet>) {
    let without = |all: &[IpNet], these: &[IpNet]| {
        all.iter()
            .filter(|net| !these.contains(net))
            .copied()
            .collect()
    };
    (without(had, wanted), without(wanted, had))
}

fn list(prefixes: &[IpNet]) -> String {
    prefixes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
