//! What a program file needs to run: which processor, and whether a loader. See elf(5).

use std::fmt;

/// Size of a 64-bit ELF header.
const HEADER: usize = 64;
/// `e_ident`: 64-bit, little-endian, after the magic number.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
const PT_INTERP: u32 = 3;

/// A processor architecture, named as images name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Architecture {
    /// The one that a program is for.
    ///
    /// # Errors
    /// Where it is no program, or for no processor that pmz knows.
    pub fn of(program: &[u8]) -> Result<Self, ElfError> {
        let is_program = program.starts_with(MAGIC)
            && program.len() >= HEADER
            && matches!(u16_at(program, 16), Some(ET_EXEC | ET_DYN));
        if !is_program {
            return Err(ElfError::NotAProgram);
        }
        match u16_at(program, 18) {
            Some(EM_X86_64) => Ok(Self::Amd64),
            Some(EM_AARCH64) => Ok(Self::Arm64),
            other => Err(ElfError::OtherMachine(other.unwrap_or(0))),
        }
    }

    /// Its name in Go, and so in images and nodes' labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a file can't be an image's only one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// No ELF file of 64 bits, or a damaged one.
    #[error("is no 64-bit Linux program")]
    NotAProgram,
    /// A processor that pmz knows nothing of.
    #[error("is for another processor (ELF machine {0})")]
    OtherMachine(u16),
    /// It wants a loader and libraries, which an image from scratch hasn't got.
    #[error("is linked dynamically: it wants the loader {loader}")]
    Dynamic {
        /// The loader's path.
        loader: String,
    },
}

/// The processor that a static program is for.
///
/// # Errors
/// Where it is no program, for no processor that pmz knows, or not static.
pub(super) fn static_program(file: &[u8]) -> Result<Architecture, ElfError> {
    let architecture = Architecture::of(file)?;
    match loader(file).ok_or(ElfError::NotAProgram)? {
        Some(loader) => Err(ElfError::Dynamic { loader }),
        None => Ok(architecture),
    }
}

/// The interpreter that the program headers name; the outer `None` means that they can't be read.
fn loader(file: &[u8]) -> Option<Option<String>> {
    let table = usize::try_from(u64_at(file, 32)?).ok()?;
    let size = usize::from(u16_at(file, 54)?);
    let count = usize::from(u16_at(file, 56)?);
    for i in 0..count {
        let header = table.checked_add(i.checked_mul(size)?)?;
        if u32_at(file, header)? != PT_INTERP {
            continue;
        }
        let from = usize::try_from(u64_at(file, header.checked_add(8)?)?).ok()?;
        let len = usize::try_from(u64_at(file, header.checked_add(32)?)?).ok()?;
        let path = file.get(from..from.checked_add(len)?)?;
        let path = String::from_utf8_lossy(path);
        return Some(Some(path.trim_end_matches('\0').to_owned()));
    }
    Some(None)
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    let bytes = file.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    let bytes = file.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn u64_at(file: &[u8], at: usize) -> Option<u64> {
    let bytes = file.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A program with one program header of that type, which points at `tail`.
    pub(in crate::image) fn program(machine: u16, header_type: u32, tail: &[u8]) -> Vec<u8> {
        let mut file = vec![0; HEADER + 56];
        file[..6].copy_from_slice(MAGIC);
        file[16..18].copy_from_slice(&ET_DYN.to_le_bytes());
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        file[64..68].copy_from_slice(&header_type.to_le_bytes());
        file[72..80].copy_from_slice(&120_u64.to_le_bytes());
        file[96..104].copy_from_slice(&(tail.len() as u64).to_le_bytes());
        file.extend_from_slice(tail);
        file
    }

    #[test]
    fn static_programs_of_both_processors_are_told_apart() {
        for (machine, architecture) in [(62, Architecture::Amd64), (183, Architecture::Arm64)] {
            assert_eq!(static_program(&program(machine, 1, b"")), Ok(architecture));
        }
        let sparc = static_program(&program(43, 1, b""));
        assert_eq!(sparc, Err(ElfError::OtherMachine(43)));
    }

    #[test]
    fn a_program_that_wants_a_loader_is_refused_with_its_name() {
        let loader = "/lib64/ld-linux-x86-64.so.2";
        let file = program(62, PT_INTERP, format!("{loader}\0").as_bytes());
        let error = static_program(&file).unwrap_err();
        assert_eq!(
            error,
            ElfError::Dynamic {
                loader: loader.to_owned()
            }
        );
    }

    #[test]
    fn this_test_itself_is_read_as_its_linker_wrote_it() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let read = static_program(&own);
        let is_static = cfg!(target_feature = "crt-static");
        assert_eq!(read.is_ok(), is_static, "{read:?}");
        assert!(!matches!(read, Err(ElfError::NotAProgram)), "{read:?}");
    }

    #[test]
    fn no_damaged_header_is_read_past_its_end() {
        assert_eq!(static_program(b"#!/bin/sh\n"), Err(ElfError::NotAProgram));
        let whole = program(62, PT_INTERP, b"/lib/ld.so\0");
        for len in 0..whole.len() {
            // Every cut gives some answer.
            let _ = static_program(&whole[..len]);
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] = 0xff;
            let _ = static_program(&damaged);
        }
        let mut far = whole;
        far[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(static_program(&far), Err(ElfError::NotAProgram));
    }
}
