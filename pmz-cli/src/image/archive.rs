//! The archive: blobs named by their digests, and the two indexes that lead to them.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::{Architecture, ElfError, ImageName, elf, version_in};

/// Where the program lies in the image.
const PROGRAM: &str = "/pmz";
/// What no distribution gives to anybody, and what images without a user table have agreed on.
const USER: &str = "65532:65532";
/// Everything in the image is as old: the same program gives the same digest at any time.
const EPOCH: &str = "1970-01-01T00:00:00Z";

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Not compressed: a layer's digest then depends on its content only and not on a compressor's version,
/// a node unpacks it faster, and what pushes to a registry compresses by itself.
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image: a single layer.
pub struct Image {
    name: ImageName,
    architecture: Architecture,
    layer: Blob,
    config: Blob,
    manifest: Blob,
}

/// A file in an image. It is root's, and from 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile<'a> {
    /// From the image's root.
    path: String,
    content: Cow<'a, [u8]>,
    mode: u32,
}

impl<'a> ImageFile<'a> {
    /// One that can be run, or loaded by one that is.
    pub fn program(path: impl Into<String>, content: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            path: path.into(),
            content: content.into(),
            mode: 0o755,
        }
    }

    /// One that is only read.
    pub fn text(path: impl Into<String>, content: &'a str) -> Self {
        Self {
            path: path.into(),
            content: content.as_bytes().into(),
            mode: 0o644,
        }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its name in full.
    pub name: ImageName,
    /// Digest of its manifest, by which registries and Kubernetes pin it: `sha256:` and 64 digits.
    pub digest: String,
    /// What it runs on.
    pub architecture: Architecture,
}

impl Image {
    /// An image of that program, of that name.
    ///
    /// # Errors
    /// Where the program can't be an image's only file: see [`ElfError`].
    pub fn new(name: ImageName, program: &[u8]) -> Result<Self, ElfError> {
        let architecture = elf::static_program(program)?;
        let agent = [ImageFile::program(PROGRAM, program)];
        let how = agent_config(version_in(program));
        let image = Self::of_files(name, architecture, &agent, &how, "pmz agent image");
        Ok(image.expect("a Vec takes everything, and a tar header so short a path"))
    }

    /// An image of any files, each of which must find what it wants among the others. `how` is the OCI configuration's
    /// `config`: user, environment, entrypoint. `made_by` is for its history.
    ///
    /// # Errors
    /// Where a path is too long for a tar header, or leads out of the image.
    pub fn of_files(
        name: ImageName,
        architecture: Architecture,
        files: &[ImageFile<'_>],
        how: &Value,
        made_by: &str,
    ) -> io::Result<Self> {
        let layer = Blob::new(OCI_LAYER, layer(files)?);
        let config = config(&layer, architecture, how, made_by);
        let config = Blob::json(OCI_CONFIG, &config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        });
        Ok(Self {
            name,
            architecture,
            layer,
            config,
            manifest: Blob::json(OCI_MANIFEST, &manifest),
        })
    }

    /// What it runs on.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// What writing gives.
    pub fn write(&self, to: impl Write) -> io::Result<Written> {
        let mut archive = tar::Builder::new(to);
        let layout = json!({"imageLayoutVersion": "1.0.0"});
        append(&mut archive, "oci-layout", layout.to_string().as_bytes())?;
        append(
            &mut archive,
            "index.json",
            self.index().to_string().as_bytes(),
        )?;
        let docker = self.docker_manifest().to_string();
        append(&mut archive, "manifest.json", docker.as_bytes())?;
        for blob in [&self.manifest, &self.config, &self.layer] {
            append(&mut archive, &blob.path(), &blob.content)?;
        }
        archive.into_inner()?.flush()?;
        Ok(Written {
            name: self.name.clone(),
            digest: self.manifest.digest(),
            architecture: self.architecture,
        })
    }

    fn index(&self) -> Value {
        let mut manifest = self.manifest.descriptor();
        manifest["platform"] = json!({"architecture": self.architecture.name(), "os": "linux"});
        manifest["annotations"] = json!({
            // containerd, and with it ctr, k3s and kind, looks at the first; skopeo at the second.
            "io.containerd.image.name": self.name.to_string(),
            "org.opencontainers.image.ref.name": self.name.tag(),
        });
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [manifest]})
    }

    fn docker_manifest(&self) -> Value {
        json!([{
            "Config": self.config.path(),
            "RepoTags": [self.name.to_string()],
            "Layers": [self.layer.path()],
        }])
    }
}

/// How the agent's image is run.
fn agent_config(version: Option<String>) -> Value {
    let mut labels = json!({
        "org.opencontainers.image.title": "pmz",
        "org.opencontainers.image.description": "The in-cluster end of pmz",
        "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
        "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
    });
    if let Some(version) = version {
        labels["org.opencontainers.image.version"] = version.into();
    }
    json!({
        "User": USER,
        "Env": ["PATH=/"],
        "Entrypoint": [PROGRAM, "agent", "serve"],
        "WorkingDir": "/",
        "StopSignal": "SIGTERM",
        "Labels": labels,
    })
}

fn config(layer: &Blob, architecture: Architecture, how: &Value, made_by: &str) -> Value {
    json!({
        "created": EPOCH,
        "architecture": architecture.name(),
        "os": "linux",
        "config": how,
        // The layer is not compressed: its digest is also that of its content.
        "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
        "history": [{"created": EPOCH, "created_by": made_by}],
    })
}

/// The layer's tar file. Folders are made by whoever unpacks it.
fn layer(files: &[ImageFile<'_>]) -> io::Result<Vec<u8>> {
    let size: usize = files.iter().map(|file| file.content.len() + 4096).sum();
    let mut layer = Vec::with_capacity(size);
    let mut archive = tar::Builder::new(&mut layer);
    for file in files {
        let path = file.path.trim_start_matches('/');
        append_with_mode(&mut archive, path, &file.content, file.mode)?;
    }
    archive.finish()?;
    drop(archive);
    Ok(layer)
}

fn append(archive: &mut tar::Builder<impl Write>, path: &str, content: &[u8]) -> io::Result<()> {
    append_with_mode(archive, path, content, 0o644)
}

/// Root's, and from 1970.
fn append_with_mode(
    archive: &mut tar::Builder<impl Write>,
    path: &str,
    content: &[u8],
    mode: u32,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content)
}

/// Content that is called by its digest.
struct Blob {
    media_type: &'static str,
    /// SHA-256, in hexadecimal digits.
    hash: String,
    content: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        let hash = Sha256::digest(&content);
        Self {
            media_type,
            hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            content,
        }
    }

    fn json(media_type: &'static str, content: &Value) -> Self {
        Self::new(media_type, content.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hash)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hash)
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": self.digest(),
            "size": self.content.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;
    use crate::image::elf::tests::program;
    use crate::image::mark::tests::mark;

    fn written(name: &str, program: &[u8]) -> (Written, Vec<u8>) {
        let image = Image::new(name.parse().unwrap(), program).unwrap();
        let mut bytes = Vec::new();
        let written = image.write(&mut bytes).unwrap();
        (written, bytes)
    }

    fn entries(archive: &[u8]) -> BTreeMap<String, (Header, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let path = entry.path().unwrap().display().to_string();
            (path, (entry.header().clone(), content))
        });
        entries.collect()
    }

    fn json_of(entries: &BTreeMap<String, (Header, Vec<u8>)>, path: &str) -> Value {
        serde_json::from_slice(&entries[path].1).unwrap()
    }

    /// The path of the blob that a descriptor leads to, whose size and digest are checked.
    fn follow(entries: &BTreeMap<String, (Header, Vec<u8>)>, descriptor: &Value) -> String {
        let digest = descriptor["digest"].as_str().unwrap();
        let path = digest.replace("sha256:", "blobs/sha256/");
        let content = &entries[&path].1;
        assert_eq!(descriptor["size"], content.len());
        let blob = Blob::new("", content.clone());
        assert_eq!(blob.digest(), digest);
        path
    }

    #[test]
    fn both_indexes_lead_to_the_program_as_only_file_of_nobody_s_image() {
        let content = program(62, 1, &mark("7.1.2\n"));
        let (written, archive) = written("localhost/pmz:dev", &content);
        let entries = entries(&archive);
        assert_eq!(
            json_of(&entries, "oci-layout")["imageLayoutVersion"],
            "1.0.0"
        );
        let index = json_of(&entries, "index.json");
        let manifest = &index["manifests"][0];
        assert_eq!(manifest["digest"], written.digest.as_str());
        assert_eq!(manifest["platform"]["architecture"], "amd64");
        let names = &manifest["annotations"];
        assert_eq!(names["io.containerd.image.name"], "localhost/pmz:dev");
        assert_eq!(names["org.opencontainers.image.ref.name"], "dev");

        let manifest = json_of(&entries, &follow(&entries, manifest));
        let config_path = follow(&entries, &manifest["config"]);
        let layer_path = follow(&entries, &manifest["layers"][0]);
        let docker = json_of(&entries, "manifest.json");
        assert_eq!(docker[0]["Config"], config_path.as_str());
        assert_eq!(docker[0]["Layers"], json!([layer_path]));
        assert_eq!(docker[0]["RepoTags"], json!(["localhost/pmz:dev"]));

        let config = json_of(&entries, &config_path);
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(
            config["config"]["Entrypoint"],
            json!(["/pmz", "agent", "serve"])
        );
        let labels = &config["config"]["Labels"];
        assert_eq!(labels["org.opencontainers.image.version"], "7.1.2");
        let source = labels["org.opencontainers.image.source"].as_str();
        assert!(source.unwrap().starts_with("https://"), "{labels}");
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );

        let layer = super::tests::entries(&entries[&layer_path].1);
        assert_eq!(layer.keys().collect::<Vec<_>>(), ["pmz"]);
        let (header, inside) = &layer["pmz"];
        assert_eq!(*inside, content);
        let numbers = [header.uid(), header.gid(), header.mtime()].map(Result::unwrap);
        assert_eq!((header.mode().unwrap(), numbers), (0o755, [0, 0, 0]));
    }

    #[test]
    fn the_same_program_gives_the_same_bytes_and_another_one_another_digest() {
        let one = program(183, 1, b"one");
        let first = written("pmz:1", &one);
        assert_eq!(first, written("pmz:1", &one));
        assert_eq!(first.0.architecture, Architecture::Arm64);
        assert_ne!(
            first.0.digest,
            written("pmz:1", &program(183, 1, b"two")).0.digest
        );
        // A name is no part of what is in an image.
        assert_eq!(first.0.digest, written("pmz:2", &one).0.digest);
    }

    #[test]
    fn an_image_of_other_files_has_them_where_they_were_wanted_and_is_run_as_it_is_told() {
        let files = [
            ImageFile::program("/usr/bin/hey", b"hey".as_slice()),
            ImageFile::text("/etc/passwd", "root:x:0:0:root:/:/bin/false\n"),
        ];
        let how = json!({"Env": ["PATH=/usr/bin"]});
        let name = "localhost/load:1".parse().unwrap();
        let image = Image::of_files(name, Architecture::Amd64, &files, &how, "a test").unwrap();
        let mut archive = Vec::new();
        image.write(&mut archive).unwrap();
        let entries = entries(&archive);
        let index = json_of(&entries, "index.json");
        let manifest = json_of(&entries, &follow(&entries, &index["manifests"][0]));
        let config = json_of(&entries, &follow(&entries, &manifest["config"]));
        assert_eq!(config["config"], how);
        assert_eq!(config["history"][0]["created_by"], "a test");
        let layer = super::tests::entries(&entries[&follow(&entries, &manifest["layers"][0])].1);
        let modes = layer
            .iter()
            .map(|(path, (header, _))| (path.as_str(), header.mode().unwrap()));
        let modes: Vec<_> = modes.collect();
        assert_eq!(modes, [("etc/passwd", 0o644), ("usr/bin/hey", 0o755)]);
        let out = [ImageFile::text("/../etc/passwd", "")];
        let name = "localhost/load:1".parse().unwrap();
        assert!(Image::of_files(name, Architecture::Amd64, &out, &how, "a test").is_err());
    }

    #[test]
    fn a_program_that_could_not_start_makes_no_image() {
        let dynamic = program(62, 3, b"/lib/ld.so\0");
        let error = Image::new("pmz:1".parse().unwrap(), &dynamic).err();
        assert!(matches!(error, Some(ElfError::Dynamic { .. })), "{error:?}");
    }
}
