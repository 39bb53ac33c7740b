//! Sends lines back.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// The longest line, with its end.
const MAX_LINE: u64 = 1 << 20;

pub(super) async fn serve(stream: TcpStream) {
    if let Err(error) = echo(stream).await {
        tracing::trace!(%error, "line-echo connection");
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut reader)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .await?;
        writer.write_all(&line).await?;
        if line.last() != Some(&b'\n') {
            // The end, or a line that is too long.
            return writer.shutdown().await;
        }
    }
}
