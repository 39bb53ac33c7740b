//! The agent's container image, made from scratch: one static program, one layer, no Docker.
//!
//! The archive is an OCI image layout (image-spec 1.1) in a tar file, with the `manifest.json` of `docker save`
//! beside it: containerd, k3s, kind, podman, skopeo and crane read the one, `docker load` the other. The same
//! program gives the same bytes, whoever writes them and when.

mod archive;
mod elf;
mod mark;
mod name;

pub use archive::{Image, ImageFile, Written};
pub use elf::{Architecture, ElfError};
pub use mark::version_in;
pub use name::{ImageName, NameError};

/// Name of the image that pmz deploys where no other one is asked for.
pub const DEFAULT_IMAGE: &str = concat!("ghcr.io/pmz-rs/pmz:", env!("CARGO_PKG_VERSION"));
