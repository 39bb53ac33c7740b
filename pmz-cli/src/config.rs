//! The user's config file: `$XDG_CONFIG_HOME/pmz/config.toml`, by default `~/.config/pmz/config.toml`.
//!
//! Options of the command line and the environment go before what is in it.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::daemon::DnsChoice;
use crate::domains::KubeName;
use crate::failure::{ExitCode, Failure};

/// All that can be in the file. A file that isn't there is an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The in-cluster end.
    pub agent: AgentConfig,
    /// Names.
    pub dns: DnsConfig,
}

/// `[agent]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// Image that agents are deployed with.
    pub image: Option<String>,
}

/// `[dns]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsConfig {
    /// How queries reach pmz, as `pmz up --dns` takes it.
    pub mechanism: Option<DnsChoice>,
    /// Namespaces whose services are found by their bare names, as `pmz up --search` takes them.
    pub search: Vec<KubeName>,
}

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is there, but can't be read.
    #[error("the config file {} can't be read: {source}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no TOML, or has what pmz doesn't know.
    #[error("the config file {} is wrong in line {line}: {reason}", .path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// Where, from 1 on.
        line: usize,
        /// What.
        reason: String,
    },
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let next = match error {
            ConfigError::Unreadable { .. } => "Make it readable for you, or move it away",
            ConfigError::Wrong { .. } => "Correct that line, or move the file away",
        };
        let cause = crate::failure::capital(&error.to_string());
        Self::new(ExitCode::Usage, cause, next)
    }
}

impl Config {
    /// Reads the calling user's file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load() -> Result<Self, ConfigError> {
        match path() {
            Some(path) => Self::read(&path),
            None => Ok(Self::default()),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                let path = path.to_owned();
                return Err(ConfigError::Unreadable { path, source });
            }
        };
        toml::from_str(&text).map_err(|error| ConfigError::Wrong {
            path: path.to_owned(),
            line: line_of(&text, error.span().map_or(0, |span| span.start)),
            reason: error.message().to_owned(),
        })
    }
}

/// Where the calling user's file is; `None` where the user has no home.
pub fn path() -> Option<PathBuf> {
    // The XDG base directory specification: a relative path is as good as none.
    let named = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = named
        .filter(|path| path.is_absolute())
        .or_else(|| Some(std::env::home_dir()?.join(".config")))?;
    Some(folder.join("pmz/config.toml"))
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path).map_err(|error| Failure::from(error).to_string())
    }

    #[test]
    fn the_agents_image_is_read() {
        let config = read("# mine\n[agent]\nimage = \"registry.example/pmz:1\"\n").unwrap();
        assert_eq!(
            config.agent.image.as_deref(),
            Some("registry.example/pmz:1")
        );
    }

    #[test]
    fn the_way_of_queries_is_read_and_another_one_is_refused() {
        let config = read("[dns]\nmechanism = \"ebpf\"\n").unwrap();
        assert_eq!(config.dns.mechanism, Some(DnsChoice::Ebpf));
        let text = read("[dns]\nmechanism = \"dnsmasq\"\n").unwrap_err();
        assert!(
            text.contains("line 2") && text.contains("resolvconf"),
            "{text}"
        );
    }

    #[test]
    fn namespaces_to_search_are_read_and_what_is_no_name_of_one_is_refused() {
        let config = read("[dns]\nsearch = [\"shop\", \"dev\"]\n").unwrap();
        let search: Vec<&str> = config.dns.search.iter().map(KubeName::as_str).collect();
        assert_eq!(search, ["shop", "dev"]);
        let text = read("[dns]\nsearch = [\"a.b\"]\n").unwrap_err();
        assert!(text.contains("line 2") && text.contains("a.b"), "{text}");
    }

    #[test]
    fn no_file_and_an_empty_one_say_nothing() {
        assert_eq!(read("").unwrap(), Config::default());
        let missing = Config::read(Path::new("/nonexistent/pmz/config.toml"));
        assert_eq!(missing.unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let text = read("[agent]\n\nimagge = \"x\"\n").unwrap_err();
        assert!(text.contains("config.toml is wrong in line 3"), "{text}");
        assert!(text.contains("imagge"), "{text}");
    }

    #[test]
    fn what_is_no_toml_and_what_is_of_another_type_name_their_lines() {
        assert!(read("\n[agent\n").unwrap_err().contains("line 2"));
        assert!(read("[agent]\nimage = 7\n").unwrap_err().contains("line 2"));
    }
}
