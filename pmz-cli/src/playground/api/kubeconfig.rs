//! What clients are given: kubeconfigs for people, files for pods.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The files at /var/run/secrets/kubernetes.io/serviceaccount of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountFiles {
    /// `ca.crt`: the authority that signed the API server's certificate, PEM.
    pub ca: String,
    /// `token`.
    pub token: String,
    /// `namespace`.
    pub namespace: String,
}

impl ServiceAccountFiles {
    /// File names and contents.
    pub fn files(&self) -> [(&'static str, &str); 3] {
        [
            ("ca.crt", &self.ca),
            ("token", &self.token),
            ("namespace", &self.namespace),
        ]
    }
}

/// A kubeconfig that needs no other file.
pub(super) fn kubeconfig(server: &str, ca_pem: &str, user: &str, token: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: playground
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    token: {token}
contexts:
- name: playground
  context:
    cluster: playground
    user: {user}
    namespace: default
current-context: playground
",
        ca = STANDARD.encode(ca_pem)
    )
}
