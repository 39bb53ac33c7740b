//! What pmz answers on a laptop, beside what the cluster's own CoreDNS says to the same questions.

mod asking;
mod differences;
mod questions;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use pmz_tests::eventually;
use pmz_tests::lab::{Lab, Laptop, Uses, on_cluster};

use crate::workload::make_namespace;
use asking::{Client, Question, Said};
use differences::DIFFERENCES;
use questions::questions;

/// Pods are running, and the controllers have told of them.
const SETTLED: Duration = Duration::from_secs(40);
/// CoreDNS keeps what it has said for 30 s, and what was not there yet among it.
const AGREED: Duration = Duration::from_secs(45);
/// Who ask at a time.
const ASKING: usize = 8;

#[test]
fn every_question_is_answered_as_coredns_does_but_for_what_is_listed() {
    on_cluster("as_coredns", Uses::Shared, async |lab| {
        make_namespace(lab, "names-empty").await?;
        make_namespace(lab, "names").await?;
        lab.apply(include_str!("dns/services.yaml")).await?;
        let kubeconfig = lab.developer("nell").await?;
        let laptop = lab.laptop("nell", &kubeconfig).await?;
        // Nothing is caught: both servers are asked where they are.
        laptop.up(&["--dns", "off"]).await?;
        settled(lab).await?;
        let servers = servers(lab, &laptop).await?;
        let questions = questions(lab).await?;
        let count = questions.len();
        // How often, and one example.
        let mut explained = BTreeMap::new();
        let mut differing = questions;
        let agreed = eventually("the same answers", AGREED, async || {
            let pairs = ask_both(&laptop, servers, &differing).await?;
            differing.clear();
            for (question, core, pmz) in &pairs {
                if core == pmz {
                    continue;
                }
                let Some(why) = explain(question, core, pmz) else {
                    differing.push(question.clone());
                    continue;
                };
                let example = || (0, format!("{question}: {core}, and here {pmz}"));
                explained.entry(why).or_insert_with(example).0 += 1;
            }
            Ok(differing.is_empty().then_some(()))
        });
        if agreed.await.is_err() {
            let pairs = ask_both(&laptop, servers, &differing).await?;
            let lines = pairs.iter().map(|(question, core, pmz)| {
                format!("{question}\n  CoreDNS {core}\n  pmz     {pmz}")
            });
            anyhow::bail!("{}", lines.collect::<Vec<_>>().join("\n"));
        }
        let others: usize = explained.values().map(|(times, _)| times).sum();
        eprintln!("{count} questions, {others} of them answered otherwise:");
        for (why, (times, example)) in &explained {
            eprintln!("{times} times: {why}\n  {example}");
        }
        for difference in &DIFFERENCES {
            let why = difference.why;
            ensure!(explained.contains_key(why), "they don't differ so: {why}");
        }
        Ok(())
    });
}

/// Why the two differ, where they are meant to.
fn explain(question: &Question, core: &Said, pmz: &Said) -> Option<&'static str> {
    let mut differences = DIFFERENCES.iter();
    let difference = differences.find(|it| (it.is)(question, core, pmz))?;
    Some(difference.why)
}

async fn settled(lab: &Lab) -> Result<()> {
    for pod in ["pets-0", "pets-1", "lone"] {
        lab.ready("names", pod).await?;
    }
    // One of each family of each pod; the one that is not ready is told of, too.
    for (service, wanted) in [
        ("pets", 4),
        ("web", 4),
        ("sub", 1),
        ("six-only", 1),
        ("published", 1),
        ("waiting", 1),
    ] {
        let get = format!(
            "get endpointslices -n names -l kubernetes.io/service-name={service} \
             -o jsonpath={{.items[*].endpoints[*].addresses[0]}}"
        );
        eventually(service, SETTLED, async || {
            let told = lab.ask(&get).await?.split_whitespace().count();
            Ok((told == wanted).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// CoreDNS, at its service's address, and pmz.
async fn servers(lab: &Lab, laptop: &Laptop) -> Result<[SocketAddr; 2]> {
    let core = lab
        .ask("get service kube-dns -n kube-system -o jsonpath={.spec.clusterIP}")
        .await?;
    let status = laptop.status().await?;
    let pmz = status["dns"]["server"].as_str().context("no server")?;
    let at = |address: &str| Ok::<_, anyhow::Error>(SocketAddr::new(address.parse()?, 53));
    Ok([at(&core)?, at(pmz)?])
}

async fn ask_both(
    laptop: &Laptop,
    servers: [SocketAddr; 2],
    questions: &[Question],
) -> Result<Vec<(Question, Said, Said)>> {
    let share = questions.len().div_ceil(ASKING).max(1);
    let asking = questions.chunks(share).map(async |questions| {
        let [core, pmz] = servers;
        let core = Client::of(laptop, core).await?;
        let pmz = Client::of(laptop, pmz).await?;
        let mut pairs = Vec::new();
        for question in questions {
            let (core, pmz) = (core.ask(question).await?, pmz.ask(question).await?);
            pairs.push((question.clone(), core, pmz));
        }
        Ok::<_, anyhow::Error>(pairs)
    });
    Ok(try_join_all(asking).await?.concat())
}
