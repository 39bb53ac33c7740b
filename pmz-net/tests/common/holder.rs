//! A process that attaches programs and is killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::namespace::Namespace;

/// Set for the process that is to attach.
const HOLD: &str = "PMZ_TEST_HOLD";
const READY: &str = "attached";

/// What the process does, in an ignored test of its own: attaches, and waits for its end. Does nothing in any other
/// process.
pub(crate) fn hold<T>(attach: impl FnOnce() -> T) {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let _held = attach();
    println!("{READY}");
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Starts the ignored test of this name in a process inside, and kills that when it has attached and `look` has seen
/// it, which is the answer.
pub(crate) fn while_held<T>(namespace: &Namespace, test: &str, look: impl FnOnce() -> T) -> T {
    let mut child = namespace.run(|| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--ignored"])
            .env(HOLD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.contains(READY));
    let seen = look();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ready, "the child did not attach");
    seen
}
