//! Which cluster is measured.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::Args;

/// As the command line says it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct KubeArgs {
    /// A cluster for the section `cluster`: a folder with commands that boot one on this machine (up, down, attach,
    /// load-image), or a kubeconfig, whose current context's cluster is measured from where this runs
    #[arg(long, value_name = "FOLDER|FILE")]
    kube: Option<PathBuf>,
    /// With a kubeconfig: the image of servers and clients, which the cluster's nodes can pull or have; `pmz-bench image` makes one
    #[arg(long, value_name = "NAME:TAG")]
    image: Option<String>,
    /// With a kubeconfig: the agent's image, instead of what `pmz agent deploy` takes; that of --image will do
    #[arg(long, value_name = "NAME:TAG")]
    agent_image: Option<String>,
}

/// What that comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kube<'a> {
    /// One is booted by the commands in this folder.
    Booted(&'a Path),
    /// One runs, and this program is a guest of it.
    Foreign {
        kubeconfig: &'a Path,
        image: &'a str,
        agent_image: Option<&'a str>,
    },
}

impl KubeArgs {
    /// The cluster, if one is named.
    ///
    /// # Errors
    /// Where options don't fit together.
    pub(crate) fn find(&self) -> Result<Option<Kube<'_>>> {
        let Some(path) = self.kube.as_deref() else {
            return Ok(None);
        };
        if path.is_dir() {
            let options = [&self.image, &self.agent_image];
            ensure!(
                options.iter().all(|option| option.is_none()),
                "--image and --agent-image are for a kubeconfig: {} boots a cluster, which gets images of this program's making",
                path.display()
            );
            return Ok(Some(Kube::Booted(path)));
        }
        ensure!(path.is_file(), "--kube: {} is not there", path.display());
        let Some(image) = self.image.as_deref() else {
            bail!(
                "a cluster that is not booted here needs --image NAME:TAG, which its nodes can pull or have: \
                 `pmz-bench image FILE` makes one"
            );
        };
        Ok(Some(Kube::Foreign {
            kubeconfig: path,
            image,
            agent_image: self.agent_image.as_deref(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(kube: &str, image: Option<&str>, agent_image: Option<&str>) -> KubeArgs {
        KubeArgs {
            kube: Some(kube.into()),
            image: image.map(Into::into),
            agent_image: agent_image.map(Into::into),
        }
    }

    #[test]
    fn a_folder_boots_a_cluster_and_a_file_is_a_kubeconfig_that_needs_an_image() {
        let file = "Cargo.toml";
        let folder = args("src", None, None);
        assert_eq!(folder.find().unwrap(), Some(Kube::Booted(Path::new("src"))));
        let foreign = args(file, Some("load:1"), Some("pmz:1"));
        let found = Kube::Foreign {
            kubeconfig: Path::new(file),
            image: "load:1",
            agent_image: Some("pmz:1"),
        };
        assert_eq!(foreign.find().unwrap(), Some(found));
    }

    #[test]
    fn there_need_be_no_cluster_and_what_does_not_fit_is_a_mistake() {
        assert_eq!(KubeArgs::default().find().unwrap(), None);
        for (mistake, word) in [
            (args("src", Some("load:1"), None), "--image"),
            (args("src", None, Some("pmz:1")), "--agent-image"),
            (args("Cargo.toml", None, None), "pmz-bench image"),
            (args("no-such-file", Some("load:1"), None), "no-such-file"),
        ] {
            let error = mistake.find().unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
