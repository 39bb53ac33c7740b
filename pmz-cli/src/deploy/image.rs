//! Which image an agent runs.

use super::error::BadOption;
use crate::config::Config;

pub use crate::image::DEFAULT_IMAGE;

/// Names one for all commands of a shell.
pub const VARIABLE: &str = "PMZ_IMAGE";

/// The image to use: the one that was named, else the config file's, else [`DEFAULT_IMAGE`].
///
/// # Errors
/// Where it is no reference to an image.
pub fn choose(named: Option<&str>, config: &Config) -> Result<String, BadOption> {
    let image = named
        .filter(|image| !image.is_empty())
        .or(config.agent.image.as_deref())
        .unwrap_or(DEFAULT_IMAGE);
    check(image)?;
    Ok(image.to_owned())
}

/// As the registries' grammar has it: `host:port/path/name:tag@sha256:digest`, all but the name optional.
fn check(image: &str) -> Result<(), BadOption> {
    let wrong = |why: &str| Err(BadOption(format!("{image:?} is no image: {why}")));
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    if let Some(digest) = digest {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) {
            return wrong("a digest is sha256: and 64 hexadecimal digits");
        }
    }
    // A colon before the last slash is a port's.
    let last = name.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match name[last..].find(':') {
        Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
        None => (name, None),
    };
    if let Some(tag) = tag {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if tag.is_empty()
            || tag.len() > 128
            || !tag.chars().all(fine)
            || tag.starts_with(['.', '-'])
        {
            return wrong("a tag is at most 128 letters, digits, '_', '.' and '-'");
        }
    }
    let (host, rest) = match path.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            (Some(host), rest)
        }
        _ => (None, path),
    };
    let in_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if host.is_some_and(|host| !host.chars().all(in_host)) {
        return wrong("its registry is no host");
    }
    let in_path =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    if rest
        .split('/')
        .any(|part| part.is_empty() || !part.chars().all(in_path))
    {
        return wrong(
            "its name has other characters than lower-case letters, digits, '.', '_' and '-'",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AgentConfig;

    #[test]
    fn what_is_named_goes_before_the_config_file_and_that_before_the_default() {
        let config = Config {
            agent: AgentConfig {
                image: Some("registry.example/pmz:1".to_owned()),
            },
            ..Config::default()
        };
        assert_eq!(choose(Some("a/b:c"), &config).unwrap(), "a/b:c");
        assert_eq!(choose(None, &config).unwrap(), "registry.example/pmz:1");
        assert_eq!(choose(Some(""), &Config::default()).unwrap(), DEFAULT_IMAGE);
    }

    #[test]
    fn images_are_taken_with_port_tag_and_digest() {
        let digest = "a".repeat(64);
        for image in [
            "pmz",
            "localhost/pmz:dev",
            "localhost:5000/pmz",
            "registry.example:5000/team/pmz:1.2-x_y",
            &format!("ghcr.io/pmz-rs/pmz@sha256:{digest}"),
            &format!("pmz:0.1.0@sha256:{digest}"),
        ] {
            assert_eq!(check(image), Ok(()), "{image}");
        }
    }

    #[test]
    fn what_no_registry_knows_is_refused() {
        for image in [
            "",
            "Pmz",
            "pmz:",
            "pmz: dev",
            "a//b",
            "pmz@sha256:abc",
            "pmz@md5:0",
            "https://x/pmz",
            "/pmz",
            "pmz:a:b",
        ] {
            assert!(check(image).is_err(), "{image:?}");
        }
    }
}
