//! The daemon's life with a helper that works and sessions that a test makes.
#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pmz_cli::cluster::Target;
use pmz_cli::daemon::{
    AddDomain, Ask, CarrierChoice, ConnectContext, ConnectError, Connector, ControlClient,
    DomainTold, Domains, Phase, RemoveDomain, Session, State, Status, Tell, UpOptions, View, run,
};
use pmz_cli::domains::{Change, Store};
use pmz_cli::failure::{ExitCode, Failure};
use pmz_cli::helper::{Channel, HelperClient, Paths, serve};
use pmz_net::route::{OverlapPolicy, PoolWish};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// What the next attempts come to; when there is no more, they wait.
enum Outcome {
    Stands,
    Fails(ConnectError),
}

struct Scripted {
    script: mpsc::UnboundedReceiver<Outcome>,
    lose: Arc<Notify>,
    closed: Arc<AtomicUsize>,
}

struct Fake {
    lose: Arc<Notify>,
    closed: Arc<AtomicUsize>,
}

impl Connector for Scripted {
    type Session = Fake;

    async fn connect(&mut self, context: &ConnectContext) -> Result<Fake, ConnectError> {
        context.board.step("asking the script");
        context.domains.enter("dev", "tools", None).await?;
        match self.script.recv().await {
            Some(Outcome::Stands) => Ok(Fake {
                lose: self.lose.clone(),
                closed: self.closed.clone(),
            }),
            Some(Outcome::Fails(error)) => Err(error),
            None => std::future::pending().await,
        }
    }
}

impl Session for Fake {
    async fn lost(&mut self) -> String {
        self.lose.notified().await;
        "the script said so".to_owned()
    }

    fn fill(&self, status: &mut Status) {
        status.services = 42;
    }

    async fn close(self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

struct Bench {
    script: mpsc::UnboundedSender<Outcome>,
    lose: Arc<Notify>,
    closed: Arc<AtomicUsize>,
    daemon: JoinHandle<Result<(), Failure>>,
    helper: JoinHandle<std::io::Result<()>>,
    starter: ControlClient,
    paths: Paths,
    _dir: tempfile::TempDir,
}

fn failure(transient: bool) -> ConnectError {
    let failure = Failure::new(ExitCode::NoAgent, "There is no agent", "Install it");
    ConnectError { failure, transient }
}

fn paths_in(dir: &Path) -> Paths {
    Paths {
        runtime: dir.join("run"),
        resolv_conf: dir.join("resolv.conf"),
    }
}

fn bench(foreground: bool) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths_in(dir.path());
    let (ours, theirs) = Channel::pair().unwrap();
    let helper = tokio::spawn(serve(theirs, nix::unistd::getuid().as_raw(), paths.clone()));
    let (mine, daemons) = StdStream::pair().unwrap();
    mine.set_nonblocking(true).unwrap();
    let (script, receiver) = mpsc::unbounded_channel();
    let (lose, closed) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let connector = Scripted {
        script: receiver,
        lose: lose.clone(),
        closed: closed.clone(),
    };
    let target = Target {
        kubeconfig: None,
        search: None,
        context: Some("dev".to_owned()),
        namespace: "pmz".to_owned(),
    };
    let options = UpOptions {
        steer: Default::default(),
        deploy: false,
        target,
        carrier: CarrierChoice::Auto,
        pods: true,
        overlap: OverlapPolicy::default(),
        pool: PoolWish::default(),
        include: Vec::new(),
        exclude: Vec::new(),
        ebpf: pmz_cli::daemon::EbpfChoice::Off,
        dns: None,
        search: Default::default(),
        verbose: 0,
        foreground,
        run_as: None,
    };
    let client = HelperClient::new(ours).unwrap();
    let domains = Domains::new(Store::at(&dir.path().join("config/domains.json")));
    let daemon = tokio::spawn(run(client, options, connector, daemons, domains));
    let starter = ControlClient::new(UnixStream::from_std(mine).unwrap());
    Bench {
        script,
        lose,
        closed,
        daemon,
        helper,
        starter,
        paths,
        _dir: dir,
    }
}

impl Bench {
    /// Watches until the daemon is where it should be.
    async fn until(&mut self, wanted: impl Fn(&View) -> bool) -> View {
        let wait = async {
            loop {
                match self.starter.next().await.unwrap() {
                    Some(Tell::View(view)) if wanted(&view) => return view,
                    Some(_) => {}
                    None => panic!("the daemon ended"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .unwrap()
    }

    /// Asks as another command does it.
    async fn ask(&self, what: &Ask) -> Tell {
        let socket = UnixStream::connect(self.paths.control_socket()).await;
        let mut client = ControlClient::new(socket.unwrap());
        client.ask(what).await.unwrap();
        client.next().await.unwrap().unwrap()
    }

    async fn status(&self) -> Status {
        match self.ask(&Ask::Status).await {
            Tell::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    async fn ended(self) -> Result<(), Failure> {
        let result = tokio::time::timeout(Duration::from_secs(10), self.daemon)
            .await
            .unwrap()
            .unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.helper)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(!self.paths.control_socket().exists());
        result
    }
}

#[tokio::test]
async fn a_session_stands_is_lost_and_made_again_and_ends_when_told() {
    let mut bench = bench(false);
    bench.starter.ask(&Ask::Watch).await.unwrap();
    bench
        .until(|view| view.steps.iter().any(|s| s.text == "asking the script"))
        .await;
    assert_eq!(bench.status().await.state, State::Connecting);
    bench.script.send(Outcome::Stands).ok().unwrap();
    bench.until(|view| view.phase == Phase::Connected).await;
    let status = bench.status().await;
    assert_eq!((status.state, status.services), (State::Connected, 42));
    assert_eq!(status.context, "dev");

    bench.lose.notify_one();
    bench
        .until(|view| matches!(view.phase, Phase::Reconnecting { .. }))
        .await;
    for transient in [true, true] {
        bench
            .script
            .send(Outcome::Fails(failure(transient)))
            .ok()
            .unwrap();
    }
    bench.script.send(Outcome::Stands).ok().unwrap();
    bench
        .until(|view| view.phase == Phase::Connected && view.attempt == 4)
        .await;
    let status = bench.status().await;
    assert_eq!(status.reconnects, 1);
    assert!(status.last_fault.unwrap().what.contains("no agent"));
    assert_eq!(bench.closed.load(Ordering::Relaxed), 1);

    bench.starter.ask(&Ask::Down).await.unwrap();
    bench.until(|view| view.phase == Phase::Stopping).await;
    while bench.starter.next().await.unwrap().is_some() {}
    assert!(
        !bench.paths.control_socket().exists(),
        "told of the end before the helper's"
    );
    assert_eq!(bench.closed.load(Ordering::Relaxed), 2);
    bench.ended().await.unwrap();
}

#[tokio::test]
async fn a_first_attempt_that_fails_ends_the_daemon_and_says_why() {
    let mut bench = bench(false);
    bench.starter.ask(&Ask::Watch).await.unwrap();
    bench
        .script
        .send(Outcome::Fails(failure(true)))
        .ok()
        .unwrap();
    let view = bench
        .until(|view| matches!(view.phase, Phase::Failed { .. }))
        .await;
    let Phase::Failed { failure } = view.phase else {
        panic!()
    };
    assert_eq!(
        (failure.code, failure.to_string().as_str()),
        (ExitCode::NoAgent, "There is no agent. Install it.")
    );
    assert_eq!(bench.ended().await.unwrap_err().code, ExitCode::NoAgent);
}

#[tokio::test]
async fn the_daemon_does_not_outlive_its_helper() {
    let mut bench = bench(false);
    bench.starter.ask(&Ask::Watch).await.unwrap();
    bench.script.send(Outcome::Stands).ok().unwrap();
    bench.until(|view| view.phase == Phase::Connected).await;
    bench.helper.abort();
    let result = tokio::time::timeout(Duration::from_secs(10), bench.daemon)
        .await
        .unwrap()
        .unwrap();
    assert!(result.unwrap_err().cause.contains("helper has ended"));
}

#[tokio::test]
async fn in_the_foreground_it_ends_with_the_command_that_started_it() {
    let mut bench = bench(true);
    bench.starter.ask(&Ask::Watch).await.unwrap();
    bench.script.send(Outcome::Stands).ok().unwrap();
    bench.until(|view| view.phase == Phase::Connected).await;
    let (mine, _other) = UnixStream::pair().unwrap();
    bench.starter = ControlClient::new(mine);
    bench.ended().await.unwrap();
}

#[tokio::test]
async fn while_it_connects_it_can_be_told_to_end() {
    let mut bench = bench(false);
    bench.starter.ask(&Ask::Watch).await.unwrap();
    bench.until(|view| !view.steps.is_empty()).await;
    bench.starter.ask(&Ask::Down).await.unwrap();
    bench.until(|view| view.phase == Phase::Stopping).await;
    bench.ended().await.unwrap();
}

#[tokio::test]
async fn domains_are_added_listed_and_removed_while_it_runs() {
    let mut bench = bench(false);
    bench.starter.ask(&Ask::Watch).await.unwrap();
    bench.script.send(Outcome::Stands).ok().unwrap();
    bench.until(|view| view.phase == Phase::Connected).await;
    let wish = AddDomain {
        domain: "www.dns.com".parse().unwrap(),
        service: "echo".parse().unwrap(),
        namespace: None,
        port: Some("http".parse().unwrap()),
        context: None,
        force: false,
    };
    let told = bench.ask(&Ask::AddDomain(wish.clone())).await;
    let Tell::Domain(DomainTold::Done { change, line }) = told else {
        panic!("{told:?}");
    };
    assert_eq!(change, Change::Added);
    assert_eq!(line.entry.target(), "echo.tools.svc:http");
    assert_eq!(bench.status().await.domains, 1);

    let names = Ask::Names { context: None };
    let Tell::Names(page) = bench.ask(&names).await else {
        panic!();
    };
    assert_eq!(page.domains[0].entry, line.entry);
    let elsewhere = Some("prod".to_owned());
    let other = AddDomain {
        context: elsewhere.clone(),
        ..wish
    };
    for ask in [Ask::AddDomain(other), Ask::Names { context: elsewhere }] {
        let told = bench.ask(&ask).await;
        let Tell::Domain(DomainTold::Elsewhere { context }) = told else {
            panic!("{told:?}");
        };
        assert_eq!(context, "dev");
    }

    let wish = RemoveDomain {
        domain: line.entry.domain,
        context: Some("dev".to_owned()),
    };
    let told = bench.ask(&Ask::RemoveDomain(wish.clone())).await;
    assert!(matches!(told, Tell::Domain(DomainTold::Done { .. })));
    let told = bench.ask(&Ask::RemoveDomain(wish)).await;
    assert!(matches!(told, Tell::Domain(DomainTold::Refused { .. })));
    assert_eq!(bench.status().await.domains, 0);
    bench.starter.ask(&Ask::Down).await.unwrap();
    bench.ended().await.unwrap();
}
