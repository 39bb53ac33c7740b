//! `pmz dns` as a program, without a daemon.
#![allow(clippy::unwrap_used)]

use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A user with a kubeconfig of two contexts that nobody else has: a daemon on this machine is connected to neither.
struct User {
    dir: tempfile::TempDir,
    dev: String,
    prod: String,
}

impl User {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mark: u64 = rand::random();
        let user = Self {
            dir,
            dev: format!("dev-{mark:x}"),
            prod: format!("prod-{mark:x}"),
        };
        let (dev, prod) = (&user.dev, &user.prod);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {dev}\n\
             clusters:\n- name: c\n  cluster: {{server: 'https://api.cluster.example:6443'}}\n\
             users:\n- name: u\n  user: {{token: abc}}\n\
             contexts:\n- name: {dev}\n  context: {{cluster: c, user: u, namespace: tools}}\n\
             - name: {prod}\n  context: {{cluster: c, user: u}}\n"
        );
        std::fs::write(user.kubeconfig(), text).unwrap();
        user
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("config/pmz/domains.json")
    }

    fn command(&self, context: &str, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pmz"));
        command
            .args(["dns", "--context", context])
            .args(line.split_whitespace())
            .env("KUBECONFIG", self.kubeconfig())
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .env_remove("SUDO_UID")
            .env_remove("SUDO_GID");
        command
    }

    fn run(&self, context: &str, line: &str) -> Ran {
        Ran::from(self.command(context, line).output().unwrap())
    }

    fn list(&self, context: &str) -> serde_json::Value {
        let ran = self.run(context, "list -o json");
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    }
}

#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    fn says(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "on stdout: {self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "not one line: {self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not said: {self:?}");
        }
    }
}

#[test]
fn without_a_daemon_domains_are_kept_for_their_context_and_that_is_said() {
    let user = User::new();
    let (dev, prod) = (user.dev.as_str(), user.prod.as_str());
    let add = "add --domain www.dns.com --service echo";
    user.run(dev, add).says(
        0,
        &["www.dns.com is kept", "echo.tools.svc", dev, "not checked"],
    );
    user.run(dev, add).says(0, &["unchanged"]);
    user.run(prod, &format!("{add} --namespace shop --port http"))
        .says(0, &["echo.shop.svc:http", prod]);
    let mode = user.file().metadata().unwrap().mode() & 0o777;
    assert_eq!(mode, 0o600);

    let list = user.list(dev);
    assert_eq!(list["context"], dev);
    assert_eq!(list["connected"], false);
    let [domain] = list["domains"].as_array().unwrap().as_slice() else {
        panic!("{list}");
    };
    assert_eq!(domain["domain"], "www.dns.com");
    assert_eq!(domain["namespace"], "tools");
    let text = user.run(prod, "list");
    let columns: Vec<&str> = text.stdout.split_whitespace().collect();
    assert_eq!(columns, ["www.dns.com", "-", "echo.shop.svc:http"]);
    assert!(
        text.stderr.contains("Only the domains of context"),
        "{text:?}"
    );
    assert_eq!(user.run(prod, "list -o name -n tools").stdout, "");

    user.run(dev, "remove --domain www.dns.com")
        .says(0, &["does not lead to echo.tools.svc any more"]);
    user.run(dev, "remove --domain www.dns.com")
        .says(2, &["error: ", dev, prod, "--context"]);
    assert_eq!(user.list(prod)["domains"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_refused_without_a_daemon_leaves_no_file() {
    let user = User::new();
    for (line, code, words) in [
        ("add --domain a_b:80 --service echo", 2, "URL"),
        ("add --domain a.svc --service echo", 2, "the cluster's own"),
        (
            "add --domain a.cluster.local --service echo",
            2,
            "cluster.local",
        ),
        (
            "add --domain api.cluster.example --service echo",
            2,
            "API server",
        ),
        ("add --domain *.dev --service echo", 2, "--force"),
        ("add --domain intranet --service echo", 2, "single label"),
        ("add --domain a.test --service Echo", 2, "\"Echo\""),
        ("add --domain a.test --service echo -n a.b", 2, "\"a.b\""),
        ("add --domain a.test --service echo --port 0", 2, "65535"),
        ("remove --domain a.test", 2, "has not been added"),
    ] {
        user.run(&user.dev, line).says(code, &["error: ", words]);
    }
    assert!(!user.file().exists());
    user.run(&user.dev, "add --domain *.dev --service echo --force")
        .says(0, &["*.dev is kept"]);
    user.run("nowhere", "add --domain a.test --service echo")
        .says(2, &["nowhere", &user.dev]);
}

#[test]
fn another_target_takes_force() {
    let user = User::new();
    user.run(&user.dev, "add --domain a.test --service echo")
        .says(0, &[]);
    user.run(&user.dev, "add --domain a.test --service web")
        .says(1, &["leads to echo.tools.svc already", "--force"]);
    user.run(&user.dev, "add --domain A.TEST. --service web --force")
        .says(0, &["web.tools.svc", "not to echo.tools.svc any more"]);
    assert_eq!(user.list(&user.dev)["domains"][0]["service"], "web");
}

#[test]
fn a_file_that_others_may_write_is_neither_used_nor_replaced() {
    let user = User::new();
    user.run(&user.dev, "add --domain a.test --service echo")
        .says(0, &[]);
    let open = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(user.file(), open).unwrap();
    for line in [
        "add --domain b.test --service echo",
        "remove --domain a.test",
    ] {
        user.run(&user.dev, line)
            .says(1, &["others may write to it", "chmod"]);
    }
    let kept = std::fs::read_to_string(user.file()).unwrap();
    assert!(
        kept.contains("a.test") && !kept.contains("b.test"),
        "{kept}"
    );
}

#[test]
fn behind_sudo_the_file_is_the_callers() {
    if !nix::unistd::geteuid().is_root() {
        // The test harness keeps to itself what a test that passes prints by macros.
        let _ = writeln!(
            io::stderr(),
            "skipped: behind sudo: becoming another user needs root"
        );
        return;
    }
    const NOBODY: u32 = 65534;
    let user = User::new();
    let readable = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    readable(user.dir.path(), 0o777);
    readable(&user.kubeconfig(), 0o644);
    let mut command = user.command(&user.dev, "add --domain a.test --service echo");
    command.env("SUDO_UID", NOBODY.to_string());
    command.env("SUDO_GID", NOBODY.to_string());
    Ran::from(command.output().unwrap()).says(0, &["a.test is kept"]);
    assert_eq!(user.file().metadata().unwrap().uid(), NOBODY);
}
