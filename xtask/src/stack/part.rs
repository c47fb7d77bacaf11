//! The parts of the stack, and what it takes to launch one of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::layout::hex;

/// One process of the stack, in the order in which they are started and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub(crate) enum Part {
    Kafka,
    Registry,
    ClickHouse,
    Prometheus,
}

impl Part {
    pub(crate) const ALL: [Self; 4] = [Self::Kafka, Self::Registry, Self::ClickHouse, Self::Prometheus];

    /// Its name on the command line, in file names and in output.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Registry => "registry",
            Self::ClickHouse => "clickhouse",
            Self::Prometheus => "prometheus",
        }
    }
}

/// A program with all that decides how it runs.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) part: Part,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: BTreeMap<&'static str, OsString>,
    /// Contents of the configuration files that the program reads at its start.
    pub(crate) config: Vec<String>,
}

impl Launch {
    /// Changes when the running process should be replaced by one with the new settings.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        // This program itself goes by the id of the process that starts the part, another one each time.
        let program = if self.program.starts_with("/proc") { Path::new("xtask") } else { &self.program };
        add(program.as_os_str().as_encoded_bytes());
        for arg in &self.args {
            add(arg.as_encoded_bytes());
        }
        for (name, value) in &self.env {
            add(name.as_bytes());
            add(value.as_encoded_bytes());
        }
        for content in &self.config {
            add(content.as_bytes());
        }
        hex(&hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(program: &str) -> String {
        let program = PathBuf::from(program);
        let part = Part::ClickHouse;
        Launch { part, program, args: Vec::new(), env: BTreeMap::new(), config: Vec::new() }.fingerprint()
    }

    #[test]
    fn a_part_is_the_same_whichever_process_of_this_program_starts_it() {
        assert_eq!(fingerprint("/proc/1/exe"), fingerprint("/proc/2/exe"));
        assert_ne!(fingerprint("/usr/bin/java"), fingerprint("/opt/bin/java"));
    }
}
