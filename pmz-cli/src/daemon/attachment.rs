//! What hangs on a session on this machine: the tunnel's addresses, its routes, its names. All of it
//! follows what the agent says, also while the session goes on.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use pmz_net::catalog::SharedMirror;
use pmz_net::route::{Found, Plan, Wishes};
use pmz_net::session::Welcome;

use super::board::Board;
use super::names::Names;
use super::run::ConnectError;
use super::status::DnsStatus;
use super::wants::Wants;
use crate::failure::unroutable::in_use;
use crate::failure::{ExitCode, Failure};
use crate::helper::HelperClient;

/// Addresses, routes and names, as they are set up.
pub(super) struct Attachment {
    helper: HelperClient,
    mirror: SharedMirror,
    wants: Wants,
    state: tokio::sync::Mutex<State>,
    shown: parking_lot::Mutex<Shown>,
}

#[derive(Default)]
struct State {
    addresses: Vec<IpAddr>,
    /// All addresses that the API server was found at.
    api: Vec<IpAddr>,
    /// What was planned last, and for which wishes.
    planned: Option<(Wishes, Plan)>,
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
    /// Nothing yet.
    pub(super) fn new(helper: HelperClient, mirror: SharedMirror, wants: Wants) -> Self {
        Self {
            helper,
            mirror,
            wants,
            state: tokio::sync::Mutex::default(),
            shown: parking_lot::Mutex::default(),
        }
    }

    /// Finds out whether all of it can be set up for that welcome, and what is in the way of some of it.
    /// Changes nothing.
    ///
    /// # Errors
    /// Where something is in the way, or the agent's words make no sense.
    pub(super) async fn check(&self, welcome: &Welcome) -> Result<Found, ConnectError> {
        let mut state = self.state.lock().await;
        Ok(self.plan(&mut state, welcome).await?.clashes)
    }

    /// The device has these addresses.
    pub(super) async fn opened(&self, addresses: Vec<IpAddr>) {
        self.state.lock().await.addresses = addresses;
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
        let plan = self.plan(state, welcome).await?;
        for clash in &plan.clashes.told {
            tracing::warn!(%clash, "addresses overlap");
        }
        let routes = plan.routes();
        let (gone, new) = difference(&state.routes, &routes);
        // The new ones first: a wider prefix that takes a narrower one's place leaves no gap.
        if !new.is_empty() {
            self.helper.add_routes(&new, self.wants.claim()).await?;
        }
        if !gone.is_empty() {
            self.helper.remove_routes(&gone).await?;
        }
        state.routes = routes;
        self.shown.lock().routes.clone_from(&state.routes);
        Ok(())
    }

    async fn plan(&self, state: &mut State, welcome: &Welcome) -> Result<Plan, ConnectError> {
        for address in self.wants.api_addresses().await {
            if !state.api.contains(&address) {
                state.api.push(address);
            }
        }
        let wishes = self.wants.wishes(&welcome.networks, &state.api)?;
        if wishes.wanted.is_empty() {
            return Ok(Plan::default());
        }
        let mut ask = wishes.clone();
        if let Some((before, plan)) = &state.planned {
            // What is routed stays, whatever has come up beside it since.
            if *before == wishes {
                return Ok(plan.clone());
            }
            // Programs hold virtual addresses.
            ask.pool.v4 = ask.pool.v4.or(plan.pool.v4);
            ask.pool.v6 = ask.pool.v6.or(plan.pool.v6);
        }
        let plan = self.helper.plan(ask).await?;
        can_be_carried_out(&plan)?;
        state.planned = Some((wishes, plan.clone()));
        Ok(plan)
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

/// Whether this build can do all that is planned: it routes prefixes as they are, and no virtual addresses.
fn can_be_carried_out(plan: &Plan) -> Result<(), Failure> {
    if plan.remapped.is_empty() {
        return Ok(());
    }
    if plan.clashes.told.iter().any(|clash| clash.is_general()) {
        return Err(in_use(&plan.clashes));
    }
    Err(Failure::new(
        ExitCode::Usage,
        "The cluster's addresses can only be used as they are, not by virtual ones",
        "Run `pmz up` without `--overlap remap`: nothing on this machine collides with them",
    ))
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

/// So many as fit on a line or two; `status` has them all.
fn list(prefixes: &[IpNet]) -> String {
    let told = prefixes.iter().take(8).map(ToString::to_string);
    let mut list = told.collect::<Vec<_>>().join(", ");
    if let Some(others @ 1..) = prefixes.len().checked_sub(8) {
        list.push_str(&format!(" and {others} more"));
    }
    list
}

#[cfg(test)]
mod tests;
