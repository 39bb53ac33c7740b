//! How a test sees what goes on: commands, pmz's status, the agent's log.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pmz_cli::playground::machine::Machine;
use pmz_cli::playground::world::World;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// How often a condition that tells nobody of its changes is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// No command of a test takes longer.
const COMMAND: Duration = Duration::from_secs(30);

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; none: a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

/// Runs a command of a machine to its end.
///
/// # Errors
/// Where it can't be run, or does not end.
pub async fn run(command: std::process::Command) -> Result<Ran> {
    run_for(command, COMMAND).await
}

/// As [`run`], for a command that takes longer than others.
///
/// # Errors
/// As [`run`].
pub async fn run_for(command: std::process::Command, within: Duration) -> Result<Ran> {
    let begun = Instant::now();
    let output = Command::from(command)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(within, output)
        .await
        .context("the command does not end")??;
    Ok(Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: begun.elapsed(),
    })
}

/// Runs a shell script on a machine, and gives what it wrote.
///
/// # Errors
/// Where it fails.
pub async fn script(machine: &Machine, script: &str) -> Result<String> {
    let mut command = machine.command("sh");
    command.args(["-ec", script]);
    let ran = run(command).await?;
    if ran.code != Some(0) {
        bail!("{script}: {ran:?}");
    }
    Ok(ran.stdout)
}

/// `pmz status -o json`.
///
/// # Errors
/// Where that is no JSON.
pub async fn status(world: &World) -> Result<Value> {
    let mut command = world.pmz();
    command.args(["status", "-o", "json"]);
    let ran = run(command).await?;
    serde_json::from_str(&ran.stdout).with_context(|| format!("status: {ran:?}"))
}

/// Looks until `look` finds something.
///
/// # Errors
/// When it has not in time, with `what` in the message.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if begun.elapsed() > within {
            bail!("after {within:?}: not {what}");
        }
        sleep(LOOK).await;
    }
}

/// Waits until the tunnel's messages travel by `udp` or by `stream`.
///
/// # Errors
/// When they do not in time, with the last status.
pub async fn wait_for_carrier(world: &World, kind: &str, within: Duration) -> Result<Value> {
    wait(world, within, kind, |status| {
        status["carrier"]["kind"] == kind
    })
    .await
}

/// Waits until the status says that state.
///
/// # Errors
/// When it does not in time, with the last status.
pub async fn wait_for_state(world: &World, state: &str, within: Duration) -> Result<Value> {
    wait(world, within, state, |status| status["state"] == state).await
}

async fn wait(
    world: &World,
    within: Duration,
    what: &str,
    is: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let mut last = Value::Null;
    let found = eventually(what, within, async || {
        last = status(world).await?;
        Ok(is(&last).then(|| last.clone()))
    })
    .await;
    found.with_context(|| format!("the last status: {last}"))
}

/// The agents' log of one test; the file goes with it.
pub struct Log(PathBuf);

impl Log {
    /// A name that is free for the test of that name.
    pub fn new(test: &str) -> Self {
        let name = format!("pmz-test-{}-{test}.log", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.0.clone()
    }

    /// What it says so far.
    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }

    /// Waits until it says that.
    ///
    /// # Errors
    /// When it does not in time, with all that it says.
    pub async fn says(&self, what: &str, within: Duration) -> Result<()> {
        let found = eventually(what, within, async || {
            Ok(self.text().contains(what).then_some(()))
        });
        found.await.with_context(|| self.text())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = std::fs::remove_file(&self.0);
    }
}
