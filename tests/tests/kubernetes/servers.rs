//! nginx and redis out of Debian, as pods.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use pmz_tests::lab::{Lab, Programs};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::workload::{make_namespace, served};

/// Bytes of what is downloaded.
pub(crate) const BLOB: u64 = 1 << 30;

/// What all tests share.
pub(crate) struct Servers {
    /// SHA-256 of `http://nginx.servers.svc/blob`, in hexadecimal digits.
    pub(crate) checksum: String,
}

/// Has the pods nginx (Service `nginx`: HTTP/1.1 on port 80, HTTP/2 without TLS on port 81) and redis in
/// namespace `servers`.
pub(crate) async fn servers(lab: &'static Lab, programs: &Programs) -> Result<&'static Servers> {
    static SERVERS: OnceCell<Servers> = OnceCell::const_new();
    SERVERS.get_or_try_init(|| start(lab, programs)).await
}

async fn start(lab: &'static Lab, programs: &Programs) -> Result<Servers> {
    let folder = lab.scratch().join("www");
    let blob = folder.join("blob");
    std::fs::create_dir_all(&folder)?;
    let programs = programs.clone();
    let checksum = tokio::task::spawn_blocking(move || {
        programs.load(lab, "usr/sbin/nginx", "nginx")?;
        // Debian's redis-server is a link to this one, which looks at the name that it is called by.
        programs.load(lab, "usr/bin/redis-check-rdb", "redis-server")?;
        write_blob(&blob).context("write the file to download")
    });
    let checksum = checksum.await??;
    let folder = folder.to_str().context("the folder's name is no text")?;
    make_namespace(lab, "servers").await?;
    lab.apply(&include_str!("servers.yaml").replace("FOLDER", folder))
        .await?;
    for server in ["nginx", "redis"] {
        lab.ready("servers", server).await?;
        served(lab, "servers", server).await?;
    }
    Ok(Servers { checksum })
}

/// Random bytes, so that no two parts are alike, and their checksum.
fn write_blob(path: &Path) -> Result<String> {
    let mut random = File::open("/dev/urandom")?;
    let mut file = File::create(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 4 << 20];
    for _ in 0..BLOB / chunk.len() as u64 {
        random.read_exact(&mut chunk)?;
        hash.update(&chunk);
        file.write_all(&chunk)?;
    }
    let hash = hash.finalize();
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}
