//! Who is connected: each session's key, addresses and secret.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ipnet::IpNet;
use parking_lot::Mutex;
use pmz_net::engine::{Direction, Engine, Paths};
use pmz_net::session::{Capability, Hello, PROTOCOL, Refusal, RefusalReason};
use pmz_net::tunnel::{AddPeerError, Peer};
use rand::RngCore;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::addresses::{Addresses, Pair};

/// The largest inner packet that fits every path of 1500 bytes, and tunnels in it, whatever carries it:
/// the least that IPv6 allows (RFC 8200, 5).
pub(crate) const INNER_MTU: u16 = 1280;

/// One client's session. It outlives its control connection, so that a broken port-forward costs nothing.
pub(crate) struct Session {
    pub(crate) token: String,
    pub(crate) peer: Arc<Peer<Paths>>,
    pub(crate) addresses: Pair,
    /// Counts control connections; the newest one is the session's.
    generation: AtomicU64,
    /// Ends with the session: its control and carrier connections watch it.
    pub(crate) ended: CancellationToken,
    control: Mutex<CancellationToken>,
}

impl Session {
    /// A new control connection takes the place of an older one.
    pub(crate) fn attach(&self) -> (u64, CancellationToken) {
        let token = self.ended.child_token();
        let mut control = self.control.lock();
        control.cancel();
        *control = token.clone();
        (self.generation.fetch_add(1, Ordering::SeqCst) + 1, token)
    }
}

/// Hears of a peer.
pub(crate) type Tell = Box<dyn Fn(&Peer<Paths>) + Send + Sync>;

pub(crate) struct Sessions {
    engine: Arc<Engine>,
    state: Mutex<State>,
    /// Wakes whoever waits for the last one to go.
    closed: Notify,
    max_peers: usize,
    admit: Tell,
    forget: Tell,
}

struct State {
    by_token: HashMap<String, Arc<Session>>,
    addresses: Addresses,
}

impl Sessions {
    /// `admit` is told of each peer before it can send anything, `forget` of each that goes, to end its flows.
    pub(crate) fn new(
        engine: Arc<Engine>,
        addresses: Addresses,
        max_peers: usize,
        admit: Tell,
        forget: Tell,
    ) -> Self {
        let state = Mutex::new(State {
            by_token: HashMap::new(),
            addresses,
        });
        Self {
            engine,
            state,
            closed: Notify::new(),
            max_peers,
            admit,
            forget,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.state.lock().by_token.len()
    }

    /// Where each session's packets go.
    pub(crate) fn directions(&self) -> Vec<Direction> {
        let state = self.state.lock();
        let sessions = state.by_token.values();
        sessions.map(|s| s.peer.attached.direction()).collect()
    }

    /// Waits until there is none whose client has been heard within `lately`.
    pub(crate) async fn all_closed(&self, lately: Duration) {
        loop {
            let closed = self.closed.notified();
            let next_silence = {
                let state = self.state.lock();
                let silences = state
                    .by_token
                    .values()
                    .map(|s| s.peer.attached.silent_for());
                silences
                    .filter_map(|silence| lately.checked_sub(silence))
                    .max()
            };
            let Some(next_silence) = next_silence else {
                return;
            };
            // It may be heard again, or go.
            let _ = timeout(next_silence + Duration::from_millis(1), closed).await;
        }
    }

    /// Opens a session for a hello, or takes one up.
    pub(crate) fn open(&self, hello: &Hello) -> Result<Arc<Session>, Refusal> {
        if hello.protocol != PROTOCOL {
            return Err(version_refusal(hello.protocol, &hello.version));
        }
        let key: [u8; 32] = STANDARD
            .decode(&hello.public_key)
            .ok()
            .and_then(|key| key.try_into().ok())
            .ok_or_else(|| {
                refusal(
                    RefusalReason::Malformed,
                    "the public key is not 32 bytes of base64",
                )
            })?;

        let mut state = self.state.lock();
        if let Some(token) = &hello.resume {
            // A secret that nobody but the session's client has; the key must be the same all the same.
            if let Some(session) = state.by_token.get(token)
                && session.peer.public_key() == key
            {
                return Ok(session.clone());
            }
        }
        if state.by_token.len() >= self.max_peers {
            return Err(refusal(
                RefusalReason::Full,
                &format!(
                    "the agent serves {} clients, its limit; raise PMZ_MAX_PEERS or add a replica",
                    self.max_peers
                ),
            ));
        }
        let Some(addresses) = state.addresses.take(&hello.addresses) else {
            return Err(refusal(
                RefusalReason::Full,
                "the agent has no tunnel address left",
            ));
        };
        let super_packets = hello.capabilities.contains(&Capability::SuperPackets);
        let paths = Paths::new(true, super_packets, INNER_MTU, addresses.to_vec());
        let allowed = addresses.iter().map(|a| IpNet::from(*a)).collect();
        let peer = self
            .engine
            .tunnel()
            .add_peer(key, allowed, paths)
            .map_err(|error| {
                state.addresses.give_back(&addresses);
                add_refusal(&error)
            })?;
        (self.admit)(&peer);
        let session = Arc::new(Session {
            token: new_token(),
            peer,
            addresses,
            generation: AtomicU64::new(0),
            ended: CancellationToken::new(),
            control: Mutex::new(CancellationToken::new()),
        });
        state
            .by_token
            .insert(session.token.clone(), session.clone());
        Ok(session)
    }

    /// Whether the session that this hello takes up is here.
    pub(crate) fn holds(&self, hello: &Hello) -> bool {
        let state = self.state.lock();
        let token = hello.resume.as_ref();
        token.is_some_and(|token| state.by_token.contains_key(token))
    }

    /// The session of a carrier connection.
    pub(crate) fn find(&self, token: &str) -> Option<Arc<Session>> {
        self.state.lock().by_token.get(token).cloned()
    }

    /// Forgets a session: its peer, its flows, its addresses.
    pub(crate) fn close(&self, session: &Session, why: &str) {
        let mut state = self.state.lock();
        if state.by_token.remove(&session.token).is_none() {
            return;
        }
        self.engine.tunnel().remove_peer(session.peer.id());
        state.addresses.give_back(&session.addresses);
        drop(state);
        session.ended.cancel();
        (self.forget)(&session.peer);
        self.closed.notify_waiters();
        tracing::info!(peer = session.peer.id().0, why, "session closed");
    }

    /// Forgets peers from which nothing has come for `timeout`.
    pub(crate) fn expire(&self, timeout: Duration) {
        let silent: Vec<_> = {
            let state = self.state.lock();
            let silent = |s: &&Arc<Session>| s.peer.attached.silent_for() > timeout;
            state.by_token.values().filter(silent).cloned().collect()
        };
        for session in silent {
            self.close(&session, "the client was silent for too long");
        }
    }
}

/// A secret of 256 bits from the system's random source.
fn new_token() -> String {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn refusal(reason: RefusalReason, message: &str) -> Refusal {
    Refusal {
        reason,
        message: message.to_owned(),
    }
}

fn add_refusal(error: &AddPeerError) -> Refusal {
    match error {
        AddPeerError::DuplicateKey => refusal(
            RefusalReason::Session,
            "another session holds this key; each `pmz up` makes a key of its own, so start anew",
        ),
        AddPeerError::DuplicateAddress(_) | AddPeerError::Exhausted => refusal(
            RefusalReason::Unavailable,
            "the agent can't add a peer; restart its pod",
        ),
    }
}

/// Who is older, and what mends it.
pub(crate) fn version_refusal(protocol: u32, version: &str) -> Refusal {
    let own = env!("CARGO_PKG_VERSION");
    let message = if protocol < PROTOCOL {
        format!(
            "pmz on this machine, version {version}, is older than the agent: it speaks protocol {protocol}, \
             the agent, version {own}, speaks {PROTOCOL}; upgrade pmz on this machine to {own}"
        )
    } else {
        format!(
            "the agent, version {own}, is older than pmz on this machine: it speaks protocol {PROTOCOL}, \
             version {version} here speaks {protocol}; `pmz agent deploy` brings the agent up to date"
        )
    };
    refusal(RefusalReason::Version, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_told_who_is_older_and_what_mends_it() {
        let older = version_refusal(PROTOCOL - 1, "0.0.9");
        assert_eq!(older.reason, RefusalReason::Version);
        let text = older.message;
        assert!(
            text.contains("version 0.0.9, is older than the agent"),
            "{text}"
        );
        assert!(text.contains("upgrade pmz on this machine"), "{text}");
        let newer = version_refusal(PROTOCOL + 1, "9.0.0").message;
        assert!(
            newer.contains("is older than pmz on this machine"),
            "{newer}"
        );
        assert!(newer.contains("`pmz agent deploy`"), "{newer}");
    }
}
