//! One run of a case: its world, what it did, and the judgement.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use millrace_chaos::cluster::Cluster;
use millrace_chaos::config::Config;
use millrace_chaos::process::Millrace;
use millrace_chaos::world::{Generator, Load, Place, Random, World};

use crate::cases::{self, Case};
use crate::guard::Guard;
use crate::report::Row;

/// How long everything may take to land once the faults are over.
const PATIENCE: Duration = Duration::from_secs(180);

/// A case under way.
pub(crate) struct Trial {
    pub(crate) world: World,
    pub(crate) random: Random,
    /// How long the case may inject faults; `None`: its own short time.
    pub(crate) time: Option<Duration>,
    without: Option<Guard>,
    generators: Vec<Generator>,
    running: Vec<Millrace>,
    /// Ways that running processes go.
    ways: Vec<Box<dyn Any>>,
    healed: Option<Instant>,
    faults: u64,
    sigkills: u64,
    did: Vec<String>,
    failures: Vec<String>,
    /// The servers of the world, if it does not lie on the running stack; they outlast all of the above.
    cluster: Option<Rc<Cluster>>,
}

impl Trial {
    /// The servers of a case that has its own.
    pub(crate) fn cluster(&self) -> Rc<Cluster> {
        Rc::clone(self.cluster.as_ref().expect("a case on hosts"))
    }

    /// `millrace run` on a host.
    pub(crate) fn start_on(&self, cluster: &Cluster, host: usize, config: &Config) -> Millrace {
        let without = self.without.map(|guard| ("MILLRACE_WITHOUT", guard.name()));
        cluster.run(&self.world, host, config, without.as_slice())
    }

    /// Starts to send.
    pub(crate) fn load(&mut self, load: Load) {
        self.load_with(load, &[]);
    }

    /// Starts to send, with further arguments of `millrace-bench generate`. Several loads of one trial are of one seed: the
    /// same events again.
    pub(crate) fn load_with(&mut self, load: Load, arguments: &[&str]) {
        let generator = self.world.generate_with(load, self.world.seed, arguments);
        self.generators.push(generator);
    }

    /// SIGKILL for the producer of the last load. What it sent has no manifest: send all of it again, with the same
    /// arguments, and let it be without poison.
    pub(crate) fn kill_generator(&mut self) {
        drop(self.generators.pop().expect("a load was started"));
        self.faults += 1;
    }

    /// Counts what somebody else has sent.
    pub(crate) fn sent(&mut self, generator: Generator) {
        self.generators.push(generator);
    }

    /// Whether the last load is still being sent.
    pub(crate) fn is_loading(&mut self) -> bool {
        self.generators.last_mut().is_some_and(Generator::is_sending)
    }

    /// The last load.
    pub(crate) fn generator(&mut self) -> &mut Generator {
        self.generators.last_mut().expect("a load was started")
    }

    /// `millrace run`.
    pub(crate) fn start(&self, config: &Config) -> Millrace {
        self.start_with(config, &[])
    }

    /// `millrace run` that a fault of its own strikes (`MILLRACE_FAULT`).
    pub(crate) fn start_faulty(&self, config: &Config, fault: &str) -> Millrace {
        self.start_with(config, &[("MILLRACE_FAULT", fault)])
    }

    /// `millrace run` with these variables.
    pub(crate) fn start_with(&self, config: &Config, variables: &[(&str, &str)]) -> Millrace {
        let without = self.without.map(|guard| ("MILLRACE_WITHOUT", guard.name()));
        let variables: Vec<(&str, &str)> = variables.iter().copied().chain(without).collect();
        self.world.start_with(config, &variables)
    }

    /// Counts a fault.
    pub(crate) fn injected(&mut self, faults: u64) {
        self.faults += faults;
    }

    /// Counts processes ended by SIGKILL, which are faults too.
    pub(crate) fn killed(&mut self, processes: u64) {
        self.faults += processes;
        self.sigkills += processes;
    }

    /// Notes for the reader what was done or seen.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.did.push(text.into());
    }

    /// What is expected of the case besides the oracle; where a guard is left out, only the oracle counts.
    pub(crate) fn expect(&mut self, holds: bool, what: impl Into<String>) {
        if !holds && self.without.is_none() {
            self.failures.push(what.into());
        }
    }

    /// The last fault is over: recovery begins.
    pub(crate) fn healed(&mut self) {
        self.healed = Some(Instant::now());
    }

    /// Leaves a process running for the end of the trial.
    pub(crate) fn keep(&mut self, process: Millrace) {
        self.running.push(process);
    }

    /// Takes the views of rollups away, before anything has landed: for a case that deletes rows, which they would go on
    /// counting.
    pub(crate) fn without_rollups(&self) {
        let database = &self.world.database;
        for rollup in ["orders_revenue_per_minute", "orders_steps", "orders_skus_per_day", "customer_value_per_hour"] {
            self.world.stack.sql(&format!("DROP VIEW {database}.{rollup}_mv"));
        }
    }

    /// Leaves a way to a part as it is for the end of the trial.
    pub(crate) fn lasts(&mut self, way: impl Any) {
        self.ways.push(Box::new(way));
    }

    /// Lets everything land, and compares it with what was sent.
    fn judge(mut self) -> Row {
        let healed = *self.healed.get_or_insert_with(Instant::now);
        self.running.retain_mut(|process| process.ended().is_none());
        if self.running.is_empty() {
            let last = self.start(&self.world.config());
            self.running.push(last);
        }
        self.generators.iter_mut().for_each(|generator| _ = generator.finish());
        self.world.until_committed(PATIENCE);
        let recovered = healed.elapsed();
        for process in &mut self.running {
            // It may have had nothing to do, and be at its beginning still.
            process.until_ready();
            process.terminate();
        }
        if let Some(cluster) = self.cluster.clone() {
            cases::tell_of_servers(&mut self, &cluster);
        }
        let (manifest, verdict) = self.world.verify_all(&self.generators);
        let (found, again) = self.world.dead_letters();
        let sent: BTreeSet<Place> = manifest.poison.iter().copied().collect();
        let strange = found.difference(&sent).count() as u64;
        if again > 0 {
            self.note(format!("{again} dead letters are there again, which their coordinates tell"));
        }
        let dead_letters_wrong = verdict.dead_letters_missing + verdict.dead_letters_wrong + strange;
        if verdict.rollup_groups > 0 {
            let (groups, wrong) = (verdict.rollup_groups, verdict.rollups_wrong);
            self.note(format!(
                "{groups} groups of rollups and answers of named queries were compared, {wrong} are wrong"
            ));
        }
        let right = verdict.lost + verdict.doubled + verdict.wrong + verdict.rollups_wrong + dead_letters_wrong == 0
            && verdict.rows == manifest.events;
        if !right {
            // Without a guard it has to be so.
            if self.without.is_none() {
                self.world.leave();
            }
            self.failures.push(format!("O does not hold: {:?}", verdict.samples));
        }
        Row {
            faults_injected: self.faults,
            sigkills: self.sigkills,
            produced: manifest.events,
            rows: verdict.rows,
            lost: verdict.lost,
            doubled: verdict.doubled,
            // Of rows, and of what rollups and named queries say.
            wrong: verdict.wrong + verdict.rollups_wrong,
            dead_letters: found.len() as u64,
            dead_letters_wrong,
            recovered_in_s: recovered.as_secs_f64(),
            passed: right && self.failures.is_empty(),
            did: std::mem::take(&mut self.did),
            failures: std::mem::take(&mut self.failures),
            ..Row::nothing()
        }
    }
}

/// Runs a case once.
pub(crate) fn run(case: &Case, seed: u64, without: Option<Guard>, time: Option<Duration>) -> Row {
    let begun = Instant::now();
    eprintln!("\n{:>3} {}: {}", case.number, case.name, case.what);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let test = case.name.replace('-', "_");
        let cluster = case.is_on_hosts().then(|| Rc::new(cases::start_cluster()));
        let world = match &cluster {
            Some(cluster) => World::on(cluster.stack(), cluster.stack_file(), &test, seed),
            None => World::seeded(&test, seed),
        };
        let mut trial = Trial {
            random: Random(seed ^ u64::from(case.number) << 32),
            world,
            time,
            without,
            generators: Vec::new(),
            running: Vec::new(),
            ways: Vec::new(),
            healed: None,
            faults: 0,
            sigkills: 0,
            did: Vec::new(),
            failures: Vec::new(),
            cluster,
        };
        (case.run)(&mut trial);
        trial.judge()
    }));
    let row = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Row { failures: vec![text.unwrap_or_else(|| "it panicked".to_owned())], ..Row::nothing() }
    });
    Row { case: case.number, name: case.name, seed, without, took_s: begun.elapsed().as_secs_f64(), ..row }
}
