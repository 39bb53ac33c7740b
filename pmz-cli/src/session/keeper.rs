//! The control connection: opened again whenever it ends, with the same session where that still stands.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pmz_net::session::codec::{FrameReader, write_frame};
use pmz_net::session::{Hello, MAX_FRAME, ToAgent, ToClient, Welcome};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{Dial, Dialed, Io, OpenError, open};

/// The agent is asked this often whether it is there.
const PING: Duration = Duration::from_secs(5);
/// Without a word for this long the connection is dead: port-forwards die without closing.
const SILENCE: Duration = Duration::from_secs(15);
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long a message may take to be written.
const WRITE: Duration = Duration::from_secs(5);
/// The first and the longest pause before the next try.
const REDIAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How often another agent is looked for while the present one is leaving. A watch on pods would tell, but is
/// a right more than users have.
const LOOK_ELSEWHERE: Duration = Duration::from_millis(250);

/// What the control connection brings.
pub(super) enum ControlEvent {
    /// The session that this welcome describes stands: a new one, or (then nothing changes) the old one.
    Open(String, Box<Welcome>),
    /// A message.
    Message(ToClient),
    /// It is gone; the next try follows. Why it ended, or why a try failed.
    Down(String),
}

/// How a control connection ended that did not break.
enum Served {
    /// The session is to end.
    Stopped,
    /// Another agent has opened a session, and the old one's has been closed.
    Moved(Box<dyn Io>),
}

pub(super) struct Keeper {
    pub(super) dial: Arc<dyn Dial>,
    pub(super) hello: Hello,
    pub(super) agent: String,
    pub(super) events: mpsc::Sender<ControlEvent>,
    /// Says goodbye and ends.
    pub(super) stop: CancellationToken,
}

impl Keeper {
    /// Serves `io`, and opens new connections after it, until stopped.
    pub(super) async fn keep(mut self, io: Box<dyn Io>) {
        let mut io = Some(io);
        let mut pause = REDIAL.0;
        loop {
            let cause = match io.take() {
                Some(present) => match self.serve(present).await {
                    Ok(Served::Stopped) => return,
                    Ok(Served::Moved(other)) => {
                        io = Some(other);
                        continue;
                    }
                    Err(error) => {
                        pause = REDIAL.0;
                        format!("{error:#}")
                    }
                },
                None => match self.reopen().await {
                    Ok(opened) => {
                        io = Some(opened);
                        continue;
                    }
                    Err(error) => format!("{error:#}"),
                },
            };
            if self.events.send(ControlEvent::Down(cause)).await.is_err() {
                return;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(REDIAL.1);
        }
    }

    /// The same agent first, since it may still hold the session; else whichever there is.
    async fn reopen(&mut self) -> anyhow::Result<Box<dyn Io>> {
        let opened = match open(&*self.dial, Some(&self.agent), self.hello.clone()).await {
            Err(OpenError::Dial(_) | OpenError::Closed(_) | OpenError::Mute { .. }) => {
                open(&*self.dial, None, self.hello.clone()).await
            }
            opened => opened,
        };
        self.take(opened?).await
    }

    /// Makes an opened session the present one.
    async fn take(&mut self, (dialed, welcome): (Dialed, Welcome)) -> anyhow::Result<Box<dyn Io>> {
        self.agent.clone_from(&dialed.agent);
        self.hello.resume = Some(welcome.token.clone());
        self.hello.addresses.clone_from(&welcome.addresses);
        let open = ControlEvent::Open(dialed.agent, Box::new(welcome));
        self.events
            .send(open)
            .await
            .map_err(|_| anyhow::anyhow!("the session has ended"))?;
        Ok(dialed.io)
    }

    /// A session with another agent, as soon as there is one.
    async fn elsewhere(dial: Arc<dyn Dial>, hello: Hello) -> (Dialed, Welcome) {
        loop {
            match open(&*dial, None, hello.clone()).await {
                Ok(opened) => return opened,
                Err(error) => tracing::debug!(%error, "no other agent yet"),
            }
            tokio::time::sleep(LOOK_ELSEWHERE).await;
        }
    }

    /// Reads messages until the connection ends, or another one has taken its place.
    async fn serve(&mut self, io: Box<dyn Io>) -> anyhow::Result<Served> {
        // Taken up where another agent is: its session is a new one.
        let hello = Hello {
            resume: None,
            ..self.hello.clone()
        };
        let mut elsewhere = pin!(Self::elsewhere(self.dial.clone(), hello));
        let mut leaving = false;
        let mut gone = false;
        let (reader, mut writer) = tokio::io::split(io);
        let mut frames = FrameReader::new(reader, MAX_FRAME);
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut nonce = 0;
        loop {
            tokio::select! {
                message = frames.next::<ToClient>(), if !gone => {
                    let message = match message {
                        Ok(Some(message)) => message,
                        // What has begun at another agent is brought to its end: a session that it opened
                        // and nobody took would hold this client's key there.
                        Ok(None) | Err(_) if leaving => {
                            gone = true;
                            continue;
                        }
                        Ok(None) => anyhow::bail!("the connection was closed"),
                        Err(error) => return Err(error.into()),
                    };
                    heard = Instant::now();
                    leaving |= matches!(message, ToClient::Leaving { .. });
                    if self.events.send(ControlEvent::Message(message)).await.is_err() {
                        return Ok(Served::Stopped);
                    }
                }
                // The old agent serves on meanwhile.
                opened = &mut elsewhere, if leaving => {
                    let io = self.take(opened).await?;
                    let goodbye = write_frame(&mut writer, &ToAgent::Bye);
                    // It forgets a silent client by itself.
                    let _ = timeout(GOODBYE, goodbye).await;
                    return Ok(Served::Moved(io));
                }
                _ = pings.tick(), if !gone => {
                    nonce += 1;
                    let ping = ToAgent::Ping { nonce };
                    match timeout(WRITE, write_frame(&mut writer, &ping)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) | Err(_) if leaving => gone = true,
                        Ok(Err(error)) => return Err(error.into()),
                        Err(late) => return Err(late.into()),
                    }
                }
                () = tokio::time::sleep_until(heard + SILENCE) => {
                    anyhow::bail!("nothing came for {} s", SILENCE.as_secs());
                }
                () = self.stop.cancelled() => {
                    // The agent forgets a silent client by itself; this only spares it the wait.
                    let goodbye = async {
                        write_frame(&mut writer, &ToAgent::Bye).await?;
                        writer.shutdown().await?;
                        while frames.next::<ToClient>().await?.is_some() {}
                        anyhow::Ok(())
                    };
                    let _ = timeout(GOODBYE, goodbye).await;
                    return Ok(Served::Stopped);
                }
            }
        }
    }
}
