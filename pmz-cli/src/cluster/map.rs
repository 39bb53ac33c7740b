//! The kube client's errors, told as what a user can do something about.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::time::Duration;

use super::{Action, ClusterError};

/// How long the API server may take for one answer, the TCP and TLS handshakes before it included.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Whom errors are about.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) server: String,
    pub(super) context: String,
}

impl Peer {
    /// Awaits an answer of the API server for a limited time.
    pub(super) async fn ask<T>(
        &self,
        what: impl Into<Cow<'static, str>>,
        action: Action,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        match tokio::time::timeout(ANSWER_WITHIN, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.map(what.into(), action, &error)),
            Err(_) => Err(self.timeout(what.into())),
        }
    }

    pub(super) fn timeout(&self, what: Cow<'static, str>) -> ClusterError {
        ClusterError::Timeout {
            server: self.server.clone(),
            what,
            within: ANSWER_WITHIN,
        }
    }

    pub(super) fn map(
        &self,
        what: Cow<'static, str>,
        action: Action,
        error: &kube::Error,
    ) -> ClusterError {
        let Self { server, context } = self.clone();
        match error {
            kube::Error::Api(status) => {
                let reason = status.message.clone();
                match status.code {
                    401 => ClusterError::Unauthorized { server, context },
                    403 if !is_admission(&reason) => ClusterError::Forbidden { action, reason },
                    // What a rule forbids, or is invalid, is none of the server's faults.
                    400 | 403 | 409 | 422 => ClusterError::Refused { what, reason },
                    _ => ClusterError::Api {
                        server,
                        what,
                        reason,
                    },
                }
            }
            kube::Error::Auth(_) => ClusterError::Credentials {
                context,
                reason: chain(error),
            },
            other => self.transport(what, other),
        }
    }

    fn transport(&self, what: Cow<'static, str>, error: &kube::Error) -> ClusterError {
        let Self { server, context } = self.clone();
        for cause in causes(error) {
            // An error of the credentials' layer comes boxed within the service's.
            if let Some(kube::Error::Auth(_)) = cause.downcast_ref() {
                return ClusterError::Credentials {
                    context,
                    reason: chain(cause),
                };
            }
            if let Some(tls) = tls_error(cause) {
                return ClusterError::Tls {
                    server,
                    reason: tls,
                };
            }
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                if io.kind() == io::ErrorKind::TimedOut {
                    return self.timeout(what);
                }
                if io.raw_os_error().is_some() {
                    return ClusterError::Unreachable {
                        server,
                        reason: io.to_string(),
                    };
                }
            }
        }
        ClusterError::Unreachable {
            server,
            reason: chain(error),
        }
    }
}

/// Whether admission said no, and not authorization. Both do so with 403 and the same reason, "Forbidden";
/// but for a WebSocket port-forward without the right to `create` there is nothing behind the colon.
fn is_admission(words: &str) -> bool {
    let missing_right = words.contains(" cannot ") || words.contains("attempting to grant");
    let rule = words
        .split_once("is forbidden:")
        .map(|(_, rule)| rule.trim());
    !missing_right
        && (rule.is_some_and(|rule| !rule.is_empty()) || words.contains("denied the request"))
}

fn tls_error(cause: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return Some(tls.to_string());
    }
    // rustls comes wrapped in an I/O error, which does not name it as its source.
    let inner = cause.downcast_ref::<io::Error>()?.get_ref()?;
    inner
        .downcast_ref::<rustls::Error>()
        .map(ToString::to_string)
}

fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The error and its causes, each text once: many errors repeat their cause's.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer {
            server: "https://192.0.2.1:6443".to_owned(),
            context: "dev".to_owned(),
        }
    }

    fn api(code: u16, message: &str) -> kube::Error {
        let status = kube::core::Status {
            code,
            message: message.to_owned(),
            ..Default::default()
        };
        kube::Error::Api(Box::new(status))
    }

    fn map(error: &kube::Error) -> ClusterError {
        peer().map("list pods".into(), Action::list_pods("pmz"), error)
    }

    #[test]
    fn refusals_of_the_server_are_told_apart() {
        assert!(matches!(
            map(&api(401, "Unauthorized")),
            ClusterError::Unauthorized { .. }
        ));
        assert!(matches!(
            map(&api(
                403,
                "pods is forbidden: User \"jane\" cannot list resource \"pods\""
            )),
            ClusterError::Forbidden { .. }
        ));
        assert!(matches!(
            map(&api(403, "pods \"a\" is forbidden: ")),
            ClusterError::Forbidden { .. }
        ));
        assert!(matches!(
            map(&api(
                403,
                "pods \"a\" is forbidden: exceeded quota: few, used: pods=1"
            )),
            ClusterError::Refused { .. }
        ));
        assert!(matches!(
            map(&api(403, "pods \"a\" is forbidden: ")),
            ClusterError::Forbidden { .. }
        ));
        assert!(matches!(
            map(&api(503, "apiserver not ready")),
            ClusterError::Api { .. }
        ));
    }

    #[test]
    fn a_refused_connection_is_found_however_deep_it_is_wrapped() {
        #[derive(Debug, thiserror::Error)]
        #[error("client error (Connect)")]
        struct Wrapped(#[source] io::Error);
        let refused = Wrapped(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        match map(&kube::Error::Service(Box::new(refused))) {
            ClusterError::Unreachable { reason, .. } => {
                assert!(reason.contains("refused"), "{reason}")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_wrong_certificate_is_no_question_of_reaching_the_server() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = kube::Error::Service(Box::new(io::Error::new(io::ErrorKind::InvalidData, tls)));
        assert!(
            matches!(map(&error), ClusterError::Tls { .. }),
            "{:?}",
            map(&error)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_comes_is_not_waited_for() {
        let never = std::future::pending::<kube::Result<()>>();
        let result = peer()
            .ask("list pods", Action::list_pods("pmz"), never)
            .await;
        assert!(
            matches!(result, Err(ClusterError::Timeout { .. })),
            "{result:?}"
        );
    }
}
