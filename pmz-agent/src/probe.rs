//! The kubelet's question whether an agent serves. Its control port is on the pod's loopback, where only a
//! program in the pod comes.

use std::io::{self, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::CONTROL_PORT;

/// Shorter than the kubelet's own limit, which says nothing of the cause.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Whom to ask.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ProbeArgs {
    /// Port of the control connections
    #[arg(long, env = "PMZ_CONTROL_PORT", default_value_t = CONTROL_PORT)]
    pub control_port: u16,
}

/// Connects to the control port and says nothing, to which an agent that serves answers by closing the
/// connection. (A connection by itself would prove nothing: the kernel takes some for a process that hangs.)
///
/// # Errors
/// Where nobody listens, or nobody answers within 3 s.
pub fn probe(args: &ProbeArgs) -> io::Result<()> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, args.control_port));
    let wrong = |error: io::Error| {
        let why = match error.kind() {
            // What a socket's own time limit is told as.
            io::ErrorKind::WouldBlock => format!("no answer within {} s", ANSWER_WITHIN.as_secs()),
            _ => error.to_string(),
        };
        io::Error::new(
            error.kind(),
            format!("the agent's control port {to}: {why}"),
        )
    };
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&to, ANSWER_WITHIN)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.shutdown(Shutdown::Write)?;
        stream.read(&mut [0]).map(drop)
    };
    ask().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn listener() -> (TcpListener, ProbeArgs) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let control_port = listener.local_addr().unwrap().port();
        (listener, ProbeArgs { control_port })
    }

    #[test]
    fn an_agent_that_takes_the_connection_serves() {
        let (listener, args) = listener();
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        });
        probe(&args).unwrap();
        agent.join().unwrap();
    }

    #[test]
    fn a_port_that_nobody_serves_is_named() {
        let (listener, args) = listener();
        let hung = probe(&args).unwrap_err();
        assert!(hung.to_string().ends_with("no answer within 3 s"), "{hung}");
        drop(listener);
        let closed = probe(&args).unwrap_err();
        assert!(
            closed.to_string().contains(&args.control_port.to_string()),
            "{closed}"
        );
    }
}
