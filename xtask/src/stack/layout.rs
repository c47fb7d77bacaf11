//! Where things lie: the data folder of one instance of the stack, and the files in it.
//!
//! Knows paths, names and how to write a file whole; starts nothing.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::part::Part;

/// The data folder of one instance (`.stack/` of the clone, unless told otherwise). Instances share nothing but the
/// per-user cache of installed software.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
}

/// What [`DataDir::wipe`] removes: everything that the parts make, and nothing else, in case somebody points
/// `--dir` at a folder with files of their own. The ports stay, so that a fresh start has the same addresses.
const OWN_ENTRIES: [&str; 8] =
    ["kafka", "kafka.new", "registry", "clickhouse", "prometheus", "config", "logs", "secrets"];

impl DataDir {
    /// A folder to look at, which need not be there.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// A folder to work in; made if it is not there.
    ///
    /// # Errors
    /// If the folder can neither be found nor made.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let made = fs::create_dir_all(root).and_then(|()| root.canonicalize());
        let root = made.with_context(|| format!("cannot make the data folder {}", root.display()))?;
        let dir = Self { root };
        for sub in ["config", "logs", "run", "secrets"] {
            fs::create_dir_all(dir.root.join(sub))
                .with_context(|| format!("cannot make {}", dir.root.join(sub).display()))?;
        }
        Ok(dir)
    }

    /// The folder of the clone that cargo runs us in: of the developer's own instance (`.stack`), or of a separate one
    /// with a name, which a command uses that must not disturb it.
    ///
    /// # Errors
    /// If no clone is found around the current folder.
    pub(crate) fn path_in_clone(name: Option<&str>) -> Result<PathBuf> {
        let own = clone_root()?.join(".stack");
        Ok(name.map_or_else(|| own.clone(), |name| own.join("instances").join(name)))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The data of one part.
    pub(crate) fn data(&self, part: Part) -> PathBuf {
        self.root.join(part.name())
    }

    pub(crate) fn config(&self, name: &str) -> PathBuf {
        self.root.join("config").join(name)
    }

    pub(crate) fn log(&self, part: Part) -> PathBuf {
        self.root.join("logs").join(format!("{}.log", part.name()))
    }

    /// The pid file of one part.
    pub(crate) fn record(&self, part: Part) -> PathBuf {
        self.root.join("run").join(format!("{}.json", part.name()))
    }

    pub(crate) fn password(&self, user: &str) -> PathBuf {
        self.root.join("secrets").join(format!("{user}.password"))
    }

    /// What the secured doors need.
    pub(crate) fn secured(&self) -> PathBuf {
        self.root.join("secrets").join("tls")
    }

    pub(crate) fn ports_file(&self) -> PathBuf {
        self.root.join("ports.json")
    }

    /// What other commands read; there only while all parts are up.
    pub(crate) fn stack_file(&self) -> PathBuf {
        self.root.join("stack.json")
    }

    /// Held by `up` and `down` while they work, so that two of them do not mix.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Removes data, configuration, logs and passwords. The parts must be stopped.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub(crate) fn wipe(&self) -> Result<()> {
        for name in OWN_ENTRIES {
            let path = self.root.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The clone that cargo runs us in, or the one around the current folder.
pub(crate) fn clone_root() -> Result<PathBuf> {
    if let Some(manifest) = std::env::var_os("CARGO_MANIFEST_DIR") {
        let package = PathBuf::from(manifest);
        if let Some(root) = package.parent().filter(|root| root.join("xtask").is_dir()) {
            return Ok(root.to_path_buf());
        }
    }
    let here = std::env::current_dir().context("cannot tell the current folder")?;
    here.ancestors()
        .find(|folder| folder.join("xtask/Cargo.toml").is_file())
        .map(Path::to_path_buf)
        .context("no clone of Millrace around the current folder; go into one, or give --dir")
}

/// Writes a file whole or not at all: a reader sees the old or the new content.
///
/// # Errors
/// If the folder is not writable or the disk is full.
pub(crate) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The content of a file, or `None` if there is none.
///
/// # Errors
/// If it is there but cannot be read.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// `bytes` random bytes of the system as hexadecimal text.
///
/// # Errors
/// If the system offers none.
pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut buffer))
        .context("cannot read /dev/urandom")?;
    Ok(hex(&buffer))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
