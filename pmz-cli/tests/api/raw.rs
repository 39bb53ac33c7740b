//! A client that sends exactly what it is told, for what kube's client never does.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cluster::{Cluster, SOON, pem_to_der};

/// The head and the body of an answer.
pub(crate) struct Answer {
    pub(crate) status: String,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub(crate) struct Raw {
    stream: TlsStream<TcpStream>,
    token: String,
}

impl Raw {
    pub(crate) async fn connect(cluster: &Cluster, user: &str) -> Self {
        let files = cluster
            .server
            .service_account_files("pmz", "pmz-agent")
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from(pem_to_der(&files.ca)))
            .unwrap();
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(cluster.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from("kubernetes.default.svc").unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .unwrap();
        let token = cluster.server.kubeconfig(user).map_or_else(
            || user.to_owned(),
            |yaml| {
                let line = yaml.lines().find_map(|l| l.trim().strip_prefix("token: "));
                line.unwrap().to_owned()
            },
        );
        Self { stream, token }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub(crate) async fn exact(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        timeout(SOON, self.stream.read_exact(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        bytes
    }

    /// Until the server closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        timeout(SOON, self.stream.read_to_end(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        bytes
    }

    /// Sends a request with these header lines, reads the head of the answer, and its body if it has a
    /// Content-Length.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> Answer {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n",
            body.len()
        );
        if !self.token.is_empty() {
            request.push_str(&format!("Authorization: Bearer {}\r\n", self.token));
        }
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        self.send(format!("{request}\r\n{body}").as_bytes()).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.exact(1).await);
        }
        let head = String::from_utf8(head).unwrap();
        let (status, headers) = head.split_once("\r\n").unwrap();
        let mut answer = Answer {
            status: status.to_owned(),
            headers: headers.to_owned(),
            body: Vec::new(),
        };
        if let Some(length) = answer.header("Content-Length") {
            let length = length.parse().unwrap();
            answer.body = self.exact(length).await;
        }
        answer
    }

    /// Asks for a port-forward of the agent's pod.
    pub(crate) async fn forward(&mut self, query: &str, protocol: &str) -> Answer {
        let path = format!("/api/v1/namespaces/pmz/pods/pmz-agent-0/portforward{query}");
        let protocol = format!("Sec-WebSocket-Protocol: {protocol}");
        let mut headers = UPGRADE.to_vec();
        headers.push(&protocol);
        self.ask("GET", &path, &headers, "").await
    }

    /// Sends a frame of up to 125 bytes, masked as clients have to.
    pub(crate) async fn frame(&mut self, opcode: u8, data: &[u8]) {
        const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
        let length = u8::try_from(data.len()).unwrap();
        let mut frame = vec![0x80 | opcode, 0x80 | length];
        frame.extend(MASK);
        frame.extend(data.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
        self.send(&frame).await;
    }
}

pub(crate) const UPGRADE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];
