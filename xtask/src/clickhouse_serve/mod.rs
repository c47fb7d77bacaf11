//! ClickHouse as a process: libchdb, served by a child, under a supervisor that starts it again when it dies.
//!
//! Two processes, because libchdb can take its whole process down. The supervisor holds no ClickHouse code; the child
//! never outlives it.

mod library;

use std::ffi::{CString, OsString};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::stack::process::own_program;

/// A ClickHouse that dies more often than this has a fault that starting again does not cure.
const RESTARTS_MAX: usize = 5;
const RESTARTS_WINDOW: Duration = Duration::from_secs(60);
/// How long ClickHouse may take to end after SIGTERM; it usually takes one to two seconds.
const STOP_GRACE: Duration = Duration::from_secs(20);
/// One row takes one second: 3,000 years.
const SLEEP_ROWS: u64 = 100_000_000_000;
/// The variables from which `assets/clickhouse.xml` takes paths: of the users' file, and of the folder in which
/// tables may have disks of their own.
const USERS_VARIABLE: &str = "MILLRACE_CLICKHOUSE_USERS";
const DISKS_VARIABLE: &str = "MILLRACE_CLICKHOUSE_DISKS";
/// The latter, in the folder of the data.
pub(crate) const DISKS: &str = "disks";

#[derive(clap::Args, Clone)]
pub(crate) struct Args {
    /// libchdb.so
    #[arg(long)]
    library: PathBuf,
    /// Server configuration
    #[arg(long)]
    config: PathBuf,
    /// Users, profiles and grants
    #[arg(long)]
    users: PathBuf,
    /// Folder of the data
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    http_port: u16,
    #[arg(long)]
    tcp_port: u16,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    listen_host: String,
}

/// Serves until SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// If the child cannot be started, or dies too often.
pub(crate) fn supervise(args: &Args) -> Result<ExitCode> {
    fs::create_dir_all(&args.data).with_context(|| format!("cannot make {}", args.data.display()))?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD]).context("cannot watch signals")?;
    let mut deaths: Vec<Instant> = Vec::new();
    loop {
        forget_system_logs(&args.data)?;
        let mut child = start(args)?;
        log(&format!("ClickHouse started, pid {}", child.id()));
        let started = Instant::now();
        let Some(status) = wait(&mut child, &mut signals)? else {
            stop(&mut child)?;
            return Ok(ExitCode::SUCCESS);
        };
        let how = describe(status);
        deaths.retain(|death| death.elapsed() < RESTARTS_WINDOW);
        deaths.push(Instant::now());
        let count = deaths.len();
        if count > RESTARTS_MAX {
            bail!("ClickHouse {how}; {count} times within {RESTARTS_WINDOW:?}: giving up");
        }
        log(&format!(
            "ClickHouse {how} after {:.1} s; starting it again ({count} of at most {RESTARTS_MAX} times in {} s)",
            started.elapsed().as_secs_f64(),
            RESTARTS_WINDOW.as_secs()
        ));
    }
}

/// libchdb does not attach the tables of `system` when it starts, and then cannot create them over their own files; the
/// logs live as long as the process does.
fn forget_system_logs(data: &std::path::Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(data.join("data/system")) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().contains("_log") {
            let path = entry.path();
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn start(args: &Args) -> Result<Child> {
    Command::new(own_program()?)
        .arg0("xtask")
        .arg("clickhouse-child")
        .arg("--library")
        .arg(&args.library)
        .arg("--config")
        .arg(&args.config)
        .arg("--users")
        .arg(&args.users)
        .arg("--data")
        .arg(&args.data)
        .args(["--http-port", &args.http_port.to_string()])
        .args(["--tcp-port", &args.tcp_port.to_string()])
        .args(["--listen-host", &args.listen_host])
        .env(USERS_VARIABLE, &args.users)
        // ClickHouse wants a folder's path to end as one.
        .env(DISKS_VARIABLE, args.data.join(DISKS).join(""))
        // Never written to: its end tells the child that the supervisor is gone.
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start ClickHouse")
}

/// How the child ended, or `None` if we are to stop.
fn wait(child: &mut Child, signals: &mut Signals) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("cannot watch ClickHouse")? {
            return Ok(Some(status));
        }
        if signals.wait().any(|signal| signal != SIGCHLD) {
            return Ok(None);
        }
    }
}

fn stop(child: &mut Child) -> Result<()> {
    log("stopping ClickHouse");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.context("the child has no pid")?;
    rustix::process::kill_process(pid, Signal::TERM).context("cannot stop ClickHouse")?;
    let begin = Instant::now();
    while begin.elapsed() < STOP_GRACE {
        if child.try_wait().context("cannot watch ClickHouse")?.is_some() {
            log(&format!("stopped after {:.1} s", begin.elapsed().as_secs_f64()));
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    log("ClickHouse does not stop; killing it");
    child.kill().context("cannot kill ClickHouse")?;
    child.wait().context("cannot wait for ClickHouse")?;
    Ok(())
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn log(message: &str) {
    eprintln!("supervisor: {message}");
}

/// The child: serves until SIGTERM, on the thread that calls it.
///
/// # Errors
/// If the library cannot be loaded, or ClickHouse ends with an error.
pub(crate) fn serve(args: &Args) -> Result<ExitCode> {
    end_with_parent()?;
    let arguments = arguments(args);
    let strings: Vec<CString> = arguments
        .into_iter()
        .map(|argument| CString::new(argument.into_vec()))
        .collect::<Result<_, _>>()
        .context("a path holds a zero byte")?;
    match library::query_cmdline(&args.library, &strings)? {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => bail!("ClickHouse: {error}"),
    }
}

/// Dies when the supervisor does, however that ends.
fn end_with_parent() -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot ask to end with the supervisor")?;
    // Everywhere, and for a supervisor that died before the line above: its end of our standard input is closed then.
    thread::Builder::new()
        .name("supervisor-watch".to_owned())
        .spawn(|| {
            let _ = io::stdin().read(&mut [0]);
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
        })
        .context("cannot watch the supervisor")?;
    Ok(())
}

fn arguments(args: &Args) -> Vec<OsString> {
    let mut path = OsString::from("--path=");
    path.push(&args.data);
    let mut config = OsString::from("--config-file=");
    config.push(&args.config);
    let query = format!(
        "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; \
         SELECT sleepEachRow(1) FROM numbers({SLEEP_ROWS}) SETTINGS max_block_size = 1, \
         function_sleep_max_microseconds_per_block = 100000000000 FORMAT Null"
    );
    vec![
        "clickhouse".into(),
        "--multiquery".into(),
        config,
        path,
        // The level in the configuration is not honoured: without these two it is silent, or says all.
        "--send_logs_level=warning".into(),
        "--logger.console".into(),
        format!("--listen_host={}", args.listen_host).into(),
        format!("--http_port={}", args.http_port).into(),
        format!("--tcp_port={}", args.tcp_port).into(),
        format!("--query={query}").into(),
    ]
}
