//! `pmz dns`: domains that lead to services, a file per verb.

mod add;
mod list;
mod remove;

use std::io;
use std::process::ExitCode as Code;
use std::time::Duration;

use clap::{Args, Subcommand};
use pmz_net::dns::Name;

use super::status::{ask, silent};
use super::{Global, runtime};
use crate::daemon::{Ask, DomainTold, Tell, launch, process};
use crate::domains::{Ours, Store, USUAL_CLUSTER_DOMAIN};
use crate::environment::Environment;
use crate::failure::{ExitCode, Failure};

/// The daemon waits for its kubeconfig, then for the file's lock.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// Verbs of domains.
#[derive(Debug, Args)]
pub(super) struct DnsArgs {
    /// Namespace of the service, instead of the context's; of `list`: only this one's names
    // Of the same id as the agent's namespace of all other verbs, whose place it takes.
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    #[command(subcommand)]
    verb: DnsVerb,
}

#[derive(Debug, Subcommand)]
enum DnsVerb {
    /// Lead a domain to a service of the cluster
    ///
    /// A domain belongs to the context of the kubeconfig that pmz is connected to, or that --context names. It is kept,
    /// and works whenever pmz is connected to that context. It follows its service; while there is none, the domain has
    /// no address.
    Add(add::AddArgs),
    /// Lead a domain nowhere any more: the rest of the world's answer counts again
    Remove(remove::RemoveArgs),
    /// Show domains that were added, then the cluster's services, and where each leads
    List(list::ListArgs),
}

pub(super) fn run(global: &Global, args: &DnsArgs) -> Result<Code, Failure> {
    become_caller()?;
    match &args.verb {
        DnsVerb::Add(add) => add::run(global, args.namespace.as_deref(), add),
        DnsVerb::Remove(remove) => remove::run(global, remove),
        DnsVerb::List(list) => list::run(global, args.namespace.as_deref(), list),
    }
}

/// Behind sudo, the user's file and kubeconfig are meant, as with `pmz up`.
fn become_caller() -> Result<(), Failure> {
    let Some(caller) = launch::caller() else {
        return Ok(());
    };
    let environment = Environment::behind_sudo();
    process::become_user(caller, environment.as_ref()).map_err(|error| {
        Failure::new(
            ExitCode::Permission,
            format!("The user behind sudo can't be become: {error}"),
            "Run it as that user, without sudo",
        )
    })
}

/// The context that is meant by name; none where it is the one that pmz is connected to. A kubeconfig that is named means
/// its current one.
fn named_context(global: &Global) -> Result<Option<String>, Failure> {
    if global.context.is_some() || global.kubeconfig.is_none() {
        return Ok(global.context.clone());
    }
    let loaded = runtime()?.block_on(global.target().load())?;
    Ok(Some(loaded.context))
}

/// Where a command goes that no daemon takes.
struct Kept {
    store: Store,
    context: String,
    /// The context's namespace.
    namespace: String,
    ours: Ours,
    /// What to say of it.
    why: String,
}

/// What comes of asking the daemon.
enum Asked {
    /// It has answered.
    Told(Vec<Tell>),
    /// There is none, or it is connected elsewhere.
    Nobody(Kept),
}

/// Asks the daemon, if one is there that is connected to the context that is meant.
fn ask_daemon(global: &Global, what: &Ask) -> Result<Asked, Failure> {
    runtime()?.block_on(async {
        let why = match super::daemon().await? {
            Some(mut client) => {
                let asked = tokio::time::timeout(ANSWER_WITHIN, answers(&mut client, what));
                let told = asked.await.unwrap_or_else(|_| Err(silent()))?;
                match told.as_slice() {
                    [Tell::Domain(DomainTold::Elsewhere { context })] => {
                        format!("pmz is connected to context {context:?}")
                    }
                    _ => return Ok(Asked::Told(told)),
                }
            }
            None => "pmz is not running".to_owned(),
        };
        let loaded = global.target().load().await?;
        let api = loaded.config.cluster_url.host().map(str::to_owned);
        Ok(Asked::Nobody(Kept {
            store: Store::of_user(),
            context: loaded.context,
            namespace: loaded.config.default_namespace,
            ours: Ours {
                cluster_domain: USUAL_CLUSTER_DOMAIN.to_owned(),
                api: api.and_then(|host| Name::from_ascii(host).ok()),
            },
            why,
        }))
    })
}

/// All that the daemon answers.
async fn answers(
    client: &mut crate::daemon::ControlClient,
    what: &Ask,
) -> Result<Vec<Tell>, Failure> {
    let ended = || super::broken(&io::Error::from(io::ErrorKind::UnexpectedEof));
    let mut told = vec![ask(client, what).await?.ok_or_else(ended)?];
    while let Some(Tell::Names(page)) = told.last()
        && !page.last
    {
        let next = client.next().await.map_err(|error| super::broken(&error))?;
        told.push(next.ok_or_else(ended)?);
    }
    Ok(told)
}

/// What the daemon says to a change of one domain.
fn done(told: Vec<Tell>) -> Result<(crate::domains::Change, crate::domains::DomainLine), Failure> {
    match told.into_iter().next() {
        Some(Tell::Domain(DomainTold::Done { change, line })) => Ok((change, *line)),
        Some(Tell::Domain(DomainTold::Refused { failure })) => Err(failure),
        Some(
            Tell::Domain(DomainTold::Elsewhere { .. })
            | Tell::Status(_)
            | Tell::Traffic(_)
            | Tell::Names(_)
            | Tell::View(_),
        )
        | None => Err(silent()),
    }
}

/// A domain as it is given on the command line.
fn domain(text: &str) -> Result<pmz_net::dns::Domain, Failure> {
    text.parse().map_err(|error| {
        Failure::new(
            ExitCode::Usage,
            format!("{text:?} can't be a domain: {error}"),
            "Give a name such as `www.dns.com`, or a wildcard such as `*.shop.test`",
        )
    })
}
