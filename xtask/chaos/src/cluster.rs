//! A cluster whose every part is on a host of its own: three Kafka nodes with everything on three of them, a registry, servers
//! of ClickHouse, and hosts for consumers. Parts are killed and started again, hosts unplugged and plugged in.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::env;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio, id};
use std::time::Duration;

use rdkafka::consumer::Consumer;
use serde::Deserialize;
use serde_json::Value;

use crate::config::Config;
use crate::hosts::{Host, Network};
use crate::kafka::consumer;
use crate::parts;
use crate::process::Millrace;
use crate::stack::{Stack, get, program, until};
use crate::world::{World, program_with};

/// Kafka nodes.
pub const BROKERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(240);
/// For one question to Kafka, which the node that is asked may not live to answer.
const QUESTION: Duration = Duration::from_secs(3);

/// The servers of a cluster; they and their hosts go with it.
pub struct Cluster {
    /// Kafka nodes: number n is node n + 1.
    pub kafka: Vec<Server>,
    /// Servers of ClickHouse.
    pub clickhouse: Vec<Server>,
    /// Where consumers run.
    pub consumers: Vec<Host>,
    registry: Server,
    _network: Network,
    folder: PathBuf,
    stack: Value,
}

/// A part on its host.
pub struct Server {
    /// Its host.
    pub host: Host,
    plan: Plan,
    log: PathBuf,
    process: RefCell<Option<Child>>,
}

/// How a part is started, as xtask says.
#[derive(Deserialize)]
struct Plan {
    address: String,
    program: PathBuf,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    folder: PathBuf,
}

#[derive(Deserialize)]
struct Plans {
    kafka: Vec<Plan>,
    registry: Plan,
    clickhouse: Vec<Plan>,
    stack: Value,
}

impl Cluster {
    /// Starts one with so many servers of ClickHouse, and makes hosts for so many consumers.
    ///
    /// # Errors
    /// The words of the command that this machine does not allow.
    pub fn start(clickhouse: u8, consumers: u8) -> Result<Self, String> {
        let network = Network::new()?;
        let folder = env::temp_dir().join(format!("millrace-cluster-{}", id()));
        let addresses = |from: u8, count: u8| {
            (from..from + count).map(|number| network.address(number)).collect::<Vec<_>>().join(",")
        };
        let xtask = env::var_os("MILLRACE_XTASK")
            .ok_or("xtask knows how servers are started: set MILLRACE_XTASK to it (`cargo xtask chaos` does)")?;
        let output = Command::new(&xtask)
            .args(["cluster", "--dir"])
            .arg(&folder)
            .args(["--kafka", &addresses(11, BROKERS as u8), "--registry", &addresses(21, 1)])
            .args(["--clickhouse", &addresses(31, clickhouse), "--xtask"])
            .arg(&xtask)
            .output()
            .map_err(|error| error.to_string())?;
        let plans: Plans = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("xtask cluster: {error}: {}", String::from_utf8_lossy(&output.stderr)))?;
        let server = |number: u8, name: String, plan: Plan| -> Result<Server, String> {
            let host = network.host(number)?;
            assert_eq!(host.address, plan.address, "{name} is meant for another host");
            let log = folder.join(format!("{name}.log"));
            let this = Server { host, plan, log, process: RefCell::new(None) };
            this.start();
            Ok(this)
        };
        let servers = |from: u8, name: &str, plans: Vec<Plan>| -> Result<Vec<Server>, String> {
            let numbered = (0..).zip(plans);
            numbered.map(|(at, plan)| server(from + at, format!("{name}-{at}"), plan)).collect()
        };
        let this = Self {
            kafka: servers(11, "kafka", plans.kafka)?,
            registry: server(21, "registry".to_owned(), plans.registry)?,
            clickhouse: servers(31, "clickhouse", plans.clickhouse)?,
            consumers: (0..consumers).map(|at| network.host(41 + at)).collect::<Result<_, _>>()?,
            stack: plans.stack,
            _network: network,
            folder,
        };
        this.until_up();
        Ok(this)
    }

    /// Where the parts are, for a [`World`].
    pub fn stack(&self) -> Stack {
        serde_json::from_value(self.stack.clone()).unwrap()
    }

    /// The same as the file that tells other programs of a stack.
    pub fn stack_file(&self) -> Value {
        self.stack.clone()
    }

    /// `millrace run` on a consumer's host.
    pub fn run(&self, world: &World, at: usize, config: &Config, variables: &[(&str, &str)]) -> Millrace {
        let host = &self.consumers[at];
        let file = world.write(&config.clone().with("[http]", "listen", &format!("{}:0", host.address)));
        let mut command = host.command();
        command.arg(program(program_with(variables)));
        Millrace::start_as(command, &file, file.with_extension("log"), variables)
    }

    /// The node that leads the metadata quorum, by what the nodes have written down of the elections.
    pub fn controller(&self) -> usize {
        let elections = self.kafka.iter().filter_map(|node| {
            let file = node.plan.folder.join("__cluster_metadata-0/quorum-state");
            let state: Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
            let leader = usize::try_from(state["leaderId"].as_i64()?).ok()?;
            Some((state["leaderEpoch"].as_i64()?, leader.checked_sub(1)?))
        });
        elections.max().expect("a node that knows of a leader").1
    }

    /// The node that leads a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> usize {
        let mut leader = None;
        until("a partition has a leader", PATIENCE, || {
            leader = self.partitions(topic).and_then(|all| {
                let (_, node, _) = all.into_iter().find(|(id, _, _)| *id == partition)?;
                usize::try_from(node).ok()?.checked_sub(1)
            });
            leader.is_some()
        });
        leader.unwrap()
    }

    /// Waits until every replica of these topics and of the groups' offsets is in sync, so that another node may go.
    pub fn until_in_sync(&self, topics: &[String]) {
        let offsets = "__consumer_offsets".to_owned();
        for topic in topics.iter().chain([&offsets]) {
            until(&format!("every replica of {topic} is in sync"), PATIENCE, || {
                let all = self.partitions(topic).unwrap_or_default();
                !all.is_empty() && all.iter().all(|(_, leader, in_sync)| *leader > 0 && *in_sync == BROKERS)
            });
        }
    }

    /// Partition, leader and number of replicas in sync.
    fn partitions(&self, topic: &str) -> Option<Vec<(i32, i32, usize)>> {
        // A client that has been asking a node that is gone would ask it again.
        let fresh = consumer(self.stack["kafka"].as_str()?, "e2e-onlooker");
        let metadata = fresh.fetch_metadata(Some(topic), QUESTION).ok()?;
        let found = metadata.topics().iter().flat_map(|topic| topic.partitions());
        Some(found.map(|one| (one.id(), one.leader(), one.isr().len())).collect())
    }

    fn until_up(&self) {
        let stack = self.stack();
        until("all nodes of Kafka are there", PATIENCE, || {
            let fresh = consumer(&stack.kafka, "e2e-onlooker");
            fresh.fetch_metadata(None, QUESTION).is_ok_and(|metadata| metadata.brokers().len() == BROKERS)
        });
        for server in &stack.servers() {
            until("ClickHouse answers", PATIENCE, || server.ask(&server.admin, "SELECT 1").is_ok());
        }
        until("the registry answers", PATIENCE, || {
            // It gives up if its own database takes five seconds to open, as on a machine with much other work.
            if self.registry.has_ended() {
                self.registry.start();
            }
            get(&format!("{}/subjects", stack.registry)).is_some_and(|(status, _)| status == 200)
        });
    }
}

impl Server {
    /// Starts it; nobody waits until it serves.
    pub fn start(&self) {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.host.command();
        command
            .arg(&self.plan.program)
            .args(&self.plan.args)
            .envs(&self.plan.env)
            .current_dir(self.plan.folder.parent().unwrap());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        *self.process.borrow_mut() = Some(command.spawn().unwrap());
    }

    fn has_ended(&self) -> bool {
        self.process.borrow_mut().as_mut().is_some_and(|process| process.try_wait().unwrap().is_some())
    }

    /// SIGKILL, and gone, with what it has started.
    pub fn kill(&self) {
        let mut process = self.process.borrow_mut().take().expect("it was started");
        // ClickHouse is the child of the process that was started, and ends with it.
        let child = parts::child(process.id());
        process.kill().unwrap();
        process.wait().unwrap();
        if let Some(child) = child {
            until("what it has started is gone", PATIENCE, || !parts::is_alive(child));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.borrow().is_some() {
            self.kill();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let servers = self.kafka.iter().chain(&self.clickhouse).chain([&self.registry]);
        servers.filter(|server| server.process.borrow().is_some()).for_each(Server::kill);
        if std::thread::panicking() {
            eprintln!("left for a look: {}", self.folder.display());
        } else {
            fs::remove_dir_all(&self.folder).unwrap();
        }
    }
}
