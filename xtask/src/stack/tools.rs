//! The tools that the stack needs from the system: which of them are missing, and how one gets them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

const JAVA_MAJOR_MIN: u32 = 17;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Java,
    Maven,
    Npm,
    Tar,
    Faketime,
    Valgrind,
    Prometheus,
    Chromium,
    ChromeDriver,
}

impl Tool {
    fn title(self) -> &'static str {
        match self {
            Self::Java => "Java 17 or later (java)",
            Self::Maven => "Maven (mvn)",
            Self::Npm => "npm",
            Self::Tar => "tar",
            Self::Faketime => "libfaketime",
            Self::Valgrind => "valgrind",
            Self::Prometheus => "Prometheus (prometheus, promtool)",
            Self::Chromium => "Chromium",
            Self::ChromeDriver => "ChromeDriver (chromedriver)",
        }
    }

    fn debian_package(self) -> &'static str {
        match self {
            Self::Java => "openjdk-17-jre-headless",
            Self::Maven => "maven",
            Self::Npm => "npm",
            Self::Tar => "tar",
            Self::Faketime => "faketime",
            Self::Valgrind => "valgrind",
            Self::Prometheus => "prometheus",
            Self::Chromium => "chromium",
            Self::ChromeDriver => "chromium-driver",
        }
    }

    fn homebrew_package(self) -> &'static str {
        match self {
            Self::Java => "openjdk@17",
            Self::Maven => "maven",
            Self::Npm => "node",
            Self::Tar => "gnu-tar",
            Self::Faketime => "libfaketime",
            Self::Valgrind => "valgrind",
            Self::Prometheus => "prometheus",
            Self::Chromium => "chromium",
            Self::ChromeDriver => "chromedriver",
        }
    }
}

/// Finds Java, and makes sure of the tools that installing the other software takes if `installing`.
///
/// # Errors
/// If something is missing: one message that names all of it and the command that installs it.
pub(crate) fn require(installing: bool, install_missing: bool) -> Result<PathBuf> {
    require_all(|| missing(installing), install_missing)?;
    java(JAVA_MAJOR_MIN).context("Java has gone meanwhile")
}

/// Makes sure of what the cases of the fault matrix need besides the stack: clocks that can be moved.
///
/// # Errors
/// As [`require`].
pub(crate) fn require_for_chaos(install_missing: bool) -> Result<()> {
    let missing = || if find("faketime").is_none() { vec![Tool::Faketime] } else { Vec::new() };
    require_all(missing, install_missing)
}

/// Makes sure of what counts instructions.
///
/// # Errors
/// As [`require`].
pub(crate) fn require_for_instructions(install_missing: bool) -> Result<()> {
    let missing = || if find("valgrind").is_none() { vec![Tool::Valgrind] } else { Vec::new() };
    require_all(missing, install_missing)
}

/// Makes sure of what reads alert rules and scrapes.
///
/// # Errors
/// As [`require`].
pub(crate) fn require_for_alerts(install_missing: bool) -> Result<()> {
    let is_there = || ["prometheus", "promtool"].iter().all(|name| find(name).is_some());
    let missing = || if is_there() { Vec::new() } else { vec![Tool::Prometheus] };
    require_all(missing, install_missing)
}

/// Makes sure of a browser, and of npm, which fetches the rules that the page is held against.
///
/// # Errors
/// As [`require`].
pub(crate) fn require_for_page(install_missing: bool) -> Result<()> {
    let needed = [(Tool::Chromium, "chromium"), (Tool::ChromeDriver, "chromedriver"), (Tool::Npm, "npm")];
    let missing = || needed.iter().filter(|(_, name)| find(name).is_none()).map(|(tool, _)| *tool).collect();
    require_all(missing, install_missing)
}

fn require_all(missing: impl Fn() -> Vec<Tool>, install_missing: bool) -> Result<()> {
    let mut tools = missing();
    if !tools.is_empty() && install_missing && can_install() {
        install(&tools)?;
        tools = missing();
    }
    if !tools.is_empty() {
        bail!(message(&tools));
    }
    Ok(())
}

fn missing(installing: bool) -> Vec<Tool> {
    let mut missing = Vec::new();
    if java(JAVA_MAJOR_MIN).is_none() {
        missing.push(Tool::Java);
    }
    if installing {
        let needed = [(Tool::Maven, "mvn"), (Tool::Npm, "npm"), (Tool::Tar, "tar")];
        missing.extend(needed.into_iter().filter(|(_, name)| find(name).is_none()).map(|(tool, _)| tool));
    }
    missing
}

fn message(missing: &[Tool]) -> String {
    let titles: Vec<_> = missing.iter().map(|tool| tool.title()).collect();
    let mut text = format!("tools are missing: {}\ninstall them with\n", titles.join(", "));
    let packages = |name: fn(Tool) -> &'static str| {
        let names: Vec<_> = missing.iter().map(|tool| name(*tool)).collect();
        names.join(" ")
    };
    let command = if cfg!(target_os = "macos") {
        format!("brew install {}", packages(Tool::homebrew_package))
    } else {
        let sudo = if rustix::process::geteuid().is_root() { "" } else { "sudo " };
        format!("{sudo}apt-get install {}", packages(Tool::debian_package))
    };
    let _ = write!(text, "    {command}");
    if can_install() {
        text.push_str("\nor let --install-missing do it");
    }
    text
}

fn can_install() -> bool {
    rustix::process::geteuid().is_root() && find("apt-get").is_some()
}

fn install(missing: &[Tool]) -> Result<()> {
    let packages: Vec<_> = missing.iter().map(|tool| tool.debian_package()).collect();
    eprintln!("installing {} with apt-get", packages.join(" "));
    let apt = |args: &[&str]| -> Result<()> {
        let status = Command::new("apt-get")
            .args(["-q", "-y"])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(std::io::stderr())
            .status()
            .context("cannot start apt-get")?;
        ensure!(status.success(), "apt-get {} failed ({status})", args.join(" "));
        Ok(())
    };
    apt(&["update"])?;
    apt(&[&["install", "--no-install-recommends"], packages.as_slice()].concat())
}

/// The `java` of `JAVA_HOME`, or else of the PATH, if it is of that major version or later.
pub(crate) fn java(major_min: u32) -> Option<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let program = home.filter(|path| path.is_file()).or_else(|| find("java"))?;
    let output = Command::new(&program).arg("-version").output().ok()?;
    let major = java_major(&String::from_utf8_lossy(&output.stderr))?;
    (major >= major_min).then_some(program)
}

/// The major version in what `java -version` prints: `openjdk version "17.0.15" 2025-04-15`; 8 calls itself 1.8.
fn java_major(printed: &str) -> Option<u32> {
    let (_, rest) = printed.split_once("version \"")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    match numbers.next()?.parse().ok()? {
        1 => numbers.next()?.parse().ok(),
        major => Some(major),
    }
}

/// The program of this name on the PATH.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_old_and_new_are_read() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK"), Some(17));
        assert_eq!(java_major("openjdk version \"21\" 2023-09-19"), Some(21));
        assert_eq!(java_major("java version \"1.8.0_392\""), Some(8));
        assert_eq!(java_major("openjdk version \"22-ea\""), Some(22));
        assert_eq!(java_major("command not found"), None);
    }

    #[test]
    fn one_message_names_all_that_is_missing_and_the_command() {
        let text = message(&[Tool::Java, Tool::Npm]);
        assert!(text.contains("Java 17 or later (java), npm\n"), "{text}");
        if cfg!(target_os = "linux") {
            assert!(text.contains("apt-get install openjdk-17-jre-headless npm"), "{text}");
        }
    }
}
