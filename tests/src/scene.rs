//! A playground for each test.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use pmz_cli::playground::Options;
use pmz_cli::playground::world::World;

use crate::pmz_binary;

/// A test that takes longer hangs.
const WITHIN: Duration = Duration::from_secs(60);
/// Playgrounds at the same time: each is a cluster, and tests measure time.
const SCENES: usize = 2;
/// A link that loses nothing, for tests that change it later.
pub const LINK_AS_A_CABLE: &str = "";

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

struct Place;

impl Place {
    fn take() -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = ENDED
            .wait_while(running, |n| *n >= SCENES)
            .unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

/// A playground of this build, on that link where one is given.
///
/// # Errors
/// Where pmz does not build, or the link is nonsense.
pub fn options(link: Option<&str>) -> Result<Options> {
    Ok(Options {
        program: pmz_binary()?,
        link: link.map(str::parse).transpose()?,
        ..Options::default()
    })
}

/// Runs a test in a playground of its own, which ends with it however that goes. Says so and does
/// nothing without root.
///
/// # Panics
/// When the test fails, or does not end.
pub fn scene<F>(test: &str, options: impl FnOnce() -> Result<Options>, play: F)
where
    F: AsyncFnOnce(&mut World) -> Result<()>,
{
    scene_for(test, WITHIN, options, play);
}

/// As [`scene`], for a test that takes longer than others.
///
/// # Panics
/// As [`scene`].
pub fn scene_for<F>(
    test: &str,
    within: Duration,
    options: impl FnOnce() -> Result<Options>,
    play: F,
) where
    F: AsyncFnOnce(&mut World) -> Result<()>,
{
    if !nix::unistd::geteuid().is_root() {
        crate::skipped(test, "making network namespaces needs root");
        return;
    }
    let _place = Place::take();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            let mut world = World::start(options()?, false)
                .await
                .context("start the playground")?;
            let played = tokio::time::timeout(within, play(&mut world)).await;
            world.shutdown().await;
            played.with_context(|| format!("not over after {within:?}"))?
        })
    });
    if let Err(error) = result {
        panic!("{error:?}");
    }
}
