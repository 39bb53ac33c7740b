//! The playground's model as Kubernetes objects: all that a real cluster's objects of these kinds say, but for
//! `managedFields`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::playground::model::{
    Labels, Model, NodeSpec, PodPhase, PodSpec, Protocol, ServiceSpec, ServiceType,
};

/// When things happened to a pod, as objects carry times.
#[derive(Clone, Debug)]
pub(super) struct PodTimes {
    pub(super) created: String,
    pub(super) ready_changed: String,
    pub(super) deleted: Option<String>,
}

/// A namespace.
pub(super) fn namespace(name: &str) -> Value {
    json!({
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    })
}

/// The range that ClusterIPs come from.
pub(super) fn service_cidr(cidrs: &[IpNet], since: &str) -> Value {
    json!({
        "kind": "ServiceCIDR",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": "kubernetes",
            "finalizers": ["networking.k8s.io/service-cidr-finalizer"],
        },
        "spec": {"cidrs": texts(cidrs)},
        "status": {"conditions": [{
            "type": "Ready",
            "status": "True",
            "lastTransitionTime": since,
            "reason": "",
            "message": "Kubernetes Service CIDR is ready",
        }]},
    })
}

/// A node.
pub(super) fn node(node: &NodeSpec, since: &str) -> Value {
    let mut addresses: Vec<Value> = node
        .addresses
        .iter()
        .map(|a| json!({"type": "InternalIP", "address": a.to_string()}))
        .collect();
    addresses.push(json!({"type": "Hostname", "address": node.name}));
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind,
            "status": status,
            "lastHeartbeatTime": since,
            "lastTransitionTime": since,
            "reason": reason,
            "message": message,
        })
    };
    let resources = json!({"cpu": "2", "memory": "4Gi", "pods": "110"});
    json!({
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": node.name,
            "uid": node.uid,
            "labels": {
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "node-role.kubernetes.io/control-plane": "",
            },
        },
        "spec": {
            "podCIDR": node.pod_cidrs.first().map(ToString::to_string),
            "podCIDRs": texts(&node.pod_cidrs),
        },
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure",
                    "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID",
                    "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "addresses": addresses,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "machineID": hash(&format!("machine {}", node.uid), 32),
                "systemUUID": node.uid,
                "bootID": node.uid,
                "kernelVersion": "6.18.0",
                "osImage": "Debian GNU/Linux 12 (bookworm)",
                "containerRuntimeVersion": "containerd://2.2.1",
                "kubeletVersion": "v1.37.2",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
        },
    })
}

/// A service.
pub(super) fn service(model: &Model, service: &ServiceSpec) -> Value {
    let mut spec = json!({"sessionAffinity": "None"});
    let node_ports = matches!(service.kind, ServiceType::NodePort { .. });
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|port| {
            let mut value = json!({
                "protocol": protocol(port.protocol),
                "port": port.port,
                "targetPort": port.target_port,
            });
            if let Some(name) = &port.name {
                value["name"] = name.as_str().into();
            }
            if let Some(number) = port.node_port.filter(|_| node_ports) {
                value["nodePort"] = number.into();
            }
            value
        })
        .collect();
    if !ports.is_empty() {
        spec["ports"] = ports.into();
    }
    if !service.selector.is_empty() {
        spec["selector"] = json!(service.selector);
    }
    if let ServiceType::ExternalName { target } = &service.kind {
        spec["type"] = "ExternalName".into();
        spec["externalName"] = target.as_str().into();
    } else {
        let families = families(model, service);
        let addresses = match service.kind {
            ServiceType::Headless => vec!["None".to_owned()],
            _ => texts(service.cluster_ips()),
        };
        spec["type"] = if node_ports { "NodePort" } else { "ClusterIP" }.into();
        spec["clusterIP"] = addresses.first().cloned().into();
        spec["clusterIPs"] = addresses.into();
        spec["ipFamilyPolicy"] = match families.len() {
            0 | 1 => "SingleStack",
            _ => "PreferDualStack",
        }
        .into();
        spec["ipFamilies"] = families.into();
        spec["internalTrafficPolicy"] = "Cluster".into();
        if node_ports {
            spec["externalTrafficPolicy"] = "Cluster".into();
        }
    }
    let mut object = json!({
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {
            "name": service.name,
            "namespace": service.namespace,
            "uid": service.uid,
        },
        "spec": spec,
        "status": {"loadBalancer": {}},
    });
    set_labels(&mut object, &service.labels);
    object
}

/// The EndpointSlices of a service, one for each of its families. A service without a selector has none,
/// unless it has endpoints that aren't pods.
pub(super) fn endpoint_slices(model: &Model, service: &ServiceSpec) -> Vec<Value> {
    if matches!(service.kind, ServiceType::ExternalName { .. }) {
        return Vec::new();
    }
    if service.selector.is_empty() {
        return external_slices(service);
    }
    families(model, service)
        .into_iter()
        .map(|family| pod_slice(model, service, family))
        .collect()
}

fn pod_slice(model: &Model, service: &ServiceSpec, family: &str) -> Value {
    let endpoints: Vec<Value> = model
        .endpoints(service)
        .filter_map(|pod| Some((pod, address_of(&pod.addresses, family)?)))
        .map(|(pod, address)| endpoint(service, pod, address))
        .collect();
    let mut labels = service.labels.clone();
    labels.insert(
        "endpointslice.kubernetes.io/managed-by".into(),
        "endpointslice-controller.k8s.io".into(),
    );
    labels.insert("kubernetes.io/service-name".into(), service.name.clone());
    if matches!(service.kind, ServiceType::Headless) {
        labels.insert("service.kubernetes.io/headless".into(), String::new());
    }
    let suffix = suffix(&format!("{family} {}", service.uid));
    let (endpoints, ports) = if endpoints.is_empty() {
        (Value::Null, Value::Null)
    } else {
        (endpoints.into(), slice_ports(service))
    };
    json!({
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": format!("{}-{suffix}", service.name),
            "generateName": format!("{}-", service.name),
            "namespace": service.namespace,
            "generation": 1,
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": service.name,
                "uid": service.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    })
}

fn endpoint(service: &ServiceSpec, pod: &PodSpec, address: IpAddr) -> Value {
    let mut endpoint = json!({
        "addresses": [address.to_string()],
        "conditions": {
            "ready": pod.serves(),
            "serving": pod.ready,
            "terminating": pod.terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        },
        "nodeName": pod.node,
    });
    if let Some(hostname) = &pod.hostname
        && pod.subdomain.as_ref() == Some(&service.name)
    {
        endpoint["hostname"] = hostname.as_str().into();
    }
    endpoint
}

/// What the API server keeps itself, for `kubernetes`.
fn external_slices(service: &ServiceSpec) -> Vec<Value> {
    ["IPv4", "IPv6"]
        .into_iter()
        .filter_map(|family| {
            let address = address_of(&service.external_endpoints, family)?;
            let name = match family {
                "IPv4" => service.name.clone(),
                _ => format!("{}-ipv6", service.name),
            };
            Some(json!({
                "kind": "EndpointSlice",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": {
                    "name": name,
                    "namespace": service.namespace,
                    "generation": 1,
                    "labels": {"kubernetes.io/service-name": service.name},
                },
                "addressType": family,
                "endpoints": [{
                    "addresses": [address.to_string()],
                    "conditions": {"ready": true},
                }],
                "ports": slice_ports(service),
            }))
        })
        .collect()
}

fn slice_ports(service: &ServiceSpec) -> Value {
    service
        .ports
        .iter()
        .map(|port| {
            json!({
                "name": port.name.clone().unwrap_or_default(),
                "protocol": protocol(port.protocol),
                "port": port.target_port,
            })
        })
        .collect()
}

/// A pod.
pub(super) fn pod(model: &Model, pod: &PodSpec, times: &PodTimes) -> Value {
    let mut metadata = json!({
        "name": pod.name,
        "namespace": pod.namespace,
        "uid": pod.uid,
        "generation": 1,
        "creationTimestamp": times.created,
    });
    if let Some(deleted) = &times.deleted {
        metadata["deletionTimestamp"] = deleted.as_str().into();
        metadata["deletionGracePeriodSeconds"] = 30.into();
    }
    let mut spec = json!({
        "containers": [container(pod)],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": pod.service_account,
        "serviceAccount": pod.service_account,
        "nodeName": pod.node,
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "priority": 0,
        "enableServiceLinks": true,
        "preemptionPolicy": "PreemptLowerPriority",
    });
    if let Some(hostname) = &pod.hostname {
        spec["hostname"] = hostname.as_str().into();
    }
    if let Some(subdomain) = &pod.subdomain {
        spec["subdomain"] = subdomain.as_str().into();
    }
    let mut object = json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": metadata,
        "spec": spec,
        "status": pod_status(model, pod, times),
    });
    set_labels(&mut object, &pod.labels);
    object
}

fn image(pod: &PodSpec) -> String {
    format!("localhost/{}:1", pod.container)
}

fn container(pod: &PodSpec) -> Value {
    let mut container = json!({
        "name": pod.container,
        "image": image(pod),
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    });
    let ports: Vec<Value> = pod
        .ports
        .iter()
        .map(|port| {
            let mut value = json!({
                "containerPort": port.port,
                "protocol": protocol(port.protocol),
            });
            if let Some(name) = &port.name {
                value["name"] = name.as_str().into();
            }
            value
        })
        .collect();
    if !ports.is_empty() {
        container["ports"] = ports.into();
    }
    container
}

fn pod_status(model: &Model, pod: &PodSpec, times: &PodTimes) -> Value {
    let running = pod.phase == PodPhase::Running;
    let condition = |kind: &str, holds: bool, since: &str| {
        let mut value = json!({
            "type": kind,
            "observedGeneration": 1,
            "status": if holds { "True" } else { "False" },
            "lastProbeTime": null,
            "lastTransitionTime": since,
        });
        if !holds {
            value["reason"] = "ContainersNotReady".into();
            value["message"] =
                format!("containers with unready status: [{}]", pod.container).into();
        }
        value
    };
    let ready = pod.ready && running;
    let (created, changed) = (&times.created, &times.ready_changed);
    let state = match pod.phase {
        PodPhase::Pending => json!({"waiting": {"reason": "ContainerCreating"}}),
        PodPhase::Running => json!({"running": {"startedAt": created}}),
        PodPhase::Failed => json!({"terminated": {
            "exitCode": 137,
            "reason": "Error",
            "startedAt": created,
            "finishedAt": changed,
        }}),
    };
    let mut status = json!({
        "observedGeneration": 1,
        "phase": match pod.phase {
            PodPhase::Pending => "Pending",
            PodPhase::Running => "Running",
            PodPhase::Failed => "Failed",
        },
        "conditions": [
            condition("PodReadyToStartContainers", running, created),
            condition("Initialized", true, created),
            condition("Ready", ready, changed),
            condition("ContainersReady", ready, changed),
            condition("PodScheduled", true, created),
        ],
        "startTime": created,
        "containerStatuses": [{
            "name": pod.container,
            "state": state,
            "lastState": {},
            "ready": ready,
            "restartCount": 0,
            "image": image(pod),
            "imageID": format!("sha256:{}", hash(&image(pod), 64)),
            "containerID": format!("containerd://{}", hash(&format!("container {}", pod.uid), 64)),
            "started": running,
        }],
        "qosClass": "BestEffort",
    });
    let list = |addresses: &[IpAddr]| -> Vec<Value> {
        addresses
            .iter()
            .map(|a| json!({"ip": a.to_string()}))
            .collect()
    };
    if let Some(first) = model.node.addresses.first() {
        status["hostIP"] = first.to_string().into();
        status["hostIPs"] = list(&model.node.addresses).into();
    }
    if let Some(first) = pod.addresses.first() {
        status["podIP"] = first.to_string().into();
        status["podIPs"] = list(&pod.addresses).into();
    }
    status
}

/// The families of a service, IPv4 first. A headless one has those of the service network.
fn families(model: &Model, service: &ServiceSpec) -> Vec<&'static str> {
    let of = |v4: bool| if v4 { "IPv4" } else { "IPv6" };
    match service.kind {
        ServiceType::ExternalName { .. } => Vec::new(),
        ServiceType::Headless => model
            .service_cidrs
            .iter()
            .map(|cidr| of(matches!(cidr, IpNet::V4(_))))
            .collect(),
        ServiceType::ClusterIp { .. } | ServiceType::NodePort { .. } => service
            .cluster_ips()
            .iter()
            .map(|address| of(address.is_ipv4()))
            .collect(),
    }
}

fn address_of(addresses: &[IpAddr], family: &str) -> Option<IpAddr> {
    addresses
        .iter()
        .find(|a| a.is_ipv4() == (family == "IPv4"))
        .copied()
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

fn texts(all: &[impl ToString]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn set_labels(object: &mut Value, labels: &Labels) {
    if !labels.is_empty() {
        object["metadata"]["labels"] = json!(labels);
    }
}

/// The end of a generated name: five of the characters that Kubernetes takes, always the same for `seed`.
fn suffix(seed: &str) -> String {
    const CHARACTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    Sha256::digest(seed.as_bytes())
        .iter()
        .take(5)
        .map(|byte| char::from(CHARACTERS[usize::from(*byte) % CHARACTERS.len()]))
        .collect()
}

/// That many hexadecimal digits, always the same for `seed`.
pub(super) fn hash(seed: &str, digits: usize) -> String {
    let mut text: String = Sha256::digest(seed.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    text.truncate(digits);
    text
}
