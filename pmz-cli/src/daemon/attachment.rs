//! What hangs on a session on this machine: the tunnel's addresses, its routes, its names. All of it
//! follows what the agent says, also while the session goes on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use pmz_net::catalog::SharedMirror;
use pmz_net::dns::{SharedDomains, Translate};
use pmz_net::route::{Found, Kind, Plan, Wishes, outermost};
use pmz_net::session::Welcome;
use pmz_net::steer::{PrefixKind, SteeredPrefix};

use super::board::Board;
use super::choices::EbpfChoice;
use super::connect_error::ConnectError;
use super::diverting::Diverting;
use super::lookup::NoAddress;
use super::names::{NameWants, Names};
use super::status::DnsStatus;
use super::steering::Steering;
use super::wants::Wants;
use crate::failure::unroutable::without_programs;
use crate::failure::{ExitCode, Failure};
use crate::helper::{Claim, HelperClient};

/// Addresses, routes and names, as they are set up.
pub(super) struct Attachment {
    helper: HelperClient,
    mirror: SharedMirror,
    wants: Wants,
    name_wants: NameWants,
    diverting: Arc<Diverting>,
    state: tokio::sync::Mutex<State>,
    shown: parking_lot::Mutex<Shown>,
}

#[derive(Default)]
struct State {
    addresses: Vec<IpAddr>,
    /// While eBPF programs steer.
    steering: Option<Arc<Steering>>,
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
    /// Prefixes of the cluster that have virtual addresses here, and where those are from.
    pub(super) remapped: Vec<IpNet>,
    pub(super) pool: Vec<IpNet>,
}

impl Attachment {
    /// Nothing yet.
    pub(super) fn new(
        helper: HelperClient,
        mirror: SharedMirror,
        wants: Wants,
        name_wants: NameWants,
    ) -> Self {
        Self {
            diverting: Arc::new(Diverting::new(helper.clone())),
            helper,
            mirror,
            wants,
            name_wants,
            state: tokio::sync::Mutex::default(),
            shown: parking_lot::Mutex::default(),
        }
    }

    /// Answers these domains, too.
    pub(super) fn with_domains(mut self, domains: SharedDomains) -> Self {
        self.state.get_mut().names.set_domains(domains);
        self
    }

    /// Finds out whether all of it can be set up for that welcome, and what is in the way of some of it.
    /// Changes nothing.
    ///
    /// # Errors
    /// Where something is in the way, or the agent's words make no sense.
    pub(super) async fn check(&self, welcome: &Welcome) -> Result<Found, ConnectError> {
        let mut state = self.state.lock().await;
        let plan = self.plan(&mut state, welcome).await?;
        if self.wants.ebpf == EbpfChoice::Off {
            can_do_without_programs(&plan)?;
        }
        Ok(plan.clashes)
    }

    /// The device has these addresses, and is steered by these programs, if any.
    pub(super) async fn opened(&self, addresses: Vec<IpAddr>, steering: Option<Arc<Steering>>) {
        let mut state = self.state.lock().await;
        state.addresses = addresses;
        state.steering = steering;
    }

    /// See [`Names::look_up`].
    pub(super) async fn look_up(
        &self,
        name: &str,
        within: Duration,
    ) -> Result<Vec<IpAddr>, NoAddress> {
        self.state.lock().await.names.look_up(name, within).await
    }

    /// See [`Names::take_another_way`]. Tells which.
    ///
    /// # Errors
    /// See there.
    pub(super) async fn take_another_way(&self, why: &str) -> Result<String, ConnectError> {
        let mut state = self.state.lock().await;
        let names = &mut state.names;
        let taken = names.take_another_way(&self.helper, why).await;
        let shown = names.shown();
        let way = shown.as_ref().map(DnsStatus::way).unwrap_or_default();
        self.shown.lock().dns = shown;
        taken.map(|()| way)
    }

    pub(super) fn shown(&self) -> Shown {
        self.shown.lock().clone()
    }

    /// What keeps packets diverted that would go elsewhere.
    pub(super) fn diverting(&self) -> &Arc<Diverting> {
        &self.diverting
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
        let way = state.names.shown().map(|dns| dns.way());
        board.done(format!(
            "{} {}",
            welcome.cluster_domain,
            way.unwrap_or_default()
        ));
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
        let pool = plan.pool.nets();
        match &state.steering {
            Some(steering) => {
                let remapped = plan.remapped.iter().map(|wanted| wanted.net).collect();
                let steered = steered(&plan, &pool, self.wants.excluded());
                steering.lead(steered, remapped, &pool).await?;
            }
            None => can_do_without_programs(&plan)?,
        }
        let mut routes = outermost(plan.routes().into_iter().chain(plan.diverted_routes()));
        routes.extend(&pool);
        let (gone, new) = difference(&state.routes, &routes);
        let (virtual_ones, new): (Vec<IpNet>, Vec<IpNet>) =
            new.into_iter().partition(|net| pool.contains(net));
        // The new ones first: a wider prefix that takes a narrower one's place leaves no gap.
        for (prefixes, claim) in [
            (new, self.wants.claim(&plan)),
            // Nobody uses them, but they may lie in what leads elsewhere, such as all private addresses.
            (virtual_ones, Claim::Overlapping),
        ] {
            if !prefixes.is_empty() {
                self.helper.add_routes(&prefixes, claim).await?;
            }
        }
        if !gone.is_empty() {
            self.helper.remove_routes(&gone).await?;
        }
        state.routes = routes;
        let watched = self.wants.watched(&plan);
        let places = watched.map(|prefixes| (prefixes, plan.devices.clone()));
        self.diverting.lead(places).await?;
        let mut shown = self.shown.lock();
        shown.routes.clone_from(&state.routes);
        shown.remapped = plan.remapped.iter().map(|wanted| wanted.net).collect();
        shown.pool = pool;
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
        state.planned = Some((wishes, plan.clone()));
        Ok(plan)
    }

    async fn name(&self, state: &mut State, welcome: &Welcome) -> Result<(), ConnectError> {
        let mut reverse = welcome.networks.services.prefixes.clone();
        reverse.extend(&welcome.networks.pods.prefixes);
        if let Some((_, plan)) = &state.planned {
            // What is remapped is somebody else's, whose names are not ours to answer.
            reverse.retain(|net| !plan.remapped.iter().any(|wanted| wanted.net.contains(net)));
            reverse.extend(plan.pool.nets());
        }
        let steering = state.steering.clone();
        let translate = steering.map(|steering| steering as Arc<dyn Translate>);
        let names = &mut state.names;
        names
            .serve(
                &self.helper,
                &self.mirror,
                &self.name_wants,
                welcome,
                reverse,
                translate,
            )
            .await?;
        self.shown.lock().dns = names.shown();
        Ok(())
    }
}

/// What the programs are to let through: what is routed, and virtual addresses, which are as good as services' own:
/// one that nobody has is refused.
fn steered(plan: &Plan, pool: &[IpNet], excluded: &[IpNet]) -> Vec<SteeredPrefix> {
    let services = plan.unchanged().filter(|it| it.kind == Kind::Services);
    let services = services.map(|it| it.net).chain(pool.iter().copied());
    let others = plan.unchanged().map(|it| it.net);
    let all = services
        .map(|net| (net, PrefixKind::Services))
        .chain(others.map(|net| (net, PrefixKind::Other)))
        .chain(excluded.iter().map(|net| (*net, PrefixKind::Excluded)));
    let mut steered: Vec<SteeredPrefix> = Vec::new();
    for (net, kind) in all {
        let prefix = net.trunc();
        if !steered.iter().any(|known| known.prefix == prefix) {
            steered.push(SteeredPrefix { prefix, kind });
        }
    }
    steered
}

/// Virtual addresses need the eBPF programs.
fn can_do_without_programs(plan: &Plan) -> Result<(), Failure> {
    if !plan.diverted.is_empty() {
        return Err(Failure::new(
            ExitCode::General,
            format!(
                "Packets to the cluster go elsewhere on this machine ({}), and to take them over there needs pmz's eBPF \
                 programs, which are not loaded",
                plan.clashes
            ),
            "`pmz up --ebpf require` tells why they are not; or run `pmz up --steer route`",
        ));
    }
    if plan.remapped.is_empty() {
        return Ok(());
    }
    if plan.clashes.told.iter().any(|clash| clash.is_general()) {
        return Err(without_programs(&plan.clashes));
    }
    Err(Failure::new(
        ExitCode::Usage,
        "Virtual addresses need pmz's eBPF programs, and they are not loaded",
        "Run `pmz up` without `--overlap remap`: nothing on this machine collides with the cluster's addresses. \
         `pmz up --ebpf require` tells why they are not",
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
