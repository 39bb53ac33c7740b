//! The kubeconfig, as kubectl finds and reads it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde::{Deserialize, Serialize};

use super::ClusterError;

/// Which cluster is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `--kubeconfig`: this file, and no other.
    pub kubeconfig: Option<PathBuf>,
    /// `KUBECONFIG`: several files, merged; those that don't exist are passed over.
    pub search: Option<Vec<PathBuf>>,
    /// `--context`, else the current one.
    pub context: Option<String>,
    /// The agent's namespace.
    pub namespace: String,
}

/// A kubeconfig's view of one cluster.
#[derive(Debug)]
pub struct Loaded {
    /// How to connect.
    pub config: Config,
    /// Name of the context.
    pub context: String,
    /// Address of the API server.
    pub server: String,
}

impl Target {
    /// As the command line and the environment have it, with paths made absolute: the daemon works in
    /// another directory.
    pub fn new(kubeconfig: Option<&Path>, context: Option<String>, namespace: String) -> Self {
        Self {
            kubeconfig: kubeconfig.map(absolute),
            search: std::env::var_os("KUBECONFIG").and_then(|list| search(&list)),
            context,
            namespace,
        }
    }

    /// The same with that KUBECONFIG where the environment has none.
    #[must_use]
    pub fn or_search(self, kubeconfig: Option<&OsStr>) -> Self {
        let search = self.search.or_else(|| kubeconfig.and_then(search));
        Self { search, ..self }
    }

    /// Reads the files and chooses the context. Nothing is connected.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn load(&self) -> Result<Loaded, ClusterError> {
        let Some(file) = self.read()? else {
            return in_cluster().ok_or_else(|| ClusterError::NoKubeconfig {
                looked: self.paths(),
            });
        };
        let contexts: Vec<String> = file.contexts.iter().map(|c| c.name.clone()).collect();
        let named = self
            .context
            .clone()
            .or_else(|| file.current_context.clone());
        let Some(context) = named.filter(|name| !name.is_empty()) else {
            return Err(ClusterError::NoCurrentContext { contexts });
        };
        if !contexts.contains(&context) {
            return Err(ClusterError::UnknownContext { context, contexts });
        }
        let options = KubeConfigOptions {
            context: Some(context.clone()),
            ..Default::default()
        };
        let config = Config::from_custom_kubeconfig(file, &options)
            .await
            .map_err(unusable)?;
        let server = config.cluster_url.to_string();
        let server = server.trim_end_matches('/').to_owned();
        Ok(Loaded {
            config,
            context,
            server,
        })
    }

    fn paths(&self) -> Vec<PathBuf> {
        match (&self.kubeconfig, &self.search) {
            (Some(path), _) => vec![path.clone()],
            (None, Some(paths)) => paths.clone(),
            (None, None) => std::env::home_dir()
                .map(|h| h.join(".kube/config"))
                .into_iter()
                .collect(),
        }
    }

    fn read(&self) -> Result<Option<Kubeconfig>, ClusterError> {
        let mut merged: Option<Kubeconfig> = None;
        for path in self.paths().iter().filter(|path| path.exists()) {
            let next = read_file(path)?;
            merged = Some(match merged {
                Some(so_far) => so_far.merge(next).map_err(unusable)?,
                None => next,
            });
        }
        Ok(merged)
    }
}

/// One file. Where several have the same name for something the first one counts; within one file that is
/// an error, as it is kubectl's.
fn read_file(path: &Path) -> Result<Kubeconfig, ClusterError> {
    let bad = |reason: String| ClusterError::BadKubeconfig {
        reason: format!("{}: {reason}", path.display()),
    };
    let file = Kubeconfig::read_from(path).map_err(|error| bad(super::map::chain(&error)))?;
    let clusters: Vec<_> = file.clusters.iter().map(|c| &c.name).collect();
    let users: Vec<_> = file.auth_infos.iter().map(|u| &u.name).collect();
    let contexts: Vec<_> = file.contexts.iter().map(|c| &c.name).collect();
    for (what, mut names) in [
        ("contexts", contexts),
        ("clusters", clusters),
        ("users", users),
    ] {
        names.sort();
        if let Some([name, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(bad(format!("two {what} are called {name:?}")));
        }
    }
    Ok(file)
}

/// The files of a KUBECONFIG.
fn search(list: &OsStr) -> Option<Vec<PathBuf>> {
    let paths = std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty());
    let paths: Vec<_> = paths.map(|path| absolute(&path)).collect();
    (!paths.is_empty()).then_some(paths)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn unusable(error: KubeconfigError) -> ClusterError {
    ClusterError::BadKubeconfig {
        reason: super::map::chain(&error),
    }
}

/// In a pod, its service account, as kubectl does where there is no file.
fn in_cluster() -> Option<Loaded> {
    let config = Config::incluster().ok()?;
    let server = config
        .cluster_url
        .to_string()
        .trim_end_matches('/')
        .to_owned();
    Some(Loaded {
        config,
        context: "in-cluster".to_owned(),
        server,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, name: &str, context: &str, server: &str, current: bool) -> PathBuf {
        let path = dir.join(name);
        let current = if current {
            format!("current-context: {context}\n")
        } else {
            String::new()
        };
        let text = format!(
            "apiVersion: v1\nkind: Config\n{current}\
             clusters:\n- name: {context}\n  cluster: {{server: {server}}}\n\
             users:\n- name: {context}\n  user: {{token: abc}}\n\
             contexts:\n- name: {context}\n  context: {{cluster: {context}, user: {context}}}\n"
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    fn target(search: Vec<PathBuf>, context: Option<&str>) -> Target {
        Target {
            kubeconfig: None,
            search: Some(search),
            context: context.map(str::to_owned),
            namespace: "pmz".to_owned(),
        }
    }

    #[tokio::test]
    async fn files_are_merged_and_missing_ones_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let a = file(dir.path(), "a", "dev", "https://192.0.2.1:6443", true);
        let b = file(dir.path(), "b", "prod", "https://192.0.2.2:6443", true);
        let missing = dir.path().join("missing");
        let loaded = target(vec![missing.clone(), a.clone(), b.clone()], None)
            .load()
            .await
            .unwrap();
        assert_eq!(
            (loaded.context.as_str(), loaded.server.as_str()),
            ("dev", "https://192.0.2.1:6443")
        );
        let loaded = target(vec![missing, a, b], Some("prod"))
            .load()
            .await
            .unwrap();
        assert_eq!(loaded.server, "https://192.0.2.2:6443");
    }

    #[tokio::test]
    async fn a_wrong_context_is_told_with_those_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        let a = file(dir.path(), "a", "dev", "https://192.0.2.1:6443", true);
        match target(vec![a], Some("nope")).load().await {
            Err(ClusterError::UnknownContext { context, contexts }) => {
                assert_eq!(
                    (context.as_str(), contexts.as_slice()),
                    ("nope", &["dev".to_owned()][..])
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn no_file_and_no_current_context_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("config");
        let none = target(vec![missing.clone()], None).load().await;
        assert!(
            matches!(&none, Err(ClusterError::NoKubeconfig { looked }) if *looked == [missing]),
            "{none:?}"
        );
        let a = file(dir.path(), "a", "dev", "https://192.0.2.1:6443", false);
        let none = target(vec![a], None).load().await;
        assert!(
            matches!(none, Err(ClusterError::NoCurrentContext { .. })),
            "{none:?}"
        );
    }

    #[tokio::test]
    async fn a_file_that_is_no_kubeconfig_is_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        for text in ["contexts: 7\n", "\tno: yaml: [\n", "\0\u{1}"] {
            std::fs::write(&path, text).unwrap();
            match target(vec![path.clone()], None).load().await {
                Err(ClusterError::BadKubeconfig { reason }) => {
                    assert!(reason.contains(&path.display().to_string()), "{reason}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn of_equal_names_the_first_files_counts_and_one_file_may_have_none() {
        let dir = tempfile::tempdir().unwrap();
        let a = file(dir.path(), "a", "dev", "https://192.0.2.1:6443", true);
        let b = file(dir.path(), "b", "dev", "https://192.0.2.2:6443", true);
        let loaded = target(vec![b.clone(), a.clone()], None).load().await;
        assert_eq!(loaded.unwrap().server, "https://192.0.2.2:6443");
        let twice = std::fs::read_to_string(&a).unwrap()
            + "- name: dev\n  context: {cluster: dev, user: other}\n";
        std::fs::write(&a, twice).unwrap();
        match target(vec![a.clone()], None).load().await {
            Err(ClusterError::BadKubeconfig { reason }) => assert_eq!(
                reason,
                format!("{}: two contexts are called \"dev\"", a.display())
            ),
            other => panic!("{other:?}"),
        }
    }
}
