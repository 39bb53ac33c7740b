//! Opening connections to an agent, and the control messages on one.

use std::time::Duration;

use pmz_net::session::codec::{CodecError, read_frame, write_frame};
use pmz_net::session::{
    Answer, Capability, Hello, MAX_OPEN_FRAME, Open, PROTOCOL, Refusal, Welcome,
};
use tokio::time::timeout;

use super::{Dial, Dialed, Io};

/// How long an agent may take to answer a hello.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connection to an agent could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It was not reached.
    #[error(transparent)]
    Dial(anyhow::Error),
    /// It said no, and why.
    #[error("the agent {agent} refused: {}", .refusal.message)]
    Refused {
        /// Which.
        agent: String,
        /// Its words.
        refusal: Refusal,
    },
    /// What it said can't be understood.
    #[error("the agent {agent} does not speak pmz's protocol: {source}")]
    Codec {
        /// Which.
        agent: String,
        /// What is wrong.
        source: CodecError,
    },
    /// It closed the connection without a word, as a port-forward does when nobody listens.
    #[error("the agent {0} closed the connection: it is starting or ending; its log says more")]
    Closed(String),
    /// It said nothing.
    #[error("the agent {agent} did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Mute {
        /// Which.
        agent: String,
    },
}

/// Opens a control connection.
///
/// # Errors
/// As [`OpenError`] says.
pub async fn open(
    dial: &dyn Dial,
    agent: Option<&str>,
    hello: Hello,
) -> Result<(Dialed, Welcome), OpenError> {
    let (dialed, answer) = exchange(dial, agent, &Open::Control(hello)).await?;
    match answer {
        Answer::Welcome(welcome) => Ok((dialed, *welcome)),
        Answer::Refused(refusal) => Err(OpenError::Refused {
            agent: dialed.agent,
            refusal,
        }),
        Answer::Carrier { .. } => Err(OpenError::Closed(dialed.agent)),
    }
}

/// Opens a carrier connection of the session with this token.
///
/// # Errors
/// As [`OpenError`] says.
pub(super) async fn open_carrier(
    dial: &dyn Dial,
    agent: &str,
    token: &str,
    index: u16,
) -> Result<Box<dyn Io>, OpenError> {
    let open = Open::Carrier {
        protocol: PROTOCOL,
        token: token.to_owned(),
        index,
    };
    let (dialed, answer) = exchange(dial, Some(agent), &open).await?;
    match answer {
        Answer::Carrier { .. } => Ok(dialed.io),
        Answer::Refused(refusal) => Err(OpenError::Refused {
            agent: dialed.agent,
            refusal,
        }),
        Answer::Welcome(_) => Err(OpenError::Closed(dialed.agent)),
    }
}

async fn exchange(
    dial: &dyn Dial,
    agent: Option<&str>,
    open: &Open,
) -> Result<(Dialed, Answer), OpenError> {
    let mut dialed = dial.dial(agent).await.map_err(OpenError::Dial)?;
    let name = dialed.agent.clone();
    let answer = timeout(ANSWER_TIMEOUT, async {
        write_frame(&mut dialed.io, open).await?;
        read_frame::<Answer>(&mut dialed.io, MAX_OPEN_FRAME).await
    })
    .await;
    match answer {
        Err(_) => Err(OpenError::Mute { agent: name }),
        Ok(Err(source)) => Err(OpenError::Codec {
            agent: name,
            source,
        }),
        Ok(Ok(None)) => Err(OpenError::Closed(name)),
        Ok(Ok(Some(answer))) => Ok((dialed, answer)),
    }
}

/// What this build can do on a carrier.
pub(super) fn capabilities() -> Vec<Capability> {
    vec![Capability::SuperPackets]
}
