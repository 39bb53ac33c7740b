//! `pmz agent status` for people.

use std::fmt::Write;

use super::Style;
use crate::deploy::{AgentReport, Exposure, PodReport};

/// The report as lines of name and value, pods in a line each.
pub fn text(report: &AgentReport, style: Style) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{} {value}", style.dim(format!("{name:<10}")));
    };
    row("Namespace", report.namespace.clone());
    if let Some(replicas) = report.replicas {
        let count = format!("{} of {} ready", replicas.ready, replicas.wanted);
        let count = if replicas.ready >= replicas.wanted {
            style.good(count)
        } else {
            style.warn(count)
        };
        let old = replicas.wanted - replicas.updated;
        let rest = if old > 0 {
            format!(", {old} to be updated")
        } else {
            String::new()
        };
        row("Replicas", format!("{count}{rest}"));
    }
    for pod in &report.pods {
        row("Pod", self::pod(pod, style));
    }
    if let Some(exposure) = &report.exposure {
        row("UDP", self::exposure(exposure));
    }
    if let Some(problem) = &report.problem {
        row("Problem", style.bad(problem));
    }
    if let Some(warning) = &report.last_warning {
        let at = warning
            .at
            .as_ref()
            .map(|at| format!(", {at}"))
            .unwrap_or_default();
        let message = warning
            .message
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        row(
            "Last event",
            format!("{}: {message} ({}{at})", warning.about, warning.reason),
        );
    }
    if !report.unseen.is_empty() {
        row(
            "Not seen",
            format!("{}: you may not list them", report.unseen.join(", ")),
        );
    }
    text
}

fn pod(pod: &PodReport, style: Style) -> String {
    let state = match &pod.state {
        None => style.good("ready"),
        Some(state) => style.warn(state),
    };
    let mut line = format!("{} {state}", pod.name);
    if let Some(node) = &pod.node {
        line.push_str(&format!(" on {node}"));
    }
    line.push_str(&format!(", {}", pod.image));
    if let Some(version) = &pod.version {
        line.push_str(&format!(", version {version}"));
    }
    match pod.restarts {
        0 => {}
        1 => line.push_str(", restarted once"),
        n => line.push_str(&format!(", restarted {n} times")),
    }
    line
}

fn exposure(exposure: &Exposure) -> String {
    if exposure.kind == "none" {
        return "not exposed: through the API server only".to_owned();
    }
    let mut line = exposure.kind.clone();
    if let Some(port) = exposure.node_port {
        line.push_str(&format!(", port {port} of the agents' nodes"));
    }
    if !exposure.addresses.is_empty() {
        line.push_str(&format!(", {}", exposure.addresses.join(", ")));
    } else if exposure.kind == "LoadBalancer" {
        line.push_str(", no address yet");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::{Replicas, Warning};

    fn report() -> AgentReport {
        AgentReport {
            namespace: "pmz".to_owned(),
            replicas: Some(Replicas {
                wanted: 2,
                ready: 1,
                updated: 1,
            }),
            pods: vec![PodReport {
                name: "pmz-agent-a".to_owned(),
                ready: false,
                state: Some("ImagePullBackOff".to_owned()),
                node: Some("node1".to_owned()),
                image: "a/b:c".to_owned(),
                version: Some("0.1.0".to_owned()),
                restarts: 2,
            }],
            exposure: Some(Exposure {
                kind: "NodePort".to_owned(),
                node_port: Some(30002),
                addresses: Vec::new(),
            }),
            problem: None,
            last_warning: Some(Warning {
                about: "Pod pmz-agent-a".to_owned(),
                reason: "Failed".to_owned(),
                message: "no\nsuch image".to_owned(),
                at: None,
            }),
            unseen: vec!["events".to_owned()],
        }
    }

    #[test]
    fn an_agent_is_told_in_lines() {
        let text = text(&report(), Style::plain());
        for line in [
            "Replicas   1 of 2 ready, 1 to be updated\n",
            "Pod        pmz-agent-a ImagePullBackOff on node1, a/b:c, version 0.1.0, restarted 2 times\n",
            "UDP        NodePort, port 30002 of the agents' nodes\n",
            "Last event Pod pmz-agent-a: no such image (Failed)\n",
            "Not seen   events: you may not list them\n",
        ] {
            assert!(text.contains(line), "{line:?} is missing in\n{text}");
        }
    }

    #[test]
    fn the_json_is_stable() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["replicas"]["ready"], 1);
        assert_eq!(json["pods"][0]["restarts"], 2);
        assert_eq!(json["exposure"]["node_port"], 30002);
        assert_eq!(json["last_warning"]["reason"], "Failed");
        assert!(json.get("problem").is_none());
        assert_eq!(
            serde_json::from_value::<AgentReport>(json).unwrap(),
            report()
        );
    }
}
