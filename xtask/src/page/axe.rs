//! axe-core, the rules for accessibility that the page is held against; for tests only, and never part of the product.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::browser::Browser;

/// Pinned: a later one may know more rules, and that is for a commit of its own.
const VERSION: &str = "4.14.1";
/// SHA-256 of `package/axe.min.js` in it.
const SHA256: &str = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c";

/// The script, fetched by npm into the folder unless it is there.
///
/// # Errors
/// If npm cannot fetch it, or it is another than expected.
pub(super) fn script(folder: &Path) -> Result<String> {
    let file = folder.join(format!("axe-{VERSION}/package/axe.min.js"));
    if !file.is_file() {
        fetch(folder)?;
    }
    let script = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let found: String = Sha256::digest(&script).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == SHA256, "{} has SHA-256 {found}, not {SHA256}", file.display());
    Ok(script)
}

fn fetch(folder: &Path) -> Result<()> {
    let to: PathBuf = folder.join(format!("axe-{VERSION}"));
    fs::create_dir_all(&to).with_context(|| format!("make {}", to.display()))?;
    let mut pack = Command::new("npm");
    pack.args(["pack", "--silent", "--ignore-scripts", "--pack-destination"])
        .arg(&to)
        .arg(format!("axe-core@{VERSION}"));
    run(pack, "npm pack axe-core")?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(to.join(format!("axe-core-{VERSION}.tgz"))).arg("-C").arg(&to).arg("package/axe.min.js");
    run(unpack, "unpack axe-core")
}

fn run(mut command: Command, what: &str) -> Result<()> {
    let output = command.output().with_context(|| what.to_owned())?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// What of the page as it stands breaks a rule: the rule, and the first element that does.
///
/// # Errors
/// If the script cannot be run.
pub(super) fn violations(browser: &Browser, script: &str) -> Result<Vec<String>> {
    browser.run(script)?;
    let found = browser.run_async(
        "const done = arguments[arguments.length - 1]; axe.run(document, {resultTypes: ['violations']}).then(\
         (result) => done({rules: result.passes.length, violations: result.violations.map((one) => \
         `${one.id}: ${one.nodes[0].target.join(' ')}: ${one.nodes[0].failureSummary}`)}), (error) => done(String(error)))",
    )?;
    ensure!(found["rules"].as_u64().is_some_and(|rules| rules > 10), "axe-core looked at nothing: {found}");
    Ok(found["violations"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
}
