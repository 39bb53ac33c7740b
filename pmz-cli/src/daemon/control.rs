//! The control protocol: what commands ask of a running daemon. One JSON object per line, both ways.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::{Board, Phase, View};
use super::domains::{AddDomain, DomainTold, Domains, RemoveDomain};
use super::status::Status;
use super::traffic::{TrafficReport, TrafficSource};
use crate::domains::NamesPage;

/// The longest line either way, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// Commands that may be connected at once.
const MAX_CLIENTS: usize = 64;
/// A client that takes nothing for so long is not there.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// What a command asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Ask {
    /// One [`Tell::Status`].
    Status,
    /// One [`Tell::Traffic`].
    Traffic,
    /// [`Tell::View`]s, until the daemon ends or the command has seen enough.
    Watch,
    /// One [`Tell::Domain`]: a domain is to lead to a service.
    AddDomain(AddDomain),
    /// One [`Tell::Domain`]: a domain is to lead nowhere any more.
    RemoveDomain(RemoveDomain),
    /// [`Tell::Names`], page after page, or one [`Tell::Domain`] where there are none to tell.
    Names {
        /// Those of that context; the daemon's where none is named.
        context: Option<String>,
    },
    /// The daemon ends; the connection closes when all that it made is gone.
    Down,
}

/// What the daemon tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Tell {
    /// Answer to [`Ask::Status`].
    Status(Box<Status>),
    /// Answer to [`Ask::Traffic`].
    Traffic(Box<TrafficReport>),
    /// Answer to [`Ask::AddDomain`] and [`Ask::RemoveDomain`].
    Domain(DomainTold),
    /// Answer to [`Ask::Names`].
    Names(Box<NamesPage>),
    /// Where the daemon stands now.
    View(View),
}

/// Asks the daemon's main loop for its status.
pub(super) type StatusRequest = oneshot::Sender<Status>;

/// Serves commands.
#[derive(Clone)]
pub(super) struct Control {
    pub(super) board: Board,
    pub(super) stop: CancellationToken,
    /// Ends the connections, after all else.
    pub(super) hang_up: CancellationToken,
    pub(super) status: mpsc::Sender<StatusRequest>,
    pub(super) traffic: TrafficSource,
    pub(super) domains: Domains,
    pub(super) tasks: TaskTracker,
    clients: Arc<Semaphore>,
    owner: u32,
}

impl Control {
    pub(super) fn new(status: mpsc::Sender<StatusRequest>, domains: Domains) -> Self {
        Self {
            board: Board::default(),
            stop: CancellationToken::new(),
            hang_up: CancellationToken::new(),
            status,
            traffic: TrafficSource::default(),
            domains,
            tasks: TaskTracker::new(),
            clients: Arc::new(Semaphore::new(MAX_CLIENTS)),
            owner: nix::unistd::geteuid().as_raw(),
        }
    }

    /// Accepts commands until the daemon ends.
    pub(super) fn listen(&self, listener: StdListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let this = self.clone();
        self.tasks.spawn(async move {
            loop {
                // Beyond the limit, clients wait in the socket's own queue.
                let Ok(permit) = Arc::clone(&this.clients).acquire_owned().await else {
                    return;
                };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = this.hang_up.cancelled() => return,
                };
                match accepted {
                    Ok((stream, _)) if this.may(&stream) => {
                        let client = this.clone();
                        this.tasks.spawn(async move {
                            let _permit = permit;
                            client.serve(stream).await;
                        });
                    }
                    Ok(_) => tracing::warn!("a stranger on the control socket"),
                    Err(error) => {
                        // Out of descriptors: one must be closed before the next try can work.
                        tracing::warn!(%error, "accept on the control socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(())
    }

    /// The socket's mode lets nobody else in; this holds even if somebody changes it.
    fn may(&self, stream: &UnixStream) -> bool {
        stream
            .peer_cred()
            .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == self.owner)
    }

    /// Serves one connection to its end.
    pub(super) async fn serve(&self, stream: UnixStream) {
        let (read, mut write) = stream.into_split();
        let mut lines = Lines::new(read);
        let served = async {
            while let Some(ask) = lines.next::<Ask>().await? {
                match ask {
                    Ask::Status => match self.ask_status().await {
                        Some(status) => tell(&mut write, &Tell::Status(Box::new(status))).await?,
                        None => return Ok(()),
                    },
                    Ask::Traffic => {
                        let report = Box::new(self.traffic.report().await);
                        tell(&mut write, &Tell::Traffic(report)).await?;
                    }
                    Ask::AddDomain(wish) => {
                        tell(&mut write, &Tell::Domain(self.domains.add(wish).await)).await?;
                    }
                    Ask::RemoveDomain(wish) => {
                        tell(&mut write, &Tell::Domain(self.domains.remove(wish).await)).await?;
                    }
                    Ask::Names { context } => match self.domains.names(context.as_deref()).await {
                        Ok(pages) => {
                            for page in pages {
                                tell(&mut write, &Tell::Names(Box::new(page))).await?;
                            }
                        }
                        Err(told) => tell(&mut write, &Tell::Domain(told)).await?,
                    },
                    Ask::Down => self.stop.cancel(),
                    Ask::Watch => {
                        // What the client says meanwhile is the next request, such as `down`.
                        tokio::select! {
                            watched = watch(&self.board, &mut write) => watched?,
                            next = lines.next::<Ask>() => match next? {
                                Some(Ask::Down) => self.stop.cancel(),
                                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                                None => return Ok(()),
                            },
                        }
                    }
                }
            }
            Ok::<(), io::Error>(())
        };
        tokio::select! {
            result = served => if let Err(error) = result {
                tracing::debug!(%error, "control connection");
            },
            () = self.hang_up.cancelled() => {
                // Whoever watches learns the end before the connection closes.
                let _ = tell(&mut write, &Tell::View(self.board.view())).await;
            }
        }
    }

    async fn ask_status(&self) -> Option<Status> {
        let (answer, status) = oneshot::channel();
        self.status.send(answer).await.ok()?;
        status.await.ok()
    }
}

async fn watch(board: &Board, write: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut changes = board.watch();
    while let Some(view) = changes.next().await {
        let last = matches!(view.phase, Phase::Failed { .. });
        tell(write, &Tell::View(view)).await?;
        if last {
            break;
        }
    }
    Ok(())
}

async fn tell<T: Serialize>(write: &mut OwnedWriteHalf, what: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    tokio::time::timeout(WRITE_WITHIN, write.write_all(&line))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// JSON objects, one per line.
struct Lines {
    read: BufReader<OwnedReadHalf>,
    /// The line so far: what was read stays here when the wait for its end is given up.
    line: Vec<u8>,
}

impl Lines {
    fn new(read: OwnedReadHalf) -> Self {
        Self {
            read: BufReader::new(read),
            line: Vec::new(),
        }
    }

    async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let room = MAX_LINE.saturating_sub(self.line.len() as u64);
        let mut limited = (&mut self.read).take(room);
        limited.read_until(b'\n', &mut self.line).await?;
        if self.line.is_empty() {
            return Ok(None);
        }
        if self.line.last() != Some(&b'\n') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line without an end",
            ));
        }
        let message = serde_json::from_slice(&self.line);
        self.line.clear();
        Ok(Some(message?))
    }
}

/// A command's connection to the daemon.
pub struct ControlClient {
    lines: Lines,
    write: OwnedWriteHalf,
}

impl ControlClient {
    /// Takes a connected socket.
    pub fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self {
            lines: Lines::new(read),
            write,
        }
    }

    /// Asks.
    ///
    /// # Errors
    /// When the daemon is gone.
    pub async fn ask(&mut self, ask: &Ask) -> io::Result<()> {
        tell(&mut self.write, ask).await
    }

    /// Waits for what the daemon tells next; `None` when it has ended. May be given up and called again.
    ///
    /// # Errors
    /// When it tells what this version does not understand.
    pub async fn next(&mut self) -> io::Result<Option<Tell>> {
        match self.lines.next().await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        control: Control,
        requests: mpsc::Receiver<StatusRequest>,
        dir: tempfile::TempDir,
    }

    fn bench() -> Bench {
        let (sender, requests) = mpsc::channel(4);
        let dir = tempfile::tempdir().unwrap();
        let store = crate::domains::Store::at(&dir.path().join("domains.json"));
        let control = Control::new(sender, Domains::new(store));
        control
            .listen(StdListener::bind(dir.path().join("s")).unwrap())
            .unwrap();
        Bench {
            control,
            requests,
            dir,
        }
    }

    impl Bench {
        async fn connect(&self) -> UnixStream {
            UnixStream::connect(self.dir.path().join("s"))
                .await
                .unwrap()
        }
    }

    #[tokio::test]
    async fn status_comes_from_the_main_loop() {
        let mut bench = bench();
        let mut client = ControlClient::new(bench.connect().await);
        client.ask(&Ask::Status).await.unwrap();
        let answer = bench.requests.recv().await.unwrap();
        answer
            .send(Status {
                services: 7,
                ..Status::default()
            })
            .unwrap();
        match client.next().await.unwrap().unwrap() {
            Tell::Status(status) => assert_eq!(status.services, 7),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn progress_is_streamed_and_down_is_heard_meanwhile() {
        let bench = bench();
        let mut client = ControlClient::new(bench.connect().await);
        client.ask(&Ask::Watch).await.unwrap();
        let Some(Tell::View(view)) = client.next().await.unwrap() else {
            panic!()
        };
        assert!(view.steps.is_empty());
        bench.control.board.step("finding the agent");
        let Some(Tell::View(view)) = client.next().await.unwrap() else {
            panic!()
        };
        assert_eq!(view.steps[0].text, "finding the agent");
        client.ask(&Ask::Down).await.unwrap();
        bench.control.stop.cancelled().await;
        bench.control.board.enter(Phase::Stopping);
        bench.control.hang_up.cancel();
        let Some(Tell::View(view)) = client.next().await.unwrap() else {
            panic!()
        };
        assert_eq!(view.phase, Phase::Stopping);
        assert_eq!(client.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn nonsense_and_endless_lines_close_the_connection_and_nothing_else() {
        let bench = bench();
        for bytes in [
            b"{\"request\":\"reboot\"}\n".to_vec(),
            b"\xff\n".to_vec(),
            vec![b'x'; 2 << 20],
        ] {
            let mut stream = bench.connect().await;
            let _ = stream.write_all(&bytes).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.is_empty());
        }
        let mut client = ControlClient::new(bench.connect().await);
        client.ask(&Ask::Watch).await.unwrap();
        assert!(client.next().await.unwrap().is_some());
    }
}
