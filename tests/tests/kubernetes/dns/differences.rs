//! Where pmz means to answer otherwise than CoreDNS, and why. What is not here must be the same.
//!
//! CoreDNS is asked with `pods insecure` in its Corefile, which is what kubeadm and most distributions have: names of pods
//! are made of their addresses. With `pods verified` and `pods disabled` it knows fewer of them than the specification (2.6)
//! wants, and pmz answers those all the same. With `fallthrough` for the reverse zones it hands on what it does not know;
//! here nobody is behind it. With a `ttl` of its own it answers with that; pmz's is always 5 s.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType as Type;

use super::asking::{Question, Said};

/// One way in which the two differ.
pub(crate) struct Difference {
    pub(crate) why: &'static str,
    /// Whether this is what CoreDNS says and what pmz says.
    pub(crate) is: fn(&Question, &Said, &Said) -> bool,
}

pub(crate) const DIFFERENCES: [Difference; 11] = [
    Difference {
        why: "pmz answers for `svc` and `pod` below the cluster's domain and leaves the domain itself to the cluster: they \
              are zones, with a server. CoreDNS's zone is the domain.",
        is: |question, core, pmz| {
            is_apex(question)
                && core.answers.is_empty()
                && (pmz.has_only("NS") || pmz.has_only("SOA"))
        },
    },
    Difference {
        why: "ANY gets the records of one type (RFC 8482, 4.1). CoreDNS says that there are none.",
        is: |question, core, pmz| {
            let mut kinds = ["A", "AAAA", "SRV", "PTR", "TXT", "CNAME"].into_iter();
            let one = kinds.any(|of| pmz.has_only(of));
            question.of == Type::ANY && core.answers.is_empty() && one
        },
    },
    Difference {
        why: "What has names below it is there itself, whatever is asked of it (RFC 8020): `_tcp` before a service with such \
              ports, and namespaces, which CoreDNS does not know for TXT.",
        is: |question, core, pmz| {
            let namespace = question.of == Type::TXT
                && ["svc.", "pod.", "names.svc.", "names.pod."]
                    .iter()
                    .any(|name| question.name == format!("{name}cluster.local."));
            (is_protocol(question) || namespace) && core.is_nxdomain() && pmz.is_nodata()
        },
    },
    Difference {
        why: "`dns-version` and `ns.dns` are there whatever is asked of them (RFC 2308, 2.2). CoreDNS knows them for the types \
              that they have.",
        is: |question, core, pmz| {
            let mut names = ["dns-version.", "ns.dns."].into_iter();
            names.any(|name| question.name.starts_with(name))
                && core.is_nxdomain()
                && pmz.is_nodata()
        },
    },
    Difference {
        why: "An alias is one for every type (RFC 1034, 3.6.2). CoreDNS has it for addresses and when asked for the alias.",
        is: |question, core, pmz| {
            !matches!(question.of, Type::A | Type::AAAA | Type::CNAME)
                && core.is_nodata()
                && pmz.has("CNAME")
                && pmz.rcode == ResponseCode::NoError
        },
    },
    Difference {
        why: "An alias is told also where it leads to nothing, and the code is that of where it leads (RFC 6604, 3). CoreDNS \
              leaves it out.",
        is: |_, core, pmz| core.is_nodata() && pmz.has_only("CNAME") && pmz.soa,
    },
    Difference {
        why: "An external name of digits and dots is a name (Kubernetes, \"Service\", ExternalName; the specification, 2.5). \
              CoreDNS has nothing then.",
        is: |question, core, pmz| {
            question.name.starts_with("digits.") && core.answers.is_empty() && pmz.has_only("CNAME")
        },
    },
    Difference {
        why: "Each says of its zone's name server where it is itself.",
        is: |question, core, pmz| {
            question.name.starts_with("ns.dns.")
                && core.rcode == pmz.rcode
                && (pmz.has_only("A") || pmz.has_only("AAAA") || pmz.is_nodata())
        },
    },
    Difference {
        why: "A pod's name has addresses and no ports. CoreDNS makes up a server on port 0.",
        is: |question, core, pmz| {
            question.of == Type::SRV
                && question.name.contains(".pod.")
                && core.answers.iter().all(|answer| answer.contains(" SRV 0 "))
                && pmz.is_nodata()
        },
    },
    Difference {
        why: "Reverse zones of what leads into the tunnel are pmz's: what is not there is not there. CoreDNS hands it on, \
              and nobody is behind it here.",
        is: |question, core, pmz| {
            is_reverse(question)
                && (core.rcode == ResponseCode::ServFail || core.is_nodata())
                && (pmz.is_nodata() || pmz.is_nxdomain() || pmz.has_only("PTR"))
        },
    },
    Difference {
        why: "An endpoint that is not ready counts where the service says so (the specification, 2.1), whoever has written \
              its EndpointSlice. CoreDNS relies on Kubernetes to write that it is ready.",
        is: |question, core, pmz| {
            question.name.contains("tolerant.")
                && (core.is_nxdomain() || core.is_nodata())
                && pmz.rcode == ResponseCode::NoError
        },
    },
];

fn is_reverse(question: &Question) -> bool {
    question.name.ends_with(".arpa.")
}

/// `_tcp` and the like before a service.
fn is_protocol(question: &Question) -> bool {
    let mut labels = question.name.split('.');
    let is = matches!(labels.next(), Some("_tcp" | "_udp" | "_sctp"));
    is && labels
        .next()
        .is_some_and(|service| !service.starts_with('_'))
}

fn is_apex(question: &Question) -> bool {
    matches!(
        question.name.as_str(),
        "svc.cluster.local." | "pod.cluster.local." | "96.10.in-addr.arpa."
    )
}
