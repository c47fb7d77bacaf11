//! What one test has for itself on the stack: topics, a database, a group, a folder; and the programs that fill and
//! judge them.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;

use crate::config::Config;
pub use crate::generator::Generator;
use crate::kafka::{Kafka, Offsets};
use crate::process::Millrace;
use crate::stack::{Stack, program, until};

/// What one test has for itself.
pub struct World {
    /// Where the parts are.
    pub stack: Stack,
    /// An onlooker of this world's group.
    pub kafka: Kafka,
    /// Its database.
    pub database: String,
    /// Everything that is chosen in it follows from this.
    pub seed: u64,
    /// Table or view of its database that is compared with what was sent.
    pub judged: String,
    pub(crate) prefix: String,
    pub(crate) folder: PathBuf,
    files: AtomicU32,
    left: AtomicBool,
}

/// What `generate` wrote down.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    /// Events, each sent at least once.
    pub events: u64,
    /// Events sent once more.
    pub duplicates: u64,
    /// Acknowledged records.
    pub delivered: u64,
    /// Where the unreadable records lie.
    pub poison: Vec<Place>,
    /// One past the last offset of each partition.
    pub end_offsets: Offsets,
}

/// Coordinates of a record.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// What `verify` says.
#[derive(Debug, Deserialize, PartialEq)]
pub struct Verdict {
    /// Rows in the table.
    pub rows: u64,
    /// Duplicates sent that are not in the table.
    pub duplicates_dropped: u64,
    /// Records in the dead-letter topic.
    pub dead_letters: u64,
    /// Events without a row.
    pub lost: u64,
    /// Events with more than one.
    pub doubled: u64,
    /// Rows that differ from what was sent.
    pub wrong: u64,
    /// Unreadable records without a dead letter.
    pub dead_letters_missing: u64,
    /// Dead letters that are there again, or of nothing that was sent unreadable.
    pub dead_letters_unexpected: u64,
    /// Dead letters that differ from what was sent.
    pub dead_letters_wrong: u64,
    /// Groups of rollups and of answers that were compared.
    pub rollup_groups: u64,
    /// Of those the wrong ones.
    pub rollups_wrong: u64,
    /// The first few findings.
    pub samples: Vec<String>,
}

/// What to send.
#[derive(Clone, Copy)]
pub struct Load {
    /// Events, each sent at least once.
    pub events: u64,
    /// Records a second; 0 is as fast as possible.
    pub rate: u64,
    /// As a share of the events.
    pub duplicates: f64,
    /// As a share of the events.
    pub poison: f64,
}

impl World {
    /// A world whose seed is that of the environment, or a new one.
    pub fn new(test: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = env::var("MILLRACE_SEED").map_or(u64::from(now.subsec_nanos()), |seed| seed.parse().unwrap());
        eprintln!("{test}: MILLRACE_SEED={seed}");
        Self::seeded(test, seed)
    }

    /// Topics with customers and products in them, and the shipped tables.
    pub fn seeded(test: &str, seed: u64) -> Self {
        let (stack, json) = Stack::running();
        Self::on(stack, json, test, seed)
    }

    /// The same on another stack than the running one, with its file as it is.
    pub fn on(stack: Stack, mut json: Value, test: &str, seed: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let unique = format!("{:x}", now.as_millis());

        let database = format!("millrace_test_{test}_{unique}");
        json["database"] = database.as_str().into();
        let folder = env::temp_dir().join(&database);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("stack.json"), json.to_string()).unwrap();
        let prefix = format!("e2e-{test}-{unique}-");
        let kafka = Kafka::new(&stack.kafka, &format!("{prefix}group"));
        let world = Self {
            stack,
            kafka,
            database,
            seed,
            judged: "orders".into(),
            prefix,
            folder,
            files: AtomicU32::new(0),
            left: AtomicBool::new(false),
        };

        world.migrate(&program("millrace"), &world.config());
        let grant = format!("CHECK GRANT INSERT ON {}.orders", world.database);
        assert!(
            world.stack.servers().iter().all(|server| server.ask(&server.pipeline, &grant).as_deref() == Ok("1")),
            "the pipeline's user lacks the right to databases of tests: the stack was started by an older version, \
             `cargo xtask stack down` and `up` mend it"
        );
        let seed = world.seed.to_string();
        let reference = world.bench(&world.prefix, "reference", &["--seed", &seed]).output().unwrap();
        assert!(reference.status.success(), "{reference:?}");
        world
    }

    /// Leaves everything in place at the end, for a look.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// The consumers' group.
    pub fn group(&self) -> String {
        format!("{}group", self.prefix)
    }

    /// Topic of the events.
    pub fn topic(&self) -> String {
        format!("{}orders", self.prefix)
    }

    /// Topic of what cannot be read.
    pub fn dead_letter_topic(&self) -> String {
        format!("{}orders.dead", self.prefix)
    }

    /// Topic of `customers` or `products`.
    pub fn reference_topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Table of the events, with its database.
    pub fn table(&self) -> String {
        format!("{}.orders", self.database)
    }

    /// The printed configuration with this world's addresses and names, for the user that the pipeline runs as.
    pub fn config(&self) -> Config {
        self.config_of(&program("millrace"))
    }

    /// As [`World::config`], out of what another build of `millrace` prints.
    pub fn config_of(&self, millrace: &Path) -> Config {
        let printed = Command::new(millrace).arg("config").output().unwrap();
        let topic = |name: &str| format!("{}{name}", self.prefix);
        let printed = String::from_utf8(printed.stdout).unwrap();
        let repeats = printed.contains("repeat_interval");
        let config = Config::new(printed)
            .with("[kafka]", "bootstrap_servers", &self.stack.kafka)
            .with("[kafka]", "group_id", &topic("group"))
            // The shortest that the broker grants: a process that was killed holds its partitions for so long.
            .with("[kafka.properties]", "\"session.timeout.ms\"", "6000")
            .with("[kafka.properties]", "\"heartbeat.interval.ms\"", "1000")
            .with("[registry]", "url", &self.stack.registry)
            .with("[clickhouse]", "url", &self.stack.clickhouse)
            .with("[clickhouse]", "database", &self.database)
            .with("[clickhouse]", "user", &self.stack.pipeline.user)
            .with("[clickhouse]", "password_file", &self.stack.pipeline.password_file.display().to_string())
            .with("[http]", "listen", "127.0.0.1:0")
            .with("[log]", "format", "text")
            .with("[[topics]]", "name", &topic("orders"))
            .with("[[topics]]", "dead_letter_topic", &topic("orders.dead"))
            .with_reference("customers", &self.reference_topic("customers"))
            .with_reference("products", &self.reference_topic("products"));
        // Cases count what is said. An earlier build says everything, and refuses what it does not know.
        let config = if repeats { config.with("[log]", "repeat_interval", "0s") } else { config };
        match self.stack.clickhouse_servers.as_slice() {
            [] | [_] => config,
            shards => config.with_shards(shards),
        }
    }

    /// `millrace run`.
    pub fn start(&self, config: &Config) -> Millrace {
        self.start_with(config, &[])
    }

    /// `millrace run` with variables in its environment; one that names a fault or a guard to leave out takes the program
    /// that was built for that.
    pub fn start_with(&self, config: &Config, variables: &[(&str, &str)]) -> Millrace {
        let file = self.write(config);
        Millrace::start(program_with(variables), &file, file.with_extension("log"), variables)
    }

    /// Another command of `millrace`, to its end.
    pub fn command(&self, command: &str, arguments: &[&str], config: &Config) -> Output {
        self.command_of(&program("millrace"), command, arguments, config)
    }

    /// A file with this configuration.
    pub fn write(&self, config: &Config) -> PathBuf {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let file = self.folder.join(format!("millrace-{number}.toml"));
        fs::write(&file, config.text()).unwrap();
        file
    }

    /// A file of this world's, of any name.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts to send.
    pub fn generate(&self, load: Load) -> Generator {
        self.generate_with(load, self.seed, &[])
    }

    /// Starts to send the events of another seed, or with further arguments of `millrace-bench generate`.
    pub fn generate_with(&self, load: Load, seed: u64, arguments: &[&str]) -> Generator {
        self.generate_to(&self.prefix, load, seed, arguments)
    }

    /// Starts to send to the topic with another prefix.
    pub(crate) fn generate_to(&self, prefix: &str, load: Load, seed: u64, arguments: &[&str]) -> Generator {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let manifest = self.folder.join(format!("manifest-{number}.json"));
        let log = self.folder.join(format!("generate-{number}.log"));
        let mut command =
            self.bench(prefix, "generate", &["--seed", &seed.to_string(), "--rate", &load.rate.to_string()]);
        command.args(["--events", &load.events.to_string(), "--duplicates", &load.duplicates.to_string()]);
        command.args(["--poison", &load.poison.to_string(), "--manifest"]).arg(&manifest).args(arguments);
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        Generator { child, manifest, log }
    }

    /// Compares everything with what was sent.
    pub fn verify(&self, generator: &Generator) -> (ExitStatus, Verdict) {
        self.verify_against(&generator.manifest)
    }

    /// Compares everything with what several producers sent, one after the other and of one seed: the manifest of them all,
    /// and the verdict.
    pub fn verify_all(&self, generators: &[Generator]) -> (Manifest, Verdict) {
        let read = |generator: &Generator| -> Value {
            serde_json::from_str(&fs::read_to_string(&generator.manifest).unwrap()).unwrap()
        };
        let mut all = generators.iter().map(read);
        let mut whole = all.next().expect("somebody sent something");
        for other in all {
            assert_eq!(whole["seed"], other["seed"], "manifests of several seeds have no union");
            let (events, sent) = (number(&whole, "events").max(number(&other, "events")), number(&other, "delivered"));
            let delivered = number(&whole, "delivered") + sent;
            let poison: Vec<Value> =
                [&whole, &other].iter().flat_map(|one| one["poison"].as_array().unwrap()).cloned().collect();
            whole["duplicates"] = (delivered - events - poison.len() as u64).into();
            (whole["events"], whole["delivered"], whole["poison"]) = (events.into(), delivered.into(), poison.into());
            whole["end_offsets"] = other["end_offsets"].clone();
        }
        // What a producer sent that died before them all, without a manifest, counts as well.
        whole["begin_offsets"] = serde_json::json!({});
        let file = self.folder.join("manifest.json");
        fs::write(&file, whole.to_string()).unwrap();
        (serde_json::from_value(whole).unwrap(), self.verify_against(&file).1)
    }

    fn verify_against(&self, manifest: &Path) -> (ExitStatus, Verdict) {
        let mut command = Command::new(program("millrace-bench"));
        command.args(["verify", "--json", "--table", &self.judged, "--stack"]).arg(self.folder.join("stack.json"));
        let Output { status, stdout, stderr } = command.arg("--manifest").arg(manifest).output().unwrap();
        let verdict = serde_json::from_slice(&stdout)
            .unwrap_or_else(|error| panic!("verify: {error}: {}", String::from_utf8_lossy(&stderr)));
        (status, verdict)
    }

    /// Waits until the group's committed offsets are the ends of the topic.
    pub fn until_committed(&self, patience: Duration) {
        let ends: Offsets = self.kafka.ends(&self.topic()).into_iter().filter(|(_, end)| *end > 0).collect();
        let begun = Instant::now();
        until("everything is committed", patience, || {
            let committed = self.kafka.committed(&self.topic());
            if begun.elapsed() >= patience {
                eprintln!("committed {committed:?} of {ends:?}");
            }
            committed == ends
        });
    }

    /// The whole contract, dead letters exactly once too.
    pub fn assert_everything_landed_once(&self, generator: &Generator, manifest: &Manifest) {
        let (status, verdict) = self.verify(generator);
        let right = Verdict {
            rows: manifest.events,
            duplicates_dropped: manifest.duplicates,
            dead_letters: manifest.poison.len() as u64,
            lost: 0,
            doubled: 0,
            wrong: 0,
            dead_letters_missing: 0,
            dead_letters_unexpected: 0,
            dead_letters_wrong: 0,
            rollup_groups: verdict.rollup_groups,
            rollups_wrong: 0,
            samples: Vec::new(),
        };
        assert_eq!(verdict, right);
        assert!(status.success(), "{status}");
    }

    /// The contract for a process that dies: a dead letter may be there again, but of no other record.
    pub fn assert_every_row_landed_once(&self, generator: &Generator, manifest: &Manifest) {
        let (_, verdict) = self.verify(generator);
        assert_eq!((verdict.lost, verdict.doubled, verdict.wrong), (0, 0, 0), "{verdict:?}");
        let also = (verdict.dead_letters_missing, verdict.dead_letters_wrong, verdict.rollups_wrong, verdict.rows);
        assert_eq!(also, (0, 0, 0, manifest.events), "{verdict:?}");
        let (found, again) = self.dead_letters();
        let sent: BTreeSet<Place> = manifest.poison.iter().copied().collect();
        assert!(found == sent, "dead letters of readable records: {:?}", found.difference(&sent));
        eprintln!("{} dead letters, and {again} of them again", found.len());
    }

    /// Where the records came from that are in the dead-letter topic, and how many of these letters are there again.
    pub fn dead_letters(&self) -> (BTreeSet<Place>, u64) {
        let (mut found, mut again) = (BTreeSet::new(), 0);
        self.kafka.each_dead_letter(&self.dead_letter_topic(), |headers| {
            again += u64::from(!found.insert(source(&headers)));
        });
        (found, again)
    }

    fn bench(&self, prefix: &str, command: &str, arguments: &[&str]) -> Command {
        let mut program = Command::new(program("millrace-bench"));
        program.args([command, "--topic-prefix", prefix, "--stack"]).arg(self.folder.join("stack.json"));
        program.args(arguments).stdin(Stdio::null());
        program
    }
}

/// The program that these variables do something in.
pub(crate) fn program_with(variables: &[(&str, &str)]) -> &'static str {
    let faulty = variables.iter().any(|(name, _)| ["MILLRACE_FAULT", "MILLRACE_WITHOUT"].contains(name));
    if faulty { "millrace-faulty" } else { "millrace" }
}

fn number(manifest: &Value, name: &str) -> u64 {
    manifest[name].as_u64().unwrap_or_else(|| panic!("a manifest without {name}"))
}

fn source(headers: &BTreeMap<String, String>) -> Place {
    let number = |name: &str| -> i64 { headers[&format!("millrace.source.{name}")].parse().unwrap() };
    Place { partition: i32::try_from(number("partition")).unwrap(), offset: number("offset") }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() || self.left.load(Ordering::Relaxed) {
            eprintln!("left for a look: {}, database {}", self.folder.display(), self.database);
            let running = "SELECT elapsed, written_rows, query_id, left(query, 200) FROM system.processes FORMAT TSV";
            match self.stack.ask(&self.stack.admin, running) {
                Ok(queries) => eprintln!("queries of ClickHouse:\n{queries}"),
                Err(error) => eprintln!("ClickHouse: {error}"),
            }
            return;
        }
        for server in self.stack.servers() {
            server.sql(&format!("DROP DATABASE {}", self.database));
        }
        let topics = ["orders", "orders.dead", "customers", "products"].map(|name| format!("{}{name}", self.prefix));
        self.kafka.delete(&topics.each_ref().map(String::as_str));
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// SplitMix64: the moments of a run.
pub struct Random(pub u64);

impl Random {
    /// A number below this.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
