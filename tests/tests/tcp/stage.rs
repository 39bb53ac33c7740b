//! Where a test plays: a bed of its own, bounded in time.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use pmz_cli::playground::link::{LinkEmulator, LinkSpec, PipeCounters};
use pmz_net::nat::TcpStack;
use pmz_net::tcp::Congestion;
use pmz_tests::tcp::{Bed, Setting, sysctl};

/// A test that takes longer hangs.
const WITHIN: Duration = Duration::from_secs(30);
/// What is awaited comes within this.
const SOON: Duration = Duration::from_secs(8);

/// What a test wants to play on.
#[derive(Clone)]
pub(crate) struct Stage {
    link: Option<String>,
    setting: Setting,
    congestion: Congestion,
    client_sysctls: Vec<(&'static str, &'static str)>,
    tries: u32,
}

/// A bed, and what some tests change of it.
pub(crate) struct Play {
    pub(crate) bed: Bed,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) ipv6: bool,
}

impl Stage {
    /// A link that is as bad as this says between client and NAT.
    pub(crate) fn link(spec: &str) -> Self {
        Self {
            link: Some(spec.to_owned()),
            ..Self::straight()
        }
    }

    /// No link: the NAT's TUN is the client's.
    pub(crate) fn straight() -> Self {
        Self {
            link: None,
            setting: Setting {
                mtu: 1500,
                ipv6: false,
                stack: TcpStack::Own,
            },
            congestion: Congestion::Bbr,
            client_sysctls: Vec::new(),
            tries: 1,
        }
    }

    pub(crate) fn ipv6(mut self, ipv6: bool) -> Self {
        self.setting.ipv6 = ipv6;
        self
    }

    /// What the agent sends with.
    pub(crate) fn congestion(mut self, congestion: Congestion) -> Self {
        self.congestion = congestion;
        self
    }

    /// Sets something below /proc/sys/net/ipv4 for the client.
    pub(crate) fn client(mut self, name: &'static str, value: &'static str) -> Self {
        self.client_sysctls.push((name, value));
        self
    }

    /// What is expected depends on nobody being held up: on a busy machine the test has some tries.
    pub(crate) fn timed(mut self) -> Self {
        self.tries = 4;
        self
    }

    /// Plays a test. Says so and does nothing without root.
    ///
    /// # Panics
    /// When the test fails, or does not end.
    pub(crate) fn play(self, test: &str, play: impl Fn(&Play) -> Result<()> + Send + 'static) {
        if !nix::unistd::geteuid().is_root() {
            pmz_tests::skipped(test, "making network namespaces needs root");
            return;
        }
        let (over, is_over) = mpsc::channel();
        let test_thread = thread::spawn(move || {
            let mut result = self.clone().run(&play);
            for _ in 1..self.tries {
                if result.is_err() {
                    result = self.clone().run(&play);
                }
            }
            let _ = over.send(result);
        });
        match is_over.recv_timeout(WITHIN) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("{error:?}"),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("not over after {WITHIN:?}"),
            Err(mpsc::RecvTimeoutError::Disconnected) => match test_thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => panic!("the test said nothing"),
            },
        }
    }

    fn run(self, play: &impl Fn(&Play) -> Result<()>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let Self {
            link,
            setting,
            congestion,
            client_sysctls,
            tries: _,
        } = self;
        let _entered = runtime.enter();
        let bed = runtime.block_on(async {
            match &link {
                Some(spec) => Bed::over_link(spec, 1, setting, congestion).await,
                None => Bed::clean(setting, congestion).await,
            }
        });
        let bed = bed.context("make the bed")?;
        for (name, value) in client_sysctls {
            sysctl(&bed.client, &format!("ipv4/{name}"), value)?;
        }
        play(&Play {
            bed,
            runtime: runtime.handle().clone(),
            ipv6: setting.ipv6,
        })
    }
}

impl Play {
    pub(crate) fn link(&self) -> Result<&LinkEmulator> {
        self.bed.link.as_ref().context("there is no link")
    }

    /// Makes the link another one.
    pub(crate) fn set_link(&self, spec: &str) -> Result<()> {
        self.link()?.set_spec(spec.parse::<LinkSpec>()?);
        Ok(())
    }

    /// Of what the client sends.
    pub(crate) fn up(&self) -> Result<PipeCounters> {
        Ok(self.link()?.counters()[0])
    }

    /// Of what the agent sends.
    pub(crate) fn down(&self) -> Result<PipeCounters> {
        Ok(self.link()?.counters()[1])
    }
}

/// Looks every millisecond until it is so.
///
/// # Errors
/// When it is not after some seconds.
pub(crate) fn await_that(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_so()? {
        if start.elapsed() > SOON {
            return Err(anyhow!("not so after {SOON:?}: {what}"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
