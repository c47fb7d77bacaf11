//! What an installed folder must hold: every file with its size and SHA-256, so that a broken installation is noticed.
//!
//! Reading half a gigabyte at every start would take seconds. A file is read again only if its size or time of change
//! differ from those recorded when it was last found good.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::layout::{hex, read_if_there, write_atomically};

const NAME: &str = "manifest.json";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: String,
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    path: String,
    bytes: u64,
    sha256: String,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

impl Manifest {
    /// Describes all files of a folder, and writes the description into it.
    ///
    /// # Errors
    /// If they cannot be read, or the description not written.
    pub(crate) fn write(folder: &Path, version: &str) -> Result<u64> {
        let mut files = Vec::new();
        describe(folder, folder, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let bytes = files.iter().map(|entry| entry.bytes).sum();
        let manifest = Self { version: version.to_owned(), files };
        manifest.save(folder)?;
        Ok(bytes)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let content = serde_json::to_vec_pretty(self).context("cannot encode the manifest")?;
        write_atomically(&folder.join(NAME), &content, 0o644)
    }

    /// Why the folder is not what was installed; `None` if it is.
    ///
    /// # Errors
    /// If it cannot be read at all.
    pub(crate) fn fault(folder: &Path, version: &str) -> Result<Option<String>> {
        let Some(content) = read_if_there(&folder.join(NAME))? else {
            return Ok(Some("it has no manifest".to_owned()));
        };
        let Ok(mut manifest) = serde_json::from_str::<Self>(&content) else {
            return Ok(Some("its manifest cannot be read".to_owned()));
        };
        if manifest.version != version {
            return Ok(Some(format!("it is version {}", manifest.version)));
        }
        let mut touched = false;
        for entry in &mut manifest.files {
            let path = folder.join(&entry.path);
            let Ok(meta) = fs::metadata(&path) else {
                return Ok(Some(format!("{} is missing", entry.path)));
            };
            if meta.len() != entry.bytes {
                return Ok(Some(format!("{} has {} bytes instead of {}", entry.path, meta.len(), entry.bytes)));
            }
            let changed = (meta.mtime(), meta.mtime_nsec());
            if changed != entry.changed {
                if digest::<Sha256>(&path)? != entry.sha256 {
                    return Ok(Some(format!("{} has another checksum", entry.path)));
                }
                entry.changed = changed;
                touched = true;
            }
        }
        if touched {
            manifest.save(folder)?;
        }
        Ok(None)
    }
}

fn describe(root: &Path, folder: &Path, files: &mut Vec<Entry>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry.context("cannot read a folder")?.path();
        let meta = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if meta.is_dir() {
            describe(root, &path, files)?;
            continue;
        }
        let relative = path.strip_prefix(root).context("a file outside its folder")?;
        files.push(Entry {
            path: relative.display().to_string(),
            bytes: meta.len(),
            sha256: digest::<Sha256>(&path)?,
            changed: (meta.mtime(), meta.mtime_nsec()),
        });
    }
    Ok(())
}

/// The checksum of a file, in hexadecimal.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn digest<D: Digest>(path: &Path) -> Result<String> {
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(path)?;
        let mut hash = D::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hex(&hash.finalize())),
                count => hash.update(&buffer[..count]),
            }
        }
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn installed(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("millrace-manifest-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("libs")).unwrap();
            fs::write(path.join("libs/a.jar"), "abc").unwrap();
            fs::write(path.join("b"), "defg").unwrap();
            assert_eq!(Manifest::write(&path, "1").unwrap(), 7);
            Self(path)
        }

        fn fault(&self) -> Option<String> {
            Manifest::fault(&self.0, "1").unwrap()
        }

        fn touch(&self, file: &str) {
            let file = fs::File::options().write(true).open(self.0.join(file)).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_just_installed_has_no_fault() {
        assert_eq!(Folder::installed("good").fault(), None);
    }

    #[test]
    fn a_file_cut_short_is_named() {
        let folder = Folder::installed("short");
        fs::write(folder.0.join("libs/a.jar"), "ab").unwrap();
        assert_eq!(folder.fault().unwrap(), "libs/a.jar has 2 bytes instead of 3");
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = Folder::installed("missing");
        fs::remove_file(folder.0.join("b")).unwrap();
        assert_eq!(folder.fault().unwrap(), "b is missing");
    }

    #[test]
    fn a_changed_file_of_the_same_size_is_noticed() {
        let folder = Folder::installed("changed");
        fs::write(folder.0.join("b"), "defh").unwrap();
        folder.touch("b");
        assert_eq!(folder.fault().unwrap(), "b has another checksum");
    }

    #[test]
    fn a_file_that_was_only_touched_is_good() {
        let folder = Folder::installed("touched");
        folder.touch("b");
        assert_eq!(folder.fault(), None);
        assert_eq!(folder.fault(), None);
    }

    #[test]
    fn a_half_installed_folder_has_no_manifest_and_is_a_fault() {
        let folder = Folder::installed("half");
        fs::remove_file(folder.0.join(NAME)).unwrap();
        assert_eq!(folder.fault().unwrap(), "it has no manifest");
        fs::write(folder.0.join(NAME), "{\"vers").unwrap();
        assert_eq!(folder.fault().unwrap(), "its manifest cannot be read");
    }

    #[test]
    fn another_version_is_a_fault() {
        let folder = Folder::installed("version");
        assert_eq!(Manifest::fault(&folder.0, "2").unwrap().unwrap(), "it is version 1");
    }
}
