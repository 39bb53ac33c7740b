//! The domains that the user added, in the daemon: what is answered of them, and the commands that change them.

mod message;

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use pmz_net::catalog::{MirrorState, Service, ServiceKey, SharedMirror};
use pmz_net::dns::{CustomDomain, DomainTable, Name, SharedDomains, Translate};
use tokio::sync::watch;
use tokio::time::timeout;

use super::steering::Steering;
use crate::domains::{
    Change, DomainLine, Entry, Lead, NamesPage, Ours, ServiceLine, Store, USUAL_CLUSTER_DOMAIN,
    check_name, check_service, put, take,
};
use crate::failure::{ExitCode, Failure};
use message::pages;
pub use message::{AddDomain, DomainTold, RemoveDomain};

/// The kubeconfig is read first of all; a credential plugin may take longer.
const KNOWN_WITHIN: Duration = Duration::from_secs(3);

/// The cluster that the daemon is connected to.
#[derive(Clone, Debug)]
struct Place {
    context: String,
    /// The context's namespace.
    namespace: String,
    ours: Ours,
}

/// What is known of the cluster's services.
#[derive(Clone, Debug)]
struct Seen {
    mirror: SharedMirror,
    steering: Option<Weak<Steering>>,
}

/// The domains; clones are the same ones.
#[derive(Clone, Debug)]
pub struct Domains {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    shared: SharedDomains,
    place: watch::Sender<Option<Place>>,
    seen: Mutex<Option<Seen>>,
    /// Those of the present context.
    entries: Mutex<Vec<Entry>>,
    /// Held from the change of the file to that of the answers, so that both come in one order.
    changing: tokio::sync::Mutex<()>,
}

impl Domains {
    /// Those of that file. None is answered before [`Domains::enter`].
    pub fn new(store: Store) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                shared: SharedDomains::default(),
                place: watch::Sender::new(None),
                seen: Mutex::default(),
                entries: Mutex::default(),
                changing: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// For the name server.
    pub(super) fn shared(&self) -> SharedDomains {
        self.inner.shared.clone()
    }

    /// How many are answered.
    pub(super) fn count(&self) -> u64 {
        self.inner.shared.get().domains().len() as u64
    }

    /// The daemon connects to that context, with this namespace and this host of its API server: its domains are
    /// answered from now on.
    ///
    /// # Errors
    /// Where they can't be read. None is answered then.
    pub async fn enter(
        &self,
        context: &str,
        namespace: &str,
        api_host: Option<&str>,
    ) -> Result<(), Failure> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let api = api_host.and_then(|host| Name::from_ascii(host).ok());
        let place = Place {
            context: context.to_owned(),
            namespace: namespace.to_owned(),
            ours: Ours {
                cluster_domain: USUAL_CLUSTER_DOMAIN.to_owned(),
                api,
            },
        };
        self.inner.place.send_replace(Some(place.clone()));
        let read = self.with_store(|store| Ok(store.read()?)).await;
        let (all, result) = match read {
            Ok(all) => (all, Ok(())),
            Err(failure) => (Vec::new(), Err(failure)),
        };
        self.answer(&place, all);
        result
    }

    /// Services and addresses are known from here on.
    pub(super) fn look_into(
        &self,
        mirror: &SharedMirror,
        steering: Option<&Arc<Steering>>,
        cluster_domain: &str,
    ) {
        self.see(mirror, steering.map(Arc::downgrade), cluster_domain);
    }

    fn see(&self, mirror: &SharedMirror, steering: Option<Weak<Steering>>, cluster_domain: &str) {
        *self.inner.seen.lock() = Some(Seen {
            mirror: mirror.clone(),
            steering,
        });
        self.inner.place.send_modify(|place| {
            if let Some(place) = place {
                cluster_domain.clone_into(&mut place.ours.cluster_domain);
            }
        });
    }

    /// Adds a domain, or says why not.
    pub(super) async fn add(&self, wish: AddDomain) -> DomainTold {
        told(self.try_add(wish).await)
    }

    /// Removes a domain, or says why not.
    pub(super) async fn remove(&self, wish: RemoveDomain) -> DomainTold {
        told(self.try_remove(wish).await)
    }

    /// All names, in pages. None of a context that is not the daemon's.
    pub(super) async fn names(&self, context: Option<&str>) -> Result<Vec<NamesPage>, DomainTold> {
        let place = match self.place(context).await {
            Ok(Ok(place)) => place,
            Ok(Err(elsewhere)) => return Err(elsewhere),
            Err(failure) => return Err(DomainTold::Refused { failure }),
        };
        let entries = self.inner.entries.lock().clone();
        let domains: Vec<DomainLine> = entries.into_iter().map(|it| self.line(it)).collect();
        let (services, connected) = self.services();
        Ok(pages(&place.context, connected, domains, services))
    }

    async fn try_add(&self, wish: AddDomain) -> Result<DomainTold, Failure> {
        let place = match self.place(wish.context.as_deref()).await? {
            Ok(place) => place,
            Err(elsewhere) => return Ok(elsewhere),
        };
        let namespace = match wish.namespace {
            Some(namespace) => namespace,
            None => place.namespace.parse().map_err(|error| {
                let cause = format!("The context's namespace can't be used: {error}");
                Failure::new(ExitCode::Usage, cause, "Name one by `--namespace`")
            })?,
        };
        let force = wish.force;
        check_name(&wish.domain, &place.ours, force)?;
        let entry = Entry {
            domain: wish.domain,
            context: place.context.clone(),
            namespace,
            service: wish.service,
            port: wish.port,
        };
        if let Some(service) = self.service(&entry)
            && !force
        {
            check_service(&entry, service.as_deref())?;
        }
        let _one_at_a_time = self.inner.changing.lock().await;
        let added = entry.clone();
        let changed = self.with_store(move |store| {
            store.change(|entries| Ok((put(entries, added, force)?, entries.clone())))
        });
        let (change, all) = changed.await?;
        self.answer(&place, all);
        let line = Box::new(self.used_line(entry).await);
        Ok(DomainTold::Done { change, line })
    }

    async fn try_remove(&self, wish: RemoveDomain) -> Result<DomainTold, Failure> {
        let place = match self.place(wish.context.as_deref()).await? {
            Ok(place) => place,
            Err(elsewhere) => return Ok(elsewhere),
        };
        let _one_at_a_time = self.inner.changing.lock().await;
        let context = place.context.clone();
        let changed = self.with_store(move |store| {
            store.change(|entries| {
                let taken = take(entries, &context, &wish.domain)?;
                Ok((taken, entries.clone()))
            })
        });
        let (taken, all) = changed.await?;
        self.answer(&place, all);
        Ok(DomainTold::Done {
            change: Change::Removed,
            line: Box::new(DomainLine::unknown(taken)),
        })
    }

    /// The daemon's cluster, once it is known, if it is the one that is meant.
    async fn place(&self, context: Option<&str>) -> Result<Result<Place, DomainTold>, Failure> {
        let mut known = self.inner.place.subscribe();
        let place = match timeout(KNOWN_WITHIN, known.wait_for(Option::is_some)).await {
            Ok(Ok(place)) => (*place).clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let Some(place) = place else {
            return Err(Failure::new(
                ExitCode::Unreachable,
                "pmz is only starting, and does not know its cluster yet",
                "Try again; `pmz status` shows what it waits for",
            ));
        };
        match context {
            Some(context) if context != place.context => Ok(Err(DomainTold::Elsewhere {
                context: place.context,
            })),
            Some(_) | None => Ok(Ok(place)),
        }
    }

    /// Answers those of all domains that are the present context's.
    fn answer(&self, place: &Place, mut all: Vec<Entry>) {
        all.retain(|entry| entry.context == place.context);
        all.sort_by(|a, b| a.domain.cmp(&b.domain));
        let answered: Vec<CustomDomain> = all
            .iter()
            .filter(|entry| check_name(&entry.domain, &place.ours, true).is_ok())
            .map(CustomDomain::from)
            .collect();
        let never = place.ours.api.clone().into_iter().collect();
        *self.inner.entries.lock() = all;
        self.inner.shared.set(DomainTable::new(answered, never));
    }

    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = self.inner.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|error| {
            Err(Failure::new(
                ExitCode::General,
                format!("The list of domains could not be changed: {error}"),
                "Try again",
            ))
        })
    }

    /// The entry's service, if there is one; `None` while the services are not known.
    fn service(&self, entry: &Entry) -> Option<Option<Arc<Service>>> {
        let seen = self.inner.seen.lock().clone()?;
        let view = seen.mirror.read();
        let found = || {
            view.mirror
                .service(entry.namespace.as_str(), entry.service.as_str())
        };
        view.mirror.is_filled().then(|| found().cloned())
    }

    fn line(&self, entry: Entry) -> DomainLine {
        let place = self.inner.place.borrow().clone();
        if let Some(place) = place
            && let Err(failure) = check_name(&entry.domain, &place.ours, true)
        {
            let mut line = DomainLine::unknown(entry);
            line.problem = Some(failure.cause);
            return line;
        }
        match self.service(&entry) {
            Some(service) => DomainLine::of(entry, service.as_deref(), self.peek()),
            None => DomainLine::unknown(entry),
        }
    }

    /// As [`Domains::line`], with virtual addresses that are handed out if they are not yet, as for any name.
    async fn used_line(&self, entry: Entry) -> DomainLine {
        let line = self.line(entry.clone());
        let steering = self
            .inner
            .seen
            .lock()
            .as_ref()
            .and_then(|it| it.steering.clone());
        let real = line.lead.as_ref().map(|lead| &lead.cluster_addresses);
        match (real, steering.and_then(|it| it.upgrade())) {
            (Some(real), Some(steering)) if !real.is_empty() => {
                steering.used(real).await;
                self.line(entry)
            }
            (Some(_), _) | (None, _) => line,
        }
    }

    /// What the machine uses for an address, as far as that is decided.
    fn peek(&self) -> impl Fn(IpAddr) -> Option<IpAddr> + use<> {
        let steering = self
            .inner
            .seen
            .lock()
            .as_ref()
            .and_then(|it| it.steering.clone());
        let steering = steering.and_then(|it| it.upgrade());
        move |real| match &steering {
            Some(steering) => steering.peek(real),
            None => Some(real),
        }
    }

    /// The cluster's services by name, and whether that holds now.
    fn services(&self) -> (Vec<ServiceLine>, bool) {
        let Some(seen) = self.inner.seen.lock().clone() else {
            return (Vec::new(), false);
        };
        let (mut services, fresh) = {
            let view = seen.mirror.read();
            let services: Vec<Arc<Service>> = view.mirror.services().cloned().collect();
            (services, view.state == MirrorState::Fresh)
        };
        services.sort_by(|a, b| a.key.cmp(&b.key));
        let peek = self.peek();
        let lines = services.iter().map(|service| {
            let ServiceKey { namespace, name } = service.key.clone();
            ServiceLine {
                name: format!("{name}.{namespace}.svc"),
                namespace,
                service: name,
                lead: Lead::of(service, &peek),
            }
        });
        (lines.collect(), fresh)
    }
}

fn told(result: Result<DomainTold, Failure>) -> DomainTold {
    result.unwrap_or_else(|failure| DomainTold::Refused { failure })
}

#[cfg(test)]
mod tests;
