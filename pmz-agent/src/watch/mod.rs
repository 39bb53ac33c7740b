//! What the agent watches in Kubernetes, once for all its clients: Services and EndpointSlices.
//!
//! The catalog comes out of them, and beside it where the agent's own UDP port can be reached and which
//! networks the cluster has. The agent's ServiceAccount must `list` and `watch` services and
//! endpointslices in all namespaces; `list` on servicecidrs and nodes is used where it is allowed, and
//! `create` on services in the agent's own namespace (for a dry run) where the first is not.

mod candidates;
mod cidrs;
mod convert;
mod intake;
mod listing;
mod nodes;
mod prefixes;

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use pmz_net::catalog::feed::Feed;
use pmz_net::session::{Network, Networks};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use intake::{Change, Intake};
use nodes::Nodes;

/// Events that are made into one delta at most.
const BATCH: usize = 512;
/// How often the networks are asked for again: a cluster can be given more of them.
const SURVEY_INTERVAL: Duration = Duration::from_secs(600);
/// How soon, where the API could not be asked.
const SURVEY_RETRY: Duration = Duration::from_secs(5);
/// How soon after the last one, where an address was seen that is in no network: a node is new, or a
/// ServiceCIDR. Doubled each time that it brings nothing new: some network plug-ins give pods other addresses
/// than the nodes say.
const SURVEY_PAUSE: Duration = Duration::from_secs(2);
/// How long the API has to answer.
const SURVEY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after a watch's last failure it is taken to be well again: longer than kube's longest pause
/// between two tries.
const QUIET: Duration = Duration::from_secs(45);

/// What the watch must be told.
#[derive(Clone, Debug, Default)]
pub struct WatchConfig {
    /// The agent's own namespace.
    pub namespace: String,
    /// The Service in it that exposes the tunnel's UDP port.
    pub service: String,
    /// The tunnel's UDP port.
    pub tunnel_port: u16,
    /// Addresses of the agent's node, at which node ports are reached.
    pub host_addresses: Vec<IpAddr>,
    /// Addresses of the agent's pod.
    pub pod_addresses: Vec<IpAddr>,
    /// More UDP candidates, put first.
    pub udp_candidates: Vec<SocketAddr>,
    /// Service networks, where the API can't be asked; guessed where empty.
    pub service_prefixes: Vec<IpNet>,
    /// Pod networks; guessed where empty.
    pub pod_prefixes: Vec<IpNet>,
}

/// What the watch yields. It ends when this is dropped.
#[derive(Debug)]
pub struct WatchHandle {
    /// The services.
    pub catalog: Feed,
    /// Where clients may try the tunnel's UDP port, best first.
    pub candidates: watch::Receiver<Vec<SocketAddr>>,
    /// The cluster's networks.
    pub networks: watch::Receiver<Networks>,
    /// Turns true once the catalog is complete and the networks have been asked for, and stays so.
    pub ready: watch::Receiver<bool>,
    /// Why a watch does not get on at present, for people; `None` while all is well. What was known
    /// goes on being served.
    pub problem: watch::Receiver<Option<String>>,
    _task: AbortOnDropHandle<()>,
}

impl WatchHandle {
    /// Waits until the catalog is complete and the networks have been asked for. Cancel-safe.
    pub async fn ready(&self) {
        // It fails only when the task has ended, which it does with this handle.
        let _ = self.ready.clone().wait_for(|ready| *ready).await;
    }
}

/// Starts watching, within the present tokio runtime. Failures are retried with growing pauses, for
/// ever, and shown in [`WatchHandle::problem`].
#[must_use]
pub fn start(client: Client, config: WatchConfig) -> WatchHandle {
    let catalog = Feed::new();
    let namespace = config.namespace.clone();
    let intake = Intake::new(config);
    let outlets = Outlets {
        candidates: watch::Sender::new(intake.candidates()),
        networks: watch::Sender::new(intake.networks()),
        ready: watch::Sender::new(false),
        problem: watch::Sender::new(None),
    };
    WatchHandle {
        candidates: outlets.candidates.subscribe(),
        networks: outlets.networks.subscribe(),
        ready: outlets.ready.subscribe(),
        problem: outlets.problem.subscribe(),
        catalog: catalog.clone(),
        _task: AbortOnDropHandle::new(tokio::spawn(run(
            client, namespace, intake, catalog, outlets,
        ))),
    }
}

struct Outlets {
    candidates: watch::Sender<Vec<SocketAddr>>,
    networks: watch::Sender<Networks>,
    ready: watch::Sender<bool>,
    problem: watch::Sender<Option<String>>,
}

async fn run(
    client: Client,
    namespace: String,
    mut intake: Intake,
    catalog: Feed,
    outlets: Outlets,
) {
    let services = watch_all::<Service>(&client)
        .map(|event| event.map(|event| Change::Service(Box::new(event))));
    let slices = watch_all::<EndpointSlice>(&client)
        .map(|event| event.map(|event| Change::Slice(Box::new(event))));
    let mut changes = pin!(stream::select(services, slices).ready_chunks(BATCH));
    let due = Notify::new();
    let mut surveys = pin!(surveys(client, namespace, &due));
    let mut problem_ends = Instant::now();
    let mut asked = false;
    loop {
        tokio::select! {
            // The watches go on for ever: they turn every failure into an item.
            Some(batch) = changes.next() => {
                if take(batch, &mut intake, &catalog, &outlets) == Outcome::Failing {
                    problem_ends = Instant::now() + QUIET;
                }
            }
            Some(survey) = surveys.next() => {
                intake.set_survey(survey);
                asked = true;
            }
            // A watch that is taken up again where it broke says nothing until something changes.
            () = sleep_until(problem_ends), if outlets.problem.borrow().is_some() => {
                tell(&outlets.problem, None);
            }
        }
        if intake.has_strangers() {
            due.notify_one();
        }
        tell(&outlets.candidates, intake.candidates());
        tell(&outlets.networks, intake.networks());
        if asked && intake.is_complete() {
            tell(&outlets.ready, true);
        }
    }
}

/// What the API says of the cluster's networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Survey {
    /// `None` where the agent may not learn it.
    services: Option<Network>,
    /// `None` where the agent may not list them.
    nodes: Option<Nodes>,
}

/// When the networks are asked for, and what came of it last.
struct Surveyor {
    client: Client,
    namespace: String,
    next: Instant,
    pause: Duration,
    last: Option<Survey>,
}

/// A survey at times, and sooner when one is `due`. It goes on for ever.
fn surveys(client: Client, namespace: String, due: &Notify) -> impl Stream<Item = Survey> {
    let surveyor = Surveyor {
        client,
        namespace,
        next: Instant::now(),
        pause: SURVEY_PAUSE,
        last: None,
    };
    stream::unfold(surveyor, move |mut surveyor| async move {
        let survey = surveyor.wait(due).await;
        Some((survey, surveyor))
    })
}

impl Surveyor {
    async fn wait(&mut self, due: &Notify) -> Survey {
        loop {
            let soon = self.next.min(Instant::now() + self.pause);
            tokio::select! {
                () = sleep_until(self.next) => {}
                () = async { due.notified().await; sleep_until(soon).await } => {}
            }
            let asked = timeout(SURVEY_TIMEOUT, survey(&self.client, &self.namespace));
            let problem = match asked.await {
                Ok(Ok(survey)) => {
                    let is_new = self.last.as_ref() != Some(&survey);
                    self.pause = if is_new {
                        SURVEY_PAUSE
                    } else {
                        (self.pause * 2).min(SURVEY_INTERVAL)
                    };
                    self.next = Instant::now() + SURVEY_INTERVAL;
                    self.last = Some(survey.clone());
                    return survey;
                }
                Ok(Err(error)) => describe(&error),
                Err(_) => format!("no answer within {} s", SURVEY_TIMEOUT.as_secs()),
            };
            tracing::warn!(problem, "the cluster's networks could not be asked for");
            self.next = Instant::now() + SURVEY_RETRY;
        }
    }
}

async fn survey(client: &Client, namespace: &str) -> Result<Survey, kube::Error> {
    Ok(Survey {
        services: cidrs::service_network(client, namespace).await?,
        nodes: nodes::nodes(client).await?,
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Well,
    Failing,
}

/// Makes one delta of a batch of events.
fn take(
    batch: Vec<Result<Change, watcher::Error>>,
    intake: &mut Intake,
    catalog: &Feed,
    outlets: &Outlets,
) -> Outcome {
    let mut problem = None;
    let mut changes = Vec::with_capacity(batch.len());
    for item in batch {
        match item {
            Ok(change) => changes.push(change),
            Err(error) => {
                tracing::warn!(%error, "watching services failed; another try follows");
                problem = Some(describe(&error));
            }
        }
    }
    catalog.update(|builder| {
        for change in changes {
            intake.apply(change, builder);
        }
        intake.is_complete()
    });
    let outcome = if problem.is_some() {
        Outcome::Failing
    } else {
        Outcome::Well
    };
    tell(&outlets.problem, problem);
    outcome
}

/// The error with its causes: kube's own messages say what was tried, not why it failed.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn watch_all<K>(client: &Client) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + use<K>
where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        // What takes most of an object's memory and says nothing to us.
        .modify(|object| {
            let metadata = object.meta_mut();
            metadata.managed_fields = None;
            metadata.annotations = None;
            metadata.owner_references = None;
        })
        .default_backoff()
}

fn tell<T: PartialEq>(outlet: &watch::Sender<T>, value: T) {
    outlet.send_if_modified(|told| {
        let changed = *told != value;
        if changed {
            *told = value;
        }
        changed
    });
}
