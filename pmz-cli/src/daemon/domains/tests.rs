use pmz_net::catalog::{Delta, Port, Protocol, ServiceKind, Snapshot};

use super::*;

struct Bench {
    domains: Domains,
    mirror: SharedMirror,
    dir: tempfile::TempDir,
}

fn service(name: &str, address: &str) -> Service {
    let port = Port {
        name: None,
        protocol: Protocol::Tcp,
        port: 80,
    };
    Service {
        key: ServiceKey {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        },
        kind: ServiceKind::ClusterIp {
            addresses: vec![address.parse().unwrap()],
        },
        ports: vec![port],
        publish_not_ready: false,
        endpoints: Vec::new(),
    }
}

fn file(dir: &tempfile::TempDir) -> Store {
    Store::at(&dir.path().join("domains.json"))
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let domains = Domains::new(file(&dir));
    domains
        .enter("dev", "default", Some("api.example.com"))
        .await
        .unwrap();
    let mirror = SharedMirror::new();
    mirror
        .apply_snapshot(Snapshot {
            version: 1,
            services: vec![service("echo", "10.96.0.10"), service("web", "10.96.0.11")],
        })
        .unwrap();
    domains.see(&mirror, None, "k8s.example");
    Bench {
        domains,
        mirror,
        dir,
    }
}

fn wish(domain: &str, service: &str) -> AddDomain {
    AddDomain {
        domain: domain.parse().unwrap(),
        service: service.parse().unwrap(),
        namespace: None,
        port: None,
        context: None,
        force: false,
    }
}

fn forced(domain: &str, service: &str) -> AddDomain {
    AddDomain {
        force: true,
        ..wish(domain, service)
    }
}

fn addresses(told: &DomainTold) -> Vec<String> {
    let DomainTold::Done { line, .. } = told else {
        panic!("{told:?}");
    };
    let lead = line.lead.as_ref().unwrap();
    lead.addresses.iter().map(ToString::to_string).collect()
}

fn refused(told: DomainTold) -> String {
    match told {
        DomainTold::Refused { failure } => failure.to_string(),
        other => panic!("{other:?}"),
    }
}

fn answered(domains: &Domains) -> Vec<String> {
    let table = domains.shared().get();
    let names = table.domains().iter().map(|it| it.domain.to_string());
    names.collect()
}

#[tokio::test]
async fn what_is_added_is_answered_and_kept_and_what_is_removed_is_not() {
    let bench = bench().await;
    let mut changes = bench.domains.shared().subscribe();
    let told = bench.domains.add(wish("www.dns.com", "echo")).await;
    assert_eq!(addresses(&told), ["10.96.0.10"]);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(answered(&bench.domains), ["www.dns.com"]);

    let after_restart = Domains::new(file(&bench.dir));
    assert!(answered(&after_restart).is_empty());
    after_restart.enter("dev", "default", None).await.unwrap();
    assert_eq!(answered(&after_restart), ["www.dns.com"]);
    after_restart.enter("prod", "default", None).await.unwrap();
    assert!(answered(&after_restart).is_empty(), "of another context");

    let wish = RemoveDomain {
        domain: "www.dns.com".parse().unwrap(),
        context: None,
    };
    let told = bench.domains.remove(wish.clone()).await;
    assert!(matches!(
        told,
        DomainTold::Done {
            change: Change::Removed,
            ..
        }
    ));
    assert!(answered(&bench.domains).is_empty() && changes.has_changed().unwrap());
    let text = refused(bench.domains.remove(wish).await);
    assert!(text.contains("has not been added"), "{text}");
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let bench = bench().await;
    bench.domains.add(wish("www.dns.com", "echo")).await;
    let mut no_port = wish("a.test", "echo");
    no_port.port = Some("81".parse().unwrap());
    for (wish, words) in [
        (
            wish("www.dns.com", "web"),
            "leads to echo.default.svc already",
        ),
        (wish("a.test", "gone"), "no service \"gone\""),
        (no_port, "no port 81: it has 80/TCP"),
        (wish("a.k8s.example", "echo"), "k8s.example"),
        (forced("a.default.svc", "echo"), "svc"),
        (forced("api.example.com", "echo"), "API server"),
        (wish("*.com", "echo"), "--force"),
    ] {
        let text = refused(bench.domains.add(wish).await);
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(answered(&bench.domains), ["www.dns.com"]);
    assert_eq!(file(&bench.dir).read().unwrap().len(), 1);
}

#[tokio::test]
async fn force_takes_what_is_not_there_yet_and_replaces_what_is() {
    let bench = bench().await;
    let told = bench.domains.add(forced("a.test", "later")).await;
    let DomainTold::Done { change, line } = &told else {
        panic!("{told:?}");
    };
    assert_eq!(*change, Change::Added);
    assert!(
        line.problem
            .as_ref()
            .unwrap()
            .contains("no service \"later\"")
    );
    let told = bench.domains.add(forced("a.test", "echo")).await;
    assert!(
        matches!(&told, DomainTold::Done { change: Change::Replaced(_), line } if line.problem.is_none())
    );
    let told = bench.domains.add(wish("a.test", "echo")).await;
    assert!(matches!(
        &told,
        DomainTold::Done {
            change: Change::Unchanged,
            ..
        }
    ));
}

#[tokio::test]
async fn the_list_follows_a_service_that_moves_goes_and_comes_back() {
    let bench = bench().await;
    bench.domains.add(wish("www.dns.com", "echo")).await;
    let look = async || {
        let pages = bench.domains.names(None).await.unwrap();
        assert!(pages.last().unwrap().last && pages[0].connected);
        let line = pages[0].domains[0].clone();
        let addresses = line.lead.unwrap().addresses;
        (addresses.first().map(ToString::to_string), line.problem)
    };
    let echo = service("echo", "10.96.0.99");
    let step = |version, upserted, removed| {
        let delta = Delta {
            version,
            upserted,
            removed,
        };
        bench.mirror.apply_delta(delta).unwrap();
    };
    step(2, vec![echo.clone()], vec![]);
    assert_eq!(look().await, (Some("10.96.0.99".to_owned()), None));
    step(3, vec![], vec![echo.key.clone()]);
    let (address, problem) = look().await;
    assert!(address.is_none() && problem.unwrap().contains("no service"));
    step(4, vec![echo], vec![]);
    assert_eq!(look().await, (Some("10.96.0.99".to_owned()), None));
}

#[tokio::test]
async fn many_names_come_in_pages_that_fit_into_a_message() {
    let bench = bench().await;
    let long = |n: usize| format!("{n:03}{}", "x".repeat(60));
    let many: Vec<Service> = (0..1000)
        .map(|n| {
            let mut service = service(&long(n), "10.96.0.1");
            service.key.namespace = "n".repeat(63);
            service.kind = ServiceKind::Headless;
            service.endpoints = (0..100_u32)
                .map(|n| pmz_net::catalog::Endpoint {
                    address: std::net::Ipv6Addr::from_bits(u128::MAX - u128::from(n)).into(),
                    hostname: None,
                    pod: None,
                    ready: true,
                    ports: Vec::new(),
                })
                .collect();
            service
        })
        .collect();
    bench
        .mirror
        .apply_snapshot(Snapshot {
            version: 9,
            services: many,
        })
        .unwrap();
    let pages = bench.domains.names(Some("dev")).await.unwrap();
    let total: usize = pages.iter().map(|page| page.services.len()).sum();
    assert_eq!(total, 1000);
    assert_eq!(pages[0].services[0].lead.more_addresses, 84);
    for page in &pages {
        let length = serde_json::to_vec(page).unwrap().len();
        assert!(length < 1 << 20, "{length}");
    }
}

#[tokio::test]
async fn commands_for_another_context_are_sent_elsewhere() {
    let bench = bench().await;
    let mut other = wish("www.dns.com", "echo");
    other.context = Some("prod".to_owned());
    let told = bench.domains.add(other).await;
    let elsewhere = DomainTold::Elsewhere {
        context: "dev".to_owned(),
    };
    assert_eq!(told, elsewhere);
    assert_eq!(
        bench.domains.names(Some("prod")).await.unwrap_err(),
        elsewhere
    );
    assert!(file(&bench.dir).read().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_knows_no_cluster_yet_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let domains = Domains::new(file(&dir));
    let text = refused(domains.add(wish("www.dns.com", "echo")).await);
    assert!(text.contains("only starting"), "{text}");
}

#[tokio::test]
async fn before_the_services_are_known_a_domain_is_taken_unchecked() {
    let dir = tempfile::tempdir().unwrap();
    let domains = Domains::new(file(&dir));
    domains.enter("dev", "default", None).await.unwrap();
    let told = domains.add(wish("www.dns.com", "whatever")).await;
    assert!(matches!(&told, DomainTold::Done { line, .. } if line.lead.is_none()));
}

#[tokio::test]
async fn a_file_that_is_not_to_be_trusted_answers_nothing_and_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("domains.json");
    std::fs::write(&path, "{\"version\": 1, \"domains\": [7]}").unwrap();
    let domains = Domains::new(file(&dir));
    let failure = domains.enter("dev", "default", None).await.unwrap_err();
    assert!(failure.to_string().contains("line 1"), "{failure}");
    let text = refused(domains.add(wish("www.dns.com", "echo")).await);
    assert!(text.contains("line 1"), "{text}");
    assert!(answered(&domains).is_empty());
    assert!(std::fs::read_to_string(&path).unwrap().contains("[7]"));
}
