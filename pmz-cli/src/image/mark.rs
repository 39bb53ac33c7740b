//! How a pmz program is told from another one, and its version from a file that can't be run here.

use memchr::memmem;

/// In every pmz program, once.
static MARK: &[u8] = concat!("pmz program of version ", env!("CARGO_PKG_VERSION"), "\n").as_bytes();
/// Length of what comes before the version.
const PREFIX: usize = "pmz program of version ".len();
/// Longer than any version.
const MAX_VERSION: usize = 64;

/// The version of the pmz program that a file holds; `None` where it holds none.
pub fn version_in(file: &[u8]) -> Option<String> {
    // The needle is a part of the mark: as a text of its own it would be found, too.
    let (needle, _) = MARK.split_at_checked(PREFIX)?;
    memmem::find_iter(file, needle).find_map(|at| {
        let rest = file.get(at.checked_add(PREFIX)?..)?;
        let rest = rest.get(..rest.len().min(MAX_VERSION))?;
        let version = rest.split(|byte| *byte == b'\n').next()?;
        let version = std::str::from_utf8(version).ok()?;
        let is_one = version.len() < rest.len()
            && version.starts_with(|c: char| c.is_ascii_digit())
            && version
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".+-".contains(c));
        is_one.then(|| version.to_owned())
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A mark with that behind it. Put together at run time: this very program is searched for marks, too.
    pub(in crate::image) fn mark(rest: &str) -> Vec<u8> {
        [&MARK[..PREFIX], rest.as_bytes()].concat()
    }

    #[test]
    fn this_program_has_its_own_version() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(version_in(&own).as_deref(), Some(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn only_a_whole_mark_is_one() {
        let found = |rest: &str| version_in(&mark(rest));
        assert_eq!(found("2.0.0-rc.1\n\0").as_deref(), Some("2.0.0-rc.1"));
        assert_eq!(found("2.0.0"), None);
        assert_eq!(found("<none>\n"), None);
        assert_eq!(found(&format!("{}\n", "1".repeat(64))), None);
        let second = [mark("none\n"), mark("3.0.0\n")].concat();
        assert_eq!(version_in(&second).as_deref(), Some("3.0.0"));
        assert_eq!(version_in(b""), None);
    }
}
