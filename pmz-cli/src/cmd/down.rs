//! `pmz down`: ends the daemon, and returns when nothing of it is left.

use std::process::ExitCode as Code;
use std::time::Duration;

use super::{broken, daemon, runtime};
use crate::daemon::{Ask, ControlClient};
use crate::failure::{ExitCode, Failure};
use crate::helper::launch::put_back_now;
use crate::helper::{Paths, PutBack};

/// Session, helper and commands each have three seconds to end.
pub(super) const ENDED_WITHIN: Duration = Duration::from_secs(12);

pub(super) fn run() -> Result<Code, Failure> {
    let runtime = runtime()?;
    let running = runtime.block_on(async {
        let Some(client) = daemon().await? else {
            return Ok(false);
        };
        let ended = tokio::time::timeout(ENDED_WITHIN, end(client)).await;
        ended.unwrap_or_else(|_| Err(stuck())).map(|()| true)
    })?;
    drop(runtime);
    if running {
        eprintln!("Disconnected.");
        return Ok(Code::SUCCESS);
    }
    match put_back_now(&Paths::default())? {
        PutBack::Nothing => eprintln!("pmz is not running."),
        PutBack::Done => eprintln!("pmz was killed; /etc/resolv.conf is put back."),
        PutBack::TheirsNow => {
            eprintln!(
                "pmz was killed; /etc/resolv.conf has been changed since, and stays as it is."
            );
        }
    }
    Ok(Code::SUCCESS)
}

async fn end(mut client: ControlClient) -> Result<(), Failure> {
    // A daemon that ends just now has done what was asked.
    if client.ask(&Ask::Down).await.is_ok() {
        while client.next().await.map_err(|e| broken(&e))?.is_some() {}
    }
    Ok(())
}

fn stuck() -> Failure {
    Failure::new(
        ExitCode::General,
        format!("The daemon did not end within {} s", ENDED_WITHIN.as_secs()),
        "`pmz status` shows its process; when that is killed, the rest goes with it",
    )
}
