//! The file system that a machine sees: that of the machine it runs on, with its own /proc, /sys, /run
//! and the files in /etc that say who it is and whom it asks for names.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::config::MachineSpec;

const NONE: Option<&str> = None;
/// Where the machine's own files of /etc are kept.
const ETC: &str = "/run/playground-etc";

/// Where network namespaces are kept alive by a mount (`ip netns add` does that). A copy of such a mount
/// would keep the namespace after its deletion.
pub(super) fn namespaces_kept_by_mounts() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    Ok(parse_nsfs_mounts(&mounts))
}

fn parse_nsfs_mounts(mountinfo: &str) -> Vec<PathBuf> {
    // proc_pid_mountinfo(5): the mount point is the fifth field, the type comes after " - ".
    mountinfo
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .filter(|(_, tail)| tail.starts_with("nsfs "))
        .filter_map(|(head, _)| head.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .collect()
}

/// Makes the calling process's mount namespace, a copy still shared with where it came from, the
/// machine's own.
pub(super) fn set_up(spec: &MachineSpec, leftovers: &[PathBuf]) -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("making the mounts private")?;
    for path in leftovers {
        // One that has gone meanwhile keeps nothing alive.
        let _ = umount2(path, MntFlags::MNT_DETACH);
    }
    mount(Some("proc"), "/proc", Some("proc"), proc_flags(), NONE).context("mounting /proc")?;
    tmpfs("/run")?;
    if fs::canonicalize("/var/run").is_ok_and(|path| path != Path::new("/run")) {
        tmpfs("/var/run")?;
    }
    mount_sys()?;
    fs::create_dir(ETC).context(ETC)?;
    private_file("/etc/hostname", &format!("{}\n", spec.hostname))?;
    private_file("/etc/hosts", &spec.hosts)?;
    private_file("/etc/resolv.conf", &spec.resolv_conf)?;
    for file in &spec.files {
        write_below_run(&file.path, &file.content)
            .with_context(|| file.path.display().to_string())?;
    }
    Ok(())
}

fn proc_flags() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

fn tmpfs(path: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=755"))
        .with_context(|| format!("mounting {path}"))
}

/// A sysfs shows the interfaces of the network namespace that it was mounted in. Where the kernel
/// refuses a new one (in some containers), the machine keeps the old, in which only those are wrong.
fn mount_sys() -> Result<()> {
    let cgroup = "/run/playground-cgroup";
    fs::create_dir(cgroup).context(cgroup)?;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    let has_cgroup = mount(Some("/sys/fs/cgroup"), cgroup, NONE, bind, NONE).is_ok();
    match mount(Some("sysfs"), "/sys", Some("sysfs"), proc_flags(), NONE) {
        Ok(()) if has_cgroup => {
            // The old one's cgroups are below; those of the new one are an empty folder.
            mount(Some(cgroup), "/sys/fs/cgroup", NONE, MsFlags::MS_MOVE, NONE)
                .or_else(|_| mount(Some(cgroup), "/sys/fs/cgroup", NONE, bind, NONE))
                .context("moving /sys/fs/cgroup")?;
        }
        Ok(()) | Err(Errno::EPERM | Errno::EBUSY) => {}
        Err(error) => return Err(error).context("mounting /sys"),
    }
    let _ = umount2(cgroup, MntFlags::MNT_DETACH);
    let _ = fs::remove_dir(cgroup);
    Ok(())
}

/// Gives the machine a file of its own at `path`, which can be written in place.
fn private_file(path: &str, content: &str) -> Result<()> {
    try_private_file(Path::new(path), content).with_context(|| format!("the machine's own {path}"))
}

fn try_private_file(path: &Path, content: &str) -> Result<()> {
    let name = path.file_name().context("no file name")?;
    match fs::canonicalize(path) {
        Ok(real) => {
            let own = Path::new(ETC).join(name);
            fs::write(&own, content)?;
            mount(Some(&own), &real, NONE, MsFlags::MS_BIND, NONE)?;
            Ok(())
        }
        // A link into the /run that the machine's own has just covered, as systemd-resolved has it.
        Err(_) if path.is_symlink() => {
            let target = path
                .parent()
                .unwrap_or(Path::new("/"))
                .join(fs::read_link(path)?);
            write_below_run(&target, content.as_bytes())
        }
        Err(_) => {
            // The machine underneath hasn't got it, and mustn't get it.
            let (upper, work) = (format!("{ETC}/upper"), format!("{ETC}/work"));
            fs::create_dir(&upper)?;
            fs::create_dir(&work)?;
            let options = format!("lowerdir=/etc,upperdir={upper},workdir={work}");
            mount(
                Some("overlay"),
                "/etc",
                Some("overlay"),
                MsFlags::empty(),
                Some(options.as_str()),
            )
            .context("there is no such file to mount it over, and /etc can't be overlaid")?;
            fs::write(path, content)?;
            Ok(())
        }
    }
}

/// Writes a file that is in the machine's own /run; refuses to write elsewhere, which would be a file of
/// the machine underneath.
fn write_below_run(path: &Path, content: &[u8]) -> Result<()> {
    let path = normalise(path)?;
    let parent = path.parent().context("not a file's path")?;
    let standing = parent
        .ancestors()
        .find(|p| p.exists())
        .context("no such folder")?;
    let own = ["/run", "/var/run"]
        .iter()
        .filter_map(|run| fs::metadata(run).ok())
        .any(|run| fs::metadata(standing).is_ok_and(|there| there.dev() == run.dev()));
    ensure!(own, "is not below /run");
    fs::create_dir_all(parent)?;
    fs::write(&path, content)?;
    Ok(())
}

/// Takes `..` out of a path, as text.
fn normalise(path: &Path) -> Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            Component::RootDir | Component::Normal(_) | Component::Prefix(_) => out.push(part),
        }
    }
    if !out.is_absolute() {
        bail!("{} is not an absolute path", path.display());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounted_namespaces_are_found_by_their_type() {
        let mountinfo = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
53 22 0:4 net:[4026532249] /run/netns/a rw shared:9 - nsfs nsfs rw
54 22 0:4 net:[4026532250] /run/netns/b\\040c rw - nsfs nsfs rw
55 22 0:5 / /run/netns rw shared:8 - tmpfs tmpfs rw
";
        let found = parse_nsfs_mounts(mountinfo);
        assert_eq!(
            found,
            [Path::new("/run/netns/a"), Path::new("/run/netns/b c")]
        );
    }

    #[test]
    fn links_with_dots_lead_where_they_say() {
        let link = Path::new("/etc").join("../run/systemd/resolve/stub-resolv.conf");
        assert_eq!(
            normalise(&link).unwrap(),
            Path::new("/run/systemd/resolve/stub-resolv.conf")
        );
        assert!(normalise(Path::new("run/x")).is_err());
    }
}
