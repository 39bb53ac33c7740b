//! Names of images, as registries and Kubernetes read them (the grammar of distribution/reference).

use std::fmt;
use std::str::FromStr;

/// Where names without a registry belong.
const DOCKER_HUB: &str = "docker.io";
/// Of a whole name, by the same grammar.
const MAX_LEN: usize = 255;
const MAX_TAG: usize = 128;

/// Why a text names no image that can be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not the grammar's.
    #[error("{0:?} is no image's name: it is like registry.example/team/pmz:1.0, in lower case")]
    Malformed(String),
    /// Kubernetes takes a missing tag for `latest`, and pulls that one however often it is loaded.
    #[error(
        "{0:?} lacks a tag: without one Kubernetes pulls `latest`, and takes no image that was loaded"
    )]
    NoTag(String),
    /// The digest follows from the content.
    #[error("{0:?} has a digest: that of a new image is known when it is written")]
    Digest(String),
}

/// Registry, repository and tag. It prints in full, with the registry that short names leave out: that is
/// how containerd looks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    repository: String,
    tag: String,
}

impl ImageName {
    /// Without the tag.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let malformed = || NameError::Malformed(text.to_owned());
        if text.contains('@') {
            return Err(NameError::Digest(text.to_owned()));
        }
        // A colon before the last slash is the registry's port.
        let (repository, tag) = match text.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (text, ""),
        };
        let (host, path) = match repository.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
            Some(_) => (DOCKER_HUB, repository.to_owned()),
            None => (DOCKER_HUB, format!("library/{repository}")),
        };
        let is_well_formed = text.len() <= MAX_LEN
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c))
            && path.split('/').all(is_component);
        if !is_well_formed {
            return Err(malformed());
        }
        if tag.is_empty() && !text.ends_with(':') {
            return Err(NameError::NoTag(text.to_owned()));
        }
        let is_tag = (1..=MAX_TAG).contains(&tag.len())
            && !tag.starts_with(['.', '-'])
            && tag
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !is_tag {
            return Err(malformed());
        }
        Ok(Self {
            repository: format!("{host}/{path}"),
            tag: tag.to_owned(),
        })
    }
}

/// Only a first part with one of these is a registry; else `team/pmz` would be ambiguous.
fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':'])
}

fn is_component(part: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(part.chars().next())
        && edge(part.chars().last())
        && part
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, NameError> {
        text.parse::<ImageName>().map(|name| name.to_string())
    }

    #[test]
    fn names_are_completed_as_kubernetes_completes_them() {
        for (text, full) in [
            (crate::image::DEFAULT_IMAGE, crate::image::DEFAULT_IMAGE),
            ("pmz:1", "docker.io/library/pmz:1"),
            ("team/pmz:v1.0_a", "docker.io/team/pmz:v1.0_a"),
            ("localhost/pmz:dev", "localhost/pmz:dev"),
            ("localhost:5000/a/b__c:1", "localhost:5000/a/b__c:1"),
            ("registry.example:443/pmz:1", "registry.example:443/pmz:1"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(full));
        }
    }

    #[test]
    fn nonsense_is_told_from_a_missing_tag_and_from_a_digest() {
        for text in [
            "",
            ":",
            "pmz:",
            ":1",
            "Pmz:1",
            "pmz:-1",
            "a//b:1",
            "pmz:a b",
            "/pmz:1",
            "-a:1",
            "a b/c:1",
            "localhost/:1",
        ] {
            assert_eq!(
                parse(text),
                Err(NameError::Malformed(text.to_owned())),
                "{text:?}"
            );
        }
        for text in ["pmz", "localhost:5000/pmz"] {
            assert_eq!(parse(text), Err(NameError::NoTag(text.to_owned())));
        }
        assert!(matches!(
            parse("pmz:1@sha256:00"),
            Err(NameError::Digest(_))
        ));
        assert!(parse(&format!("pmz:{}", "1".repeat(129))).is_err());
    }
}
