use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::domains::put;

fn entry(domain: &str, service: &str) -> Entry {
    Entry {
        domain: domain.parse().unwrap(),
        context: "dev".to_owned(),
        namespace: "default".parse().unwrap(),
        service: service.parse().unwrap(),
        port: None,
    }
}

fn add(store: &Store, entry: Entry) -> Result<(), Failure> {
    store.change(|entries| put(entries, entry, false).map(drop))
}

#[test]
fn what_is_kept_is_read_again_and_only_by_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config/pmz/domains.json");
    let store = Store::at(&path);
    assert_eq!(store.read().unwrap(), []);
    let mut with_port = entry("*.shop.test", "web");
    with_port.port = Some("http".parse().unwrap());
    add(&store, entry("www.dns.com", "echo")).unwrap();
    add(&store, with_port.clone()).unwrap();
    let expected = [entry("www.dns.com", "echo"), with_port];
    assert_eq!(store.read().unwrap(), expected);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let beside = fs::read_dir(path.parent().unwrap()).unwrap();
    assert_eq!(beside.count(), 1, "something is left beside the file");
}

#[test]
fn a_change_that_fails_or_changes_nothing_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("domains.json");
    let store = Store::at(&path);
    add(&store, entry("www.dns.com", "echo")).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    add(&store, entry("www.dns.com", "other")).unwrap_err();
    add(&store, entry("www.dns.com", "echo")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(store.read().unwrap(), [entry("www.dns.com", "echo")]);
}

#[test]
fn commands_at_the_same_time_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::at(&dir.path().join("domains.json"));
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = store.clone();
            scope.spawn(move || {
                for n in 0..10 {
                    add(&store, entry(&format!("a{n}.w{writer}.test"), "echo")).unwrap();
                }
            });
        }
    });
    assert_eq!(store.read().unwrap().len(), 40);
}

#[test]
fn a_link_to_the_file_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let (link, real) = (dir.path().join("domains.json"), dir.path().join("real"));
    fs::write(&real, "{\"version\": 1, \"domains\": []}").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&real, &link).unwrap();
    add(&Store::at(&link), entry("www.dns.com", "echo")).unwrap();
    assert!(link.is_symlink());
    assert_eq!(Store::at(&real).read().unwrap().len(), 1);
}

#[test]
fn what_others_could_have_written_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("domains.json");
    fs::write(&path, "{\"version\": 1, \"domains\": []}").unwrap();
    for (mode, good) in [(0o600, true), (0o644, true), (0o660, false), (0o602, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(Store::at(&path).read().is_ok(), good, "{mode:o}");
    }
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (not_a_file, reason) in [(pipe.as_path(), "no file"), (dir.path(), "no file")] {
        let text = Store::at(not_a_file).read().unwrap_err().to_string();
        assert!(text.contains(reason), "{text}");
    }
}

#[test]
fn hostile_content_is_refused_with_its_line() {
    let good = r#"{"domain":"a.test","context":"dev","namespace":"default","service":"echo"}"#;
    let list = |entries: &str| format!("{{\"version\":1,\n\"domains\":[{entries}]}}");
    for (text, reason) in [
        (String::new(), "line 1"),
        ("\0".repeat(100), "line 1"),
        ("[".repeat(100_000), "line 1"),
        (
            format!("{{\"version\":2,\"domains\":[{good}]}}"),
            "version 2",
        ),
        (list(&good.replace("a.test", "a b")), "line 2"),
        (list(&good.replace("echo", "../echo")), "name of Kubernetes"),
        (list(&good.replace("default", "")), "name of Kubernetes"),
        (list(&good.replace("dev", "\\u001b[2J")), "no context"),
        (list(&good.replace("dev", &"x".repeat(2000))), "no context"),
        (list(&good.replace('}', ",\"port\":\"0\"}")), "port"),
        (list(&good.replace('}', ",\"more\":1}")), "unknown field"),
        (list(&vec![good; 1001].join(",")), "more than 1000"),
    ] {
        let text =
            parse(text.as_bytes()).map_err(|(line, reason)| format!("line {line}: {reason}"));
        let text = text.unwrap_err();
        assert!(text.contains(reason), "{reason:?} is not said: {text}");
    }
    let twice = list(&format!("{good},{}", good.replace("echo", "web")));
    assert_eq!(parse(twice.as_bytes()).unwrap(), [entry("a.test", "web")]);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("domains.json");
    fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
    let text = Store::at(&path).read().unwrap_err().to_string();
    assert!(text.contains("larger than 1 MiB"), "{text}");
}

#[test]
fn a_full_list_takes_no_more_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::at(&dir.path().join("domains.json"));
    let filled = store.change(|entries| {
        entries.extend((0..MAX_DOMAINS).map(|n| entry(&format!("a{n}.test"), "echo")));
        Ok(())
    });
    filled.unwrap();
    let failure = add(&store, entry("one.more.test", "echo")).unwrap_err();
    assert!(failure.to_string().contains("pmz dns remove"), "{failure}");
    assert_eq!(store.read().unwrap().len(), MAX_DOMAINS);
}

#[test]
fn a_lock_that_is_never_given_back_is_not_waited_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let _held = lock(dir.path()).unwrap();
    let begun = Instant::now();
    assert!(matches!(lock(dir.path()), Err(StoreError::Locked(_))));
    assert!(begun.elapsed() < LOCKED_WITHIN * 3);
}
