//! Where the machine's programs ask for names: /etc/resolv.conf, or systemd-resolved.

use std::net::IpAddr;

use super::message::{Refusal, Reply};
use super::resolv::{PutBack, ResolvConf};
use super::resolved::{LinkNames, Resolved, ResolvedError};
use super::runtime::{Paths, Runtime};

/// Puts /etc/resolv.conf back after a pmz that could not.
///
/// # Errors
/// [`Refusal::Running`] while a pmz holds it; else what the files say.
pub async fn put_back(paths: &Paths) -> Result<PutBack, Refusal> {
    if !paths.journal().exists() {
        return Ok(PutBack::Nothing);
    }
    let _held = Runtime::claim(paths).await?;
    undo(&ResolvConf::new(&paths.resolv_conf, &paths.journal()))
}

fn undo(resolv: &ResolvConf) -> Result<PutBack, Refusal> {
    resolv
        .put_back()
        .map_err(|error| failed("put back", resolv, &error))
}

fn failed(verb: &str, resolv: &ResolvConf, error: &std::io::Error) -> Refusal {
    Refusal::Failed {
        message: format!("{verb} {}: {error}", resolv.path().display()),
    }
}

/// What is led into the tunnel. When it goes, /etc/resolv.conf is as it was; what systemd-resolved was told goes with
/// the TUN.
pub(super) struct Names {
    resolv: ResolvConf,
    resolved: Option<Resolved>,
    /// Whether names are led through systemd-resolved.
    leads: bool,
}

impl Drop for Names {
    fn drop(&mut self) {
        if let Err(error) = self.resolv.put_back() {
            tracing::error!(%error, "resolv.conf is not put back; `pmz down` will try again");
        }
    }
}

impl Names {
    /// With /etc/resolv.conf as it was before a pmz that could not put it back.
    pub(super) fn new(paths: &Paths) -> Result<Self, Refusal> {
        let resolv = ResolvConf::new(&paths.resolv_conf, &paths.journal());
        match undo(&resolv)? {
            PutBack::Nothing => {}
            done => tracing::info!(?done, "resolv.conf of a pmz that was killed"),
        }
        Ok(Self {
            resolv,
            resolved: None,
            leads: false,
        })
    }

    pub(super) fn restore(&self) -> Result<(), Refusal> {
        undo(&self.resolv).map(drop)
    }

    pub(super) fn edit(&self, nameservers: &[IpAddr], search: &[String]) -> Result<Reply, Refusal> {
        let before = self
            .resolv
            .edit(nameservers, search)
            .map_err(|error| failed("edit", &self.resolv, &error))?;
        let (nameservers, search) = (before.nameservers, before.search);
        Ok(Reply::ResolvConf {
            nameservers,
            search,
        })
    }

    /// Has systemd-resolved ask the link for these.
    pub(super) async fn lead(&mut self, link: u32, names: &LinkNames<'_>) -> Result<(), Refusal> {
        let resolved = self.resolved().await?;
        if let Err(error) = resolved.lead(link, names).await {
            // Half of it may have been taken. What was taken as a whole before stays.
            if !self.leads
                && let Err(error) = resolved.revert(link).await
            {
                tracing::warn!(%error, "systemd-resolved keeps a part until the TUN goes");
            }
            return Err(no_resolved(error));
        }
        self.resolved = Some(resolved);
        self.leads = true;
        Ok(())
    }

    pub(super) async fn forget(&mut self, link: u32) -> Result<(), Refusal> {
        if self.leads {
            let resolved = self.resolved().await?;
            resolved.revert(link).await.map_err(no_resolved)?;
            self.leads = false;
        }
        Ok(())
    }

    /// As it was found before, until something goes wrong: the bus may be another one since.
    async fn resolved(&mut self) -> Result<Resolved, Refusal> {
        match self.resolved.take() {
            Some(resolved) => Ok(resolved),
            None => Resolved::find(self.resolv.path())
                .await
                .map_err(no_resolved),
        }
    }
}

fn no_resolved(error: ResolvedError) -> Refusal {
    Refusal::NoResolved {
        why: error.to_string(),
    }
}
