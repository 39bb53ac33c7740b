//! What is asked: names of services and of what is below them, and others that are not there.

use anyhow::Result;
use hickory_proto::rr::{Name, RecordType};
use pmz_tests::lab::Lab;

use super::asking::Question;

const TYPES: [RecordType; 11] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::PTR,
    RecordType::CNAME,
    RecordType::TXT,
    RecordType::NS,
    RecordType::SOA,
    RecordType::MX,
    RecordType::ANY,
    RecordType::HTTPS,
];

/// The services of `services.yaml`.
const SERVICES: [&str; 24] = [
    "web",
    "unnamed",
    "four",
    "six",
    "idle",
    "node",
    "half",
    "pets",
    "sub",
    "portless",
    "six-only",
    "waiting",
    "published",
    "nobody",
    "manual",
    "rolling",
    "tolerant",
    "outside",
    "inside",
    "inside-four",
    "twice",
    "absent",
    "digits",
    "nope",
];

/// Below `names.svc.cluster.local`.
const BELOW: [&str; 44] = [
    "_http._tcp.web",
    "_https._tcp.web",
    "_http3._udp.web",
    "_http._udp.web",
    "_http3._tcp.web",
    "_http._icmp.web",
    "http.tcp.web",
    "_._tcp.unnamed",
    "_81._tcp.unnamed",
    "_http._tcp.four",
    "_http._tcp.six",
    "_http._tcp.idle",
    "_dns._udp.idle",
    "_http._tcp.node",
    "_pg._tcp.pets",
    "_metrics._tcp.pets",
    "_gossip._udp.pets",
    "_pg._udp.pets",
    "_._tcp.sub",
    "_pg._tcp.six-only",
    "_pg._tcp.waiting",
    "_pg._tcp.published",
    "_pg._tcp.nobody",
    "_pg._tcp.manual",
    "_pg._tcp.rolling",
    "_new._tcp.rolling",
    "_pg._tcp.tolerant",
    "_http._tcp.outside",
    "_http._tcp.inside",
    "pets-0.pets",
    "pets-1.pets",
    "pets-7.pets",
    "pets-0.web",
    "hermit.sub",
    "lone.sub",
    "m-0.manual",
    "m-1.manual",
    "192-0-2-10.manual",
    "192-0-2-11.manual",
    "192-0-2-12.manual",
    "t-0.tolerant",
    "*",
    "a.b.c.web",
    "a.b.c.d.web",
];

/// Elsewhere below the cluster's domain; its apex and the apexes of pmz's zones among them.
const ELSEWHERE: [&str; 24] = [
    "",
    "svc.",
    "pod.",
    "nope.",
    "dns.",
    "ns.dns.",
    "dns-version.",
    "x.dns-version.",
    "names.svc.",
    "names-empty.svc.",
    "nope.svc.",
    "names.pod.",
    "names-empty.pod.",
    "nope.pod.",
    "web.names.",
    "web.nope.svc.",
    "web.svc.names.",
    "10-244-0-77.names.pod.",
    "10-244-0-77.names-empty.pod.",
    "10-244-0-77.nope.pod.",
    "10-244-0-256.names.pod.",
    "fd00-10-244--77.names.pod.",
    "pets-0.names.pod.",
    "a.10-244-0-77.names.pod.",
];

/// Reverse names of no service.
const REVERSE: [&str; 3] = [
    "254.255.96.10.in-addr.arpa.",
    "255.96.10.in-addr.arpa.",
    "96.10.in-addr.arpa.",
];

/// All of them, of every type.
pub(crate) async fn questions(lab: &Lab) -> Result<Vec<Question>> {
    let mut names = Vec::new();
    for service in SERVICES {
        let service = format!("{service}.names.svc.cluster.local.");
        for label in ["_tcp", "_udp", "_sctp", "_nope._tcp", "nope"] {
            names.push(format!("{label}.{service}"));
        }
        names.push(service);
    }
    names.extend(BELOW.map(|name| format!("{name}.names.svc.cluster.local.")));
    names.extend(ELSEWHERE.map(|name| format!("{name}cluster.local.")));
    names.extend(REVERSE.map(str::to_owned));
    names.extend(of_addresses(lab).await?);
    let of_every_type = |name: &String| {
        let of = |of: &RecordType| Question {
            name: name.clone(),
            of: *of,
        };
        TYPES.iter().map(of).collect::<Vec<_>>()
    };
    Ok(names.iter().flat_map(of_every_type).collect())
}

/// The reverse names of ClusterIPs and pods, and the names that pods have by their addresses.
async fn of_addresses(lab: &Lab) -> Result<Vec<String>> {
    let services = lab
        .ask("get services -n names -o jsonpath={.items[*].spec.clusterIPs[*]}")
        .await?;
    let pods = lab
        .ask("get pods -n names -o jsonpath={.items[*].status.podIPs[*].ip}")
        .await?;
    let mut names = Vec::new();
    for address in services.split_whitespace().filter(|it| *it != "None") {
        names.push(Name::from(address.parse::<std::net::IpAddr>()?).to_ascii());
    }
    for address in pods.split_whitespace() {
        names.push(Name::from(address.parse::<std::net::IpAddr>()?).to_ascii());
        let dashed = address.replace(['.', ':'], "-");
        for service in [
            "web",
            "pets",
            "waiting",
            "published",
            "six-only",
            "portless",
        ] {
            names.push(format!("{dashed}.{service}.names.svc.cluster.local."));
        }
        names.push(format!("{dashed}.names.pod.cluster.local."));
    }
    Ok(names)
}
