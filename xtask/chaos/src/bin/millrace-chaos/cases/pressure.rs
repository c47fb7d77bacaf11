//! ClickHouse serves badly or not at all, for a while, and is mended: millrace has to wait with bounded memory, stay in its
//! group, and go on by itself.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use millrace_chaos::config::Config;
use millrace_chaos::parts::Part;
use millrace_chaos::process::Millrace;
use millrace_chaos::proxy::{Fault, Proxy};
use millrace_chaos::wire::{Weather, Wire};
use millrace_chaos::world::{Load, World};

use super::Case;
use crate::trial::Trial;

/// More than what batches in flight and the one that fills can hold, for as long as a fault lasts.
const RATE: u64 = 40_000;
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the fault lasts in a short run.
const SHORT: Duration = Duration::from_secs(10);
/// Events sent before the fault and after it.
const AROUND: Duration = Duration::from_secs(3);
/// What millrace may use: two batches in flight and one that fills, of 48 MiB each at most, the fetched 32 MiB, the
/// reference tables and the ids; measured below it.
const MEMORY: u64 = 512 << 20;
/// How much more memory the second half of a fault may take than the first: as good as nothing.
const GROWTH: u64 = 32 << 20;
const MIB: f64 = (1 << 20) as f64;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, what, run| Case { number: 19, name, what, rests_on: &[], run };
    vec![
        case("clickhouse-slow", "the way to ClickHouse carries a tenth of what is sent", slow),
        case(
            "clickhouse-stopped",
            "ClickHouse is put to sleep by SIGSTOP, and takes connections on all the while",
            stopped,
        ),
        case("clickhouse-away", "connections to ClickHouse are refused", away),
        case("too-many-parts", "ClickHouse refuses inserts since merges fall behind (code 252)", too_many_parts),
        case("read-only", "ClickHouse refuses inserts since the table may only be read (code 774)", read_only),
        case("memory-limit", "ClickHouse breaks inserts off for want of memory (code 241)", memory_limit),
        case("full-disk", "ClickHouse has no room on its disk (code 243)", full_disk),
    ]
}

/// What is expected while a fault lasts.
struct Expected {
    /// Words of the log that tell that this very fault struck.
    words: Option<&'static str>,
    /// Inserts fail, so that the breaker opens.
    opens: bool,
}

/// Waits until rows land, strikes, watches, mends, and waits until rows land again.
fn endure(
    trial: &mut Trial,
    config: &Config,
    expected: Expected,
    strike: impl FnOnce(&World),
    mend: impl FnOnce(&World),
) {
    let lasts = trial.time.map_or(SHORT, |time| time.saturating_sub(AROUND));
    let seconds = (lasts + 2 * AROUND).as_secs();
    let mut millrace = trial.start(config);
    millrace.until_ready();
    trial.load(Load { events: RATE * seconds, rate: RATE, duplicates: 0.05, poison: 0.002 });
    millrace.until("rows land", PATIENCE, |it| it.rows() > RATE);

    strike(&trial.world);
    let seen = watch(&trial.world, &millrace, lasts);
    mend(&trial.world);
    trial.injected(1);
    let (mended, rows) = (Instant::now(), millrace.rows());
    trial.healed();
    millrace.until("rows land again", PATIENCE, |it| it.rows() > rows);
    let back = mended.elapsed();

    let rebalances = millrace.metric("millrace_rebalances_total");
    trial.note(format!(
        "{:.0} s of it: {:.0} MiB at most in its first half, {:.0} MiB in its second; lag from {:.0} to {:.0} events; rows \
         landed {:.1} s after it",
        lasts.as_secs_f64(),
        seen.memory[0] as f64 / MIB,
        seen.memory[1] as f64 / MIB,
        seen.lag[0],
        seen.lag[1],
        back.as_secs_f64()
    ));
    trial.expect(seen.memory[0].max(seen.memory[1]) < MEMORY, "memory is above its limit");
    trial.expect(seen.memory[1] < seen.memory[0] + GROWTH, "memory grows for as long as the fault lasts");
    trial.expect(seen.lag[1] > seen.lag[0] + RATE as f64, "the lag does not grow: nothing was held back");
    trial.expect(seen.healthy, "/healthz was not well all the time: the poll loop stood still");
    trial.expect(seen.breaker_opened == expected.opens, format!("the breaker opened: {}", seen.breaker_opened));
    trial.expect(rebalances == 1.0, format!("{rebalances} rebalances: the group did not stay as it was"));
    if let Some(words) = expected.words {
        let times =
            millrace.lines(&["an insert failed", words]).len() + millrace.lines(&["refuses the rows", words]).len();
        trial.note(format!("{times} inserts failed with \"{words}\""));
        trial.expect(times > 0, format!("no insert failed with {words}"));
    }
    trial.keep(millrace);
}

/// What was seen while a fault lasted; of two values, the first is of its first half or its beginning.
struct Seen {
    memory: [u64; 2],
    lag: [f64; 2],
    breaker_opened: bool,
    healthy: bool,
}

fn watch(world: &World, millrace: &Millrace, lasts: Duration) -> Seen {
    let begun = Instant::now();
    // What the topic has and no row: librdkafka hears of no new ends of partitions that are paused.
    let lag = || {
        let ends = world.kafka.ends(&world.topic()).values().sum::<i64>();
        ends as f64 - world.kafka.committed(&world.topic()).values().sum::<i64>() as f64
    };
    let mut seen = Seen { memory: [0; 2], lag: [lag(), 0.0], breaker_opened: false, healthy: true };
    while begun.elapsed() < lasts {
        let half = usize::from(begun.elapsed() > lasts / 2);
        seen.memory[half] = seen.memory[half].max(millrace.resident_bytes());
        seen.breaker_opened |= millrace.metric("millrace_breaker_state") >= 2.0;
        seen.healthy &= millrace.is_healthy();
        // The fault's own time passes.
        thread::sleep(Duration::from_millis(100));
    }
    seen.lag[1] = lag();
    seen
}

fn slow(trial: &mut Trial) {
    let wire = Wire::to(&trial.world.stack.clickhouse);
    let config = trial.world.config().with("[clickhouse]", "url", &wire.url(&trial.world.stack.clickhouse));
    // An event is some 150 bytes of an insert, and two inserts are under way.
    let weather = Weather::Slow { bytes: (RATE * 150 / 10 / 2) as u32 };
    let expected = Expected { words: None, opens: false };
    endure(trial, &config, expected, |_| wire.set(weather), |_| wire.set(Weather::Clear));
    trial.lasts(wire);
}

fn stopped(trial: &mut Trial) {
    let config = trial.world.config();
    let asleep = std::cell::RefCell::new(None);
    let expected = Expected { words: None, opens: false };
    endure(trial, &config, expected, |_| *asleep.borrow_mut() = Some(Part::ClickHouse.stop()), |_| drop(asleep.take()));
}

fn away(trial: &mut Trial) {
    let wire = Wire::to(&trial.world.stack.clickhouse);
    let config = trial.world.config().with("[clickhouse]", "url", &wire.url(&trial.world.stack.clickhouse));
    let expected = Expected { words: Some("network error"), opens: true };
    endure(trial, &config, expected, |_| wire.set(Weather::Refused), |_| wire.set(Weather::Clear));
    trial.lasts(wire);
}

fn too_many_parts(trial: &mut Trial) {
    let expected = Expected { words: Some("Code: 252"), opens: true };
    let strike = |world: &World| {
        world.stack.sql(&format!("SYSTEM STOP MERGES {}", world.table()));
        let setting = "parts_to_throw_insert = 1, parts_to_delay_insert = 1";
        world.stack.sql(&format!("ALTER TABLE {} MODIFY SETTING {setting}", world.table()));
    };
    let mend = |world: &World| {
        let settings = "parts_to_throw_insert, parts_to_delay_insert";
        world.stack.sql(&format!("ALTER TABLE {} RESET SETTING {settings}", world.table()));
        world.stack.sql(&format!("SYSTEM START MERGES {}", world.table()));
    };
    endure(trial, &trial.world.config(), expected, strike, mend);
}

fn read_only(trial: &mut Trial) {
    let expected = Expected { words: Some("Code: 774"), opens: true };
    let strike = |world: &World| {
        world.stack.sql(&format!("ALTER TABLE {} MODIFY SETTING table_readonly = 1", world.table()));
    };
    let mend = |world: &World| {
        world.stack.sql(&format!("ALTER TABLE {} RESET SETTING table_readonly", world.table()));
    };
    endure(trial, &trial.world.config(), expected, strike, mend);
}

fn memory_limit(trial: &mut Trial) {
    let proxy = Proxy::to(&trial.world.stack.clickhouse);
    let config = trial.world.config().with("[clickhouse]", "url", &proxy.url(&trial.world.stack.clickhouse));
    // A limit of the query: one of the server would break off other tests too.
    let small = Fault::With { settings: "wait_end_of_query=1&max_memory_usage=4000000&max_untracked_memory=100000" };
    let expected = Expected { words: Some("Code: 241"), opens: true };
    endure(trial, &config, expected, |_| proxy.fail(small, u32::MAX), |_| proxy.mend());
    trial.lasts(proxy);
}

/// Inserts are refused while less than this is free; half of it stays free.
const FREE: u64 = 64 << 20;

/// Inserts under way have to find room for what they have begun: ClickHouse 26.7 acknowledges one whose marks did not fit,
/// and the part cannot be read (code 246). The table setting that is used here keeps it from getting there.
fn full_disk(trial: &mut Trial) {
    let disk = SmallDisk::mount(&trial.world);
    let filler = disk.0.join("filler");
    let expected = Expected { words: Some("Code: 243"), opens: true };
    let strike = |world: &World| {
        let table = world.table();
        let setting = format!("min_free_disk_bytes_to_perform_insert = {FREE}");
        world.stack.sql(&format!("ALTER TABLE {table} MODIFY SETTING {setting}"));
        world.stack.sql(&format!("SYSTEM STOP MERGES {table}"));
        let size = disk.available().saturating_sub(FREE / 2);
        fs::write(&filler, vec![0; usize::try_from(size).unwrap()]).unwrap();
    };
    let mend = |world: &World| {
        fs::remove_file(&filler).unwrap();
        world.stack.sql(&format!("SYSTEM START MERGES {}", world.table()));
    };
    endure(trial, &trial.world.config(), expected, strike, mend);
    trial.lasts(disk);
}

/// A disk of a few hundred megabytes in memory, on which the table of a world lies.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Needs the right to mount.
    fn mount(world: &World) -> Self {
        let folder = world.stack.clickhouse_disks.join(&world.database);
        fs::create_dir_all(&folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256m", "tmpfs"]).arg(&folder).output();
        let mounted = mounted.expect("start mount");
        let problem = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "not run: a disk cannot be mounted, which takes root: {problem}");
        let disk = Self(folder);
        let table = world.table();
        let definition = world.stack.sql(&format!("SHOW CREATE TABLE {table} FORMAT RawBLOB"));
        let on_disk = format!("SETTINGS disk = disk(type = local, path = '{}/'), ", disk.0.display());
        assert!(definition.contains("SETTINGS "), "{definition}");
        world.stack.sql(&format!("DROP TABLE {table} SYNC"));
        world.stack.sql(&definition.replacen("SETTINGS ", &on_disk, 1));
        disk
    }

    /// Bytes that are free.
    fn available(&self) -> u64 {
        let output = Command::new("df").args(["--block-size=1", "--output=avail"]).arg(&self.0).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().nth(1).and_then(|line| line.trim().parse().ok()).unwrap_or_else(|| panic!("df: {text}"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // ClickHouse may still hold files of the table that was dropped.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            println!("{} is still mounted", self.0.display());
        }
    }
}
