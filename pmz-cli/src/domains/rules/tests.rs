use pmz_net::catalog::ServiceKey;

use super::*;

fn ours() -> Ours {
    Ours {
        cluster_domain: "k8s.example".to_owned(),
        api: Some(Name::from_ascii("api.example.com").unwrap()),
    }
}

fn entry(domain: &str, service: &str, port: Option<&str>) -> Entry {
    Entry {
        domain: domain.parse().unwrap(),
        context: "dev".to_owned(),
        namespace: "default".parse().unwrap(),
        service: service.parse().unwrap(),
        port: port.map(|port| port.parse().unwrap()),
    }
}

fn service(kind: ServiceKind) -> Service {
    let port = Port {
        name: Some("http".to_owned()),
        protocol: Protocol::Tcp,
        port: 80,
    };
    Service {
        key: ServiceKey {
            namespace: "default".to_owned(),
            name: "echo".to_owned(),
        },
        kind,
        ports: vec![port],
        publish_not_ready: false,
        endpoints: Vec::new(),
    }
}

#[test]
fn names_that_are_ours_or_that_pmz_needs_are_refused_whatever_is_forced() {
    for (domain, words) in [
        ("svc", "the cluster's own"),
        ("echo.default.svc", "the cluster's own"),
        ("*.default.svc", "the cluster's own"),
        ("*.svc", "the cluster's own"),
        ("k8s.example", "k8s.example"),
        ("a.k8s.example", "k8s.example"),
        ("*.k8s.example", "k8s.example"),
        ("api.example.com", "API server"),
    ] {
        for force in [false, true] {
            let failure = check_name(&domain.parse().unwrap(), &ours(), force).unwrap_err();
            assert_eq!(failure.code, ExitCode::Usage);
            let text = failure.to_string();
            assert!(text.contains(words) && text.contains(domain), "{text}");
        }
    }
    for domain in [
        "www.dns.com",
        "xsvc.example",
        "a.svc.example",
        "cluster.local",
        "*.example.com",
        "www.api.example.com",
    ] {
        check_name(&domain.parse().unwrap(), &ours(), false).unwrap();
    }
}

#[test]
fn what_takes_a_whole_top_level_domain_is_to_be_forced() {
    for domain in ["*", "*.com", "intranet"] {
        let domain = domain.parse().unwrap();
        let text = check_name(&domain, &ours(), false).unwrap_err().to_string();
        assert!(text.contains("--force"), "{text}");
        check_name(&domain, &ours(), true).unwrap();
    }
}

#[test]
fn a_service_or_a_port_that_is_not_there_is_refused_with_what_is() {
    let cluster_ip = service(ServiceKind::ClusterIp {
        addresses: Vec::new(),
    });
    let refused = |port, service| {
        let failure = check_service(&entry("www.dns.com", "echo", port), service).unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage);
        failure.to_string()
    };
    let text = refused(None, None);
    for words in ["\"echo\"", "\"default\"", "--namespace", "--force"] {
        assert!(text.contains(words), "{text}");
    }
    let text = refused(Some("8080"), Some(&cluster_ip));
    for words in ["no port 8080", "http 80/TCP", "--force"] {
        assert!(text.contains(words), "{text}");
    }
    for port in [None, Some("80"), Some("http")] {
        check_service(&entry("www.dns.com", "echo", port), Some(&cluster_ip)).unwrap();
    }
}

#[test]
fn an_external_name_does_not_lead_back_to_its_domain() {
    let target = "www.dns.com".to_owned();
    let external = service(ServiceKind::ExternalName { target });
    for domain in ["www.dns.com", "*.dns.com"] {
        let refused = check_service(&entry(domain, "echo", None), Some(&external));
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("back to itself"), "{text}");
    }
    check_service(&entry("dns.com", "echo", None), Some(&external)).unwrap();
}

#[test]
fn the_same_again_is_unchanged_and_another_target_is_to_be_forced() {
    let mut entries = Vec::new();
    let echo = entry("www.dns.com", "echo", None);
    let web = entry("www.dns.com", "web", Some("http"));
    assert_eq!(put(&mut entries, echo.clone(), false), Ok(Change::Added));
    assert_eq!(
        put(&mut entries, echo.clone(), false),
        Ok(Change::Unchanged)
    );
    let text = put(&mut entries, web.clone(), false)
        .unwrap_err()
        .to_string();
    for words in [
        "echo.default.svc already",
        "--force",
        "web.default.svc:http",
        "pmz dns remove",
    ] {
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(entries, std::slice::from_ref(&echo));
    assert_eq!(
        put(&mut entries, web.clone(), true),
        Ok(Change::Replaced(echo.clone()))
    );
    let mut elsewhere = echo;
    elsewhere.context = "prod".to_owned();
    assert_eq!(put(&mut entries, elsewhere, false), Ok(Change::Added));
    assert_eq!(entries.len(), 2);
}

#[test]
fn what_was_added_for_another_context_is_not_removed_and_that_one_is_named() {
    let mut entries = vec![entry("www.dns.com", "echo", None)];
    let domain: Domain = "www.dns.com".parse().unwrap();
    let text = take(&mut entries, "prod", &domain).unwrap_err().to_string();
    assert!(
        text.contains("\"prod\"") && text.contains("\"dev\""),
        "{text}"
    );
    let nothing: Domain = "nothing.test".parse().unwrap();
    let text = take(&mut entries, "dev", &nothing).unwrap_err().to_string();
    assert!(text.contains("pmz dns list"), "{text}");
    take(&mut entries, "dev", &domain).unwrap();
    assert!(entries.is_empty());
}
