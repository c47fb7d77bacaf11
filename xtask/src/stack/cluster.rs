//! A cluster for hosts of its own: Kafka nodes that are replicated, a registry, and several servers of ClickHouse. Writes
//! their settings, formats their storage, and says how each is started; whoever has hosts starts them (`millrace-chaos`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::json;

use super::install::Software;
use super::layout::{DataDir, write_atomically};
use super::part::{Launch, Part};
use super::ports::{Ports, SecuredPorts};
use super::{Options, clickhouse, install_software, kafka, registry};
use crate::interrupt::Interrupt;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder for all data; made anew
    #[arg(long)]
    dir: PathBuf,
    /// Addresses of the Kafka nodes
    #[arg(long, value_delimiter = ',', required = true)]
    kafka: Vec<String>,
    /// Address of the registry
    #[arg(long)]
    registry: String,
    /// Addresses of the servers of ClickHouse
    #[arg(long, value_delimiter = ',', required = true)]
    clickhouse: Vec<String>,
    /// This program, for others to start
    #[arg(long)]
    xtask: PathBuf,
}

/// Every host has its ports for itself.
const PORTS: Ports = Ports {
    kafka: 9092,
    kafka_controller: 9093,
    registry: 8081,
    clickhouse_http: 8123,
    clickhouse_tcp: 9000,
    prometheus: 0,
    kafka_proxied: 0,
    kafka_proxy: 0,
    secured: SecuredPorts {
        kafka_tls: 0,
        kafka_mtls: 0,
        kafka_sasl_tls: 0,
        kafka_sasl: 0,
        kafka_expired: 0,
        registry: 8443,
    },
};
/// Several nodes on one machine, with a load of minutes.
const KAFKA_HEAP: &str = "-Xmx256m";

/// How to start a part.
#[derive(Serialize)]
struct Command {
    address: String,
    program: PathBuf,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    /// Of its data.
    folder: PathBuf,
}

/// Prints what there is to start, in the order of the addresses, and the content of a `stack.json` for it all.
///
/// # Errors
/// If software is missing, files cannot be written or Kafka does not format its storage.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.dir.exists() {
        fs::remove_dir_all(&args.dir).with_context(|| format!("cannot remove {}", args.dir.display()))?;
    }
    let (cache, java) = install_software(&Options {
        dir: args.dir.clone(),
        fresh: true,
        install_missing: false,
        measured: false,
        interrupt: Interrupt::install().context("cannot watch for Ctrl-C")?,
    })?;
    let open = |name: String| DataDir::open(&args.dir.join(name));

    let registry_dir = open("registry".to_owned())?;
    let apicurio = cache.folder(Software::Apicurio);
    let registry = registry::prepare(&registry_dir, &args.registry, &PORTS, &java, &apicurio)?;
    let registry = command(&args.registry, registry, &registry_dir)?;

    let mut servers = Vec::new();
    let mut first: Option<DataDir> = None;
    for (at, address) in args.clickhouse.iter().enumerate() {
        let dir = open(format!("clickhouse-{at}"))?;
        if let Some(first) = &first {
            clickhouse::copy_passwords(first, &dir)?;
        }
        let mut launch = clickhouse::prepare(&dir, &PORTS, &cache.libchdb())?;
        launch.program.clone_from(&args.xtask);
        launch.args.extend(["--listen-host".into(), address.into()]);
        servers.push(command(address, launch, &dir)?);
        first.get_or_insert(dir);
    }
    let first = first.context("no server of ClickHouse")?;

    let brokers = brokers(args, &java, &cache.folder(Software::Kafka).join("libs/*"))?;
    let login = |user: &clickhouse::User| json!({"user": user.name, "password_file": first.password(user.name)});
    let urls: Vec<String> =
        args.clickhouse.iter().map(|address| format!("http://{address}:{}", PORTS.clickhouse_http)).collect();
    let doors: Vec<String> = args.kafka.iter().map(|address| format!("{address}:{}", PORTS.kafka)).collect();
    let plan = json!({
        "kafka": brokers,
        "registry": registry,
        "clickhouse": servers,
        "stack": {
            "kafka": doors.join(","),
            "kafka_proxied": doors[0],
            "kafka_proxy": doors[0],
            "registry": registry::url_at(&args.registry, &PORTS),
            "clickhouse": urls[0],
            "clickhouse_servers": urls,
            "clickhouse_disks": clickhouse::disks(&first),
            "database": clickhouse::DATABASE,
            "admin": login(&clickhouse::ADMIN),
            "pipeline": login(&clickhouse::PIPELINE),
        },
    });
    println!("{plan}");
    Ok(ExitCode::SUCCESS)
}

/// The storage of each is formatted by a JVM of its own, all at once.
fn brokers(args: &Args, java: &Path, classpath: &Path) -> Result<Vec<Command>> {
    let cluster_id = kafka::cluster_id()?;
    let port = PORTS.kafka_controller;
    let voters = args.kafka.iter().zip(1..).map(|(address, node)| format!("{node}@{address}:{port}"));
    let voters = voters.collect::<Vec<_>>().join(",");
    let prepare = |node: usize, address: &str| -> Result<Command> {
        let dir = DataDir::open(&args.dir.join(format!("kafka-{node}")))?;
        let properties = |data: &Path| {
            let filled = include_str!("../../assets/cluster.properties")
                .replace("@NODE@", &node.to_string())
                .replace("@VOTERS@", &voters)
                .replace("@ADDRESS@", address)
                .replace("@BROKER_PORT@", &PORTS.kafka.to_string())
                .replace("@CONTROLLER_PORT@", &port.to_string())
                .replace("@LOG_DIRS@", &data.display().to_string());
            Ok(filled)
        };
        kafka::format_storage(&dir, java, classpath, &cluster_id, &[], properties)?;
        let file = dir.config("server.properties");
        write_atomically(&file, properties(&dir.data(Part::Kafka))?.as_bytes(), 0o600)?;
        let options = kafka::JVM.into_iter().chain([KAFKA_HEAP, kafka::FOR_SHORT_LIVES]).chain(kafka::LOG);
        let mut arguments: Vec<_> = options.map(Into::into).collect();
        arguments.extend(["-cp".into(), classpath.into(), "kafka.Kafka".into(), file.into()]);
        let launch = Launch {
            part: Part::Kafka,
            program: java.to_path_buf(),
            args: arguments,
            env: BTreeMap::new(),
            config: Vec::new(),
        };
        command(address, launch, &dir)
    };
    thread::scope(|scope| {
        let prepare = &prepare;
        let formatting: Vec<_> =
            args.kafka.iter().zip(1..).map(|(address, node)| scope.spawn(move || prepare(node, address))).collect();
        formatting
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|_| bail!("the thread that formatted it panicked")))
            .collect()
    })
}

fn command(address: &str, launch: Launch, dir: &DataDir) -> Result<Command> {
    let text = |value: std::ffi::OsString| value.into_string().ok().context("a path is no text");
    Ok(Command {
        address: address.to_owned(),
        folder: dir.data(launch.part),
        program: launch.program,
        args: launch.args.into_iter().map(text).collect::<Result<_>>()?,
        env: launch.env.into_iter().map(|(name, value)| Ok((name.to_owned(), text(value)?))).collect::<Result<_>>()?,
    })
}
