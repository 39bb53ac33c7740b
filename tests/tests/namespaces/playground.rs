//! `pmz playground` as a program.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use pmz_tests::{eventually, pmz_binary, run, skipped};
use tokio::io::AsyncReadExt;

fn with_root(test: &str, play: impl AsyncFnOnce() -> Result<()>) {
    if !nix::unistd::geteuid().is_root() {
        skipped(test, "making network namespaces needs root");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let played = async { tokio::time::timeout(Duration::from_secs(60), play()).await };
    match runtime.block_on(played) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:?}"),
        Err(_) => panic!("not over after a minute"),
    }
}

fn playground(script: &str) -> Result<Command> {
    let mut command = Command::new(pmz_binary()?);
    command.args(["playground", "--", "sh", "-c", script]);
    Ok(command)
}

#[test]
fn a_playgrounds_command_gives_its_exit_code_and_has_stdout_for_itself_also_when_two_run_at_once() {
    with_root("two playgrounds", async || {
        let script = "getent hosts echo.default.svc >&2; echo only this; exit 7";
        let (one, two) = tokio::join!(run(playground(script)?), run(playground(script)?));
        for ran in [one?, two?] {
            ensure!(ran.code == Some(7), "{ran:?}");
            ensure!(ran.stdout == "only this\n", "{ran:?}");
            ensure!(ran.stderr.contains("echo.default.svc"), "{ran:?}");
        }
        Ok(())
    });
}

#[test]
fn a_playground_killed_leaves_no_process_behind() {
    with_root("playground killed", async || {
        let mut command = tokio::process::Command::from(playground("echo up; exec sleep 1000")?);
        // Its children are found by this, and by nothing of other playgrounds.
        let mark = format!("PMZ_TEST_MARK={}", rand::random::<u64>());
        let (name, value) = mark.split_once('=').expect("an equals sign");
        let mut child = command
            .env(name, value)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut said = [0; 3];
        if let Some(stdout) = child.stdout.as_mut() {
            stdout.read_exact(&mut said).await?;
        }
        ensure!(&said == b"up\n", "{said:?}");
        let before = marked(&mark)?;
        ensure!(before.len() > 10, "{before:?}");
        child.kill().await?;
        eventually("nothing left", Duration::from_secs(10), async || {
            Ok(marked(&mark)?.is_empty().then_some(()))
        })
        .await
    });
}

/// The processes that have that in their environment.
fn marked(mark: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        // Those that end meanwhile, and what are no processes, can't be read.
        let Ok(environment) = std::fs::read(path.join("environ")) else {
            continue;
        };
        if environment
            .split(|byte| *byte == 0)
            .any(|v| v == mark.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}
