//! `cargo xtask stack up|down|status|logs`: the words for people around [`Stack`].

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Subcommand;

use super::layout::DataDir;
use super::part::Part;
use super::{Options, Stack, status};
use crate::interrupt::Interrupt;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Data folder of the instance [default: .stack of this clone]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Install what is missing, start what does not run, wait until all of it answers
    Up(UpArgs),
    /// Stop all parts
    Down {
        /// Remove all data, logs and passwords as well
        #[arg(long)]
        wipe: bool,
    },
    /// Show what runs; the exit status is 0 only if nothing is missing
    Status {
        #[arg(long)]
        json: bool,
    },
    /// Show the last lines of the logs
    Logs {
        /// Only of this part
        part: Option<Part>,
        /// Go on with new lines as they come, until Ctrl-C
        #[arg(long, short)]
        follow: bool,
        /// How many lines of each part
        #[arg(long, short = 'n', default_value_t = 20)]
        lines: usize,
    },
}

#[derive(clap::Args)]
struct UpArgs {
    /// Remove the data of earlier runs first
    #[arg(long)]
    fresh: bool,
    /// Stay until Ctrl-C, and stop it then
    #[arg(long)]
    foreground: bool,
    /// Install missing tools with apt-get (as root; environment CI=true does the same)
    #[arg(long)]
    install_missing: bool,
}

/// # Errors
/// As told by each command.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let dir = args.dir.map_or_else(|| DataDir::path_in_clone(None), Ok)?;
    match args.action {
        Action::Up(up_args) => up(dir, &up_args),
        Action::Down { wipe } => {
            super::down(&dir, wipe, &interrupt()?)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Status { json } => show_status(dir, json),
        Action::Logs { part, follow, lines } => show_logs(dir, part, follow, lines),
    }
}

fn interrupt() -> Result<Interrupt> {
    Interrupt::install().context("cannot watch for Ctrl-C")
}

fn up(dir: PathBuf, args: &UpArgs) -> Result<ExitCode> {
    let begin = Instant::now();
    let interrupt = interrupt()?;
    let stack = Stack::up(&Options {
        dir,
        fresh: args.fresh,
        install_missing: args.install_missing || crate::cargo::in_ci(),
        measured: false,
        interrupt: interrupt.clone(),
    })?;
    if stack.was_up() {
        println!("the stack was up already");
    } else {
        println!("the stack is up, after {:.1} s", begin.elapsed().as_secs_f64());
    }
    let file = stack.file();
    println!("  kafka       {}", file.kafka);
    println!("  registry    {}", file.registry);
    println!("  clickhouse  {}   users admin, millrace, analyst", file.clickhouse);
    println!("  prometheus  {}", file.prometheus.as_deref().unwrap_or("not installed"));
    println!("  all of it   {}", stack.path().display());
    if !args.foreground {
        stack.keep();
        return Ok(ExitCode::SUCCESS);
    }
    println!("Ctrl-C stops it");
    while !interrupt.requested() {
        thread::sleep(Duration::from_millis(100));
    }
    stack.stop()?;
    Ok(ExitCode::SUCCESS)
}

fn show_status(dir: PathBuf, json: bool) -> Result<ExitCode> {
    let dir = DataDir::at(dir);
    let parts = status::of(&dir)?;
    if json {
        println!("{}", serde_json::to_string(&parts).context("cannot encode the status")?);
    } else {
        print!("{}", status::table(&parts));
    }
    Ok(if status::complete(&parts) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show_logs(dir: PathBuf, part: Option<Part>, follow: bool, lines: usize) -> Result<ExitCode> {
    let dir = DataDir::at(dir);
    let parts = part.map_or(Part::ALL.to_vec(), |part| vec![part]);
    let mut logs: Vec<Log> = parts
        .iter()
        .map(|part| Log {
            path: dir.log(*part),
            // Only needed to tell several apart.
            label: if parts.len() > 1 { format!("{:<11}", part.name()) } else { String::new() },
            position: 0,
        })
        .collect();
    let mut out = io::stdout().lock();
    for log in &mut logs {
        log.show_last(lines, &mut out)?;
    }
    if follow {
        let interrupt = interrupt()?;
        while !interrupt.requested() {
            for log in &mut logs {
                log.show_new(&mut out)?;
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A log file, shown up to `position`.
struct Log {
    path: PathBuf,
    label: String,
    position: u64,
}

impl Log {
    fn show_last(&mut self, lines: usize, out: &mut impl io::Write) -> Result<()> {
        let content = self.read_on()?;
        let all: Vec<&str> = content.lines().collect();
        self.show(&all[all.len().saturating_sub(lines)..], out)
    }

    fn show_new(&mut self, out: &mut impl io::Write) -> Result<()> {
        let content = self.read_on()?;
        self.show(&content.lines().collect::<Vec<_>>(), out)
    }

    fn show(&self, lines: &[&str], out: &mut impl io::Write) -> Result<()> {
        for line in lines {
            writeln!(out, "{}{line}", self.label).context("cannot write")?;
        }
        out.flush().context("cannot write")
    }

    /// The whole lines since the last time; from the beginning if the file has been replaced by a shorter one.
    fn read_on(&mut self) -> Result<String> {
        let mut read = || -> io::Result<Vec<u8>> {
            let mut file = match fs::File::open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                opened => opened?,
            };
            if file.metadata()?.len() < self.position {
                self.position = 0;
            }
            file.seek(SeekFrom::Start(self.position))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            bytes.truncate(whole);
            self.position += whole as u64;
            Ok(bytes)
        };
        let bytes = read().with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
