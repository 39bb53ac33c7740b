//! The way from a laptop that is connected to nothing to an API server that this machine reaches.

use std::net::{Ipv4Addr, TcpListener as StdListener};

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::machine::Machine;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Takes connections on the laptop's loopback, and makes them anew from this machine. It ends when
/// dropped.
pub(super) struct Relay(JoinHandle<()>);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Relay {
    /// Starts one for the server of a kubeconfig (as JSON), and leads that kubeconfig there.
    pub(super) fn start(machine: &Machine, kubeconfig: &str) -> Result<(Self, String)> {
        let mut config: Value = serde_json::from_str(kubeconfig)?;
        let cluster = &mut config["clusters"][0]["cluster"];
        let server = cluster["server"].as_str().context("no server")?.to_owned();
        ensure!(cluster["proxy-url"].is_null(), "a proxy is not relayed to");
        let (host, port) = host_and_port(&server)?;
        let listener = machine.in_netns(|| {
            let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        })??;
        let local = listener.local_addr()?;
        cluster["server"] = format!("https://{local}").into();
        if cluster["tls-server-name"].is_null() {
            cluster["tls-server-name"] = host.clone().into();
        }
        let task = tokio::spawn(serve(listener, host, port));
        Ok((Self(task), config.to_string()))
    }
}

async fn serve(listener: TcpListener, host: String, port: u16) {
    while let Ok((mut near, _)) = listener.accept().await {
        let host = host.clone();
        tokio::spawn(async move {
            // Either end's failure is the connection's end, which the other end sees.
            if let Ok(mut far) = TcpStream::connect((host.as_str(), port)).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

fn host_and_port(server: &str) -> Result<(String, u16)> {
    let rest = server
        .strip_prefix("https://")
        .with_context(|| format!("{server} is not https"))?;
    let authority = rest.split('/').next().unwrap_or(rest);
    ensure!(
        authority.len() == rest.trim_end_matches('/').len(),
        "a path in {server} is not relayed to"
    );
    // The last colon is a port's, unless it stands in an IPv6 address' brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse()?),
        _ => (authority, 443),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_s_address_is_taken_apart_as_in_a_url() {
        for (server, host, port) in [
            ("https://k8s.example", "k8s.example", 443),
            ("https://10.0.0.1:6443/", "10.0.0.1", 6443),
            ("https://[fd00::1]:6443", "fd00::1", 6443),
            ("https://[fd00::1]", "fd00::1", 443),
        ] {
            assert_eq!(host_and_port(server).unwrap(), (host.to_owned(), port));
        }
        for server in ["http://a", "https://a/path", "https://a:b"] {
            assert!(host_and_port(server).is_err(), "{server}");
        }
    }
}
