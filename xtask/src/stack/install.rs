//! The software of the stack, installed once per user into a cache that all clones share.
//!
//! Each piece lies in a folder named with its version. It is made beside and renamed, under a lock, so a folder is
//! whole or not there; what is found broken later is installed again. Downloads go through Maven and npm, which know the
//! user's mirrors and proxies. Nothing is ever installed into the system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Sha256, Sha512};

use super::fetch::{self, run};
use super::layout::write_atomically;
use super::manifest::{Manifest, digest};
use super::registry;
use crate::interrupt::Interrupt;

/// One piece of software.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Software {
    Kafka,
    Apicurio,
    Chdb,
}

const KAFKA_JAR: (&str, &str) =
    ("libs/kafka_2.13-4.1.0.jar", "0de0471a4c7a9e734c166822a26a4bb064eb81cb2c7a8b1345912cad78997a7b");
const APICURIO_JAR: (&str, &str) =
    (registry::RUNNER, "fc638b426304817da3509ebc92a2bdedfac44777b9ab231a98032922e5a9deea");
/// SHA-512 of the npm package for x86-64 Linux, as npm states it. Of the packages for other systems npm itself checks the
/// integrity that its registry states.
const CHDB_LINUX_X64_SHA512: &str = "5cff7b98caa7739b59a4a432c11f0dedc2d3b073624e61ebdf4a42e66ce8de35\
                                     a6ba48ca9f62016bad1cd81fe059435cb858ce3235a8a2b408082a81563e70a7";

impl Software {
    const ALL: [Self; 3] = [Self::Kafka, Self::Apicurio, Self::Chdb];

    fn title(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka",
            Self::Apicurio => "Apicurio registry",
            Self::Chdb => "ClickHouse (libchdb)",
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::Kafka => "4.1.0",
            Self::Apicurio => "2.6.13.Final",
            Self::Chdb => "26.7.3-stable.1",
        }
    }

    fn folder_name(self) -> String {
        let name = match self {
            Self::Kafka => "kafka",
            Self::Apicurio => "apicurio",
            Self::Chdb => "chdb",
        };
        format!("{name}-{}", self.version())
    }

    fn fetch(self, folder: &Path, interrupt: &Interrupt) -> Result<()> {
        match self {
            Self::Kafka => fetch_kafka(folder, interrupt),
            Self::Apicurio => fetch_apicurio(folder, interrupt),
            Self::Chdb => fetch_chdb(folder, interrupt),
        }
    }
}

/// Where installed software lies.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$MILLRACE_CACHE`, else `$XDG_CACHE_HOME/millrace`, else `~/.cache/millrace`.
    ///
    /// # Errors
    /// If none of them is known.
    pub(crate) fn of_user() -> Result<Self> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("MILLRACE_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("millrace")))
            .or_else(|| set("HOME").map(|folder| folder.join(".cache/millrace")));
        let root = root.context("neither MILLRACE_CACHE nor HOME is set, so there is no place for the cache")?;
        Ok(Self { root })
    }

    /// The folder that everything else lies in.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn folder(&self, software: Software) -> PathBuf {
        self.root.join(software.folder_name())
    }

    /// libchdb itself.
    pub(crate) fn libchdb(&self) -> PathBuf {
        self.folder(Software::Chdb).join("libchdb.so")
    }

    /// What is not installed, or not as it was installed; with the reason, if it is broken.
    ///
    /// # Errors
    /// If the cache cannot be read.
    pub(crate) fn missing(&self) -> Result<Vec<(Software, Option<String>)>> {
        let mut missing = Vec::new();
        for software in Software::ALL {
            let folder = self.folder(software);
            if !folder.exists() {
                missing.push((software, None));
            } else if let Some(fault) = Manifest::fault(&folder, software.version())? {
                missing.push((software, Some(fault)));
            }
        }
        Ok(missing)
    }

    /// Installs one piece, unless another command has just done so.
    ///
    /// # Errors
    /// If the download fails or yields something else than expected; nothing is left behind then.
    pub(crate) fn install(&self, software: Software, interrupt: &Interrupt) -> Result<()> {
        fs::create_dir_all(&self.root).with_context(|| format!("cannot make {}", self.root.display()))?;
        let _lock = self.lock(software, interrupt)?;
        let folder = self.folder(software);
        if folder.exists() {
            let Some(fault) = Manifest::fault(&folder, software.version())? else {
                return Ok(());
            };
            eprintln!("{} {} is broken: {fault}; installing it again", software.title(), software.version());
        } else {
            eprintln!("installing {} {}", software.title(), software.version());
        }
        let begin = Instant::now();
        // Named after this process: a download that outlived a killed command must not write into ours.
        let new = self.root.join(format!("{}.new-{}", software.folder_name(), std::process::id()));
        self.remove_leftovers(software)?;
        fs::create_dir(&new).with_context(|| format!("cannot make {}", new.display()))?;
        let fetched = software.fetch(&new, interrupt).and_then(|()| Manifest::write(&new, software.version()));
        let bytes = match fetched {
            Ok(bytes) => bytes,
            Err(error) => {
                let _ = remove(&new);
                return Err(error).with_context(|| format!("cannot install {}", software.title()));
            }
        };
        remove(&folder)?;
        fs::rename(&new, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let seconds = begin.elapsed().as_secs_f64();
        eprintln!("installed {}: {} MB in {seconds:.1} s", software.title(), bytes / 1_000_000);
        Ok(())
    }

    /// Nobody else installs this while we hold the lock, so whatever lies there is of a command that was killed.
    fn remove_leftovers(&self, software: Software) -> Result<()> {
        let prefix = format!("{}.new-", software.folder_name());
        let entries = fs::read_dir(&self.root).with_context(|| format!("cannot read {}", self.root.display()))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn lock(&self, software: Software, interrupt: &Interrupt) -> Result<fs::File> {
        let path = self.root.join(format!("{}.lock", software.folder_name()));
        lock(&path, interrupt, || {
            eprintln!("another command is installing {}; waiting for it", software.title());
        })
    }
}

/// Locks a file, which the system undoes when the process ends; says so once if it has to wait.
///
/// # Errors
/// If it cannot be locked, or Ctrl-C comes first.
pub(crate) fn lock(path: &Path, interrupt: &Interrupt, waiting: impl FnOnce()) -> Result<fs::File> {
    let open = fs::OpenOptions::new().create(true).append(true).open(path);
    let file = open.with_context(|| format!("cannot open {}", path.display()))?;
    let mut waiting = Some(waiting);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                if let Some(say) = waiting.take() {
                    say();
                }
                interrupt.check()?;
                thread::sleep(Duration::from_millis(100));
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

/// Removes a folder, if it is there.
///
/// # Errors
/// If it cannot be removed.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn fetch_kafka(folder: &Path, interrupt: &Interrupt) -> Result<()> {
    let pom = folder.join("pom.xml");
    write_atomically(&pom, include_bytes!("../../assets/pom.xml"), 0o644)?;
    let mut libs = std::ffi::OsString::from("-DoutputDirectory=");
    libs.push(folder.join("libs"));
    let mut maven = fetch::maven();
    maven.arg("--file").arg(&pom).arg(format!("{}:copy-dependencies", fetch::DEPENDENCY_PLUGIN));
    maven.arg("-DincludeScope=runtime").arg(libs);
    run(maven, folder, interrupt)?;
    expect_sha256(folder, KAFKA_JAR)
}

fn fetch_apicurio(folder: &Path, interrupt: &Interrupt) -> Result<()> {
    let artefact = format!("io.apicurio:apicurio-registry-app:{}:tar.gz:all", Software::Apicurio.version());
    let mut output = std::ffi::OsString::from("-DoutputDirectory=");
    output.push(folder);
    let mut maven = fetch::maven();
    maven.arg(format!("{}:copy", fetch::DEPENDENCY_PLUGIN)).arg(format!("-Dartifact={artefact}")).arg(output);
    run(maven, folder, interrupt)?;
    unpack(folder, "gz", &[], interrupt)?;
    expect_sha256(folder, APICURIO_JAR)
}

fn fetch_chdb(folder: &Path, interrupt: &Interrupt) -> Result<()> {
    let package = chdb_package(std::env::consts::OS, std::env::consts::ARCH)?;
    let mut npm = Command::new("npm");
    npm.args(["pack", "--ignore-scripts", "--pack-destination"]).arg(folder);
    npm.arg(format!("{package}@{}", Software::Chdb.version()));
    run(npm, folder, interrupt)?;
    let archive = archive_in(folder, "tgz")?;
    if package.ends_with("linux-x64-gnu") {
        ensure!(
            digest::<Sha512>(&archive)? == CHDB_LINUX_X64_SHA512,
            "npm delivered a package {package} with another checksum than expected"
        );
    }
    unpack(folder, "tgz", &["--strip-components=1", "package/libchdb.so"], interrupt)
}

/// The npm package of libchdb for a system, named as Rust names it.
fn chdb_package(os: &str, arch: &str) -> Result<&'static str> {
    Ok(match (os, arch) {
        ("linux", "x86_64") => "@chdb/lib-linux-x64-gnu",
        ("linux", "aarch64") => "@chdb/lib-linux-arm64-gnu",
        ("macos", "x86_64") => "@chdb/lib-darwin-x64",
        ("macos", "aarch64") => "@chdb/lib-darwin-arm64",
        _ => bail!("there is no libchdb for {os} on {arch}; use compose.yaml with Docker"),
    })
}

fn expect_sha256(folder: &Path, (file, expected): (&str, &str)) -> Result<()> {
    let found = digest::<Sha256>(&folder.join(file))?;
    ensure!(found == expected, "{file} has SHA-256 {found}, not {expected}");
    Ok(())
}

fn archive_in(folder: &Path, extension: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|found| found == extension))
        .context("the download succeeded, but there is no archive")
}

/// Unpacks the one archive in the folder, and removes it.
fn unpack(folder: &Path, extension: &str, options: &[&str], interrupt: &Interrupt) -> Result<()> {
    let archive = archive_in(folder, extension)?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&archive).arg("-C").arg(folder).args(options);
    run(tar, folder, interrupt)?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_system_has_its_package_of_libchdb() {
        assert_eq!(chdb_package("linux", "x86_64").unwrap(), "@chdb/lib-linux-x64-gnu");
        assert_eq!(chdb_package("macos", "aarch64").unwrap(), "@chdb/lib-darwin-arm64");
        let error = chdb_package("freebsd", "x86_64").unwrap_err().to_string();
        assert!(error.contains("compose.yaml"), "{error}");
    }

    #[test]
    fn the_pom_asks_for_the_pinned_kafka_and_a_log_backend() {
        let pom = include_str!("../../assets/pom.xml");
        assert!(pom.contains(&format!("<version>{}</version>", Software::Kafka.version())));
        assert!(pom.contains("<artifactId>slf4j-simple</artifactId>"));
        assert!(KAFKA_JAR.0.contains(Software::Kafka.version()));
        assert!(APICURIO_JAR.0.contains(Software::Apicurio.version()));
    }

    #[test]
    fn what_is_not_in_the_cache_is_missing_and_what_is_broken_has_a_reason() {
        let root = std::env::temp_dir().join(format!("millrace-cache-{}", std::process::id()));
        let cache = Cache { root: root.clone() };
        fs::create_dir_all(cache.folder(Software::Kafka)).unwrap();
        let missing = cache.missing().unwrap();
        fs::remove_dir_all(root).unwrap();
        assert_eq!(
            missing,
            [
                (Software::Kafka, Some("it has no manifest".to_owned())),
                (Software::Apicurio, None),
                (Software::Chdb, None)
            ]
        );
    }
}
