//! /etc/resolv.conf, pointed to the tunnel for as long as the helper lives.
//!
//! A file can't hang on a descriptor, so a journal with the old content is written before the change, and
//! whoever comes next (the helper's end, `pmz down`, the next start) puts it back. The file is written in
//! place: it may be a bind mount, which can't be renamed over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};

use super::runtime::Paths;

/// First line of what pmz writes: by it a later pmz knows that the content is pmz's, however far the
/// write got.
const MARK: &str =
    "# Written by pmz for as long as it runs; `pmz down` puts the old content back.\n";

/// No resolver reads more of such a file.
const MAX_FILE: u64 = 32 << 10;
const DNS_PORT: u16 = 53;

/// What was there before, base64: the file need not be UTF-8.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    path: PathBuf,
    /// `None`: there was no file.
    original: Option<String>,
}

/// The name servers in the machine's resolv.conf, as they are asked; none where it can't be read.
pub fn machine_nameservers() -> Vec<SocketAddr> {
    nameservers_of(&Paths::default().resolv_conf)
}

/// The name servers in a file like resolv.conf, as they are asked; none where it can't be read.
pub fn nameservers_of(path: &Path) -> Vec<SocketAddr> {
    let text = read(path).ok().flatten();
    parse(&text.unwrap_or_default()).nameservers
}

/// The file and its journal.
#[derive(Debug)]
pub(super) struct ResolvConf {
    path: PathBuf,
    journal: PathBuf,
}

/// What putting back came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// There was no journal.
    Nothing,
    /// The old content is there again.
    Done,
    /// Somebody else has written the file since; it stays as it is.
    TheirsNow,
}

/// What a resolv.conf says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Resolver {
    /// With their devices, where addresses are of a link (`fe80::1%eth0`).
    pub(super) nameservers: Vec<SocketAddr>,
    pub(super) search: Vec<String>,
    options: Vec<String>,
}

impl ResolvConf {
    pub(super) fn new(path: &Path, journal: &Path) -> Self {
        Self {
            path: path.to_owned(),
            journal: journal.to_owned(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Points the file to `nameservers`; an empty `search` keeps the domains that are there. Says what the
    /// file said before.
    pub(super) fn edit(&self, nameservers: &[IpAddr], search: &[String]) -> io::Result<Resolver> {
        // Edited twice in one life: the journal keeps the machine's own content, not pmz's.
        self.put_back()?;
        let original = read(&self.path)?;
        let before = parse(original.as_deref().unwrap_or_default());
        let journal = Journal {
            path: self.path.clone(),
            original: original.as_deref().map(|bytes| STANDARD.encode(bytes)),
        };
        self.write_journal(&journal)?;
        let search = if search.is_empty() {
            &before.search
        } else {
            search
        };
        write_in_place(
            &self.path,
            render(nameservers, search, &before.options).as_bytes(),
        )?;
        Ok(before)
    }

    /// Undoes what a journal tells of, if there is one.
    pub(super) fn put_back(&self) -> io::Result<PutBack> {
        let Some(bytes) = read(&self.journal)? else {
            return Ok(PutBack::Nothing);
        };
        let journal: Journal = serde_json::from_slice(&bytes)?;
        let original = match &journal.original {
            Some(text) => Some(STANDARD.decode(text).map_err(io::Error::other)?),
            None => None,
        };
        let done = match (read(&journal.path)?, original) {
            // An empty file is what a write that was cut short right at its start leaves.
            (Some(now), Some(original)) if now.is_empty() || now.starts_with(MARK.as_bytes()) => {
                write_in_place(&journal.path, &original)?;
                PutBack::Done
            }
            (Some(now), None) if now.is_empty() || now.starts_with(MARK.as_bytes()) => {
                fs::remove_file(&journal.path)?;
                PutBack::Done
            }
            _ => PutBack::TheirsNow,
        };
        fs::remove_file(&self.journal)?;
        Ok(done)
    }

    fn write_journal(&self, journal: &Journal) -> io::Result<()> {
        let fresh = self.journal.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&serde_json::to_vec(journal)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.journal)
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE * 2 + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE * 2 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is too large",
        ));
    }
    Ok(Some(bytes))
}

/// Overwrites first and cuts then, so that a reader sees an empty file at no time.
fn write_in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)?;
    file.write_all_at(content, 0)?;
    file.set_len(content.len() as u64)?;
    file.sync_data()
}

fn render(nameservers: &[IpAddr], search: &[String], options: &[String]) -> String {
    let mut text = MARK.to_owned();
    for nameserver in nameservers {
        text.push_str(&format!("nameserver {nameserver}\n"));
    }
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// Reads as resolv.conf(5) says: keyword at the start of the line; the last of `domain` and `search` wins.
fn parse(bytes: &[u8]) -> Resolver {
    let mut resolver = Resolver::default();
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => resolver.nameservers.extend(words.next().and_then(server)),
            Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
            Some("options") => resolver.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    resolver
}

/// A name server as it is written, in the calling thread's network namespace; `None` where nobody can be asked there.
fn server(text: &str) -> Option<SocketAddr> {
    let Some((address, device)) = text.split_once('%') else {
        let address: IpAddr = text.parse().ok()?;
        return Some(SocketAddr::new(address, DNS_PORT));
    };
    let scope = device
        .parse()
        .ok()
        .or_else(|| if_nametoindex(device).ok())?;
    let address = SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, scope);
    Some(address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        _dir: tempfile::TempDir,
        conf: ResolvConf,
    }

    fn files(content: Option<&[u8]>) -> Files {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let conf = ResolvConf::new(&path, &dir.path().join("resolv.journal"));
        Files { _dir: dir, conf }
    }

    const OLD: &[u8] =
        b"; \xff not UTF-8\nnameserver 192.0.2.1\nsearch corp.example\noptions edns0\n";

    fn edit(conf: &ResolvConf) -> Resolver {
        conf.edit(&["100.64.0.2".parse().unwrap()], &[]).unwrap()
    }

    #[test]
    fn an_edit_says_what_was_there_and_keeps_search_and_options() {
        let files = files(Some(OLD));
        let before = edit(&files.conf);
        assert_eq!(before.nameservers, ["192.0.2.1:53".parse().unwrap()]);
        let now = fs::read_to_string(&files.conf.path).unwrap();
        assert_eq!(
            now,
            format!("{MARK}nameserver 100.64.0.2\nsearch corp.example\noptions edns0\n")
        );
    }

    #[test]
    fn the_old_content_comes_back_byte_for_byte_in_the_same_file() {
        use std::os::unix::fs::MetadataExt;
        let files = files(Some(OLD));
        let inode = fs::metadata(&files.conf.path).unwrap().ino();
        edit(&files.conf);
        edit(&files.conf);
        assert_eq!(files.conf.put_back().unwrap(), PutBack::Done);
        assert_eq!(fs::read(&files.conf.path).unwrap(), OLD);
        assert_eq!(fs::metadata(&files.conf.path).unwrap().ino(), inode);
        assert_eq!(files.conf.put_back().unwrap(), PutBack::Nothing);
    }

    #[test]
    fn a_file_that_was_not_there_goes_again() {
        let files = files(None);
        edit(&files.conf);
        assert!(files.conf.path.exists());
        files.conf.put_back().unwrap();
        assert!(!files.conf.path.exists());
    }

    #[test]
    fn what_somebody_else_wrote_since_stays() {
        let files = files(Some(OLD));
        edit(&files.conf);
        fs::write(&files.conf.path, "nameserver 203.0.113.9\n").unwrap();
        assert_eq!(files.conf.put_back().unwrap(), PutBack::TheirsNow);
        assert_eq!(
            fs::read_to_string(&files.conf.path).unwrap(),
            "nameserver 203.0.113.9\n"
        );
        assert!(!files.conf.journal.exists());
    }

    #[test]
    fn a_write_that_was_cut_short_is_put_back_too() {
        let files = files(Some(OLD));
        edit(&files.conf);
        let mut half = MARK.as_bytes().to_vec();
        half.extend_from_slice(b"nameserver 100.64.0.2\nrver 192.0.2.1\nsearch corp");
        fs::write(&files.conf.path, half).unwrap();
        assert_eq!(files.conf.put_back().unwrap(), PutBack::Done);
        assert_eq!(fs::read(&files.conf.path).unwrap(), OLD);
    }

    #[test]
    fn a_huge_file_is_left_alone() {
        let files = files(Some(&vec![b'#'; 80 << 10]));
        assert!(
            files
                .conf
                .edit(&["100.64.0.2".parse().unwrap()], &[])
                .is_err()
        );
        assert!(!files.conf.journal.exists());
    }

    #[test]
    fn a_name_server_of_a_link_is_asked_on_its_device() {
        let read = |line: &str| parse(line.as_bytes()).nameservers;
        let asked: SocketAddr = "[fe80::1%1]:53".parse().unwrap();
        assert_eq!(read("nameserver fe80::1%lo\n"), [asked]);
        assert_eq!(read("nameserver fe80::1%1\n"), [asked]);
        assert_eq!(
            read("nameserver 2001:db8::1\n"),
            ["[2001:db8::1]:53".parse().unwrap()]
        );
        for nobody in [
            "fe80::1%no-such-device",
            "192.0.2.1%lo",
            "%lo",
            "fe80::1%",
            "here",
        ] {
            assert_eq!(read(&format!("nameserver {nobody}\n")), [], "{nobody}");
        }
    }
}
