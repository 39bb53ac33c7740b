//! Resolvers that nobody here wrote, on each way: the C libraries of GNU and musl, Go's own, BIND's, NLnet Labs', busybox's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, ensure};
use pmz_cli::playground::world::World;
use pmz_tests::lab::Programs;
use pmz_tests::{eventually, options, run, scene, script, skipped, status};

use crate::outside::{ADDRESS, Outside, server};
use crate::resolved::Resolved;
use crate::service;
use crate::steering::pmz;

const SOON: Duration = Duration::from_secs(10);
const CLUSTER: &str = "echo.default.svc.cluster.local";
const CUSTOM: &str = "www.dns.com";
const OUTSIDE: &str = "www.example.org";

static GO: OnceLock<Result<PathBuf, String>> = OnceLock::new();
static MUSL: OnceLock<Result<PathBuf, String>> = OnceLock::new();

const PYTHON: &str = "import socket, sys
for name in sys.argv[1:]:
    print(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])";

/// A program that resolves names: what it is called, and how it is called.
struct Client {
    what: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// Whether one call takes several names, and prints an address for each and nothing else.
    takes_all: bool,
}

impl Client {
    fn new(what: &'static str, program: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        Self {
            what,
            program: program.into(),
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
            environment: Vec::new(),
            takes_all: false,
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    fn taking_all(mut self) -> Self {
        self.takes_all = true;
        self
    }

    fn command(&self, world: &World, names: &[&str]) -> Command {
        let mut command = world.laptop(&self.program.to_string_lossy());
        command.args(&self.arguments).args(names);
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    async fn finds(&self, world: &World, wanted: &[(&str, &str)]) -> Result<()> {
        if self.takes_all {
            let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
            let addresses: Vec<&str> = wanted.iter().map(|(_, address)| *address).collect();
            let ran = run(self.command(world, &names)).await?;
            let found: Vec<&str> = ran.stdout.lines().collect();
            ensure!(found == addresses, "{}: {ran:?}", self.what);
            return Ok(());
        }
        for (name, address) in wanted {
            let ran = run(self.command(world, &[name])).await?;
            let fine = ran.code == Some(0) && ran.stdout.contains(address);
            // Not the address to which eBPF programs lead a query.
            ensure!(
                fine && !ran.stdout.contains("127.112."),
                "{} {name}: {ran:?}",
                self.what
            );
        }
        Ok(())
    }
}

/// Those that there are on this machine, of the programs that were fetched, and built here.
fn clients(test: &str, programs: Option<&Programs>) -> Result<Vec<Client>> {
    let python = || Client::new("python3", "python3", &["-c", PYTHON]).taking_all();
    let mut clients = vec![
        Client::new("getent", "getent", &["ahostsv4"]),
        Client::new("getent by TCP", "getent", &["ahostsv4"]).with("RES_OPTIONS", "use-vc"),
    ];
    if Command::new("python3").arg("-V").output().is_ok() {
        clients.extend([python(), python().with("RES_OPTIONS", "use-vc")]);
    } else {
        skipped(test, "there is no python3 here");
    }
    if let Some(programs) = programs {
        let libraries = programs.libraries(&[""]);
        for (what, program, arguments) in [
            ("dig", "bin/dig", &["+short"][..]),
            ("dig +tcp", "bin/dig", &["+short", "+tcp"]),
            ("drill", "bin/drill", &[]),
            ("drill -t", "bin/drill", &["-t"]),
            ("busybox nslookup", "bin/busybox", &["nslookup"]),
        ] {
            let client = Client::new(what, programs.path(program), arguments);
            clients.push(client.with("LD_LIBRARY_PATH", &libraries));
        }
    }
    match built("go", &GO, go) {
        Ok(program) => {
            let client = |what, arguments| Client::new(what, &program, arguments).taking_all();
            clients.extend([client("Go", &[]), client("Go by TCP", &["-tcp"])]);
        }
        Err(why) => skipped(test, &format!("a static Go program: {why}")),
    }
    if let Some(programs) = programs {
        match built("musl", &MUSL, |program| musl(program, programs)) {
            Ok(program) => clients.push(Client::new("musl", program, &[]).taking_all()),
            Err(why) => skipped(test, &format!("a static program with musl: {why}")),
        }
    }
    Ok(clients)
}

/// Builds a program, once, in the folder that cargo has for such things.
fn built(
    name: &str,
    once: &OnceLock<Result<PathBuf, String>>,
    build: impl FnOnce(&Path) -> Command,
) -> Result<PathBuf, String> {
    let build = || {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = folder.join(format!("lookup-{name}"));
        // Another run of this test may use the one that is there.
        let fresh = folder.join(format!("lookup-{name}-{}", std::process::id()));
        succeed(build(&fresh))?;
        std::fs::rename(&fresh, &program).map_err(|error| error.to_string())?;
        Ok(program)
    };
    once.get_or_init(build).clone()
}

fn source(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/namespaces/clients");
    folder.join(name)
}

fn go(program: &Path) -> Command {
    let mut build = Command::new("go");
    build
        .args(["build", "-o"])
        .arg(program)
        .arg(source("lookup.go"));
    build.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local");
    build.env("GO111MODULE", "off").env("GOFLAGS", "");
    build
}

/// As musl-gcc(1) does it, by the compiler that is here and the library that was fetched.
fn musl(program: &Path, programs: &Programs) -> Command {
    let target = format!("{}-linux-musl", std::env::consts::ARCH);
    let library = programs.path(&format!("lib/{target}"));
    let mut build = Command::new("cc");
    build.args(["-static", "-no-pie", "-nostdinc", "-nostdlib", "-isystem"]);
    build.arg(programs.path(&format!("include/{target}")));
    build.arg("-o").arg(program);
    build.args(["crt1.o", "crti.o"].map(|it| library.join(it)));
    build.arg(source("lookup.c")).arg(library.join("libc.a"));
    build.arg("-lgcc").arg(library.join("crtn.o"));
    build
}

fn succeed(mut command: Command) -> Result<(), String> {
    let output = command.output().map_err(|error| {
        let program = command.get_program().to_string_lossy().into_owned();
        format!("{program}: {error}")
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// All of them find a name of each kind; by the way that pmz says that names take.
async fn all_find(world: &World, clients: &[Client], how: &str) -> Result<()> {
    let laptop = world.playground().laptop();
    let dns = status(world).await?["dns"].clone();
    ensure!(dns["how"] == how, "{dns}");
    let echo = service(world, "default", "echo", 4)?.ip().to_string();
    let added = [
        "dns",
        "add",
        "--domain",
        CUSTOM,
        "--service",
        "echo",
        "-n",
        "default",
    ];
    let added = pmz(world, &added).await?;
    ensure!(added.code == Some(0), "{added:?}");
    eventually("the domain", SOON, async || {
        let found = script(laptop, &format!("getent ahostsv4 {CUSTOM}")).await;
        Ok(found.is_ok_and(|it| it.contains(&echo)).then_some(()))
    })
    .await?;
    for client in clients {
        let wanted = [(CLUSTER, &*echo), (CUSTOM, &echo), (OUTSIDE, ADDRESS)];
        client.finds(world, &wanted).await?;
        println!("{how}: {}", client.what);
    }
    Ok(())
}

/// Its wget(1) takes names from the C library that it is linked with, and what they lead to answers.
async fn busybox_fetches(world: &World, programs: &Programs) -> Result<()> {
    for name in [CLUSTER, CUSTOM] {
        let mut wget = world.laptop(&programs.path("bin/busybox").to_string_lossy());
        wget.args(["wget", "-q", "-O", "-"]);
        wget.arg(format!("http://{name}/?echo_body=amazing"));
        let ran = run(wget).await?;
        ensure!(ran.stdout == "\"amazing\"", "{name}: {ran:?}");
    }
    Ok(())
}

/// dig(1) takes answers from whom it has asked, and from nobody else.
async fn a_server_that_is_named_answers(world: &World, programs: &Programs) -> Result<()> {
    for transport in ["+notcp", "+tcp"] {
        let mut dig = world.laptop(&programs.path("bin/dig").to_string_lossy());
        dig.env("LD_LIBRARY_PATH", programs.libraries(&[""]));
        dig.arg(format!("@{}", server())).args([transport, CLUSTER]);
        let ran = run(dig).await?;
        let by = format!("SERVER: {}#53", server());
        ensure!(ran.stdout.contains(&by), "{transport}: {ran:?}");
        ensure!(ran.stdout.contains("10.96.0.10"), "{transport}: {ran:?}");
    }
    Ok(())
}

#[test]
fn every_resolver_finds_names_of_the_cluster_the_user_and_the_outside_by_ebpf_and_by_resolv_conf() {
    let test = "real resolvers";
    let programs = Programs::of(test);
    scene(
        test,
        || options(None),
        async |world| {
            let clients = clients(test, programs.as_ref())?;
            let _outside = Outside::start(world.playground().node())?;
            let resolv = format!("echo nameserver {} >/etc/resolv.conf", server());
            script(world.playground().laptop(), &resolv).await?;
            for (way, how) in [("ebpf", "ebpf"), ("resolvconf", "resolv.conf")] {
                world.up(&["--dns", way], false).await?;
                all_find(world, &clients, how).await?;
                if let Some(programs) = &programs {
                    busybox_fetches(world, programs).await?;
                    if way == "ebpf" {
                        a_server_that_is_named_answers(world, programs).await?;
                    }
                }
                pmz(world, &["down"]).await?;
            }
            Ok(())
        },
    );
}

#[test]
fn every_resolver_finds_names_of_the_cluster_the_user_and_the_outside_by_systemd_resolved() {
    let test = "real resolvers by systemd-resolved";
    let Some(programs) = Programs::of(test) else {
        return;
    };
    scene(
        test,
        || options(None),
        async |world| {
            let clients = clients(test, Some(&programs))?;
            let _resolved = Resolved::start(world, programs.clone()).await?;
            world.up(&["--dns", "resolved"], false).await?;
            all_find(world, &clients, "systemd-resolved").await?;
            busybox_fetches(world, &programs).await
        },
    );
}
