//! The tour: what pmz does, shown on the playground, line by line.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use pmz_net::route::Netlink;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::Options;
use super::errand::ERRAND_COMMAND;
use super::link::LinkSpec;
use super::machine::Machine;
use super::world::World;
use crate::daemon::DnsChoice;
use crate::failure::{self, Failure};
use crate::show::Style;

/// Bytes of the big download.
const DOWNLOAD: u64 = 1_000_000_000;

/// What a playground is to do.
#[derive(Debug)]
pub struct Run {
    /// The link between laptop and cluster; none: a plain cable.
    pub link: Option<LinkSpec>,
    /// Where its chances come from.
    pub seed: u64,
    /// What `pmz up` is told of DNS; none: nothing.
    pub dns: Option<DnsChoice>,
    /// A command to run on the laptop; empty: the tour.
    pub command: Vec<OsString>,
    /// How much to say.
    pub verbose: u8,
}

/// Runs a playground as the command line asks for it.
///
/// # Errors
/// Where it can't be built, or a step of the tour fails.
pub fn run(run: Run) -> Result<ExitCode, Failure> {
    let failed = |error: anyhow::Error| {
        let code = if nix::unistd::geteuid().is_root() {
            failure::ExitCode::General
        } else {
            failure::ExitCode::Permission
        };
        Failure::new(code, format!("{error:#}"), "")
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|e| failed(e.into()))?;
    runtime.block_on(play(run)).map_err(failed)
}

async fn play(run: Run) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut stop = std::pin::pin!(stop);
    let options = Options {
        link: run.link.clone(),
        seed: run.seed,
        ..Options::default()
    };
    let tour = run.command.is_empty();
    let mut say = Say::new(tour || run.verbose > 0, tour);

    say.begin("a cluster of network namespaces, its Kubernetes API, and an agent in a pod")?;
    let world = tokio::select! {
        world = World::start(options, run.verbose > 0) => world?,
        () = &mut stop => return Ok(ExitCode::from(failure::ExitCode::Interrupted as u8)),
    };
    say.end("ready")?;
    let code = tokio::select! {
        code = guided(&world, &run, &mut say) => code,
        // A command gets its own share of a terminal's Ctrl-C, and ends by it or not.
        () = &mut stop => Ok(ExitCode::from(failure::ExitCode::Interrupted as u8)),
    };
    world.shutdown().await;
    code
}

async fn guided(world: &World, run: &Run, say: &mut Say) -> Result<ExitCode> {
    say.begin("pmz up, on the laptop")?;
    let dns = run.dns.and_then(|dns| dns.to_possible_value());
    let arguments: Vec<&str> = match &dns {
        Some(dns) => vec!["--dns", dns.get_name()],
        None => Vec::new(),
    };
    world.up(&arguments, run.verbose > 0).await?;
    say.end("connected")?;
    let Some((program, arguments)) = run.command.split_first() else {
        return sights(world, say).await;
    };
    let mut command = world.laptop(&program.to_string_lossy());
    command.args(arguments);
    let status = world.run(command).await.context("run the command")?;
    let code = status.code().unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

async fn sights(world: &World, say: &mut Say) -> Result<ExitCode> {
    let add = [
        "dns",
        "add",
        "--domain",
        "www.dns.com",
        "--service",
        "echo",
        "--namespace",
        "default",
    ];
    pmz(world, say, &add).await?;
    let names = pmz(world, say, &["dns", "list"]).await?;
    ensure!(
        names.starts_with("www.dns.com"),
        "the added domain is not the first"
    );

    let echoed = errand(
        world,
        say,
        &["get", "http://echo.default.svc/?echo_body=amazing"],
    )
    .await?;
    ensure!(echoed == "\"amazing\"", "echo answered {echoed}");
    let domain = errand(world, say, &["get", "http://www.dns.com/?echo_body=yours"]).await?;
    ensure!(domain == "\"yours\"", "the added domain answered {domain}");
    errand(world, say, &["get", "http://echo.shop.svc.cluster.local/"]).await?;
    errand(world, say, &["udp", "udp-echo.default", "hello"]).await?;
    errand(world, say, &["ping", "db-0.db.default.svc"]).await?;
    let blob = format!("http://blob.default.svc/{DOWNLOAD}?seed=1");
    errand(world, say, &["download", &blob]).await?;

    say.begin("ip route, on the laptop")?;
    let routes = routes(world.playground().laptop()).await?;
    ensure!(routes.contains("pmz0"), "no route leads into pmz0");
    say.end(&routes)?;

    pmz(world, say, &["status"]).await?;

    if io::stdout().is_terminal() {
        println!(
            "\nThe playground stays up until Ctrl-C. In another terminal:\n\n    \
             {0} playground shell            a shell on the laptop: try curl http://echo.default.svc/\n    \
             {0} playground shell echo-0     a shell in a pod\n",
            program()
        );
        std::future::pending::<()>().await;
    }
    Ok(ExitCode::SUCCESS)
}

/// How this program is called again, with the rights that it has now.
fn program() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "pmz".into());
    format!("sudo {}", program.display())
}

/// Runs pmz on the laptop; gives what it wrote to stdout, and shows what it said, too.
async fn pmz(world: &World, say: &mut Say, what: &[&str]) -> Result<String> {
    say.begin(&format!("pmz {}", what.join(" ")))?;
    let mut command = world.pmz();
    command.args(what);
    let (told, said) = output_and_talk(Command::from(command)).await?;
    say.end(format!("{said}{told}").trim_end())?;
    Ok(told)
}

async fn errand(world: &World, say: &mut Say, what: &[&str]) -> Result<String> {
    say.begin(&what.join(" "))?;
    let mut command = world.pmz();
    command.arg(ERRAND_COMMAND).args(what);
    let line = output(Command::from(command)).await?;
    say.end(&line)?;
    Ok(line)
}

async fn output(command: Command) -> Result<String> {
    let (told, _) = output_and_talk(command).await?;
    Ok(told.trim_end().to_owned())
}

/// What a command that succeeds writes to stdout and to stderr.
async fn output_and_talk(mut command: Command) -> Result<(String, String)> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}", said.trim());
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), said))
}

/// The IPv4 and IPv6 routes of the main table, as `ip route` writes them.
async fn routes(machine: &Machine) -> Result<String> {
    let netlink = machine.in_netns(Netlink::open)??;
    let names = netlink.link_names().await?;
    let mut lines = Vec::new();
    for route in netlink.routes().await? {
        let device = route
            .index
            .and_then(|index| names.get(&index))
            .map_or("?", String::as_str);
        // 254 is the main table (rtnetlink.h); what the kernel itself keeps for links is left out.
        if route.table != 254 || device == "lo" {
            continue;
        }
        let via = route
            .gateway
            .map(|g| format!(" via {g}"))
            .unwrap_or_default();
        let source = route
            .prefsrc
            .map(|s| format!(" src {s}"))
            .unwrap_or_default();
        lines.push(format!("{}{via} dev {device}{source}", route.prefix));
    }
    Ok(lines.join("\n"))
}

/// Writes the tour's lines: on stdout, since they are what was asked for; beside a command, on stderr.
struct Say {
    on: bool,
    stdout: bool,
    style: Style,
}

impl Say {
    fn new(on: bool, stdout: bool) -> Self {
        let style = if stdout {
            Style::of(&io::stdout())
        } else {
            Style::of(&io::stderr())
        };
        Self { on, stdout, style }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        match (self.on, self.stdout) {
            (false, _) => Ok(()),
            (true, true) => {
                let mut out = io::stdout().lock();
                writeln!(out, "{text}")?;
                out.flush()
            }
            (true, false) => writeln!(io::stderr().lock(), "{text}"),
        }
    }

    fn begin(&mut self, what: &str) -> io::Result<()> {
        self.write(&format!("{} {what}", self.style.dim("$")))
    }

    fn end(&mut self, result: &str) -> io::Result<()> {
        let lines = result.lines().map(|line| format!("    {line}"));
        self.write(&lines.collect::<Vec<_>>().join("\n"))
    }
}
