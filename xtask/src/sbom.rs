//! `cargo xtask sbom`: what the program `millrace` consists of, as CycloneDX 1.6 (<https://cyclonedx.org/docs/1.6/json/>).
//!
//! Only what is in the program: no tools of its build, no tests. OpenSSL, zlib and the C library are the system's, and told by
//! the SBOM of the image's base.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{cargo, fuzz_admin::install, reproducible::git, stack::clone_root};

/// Write what the program consists of, as CycloneDX 1.6
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to
    #[arg(long, value_name = "FILE", default_value = "target/sbom/millrace.cdx.json")]
    output: PathBuf,
    /// Check it by the official schema, with Python's cyclonedx-python-lib, installed into target/sbom/
    #[arg(long)]
    validate: bool,
}

/// The package of the program.
const ROOT: &str = "millrace-consumers";
/// Crates that carry a library in C along, whose version stands behind the `+` of theirs.
const BUNDLED: [(&str, &str); 2] = [("rdkafka-sys", "librdkafka"), ("zstd-sys", "zstd")];
/// Pinned: it brings the schema along.
const PACKAGE: &str = "cyclonedx-python-lib[json-validation]==11.12.0";
const VALIDATOR: &str = "xtask/assets/validate_sbom.py";

/// What cargo knows.
struct Knowledge {
    /// `cargo metadata`.
    metadata: Value,
    /// Name and version of all that is in the program.
    inside: BTreeSet<(String, String)>,
    /// SHA-256 of crates by name and version, from Cargo.lock.
    checksums: BTreeMap<(String, String), String>,
}

/// # Errors
/// If cargo fails, a crate is of an unknown kind, or the validator cannot be run. That the SBOM is not valid is an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = clone_root()?;
    let (commit, time) = (git(&["rev-parse", "HEAD"])?, git(&["log", "-1", "--format=%cI"])?);
    let sbom = sbom(&Knowledge::ask()?, &commit, &time)?;
    let file = root.join(&args.output);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(&sbom).context("write the SBOM as JSON")?;
    fs::write(&file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    println!("{} components: {}", sbom["components"].as_array().map_or(0, Vec::len), file.display());
    if args.validate {
        let python = install(&root.join("target/sbom"), &[PACKAGE])?;
        let status =
            Command::new(python).arg(root.join(VALIDATOR)).arg(&file).status().context("start the validator")?;
        return cargo::exit_code(status);
    }
    Ok(ExitCode::SUCCESS)
}

impl Knowledge {
    fn ask() -> Result<Self> {
        let metadata = answer(&["metadata", "--locked", "--format-version", "1"])?;
        // Exactly what is compiled in: metadata alone would count features that only other programs turn on.
        let tree =
            ["tree", "--locked", "-p", ROOT, "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"];
        let lock = fs::read_to_string(clone_root()?.join("Cargo.lock")).context("read Cargo.lock")?;
        Ok(Self {
            metadata: serde_json::from_str(&metadata).context("read cargo metadata")?,
            inside: answer(&tree)?.lines().filter_map(name_and_version).collect(),
            checksums: checksums(&lock),
        })
    }

    /// Packages in the program, by their ids.
    fn packages(&self) -> Result<BTreeMap<&str, &Value>> {
        let all = self.metadata["packages"].as_array().context("cargo metadata has no packages")?;
        let inside = all.iter().filter(|package| self.inside.contains(&key(package)));
        let packages: BTreeMap<_, _> = inside.map(|package| (text(&package["id"]), package)).collect();
        ensure!(packages.len() == self.inside.len(), "cargo tree and cargo metadata know different packages");
        Ok(packages)
    }
}

fn sbom(knowledge: &Knowledge, commit: &str, time: &str) -> Result<Value> {
    let packages = knowledge.packages()?;
    let (mut components, mut dependencies, mut root) = (Vec::new(), Vec::new(), Value::Null);
    for package in packages.values() {
        let mut component = component(package, knowledge.checksums.get(&key(package)));
        if text(&package["name"]) == ROOT {
            component["type"] = "application".into();
            component["name"] = "millrace".into();
            component["properties"] = json!([{"name": "millrace:commit", "value": commit}]);
            root = component;
        } else {
            components.push(component);
        }
    }
    let nodes = knowledge.metadata["resolve"]["nodes"].as_array().context("cargo metadata has no graph")?;
    for node in nodes {
        let Some(package) = packages.get(text(&node["id"])) else { continue };
        let edges = node["deps"].as_array().into_iter().flatten().filter(|edge| is_normal(edge));
        let mut on: BTreeSet<String> =
            edges.filter_map(|edge| packages.get(text(&edge["pkg"]))).map(|package| purl(package)).collect();
        if let Some(library) = bundled(package)? {
            on.insert(text(&library["bom-ref"]).to_owned());
            dependencies.push(json!({"ref": library["bom-ref"], "dependsOn": []}));
            components.push(library);
        }
        dependencies.push(json!({"ref": purl(package), "dependsOn": on}));
    }
    components.sort_by_key(|component| text(&component["bom-ref"]).to_owned());
    dependencies.sort_by_key(|dependency| text(&dependency["ref"]).to_owned());
    let tool = json!({"type": "application", "name": "cargo xtask sbom", "version": env!("CARGO_PKG_VERSION")});
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": time, "tools": {"components": [tool]}, "component": root},
        "components": components,
        "dependencies": dependencies,
    }))
}

fn component(package: &Value, checksum: Option<&String>) -> Value {
    let purl = purl(package);
    let mut component = json!({
        "type": "library", "bom-ref": purl, "name": package["name"], "version": package["version"], "purl": purl,
        "scope": "required",
    });
    if let Some(license) = package["license"].as_str() {
        // As it was written before SPDX expressions.
        component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    if let Some(checksum) = checksum {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    if let Some(repository) = package["repository"].as_str() {
        component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    component
}

/// The library in C that a crate carries along.
fn bundled(package: &Value) -> Result<Option<Value>> {
    let (name, version) = (text(&package["name"]), text(&package["version"]));
    let Some((_, library)) = version.split_once('+').filter(|_| name.ends_with("-sys")) else { return Ok(None) };
    let Some((_, title)) = BUNDLED.iter().find(|(known, _)| *known == name) else {
        bail!("{name} {version} carries a library along that xtask/src/sbom.rs does not know; add it to BUNDLED");
    };
    let version = library.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let purl = format!("pkg:generic/{title}@{version}");
    Ok(Some(json!({
        "type": "library", "bom-ref": purl, "name": title, "version": version, "purl": purl, "scope": "required",
    })))
}

/// <https://github.com/package-url/purl-spec>; a `+` would mean a space.
fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(&package["name"]), text(&package["version"]).replace('+', "%2B"))
}

fn key(package: &Value) -> (String, String) {
    (text(&package["name"]).to_owned(), text(&package["version"]).to_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether it is a dependency of the program itself, not of its build or its tests.
fn is_normal(edge: &Value) -> bool {
    edge["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
}

/// `serde v1.0.229 (*)`
fn name_and_version(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.split_once(" v")?;
    Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
}

fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |package: &str, name: &str| {
        package
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned()))
    };
    let packages = lock.split("[[package]]");
    packages.filter_map(|one| Some(((field(one, "name")?, field(one, "version")?), field(one, "checksum")?))).collect()
}

fn answer(arguments: &[&str]) -> Result<String> {
    let output = cargo::command()?.args(arguments).output().context("start cargo")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {}: {words}", arguments.join(" "));
    String::from_utf8(output.stdout).context("read what cargo says")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_of_the_program_is_told_with_its_checksum_and_licence_and_all_are_reached_from_it() {
        let knowledge = Knowledge::ask().unwrap();
        let sbom = sbom(&knowledge, "0123456", "2026-11-23T00:00:00Z").unwrap();
        let components = sbom["components"].as_array().unwrap();
        let inside = knowledge.inside.len() - 1 + BUNDLED.len();
        assert_eq!(components.len(), inside, "all but the program itself, and what is bundled");
        for component in components {
            let (purl, name) = (text(&component["purl"]), text(&component["name"]));
            let ours = name.starts_with("millrace-");
            assert_eq!(component["hashes"].is_array(), purl.starts_with("pkg:cargo/") && !ours, "{component}");
            assert!(component["licenses"].is_array() || purl.starts_with("pkg:generic/"), "{component}");
        }
        for name in ["tokio", "rdkafka-sys", "librdkafka", "zstd", "millrace-pipeline"] {
            assert_eq!(components.iter().filter(|component| component["name"] == name).count(), 1, "{name}");
        }
        for name in ["criterion", "proptest", "serde_derive", "cc", "xtask"] {
            assert!(components.iter().all(|component| component["name"] != name), "{name} is not in the program");
        }

        let dependencies = sbom["dependencies"].as_array().unwrap();
        let edges: BTreeMap<&str, Vec<&str>> = dependencies
            .iter()
            .map(|one| (text(&one["ref"]), one["dependsOn"].as_array().unwrap().iter().map(text).collect()))
            .collect();
        let mut reached = BTreeSet::new();
        let mut next = vec![text(&sbom["metadata"]["component"]["bom-ref"])];
        while let Some(one) = next.pop() {
            if reached.insert(one) {
                next.extend(&edges[one]);
            }
        }
        assert_eq!(reached.len(), components.len() + 1);
    }

    #[test]
    fn a_library_that_nobody_knows_is_an_error() {
        let package = json!({"name": "foo-sys", "version": "0.1.0+foo.2.3"});
        assert!(bundled(&package).unwrap_err().to_string().contains("foo-sys 0.1.0+foo.2.3"));
        let known = json!({"name": "zstd-sys", "version": "2.1.3+zstd.1.5.7"});
        assert_eq!(bundled(&known).unwrap().unwrap()["purl"], "pkg:generic/zstd@1.5.7");
        assert_eq!(purl(&known), "pkg:cargo/zstd-sys@2.1.3%2Bzstd.1.5.7");
    }
}
