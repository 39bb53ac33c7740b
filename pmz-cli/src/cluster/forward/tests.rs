use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::*;

/// What somebody on the way makes of a request for SPDY.
#[derive(Clone, Copy, Debug)]
enum Spdy {
    Refused,
    /// Agreed to, and then the connection ends.
    Broken,
    /// Agreed to, and answered with something else.
    Strange,
    Spoken,
}

/// An API server, and how often SPDY was asked of it.
async fn server(spdy: Spdy) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer(connection, spdy, count.clone()));
        }
    });
    (at, asked)
}

async fn answer(mut connection: TcpStream, spdy: Spdy, asked: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let header = |wanted: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.to_owned()).next()
    };
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n";
    let agreed = format!("{switching}Upgrade: {SPDY}\r\n\r\n");
    let by_websocket = header("sec-websocket-key").map(|key| {
        let accept = derive_accept_key(key.as_bytes());
        format!(
            "{switching}Upgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        )
    });
    let (answer, stays) = match (by_websocket, spdy) {
        (Some(answer), _) => (answer.into_bytes(), true),
        (None, Spdy::Refused) => {
            let refused = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
            (refused.into(), false)
        }
        (None, Spdy::Broken) => (agreed.into_bytes(), false),
        (None, Spdy::Strange) => (
            format!("{agreed}HTTP/1.1 502 Bad Gateway\r\n\r\n").into_bytes(),
            false,
        ),
        (None, Spdy::Spoken) => {
            let taken = [1, 3].map(|stream| [0x80, 3, 0, 2, 0, 0, 0, 6, 0, 0, 0, stream, 0, 0]);
            ([agreed.into_bytes(), taken.concat()].concat(), true)
        }
    };
    if header("upgrade").as_deref() == Some(SPDY) {
        asked.fetch_add(1, Ordering::Relaxed);
    }
    connection.write_all(&answer).await.unwrap();
    if stays {
        // For as long as the client has it.
        let _ = connection.read_to_end(&mut Vec::new()).await;
    }
}

fn forward(at: SocketAddr) -> PortForward {
    let config = kube::Config::new(format!("http://{at}").parse().unwrap());
    PortForward {
        client: kube::Client::try_from(config).unwrap(),
        peer: Peer {
            server: at.to_string(),
            context: "test".to_owned(),
        },
        without_spdy: Arc::default(),
        namespace: "pmz".to_owned(),
        pod: "agent-0".to_owned(),
        port: CONTROL_PORT,
    }
}

#[tokio::test]
async fn spdy_is_spoken_where_everybody_on_the_way_speaks_it() {
    let (at, asked) = server(Spdy::Spoken).await;
    let forward = forward(at);
    for times in 1..=2 {
        let stream = forward.dial().await.unwrap();
        assert!(matches!(stream.0, Spoken::Spdy(_)));
        assert_eq!(asked.load(Ordering::Relaxed), times);
    }
}

#[tokio::test]
async fn where_spdy_is_refused_or_agreed_on_and_not_spoken_the_websocket_is_taken_and_remembered() {
    for spdy in [Spdy::Refused, Spdy::Broken, Spdy::Strange] {
        let (at, asked) = server(spdy).await;
        let forward = forward(at);
        for _ in 0..2 {
            let stream = forward.dial().await.unwrap();
            assert!(matches!(stream.0, Spoken::WebSocket(_)), "{spdy:?}");
            assert_eq!(asked.load(Ordering::Relaxed), 1, "{spdy:?}");
        }
    }
}
