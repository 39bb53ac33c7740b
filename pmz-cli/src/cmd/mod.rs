//! The command line: one file per verb.

mod agent;
mod dns;
mod down;
pub mod playground;
mod status;
mod up;
mod version;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode as Code;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use nix::sys::signal::SigSet;
use tokio::net::UnixStream;

use crate::cluster::{DEFAULT_NAMESPACE, Target};
use crate::daemon::process::DaemonArgs;
use crate::daemon::{Connector, ControlClient, UpOptions};
use crate::failure::{ExitCode, Failure};
use crate::helper::Paths;
use crate::helper::launch::HelperArgs;
use crate::playground::tour::Run;
use crate::show::Style;

const EXIT_CODES: &str = "Exit codes:
  0    done
  1    anything without a code of its own
  2    the command line or the kubeconfig makes no sense
  3    pmz is not running
  4    a permission is missing, on this machine or in the cluster
  5    the cluster can't be reached (`status`: not connected at the moment)
  6    the cluster has no agent that is ready
  130  interrupted";

/// Puts this machine inside a Kubernetes cluster's network.
#[derive(Debug, Parser)]
#[command(name = "pmz", version, after_help = EXIT_CODES, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes, named as kubectl names it.
#[derive(Debug, Args)]
pub struct Global {
    /// Path of the kubeconfig, instead of KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig, instead of its current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace of the pmz agent [default: pmz]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Say more on stderr; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    fn target(&self) -> Target {
        Target::new(
            self.kubeconfig.as_deref(),
            self.context.clone(),
            self.namespace().to_owned(),
        )
    }

    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Connect to a cluster; does nothing where that connection stands
    Up(up::UpArgs),
    /// Disconnect; does nothing where nothing is connected
    Down,
    /// Tell what is connected, and how
    Status(status::StatusArgs),
    /// Lead names of your own to services, and show which names lead where
    Dns(dns::DnsArgs),
    /// Try the whole product on a small cluster made of this machine's namespaces
    Playground(playground::PlaygroundArgs),
    /// Print the version
    Version,
    /// The in-cluster end: deploy it, look at it, delete it
    Agent(agent::AgentArgs),
    /// The privileged part; started by `pmz up`
    #[command(hide = true)]
    Helper(HelperArgs),
    /// What a name is to this machine's programs; started by the daemon
    #[command(hide = true)]
    Lookup {
        /// The name
        name: String,
    },
    /// The part that holds the connection; started by `pmz up`
    #[command(hide = true)]
    Daemon(DaemonArgs),
}

/// What the verbs need from above.
pub struct Hooks<C> {
    /// Makes the daemon's sessions.
    pub connector: fn(&UpOptions) -> C,
    /// Runs a playground.
    pub playground: fn(Run) -> Result<Code, Failure>,
}

/// Runs the program.
pub fn main<C: Connector>(hooks: &Hooks<C>) -> Code {
    // A parent's blocked signals are inherited, through exec, too; a daemon must hear SIGTERM.
    let _ = SigSet::all().thread_unblock();
    let cli = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&cli) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match dispatch(cli, hooks) {
        Ok(code) => code,
        Err(failure) => {
            let label = Style::of(&io::stderr()).bad("error:");
            eprintln!("{label} {failure}");
            Code::from(failure.code as u8)
        }
    }
}

fn dispatch<C: Connector>(cli: Cli, hooks: &Hooks<C>) -> Result<Code, Failure> {
    let Cli { global, verb } = cli;
    let own_log = match &verb {
        Verb::Daemon(_) => true,
        Verb::Agent(args) => args.is_serve(),
        _ => false,
    };
    if !own_log {
        let filter = crate::daemon::log_filter(global.verbose, "error");
        let stderr = io::stderr();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(Style::of(&stderr).has_colour())
            .with_writer(io::stderr);
        // There is one subscriber per process, and nobody has set it before.
        let _ = log.try_init();
    }
    match verb {
        Verb::Up(args) => up::run(&global, &args),
        Verb::Down => down::run(),
        Verb::Status(args) => status::run(&args),
        Verb::Dns(args) => dns::run(&global, &args),
        Verb::Playground(args) => playground::run(args, global.verbose, hooks.playground),
        Verb::Version => version::run(),
        Verb::Agent(args) => agent::run(&global, args),
        Verb::Helper(args) => crate::helper::launch::main(&args).map(|()| Code::SUCCESS),
        Verb::Lookup { name } => Ok(crate::daemon::lookup::main(&name)),
        Verb::Daemon(args) => crate::daemon::process::main(&args, hooks.connector).map(Code::from),
    }
}

/// A runtime for a command that waits for one thing at a time.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                ExitCode::General,
                format!("pmz can't start: {error}"),
                "The machine may be out of descriptors",
            )
        })
}

/// Connects to the daemon; `None` where none is running.
async fn daemon() -> Result<Option<ControlClient>, Failure> {
    let path = Paths::default().control_socket();
    match UnixStream::connect(&path).await {
        Ok(stream) => Ok(Some(ControlClient::new(stream))),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            io::ErrorKind::PermissionDenied => Err(Failure::new(
                ExitCode::Permission,
                format!(
                    "The pmz on this machine is another user's ({} is not yours)",
                    path.display()
                ),
                "Ask as that user, or as root",
            )),
            _ => Err(Failure::new(
                ExitCode::General,
                format!(
                    "pmz's daemon can't be reached by {}: {error}",
                    path.display()
                ),
                "`pmz down` as root ends it",
            )),
        },
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure::new(
        ExitCode::General,
        format!("The daemon says what this version of pmz does not understand: {error}"),
        "It may be of another version: `pmz down` and `pmz up` start it anew",
    )
}

/// The command line, for tests of what calls this program.
#[cfg(test)]
pub(crate) fn command_for_tests() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kubectls_flags_stand_before_and_after_the_verb() {
        for line in [
            "pmz --context dev -n tools up",
            "pmz up --context=dev --namespace tools",
        ] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.global.context.as_deref(), Some("dev"), "{line}");
            assert_eq!(cli.global.namespace(), "tools", "{line}");
        }
        assert_eq!(
            parse("pmz status -o json").unwrap().global.namespace(),
            "pmz"
        );
        assert_eq!(parse("pmz up -vv").unwrap().global.verbose, 2);
    }

    #[test]
    fn nonsense_is_refused_with_clap_s_usage_code() {
        for line in [
            "pmz",
            "pmz sideways",
            "pmz status -o yaml",
            "pmz helper",
            "pmz helper --fd 3",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_playground_takes_a_command_or_a_verb() {
        let cli =
            parse("pmz playground --link delay=20ms -- curl -s http://echo.default.svc/").unwrap();
        let Verb::Playground(args) = cli.verb else {
            panic!()
        };
        assert_eq!(args.command, ["curl", "-s", "http://echo.default.svc/"]);
        assert!(args.link.is_some() && args.verb.is_none());
        let Verb::Playground(args) = parse("pmz playground shell echo-0").unwrap().verb else {
            panic!()
        };
        assert!(args.verb.is_some());
        assert!(parse("pmz playground --link speed=7").is_err());
    }
}
