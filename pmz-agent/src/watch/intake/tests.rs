use serde_json::json;

use super::*;
use crate::watch::nodes::Nodes;

struct Bench {
    intake: Intake,
    builder: Builder,
}

impl Bench {
    fn new() -> Self {
        let config = WatchConfig {
            namespace: "pmz".to_owned(),
            service: "pmz-agent".to_owned(),
            tunnel_port: 51820,
            host_addresses: vec!["10.99.1.11".parse().unwrap()],
            pod_addresses: vec!["10.244.0.9".parse().unwrap()],
            ..WatchConfig::default()
        };
        Self {
            intake: Intake::new(config),
            builder: Builder::default(),
        }
    }

    fn service(&mut self, event: Event<Service>) {
        self.intake
            .apply(Change::Service(Box::new(event)), &mut self.builder);
    }

    fn slice(&mut self, event: Event<EndpointSlice>) {
        self.intake
            .apply(Change::Slice(Box::new(event)), &mut self.builder);
    }

    fn networks(&self) -> [String; 2] {
        let Networks { services, pods } = self.intake.networks();
        [services, pods].map(|network| {
            let prefixes = network.prefixes.iter().map(|net| format!(" {net}"));
            format!("{:?}{}", network.found, prefixes.collect::<String>())
        })
    }

    fn names(&mut self) -> Vec<String> {
        self.builder.commit();
        self.builder
            .snapshot()
            .services
            .into_iter()
            .map(|service| service.key.name)
            .collect()
    }
}

fn service(namespace: &str, name: &str, ip: &str) -> Service {
    serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"clusterIP": ip, "ports": [
            {"protocol": "UDP", "port": 51820, "targetPort": 51820, "nodePort": 31820},
        ]},
    }))
    .unwrap()
}

fn slice(name: &str, service: &str, pod: Option<&str>, address: &str) -> EndpointSlice {
    let target = pod.map(|pod| json!({"kind": "Pod", "name": pod}));
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "targetRef": target}],
    }))
    .unwrap()
}

#[test]
fn the_catalog_is_complete_once_both_lists_have_ended() {
    let mut bench = Bench::new();
    bench.service(Event::Init);
    bench.service(Event::InitApply(service("default", "echo", "10.96.0.7")));
    bench.service(Event::InitDone);
    assert!(!bench.intake.is_complete());
    bench.slice(Event::Init);
    bench.slice(Event::InitApply(slice(
        "echo-1",
        "echo",
        Some("echo-0"),
        "10.244.0.5",
    )));
    assert!(!bench.intake.is_complete());
    bench.slice(Event::InitDone);
    assert!(bench.intake.is_complete());
    let delta = bench.builder.commit().unwrap();
    assert_eq!(delta.upserted[0].endpoints.len(), 1);
    // A new list does not make it incomplete again.
    bench.slice(Event::Init);
    assert!(bench.intake.is_complete());
}

#[test]
fn a_new_list_removes_what_vanished_while_nobody_watched() {
    let mut bench = Bench::new();
    bench.service(Event::Init);
    for name in ["echo", "gone"] {
        bench.service(Event::InitApply(service("default", name, "10.96.0.7")));
    }
    bench.service(Event::InitDone);
    assert_eq!(bench.names(), ["echo", "gone"]);
    // Cut off in the middle, and begun again.
    bench.service(Event::Init);
    bench.service(Event::InitApply(service("default", "gone", "10.96.0.7")));
    bench.service(Event::Init);
    bench.service(Event::InitApply(service("default", "echo", "10.96.0.7")));
    assert_eq!(
        bench.names(),
        ["echo", "gone"],
        "nothing is removed before the list's end"
    );
    bench.service(Event::InitDone);
    assert_eq!(bench.names(), ["echo"]);
    bench.service(Event::Delete(service("default", "echo", "10.96.0.7")));
    assert!(bench.names().is_empty());
}

#[test]
fn candidates_follow_the_agents_own_service() {
    let mut bench = Bench::new();
    let told = |bench: &Bench| -> Vec<String> {
        bench
            .intake
            .candidates()
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    bench.service(Event::Apply(service("other", "pmz-agent", "10.96.0.9")));
    assert_eq!(told(&bench), ["10.244.0.9:51820"]);
    bench.service(Event::Apply(service("pmz", "pmz-agent", "10.96.0.9")));
    assert_eq!(told(&bench), ["10.99.1.11:31820", "10.244.0.9:51820"]);
    bench.service(Event::Init);
    bench.service(Event::InitDone);
    assert_eq!(told(&bench), ["10.244.0.9:51820"]);
}

#[test]
fn networks_are_as_configured_or_as_the_api_says_or_guessed() {
    let mut bench = Bench::new();
    bench.service(Event::Apply(service("default", "echo", "10.96.0.7")));
    bench.slice(Event::Apply(slice("a", "kubernetes", None, "10.240.0.4")));
    bench.slice(Event::Apply(slice(
        "b",
        "echo",
        Some("echo-0"),
        "10.245.0.5",
    )));
    bench.slice(Event::Apply(slice("c", "hand-made", None, "192.0.2.1")));
    assert_eq!(
        bench.networks(),
        ["Seen 10.96.0.0/16", "Seen 10.244.0.0/15"]
    );
    bench.intake.set_survey(Survey {
        services: Some(Network {
            prefixes: vec!["10.96.0.0/12".parse().unwrap()],
            found: Found::Refusal,
        }),
        nodes: Some(Nodes {
            pod_cidrs: vec!["10.245.0.0/24".parse().unwrap()],
            addresses: Vec::new(),
        }),
    });
    assert_eq!(
        bench.networks(),
        ["Refusal 10.96.0.0/12", "Nodes 10.245.0.0/24"]
    );
    bench.intake.config.service_prefixes = vec!["10.112.0.0/12".parse().unwrap()];
    bench.intake.config.pod_prefixes = vec!["10.0.0.0/9".parse().unwrap()];
    assert_eq!(
        bench.networks(),
        ["Configured 10.112.0.0/12", "Configured 10.0.0.0/9"]
    );
}

#[test]
fn an_address_in_no_network_asks_for_a_survey_and_pods_are_led_to_all_the_same() {
    let mut bench = Bench::new();
    let pod = |address| slice("a", "echo", Some("echo-0"), address);
    let survey = || Survey {
        services: None,
        nodes: Some(Nodes {
            pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()],
            addresses: Vec::new(),
        }),
    };
    bench.intake.set_survey(survey());
    bench.slice(Event::Apply(pod("10.244.0.5")));
    assert!(!bench.intake.has_strangers());
    bench.slice(Event::Apply(pod("172.20.1.5")));
    assert!(bench.intake.has_strangers());
    assert_eq!(bench.networks()[1], "Nodes 10.244.0.0/24 172.20.0.0/16");
    bench.intake.set_survey(Survey {
        services: Some(Network {
            prefixes: vec!["10.96.0.0/16".parse().unwrap()],
            found: Found::ServiceCidr,
        }),
        ..survey()
    });
    bench.service(Event::Apply(service("default", "echo", "10.96.0.7")));
    assert!(!bench.intake.has_strangers());
    bench.service(Event::Apply(service("default", "echo", "10.97.0.7")));
    assert!(bench.intake.has_strangers());
}
