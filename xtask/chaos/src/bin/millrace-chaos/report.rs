//! What is said of each case.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::guard::Guard;

/// One run of one case.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: u32,
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    /// The guard that was left out; the case is expected to fail then.
    pub(crate) without: Option<Guard>,
    pub(crate) faults_injected: u64,
    /// Of these, processes of Millrace, Kafka or ClickHouse ended by SIGKILL.
    pub(crate) sigkills: u64,
    /// Events, each sent at least once.
    pub(crate) produced: u64,
    pub(crate) rows: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) wrong: u64,
    /// Unreadable records that have a dead letter.
    pub(crate) dead_letters: u64,
    /// Dead letters missing, wrong, or of readable records.
    pub(crate) dead_letters_wrong: u64,
    /// From the end of the last fault until everything sent by then and after is committed.
    pub(crate) recovered_in_s: f64,
    /// All of it.
    pub(crate) took_s: f64,
    /// Whether the oracle holds, and what else is expected of the case.
    pub(crate) passed: bool,
    /// What was done, how many times, and what was seen.
    pub(crate) did: Vec<String>,
    /// What failed.
    pub(crate) failures: Vec<String>,
}

impl Row {
    /// A case of which nothing is known.
    pub(crate) fn nothing() -> Self {
        Self {
            case: 0,
            name: "",
            seed: 0,
            without: None,
            faults_injected: 0,
            sigkills: 0,
            produced: 0,
            rows: 0,
            lost: 0,
            doubled: 0,
            wrong: 0,
            dead_letters: 0,
            dead_letters_wrong: 0,
            recovered_in_s: 0.0,
            took_s: 0.0,
            passed: false,
            did: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Whether rows were lost or doubled, or rollups are wrong: what a guard that is left out has to lead to.
    pub(crate) fn missed(&self) -> bool {
        self.lost + self.doubled > 0 || self.without == Some(Guard::Rollups) && self.wrong > 0
    }

    pub(crate) fn show(&self, json: bool) {
        if json {
            println!("{}", serde_json::to_string(self).unwrap());
        }
        let verdict = match self.without {
            None if self.passed => "O holds".to_owned(),
            None => "FAILED".to_owned(),
            Some(guard) if self.missed() => format!("fails without {}, as it should", guard.name()),
            Some(guard) => format!("does not fail without {}", guard.name()),
        };
        eprintln!(
            "{:>3} {:<28} {verdict}: {} of {} rows, {} lost, {} doubled, {} wrong, {} dead letters; {} faults, {} SIGKILLs; \
             recovered in {:.1} s, took {:.0} s (seed {})",
            self.case,
            self.name,
            self.rows,
            self.produced,
            self.lost,
            self.doubled,
            self.wrong,
            self.dead_letters,
            self.faults_injected,
            self.sigkills,
            self.recovered_in_s,
            self.took_s,
            self.seed
        );
        for line in &self.did {
            eprintln!("      {line}");
        }
        for failure in &self.failures {
            eprintln!("    ✗ {failure}");
        }
    }
}

/// Whether every case held, and every guard that was left out was missed by some case.
pub(crate) fn as_expected(rows: &[Row]) -> bool {
    let held = rows.iter().filter(|row| row.without.is_none()).all(|row| row.passed);
    let tried: BTreeSet<Guard> = rows.iter().filter_map(|row| row.without).collect();
    held && tried.into_iter().all(|guard| missed(rows, guard).is_some())
}

/// The first case that a guard was missed by.
fn missed(rows: &[Row], guard: Guard) -> Option<&Row> {
    rows.iter().find(|row| row.without == Some(guard) && row.missed())
}

pub(crate) fn summary(rows: &[Row]) {
    let cases: Vec<&Row> = rows.iter().filter(|row| row.without.is_none()).collect();
    let sum = |of: fn(&Row) -> u64| cases.iter().map(|row| of(row)).sum::<u64>();
    eprintln!(
        "\n{} of {} runs held: {} events, {} lost, {} doubled, {} wrong; {} faults, {} SIGKILLs",
        cases.iter().filter(|row| row.passed).count(),
        cases.len(),
        sum(|row| row.produced),
        sum(|row| row.lost),
        sum(|row| row.doubled),
        sum(|row| row.wrong),
        sum(|row| row.faults_injected),
        sum(|row| row.sigkills),
    );
    for guard in Guard::ALL {
        if rows.iter().any(|row| row.without == Some(guard)) {
            match missed(rows, guard) {
                Some(row) => eprintln!(
                    "without {}: case {} ({}) fails: {} doubled, {} lost",
                    guard.name(),
                    row.case,
                    row.name,
                    row.doubled,
                    row.lost
                ),
                None => eprintln!("without {}: NO CASE FAILED, so nothing shows that it is needed", guard.name()),
            }
        }
    }
    for row in rows.iter().filter(|row| row.without.is_none() && !row.passed) {
        eprintln!("replay: cargo xtask chaos --case {} --seed {}", row.name, row.seed);
    }
}
