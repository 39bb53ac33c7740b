//! Sends datagrams back.

use tokio::net::UdpSocket;

/// More than any datagram holds.
const MAX_DATAGRAM: usize = 65_536;

pub(super) async fn serve(socket: UdpSocket) {
    let mut buf = vec![0; MAX_DATAGRAM];
    loop {
        // An error here is one that an earlier answer met (its asker has gone): the next one is another's.
        let answered = match socket.recv_from(&mut buf).await {
            Ok((len, from)) => socket.send_to(&buf[..len], from).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            tracing::trace!(%error, "UDP echo");
        }
    }
}
