//! `cargo xtask page`: the web page of the admin port in a real browser, against a real `millrace run` with a load. It signs
//! in, compares what stands in the page with what the API answers, and takes pictures of it.

mod axe;
mod browser;
mod issuer;
mod rig;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use self::{browser::Browser, rig::Rig};
use crate::{
    cargo::{self, Programs},
    interrupt::Interrupt,
    stack::{DataDir, Options, Stack, clone_root, tools},
};

/// Look at the page of the admin port in a real browser, and compare what it shows
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Put the pictures of the figures into docs/page as well
    #[arg(long)]
    accept: bool,
    /// Install missing tools with apt-get (as root; environment CI=true does the same)
    #[arg(long)]
    install_missing: bool,
}

const EVENTS: u32 = 24_000;
const RATE: u32 = 3_000;
const WIDE: u32 = 1320;
/// The narrowest that everything has to fit into (WCAG 2.2, 1.4.10).
const NARROW: u32 = 320;
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// # Errors
/// If something cannot be built or started. What is wrong with the page is an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let interrupt = Interrupt::install().context("cannot watch for Ctrl-C")?;
    let install_missing = args.install_missing || cargo::in_ci();
    tools::require_for_page(install_missing)?;
    let programs = cargo::build(&["millrace", "millrace-bench"])?;
    let stack = Stack::up(&Options {
        dir: DataDir::path_in_clone(Some("page"))?,
        fresh: true,
        install_missing,
        measured: false,
        interrupt: interrupt.clone(),
    })?;
    let (_, failed) = check(&programs, &stack, &interrupt)?;
    stack.stop()?;
    if args.accept {
        let (from, to) = (folder()?, clone_root()?.join("docs/page"));
        fs::create_dir_all(&to).with_context(|| format!("make {}", to.display()))?;
        for name in ["light.png", "dark.png"] {
            fs::copy(from.join(name), to.join(name)).with_context(|| format!("write docs/page/{name}"))?;
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn folder() -> Result<PathBuf> {
    let folder = clone_root()?.join("target/page");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

/// Looks at the page on a stack that has no topic `orders` yet; how many things are as they should be, and how many not.
///
/// # Errors
/// If a part does not start, or the page does not come so far that there is something to compare.
pub(crate) fn check(programs: &Programs, stack: &Stack, interrupt: &Interrupt) -> Result<(u64, u64)> {
    let begun = Instant::now();
    let folder = folder()?;
    let axe = axe::script(&folder)?;
    let rig = Rig::prepare(&folder, stack, programs, interrupt.clone())?;
    let browser = Browser::start(interrupt.clone())?;
    let mut look = Look { rig: &rig, browser: &browser, axe: &axe, folder: &folder, passed: 0, failed: 0 };
    let outcome = look.at_everything();
    let (passed, failed) = (look.passed, look.failed);
    outcome?;
    println!("the page: {passed} as it should be, {failed} not, after {:.1} s", begun.elapsed().as_secs_f64());
    println!("pictures in {}", folder.display());
    Ok((passed, failed))
}

struct Look<'l> {
    rig: &'l Rig<'l>,
    browser: &'l Browser,
    axe: &'l str,
    folder: &'l Path,
    passed: u64,
    failed: u64,
}

impl Look<'_> {
    fn at_everything(&mut self) -> Result<()> {
        let millrace = self.rig.run()?;
        let load = self.rig.load(EVENTS, RATE)?;
        self.at_the_door()?;
        let token = self.rig.issuer.token(&["viewer", "analyst"])?;
        self.at_the_load(&token)?;
        let status = self.rig.until_settled(load, &token)?;
        self.at_the_figures(&status, &token)?;
        self.at_its_looks()?;
        self.at_its_requests()?;
        self.at_its_permissions()?;
        self.at_its_end(millrace)
    }

    fn say(&mut self, what: &str, well: bool, found: impl std::fmt::Display) {
        if well {
            self.passed += 1;
            println!("✓ {what}");
        } else {
            self.failed += 1;
            println!("✗ {what}: {found}");
        }
    }

    /// Without a token there is a form and nothing else.
    fn at_the_door(&mut self) -> Result<()> {
        let (status, policy, text) = self.rig.get("", None)?;
        let strict = ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"];
        let strict = status == 200 && strict.iter().all(|one| policy.contains(one)) && !policy.contains("unsafe");
        self.say("the page has a strict policy", strict, policy);
        self.say("the page holds no data", !text.contains("orders_") && !text.contains("\"topic\""), &text);
        for path in ["v1/status", "v1/queries", "v1/queries/funnel"] {
            let (status, _) = self.rig.ask(path, None)?;
            self.say(&format!("no {path} without a token"), status == 401, status);
        }
        self.browser.look(WIDE, "light")?;
        self.browser.open(&self.rig.url())?;
        self.browser
            .until("the form", "!document.getElementById('sign-in').hidden && document.activeElement.id === 'token'")?;
        let errors = self.browser.console_errors()?;
        self.say("no console errors before signing in", errors.is_empty(), errors.join("; "));
        self.accessible("the form", "light")?;
        self.browser.picture(&self.folder.join("sign-in.png"))?;

        self.browser.keys("#token", "no.good.token")?;
        self.browser.press(TAB)?;
        self.browser.press(ENTER)?;
        let told = "document.getElementById('sign-in-error').textContent.length > 10";
        self.browser.until("a token that does not count is told", told)?;
        self.say("a token that does not count is told", true, "");
        // The browser itself tells of the 401.
        self.browser.console_errors()?;
        Ok(())
    }

    /// Signs in by the keyboard while events come.
    fn at_the_load(&mut self, token: &str) -> Result<()> {
        self.browser.keys("#token", token)?;
        self.browser.press(TAB)?;
        self.browser.press(ENTER)?;
        let rates = "Number(document.querySelector('#tiles dd').firstChild.data.replaceAll(',', '')) > 100";
        self.browser.until("events per second", rates)?;
        let more = "document.querySelectorAll('#tiles .spark').length === 2 && \
                    Number(document.querySelectorAll('#tiles .tile')[1].querySelector('dd').firstChild.data.replaceAll(',', '')) > 0";
        self.browser.until("rows per second", more)?;
        self.say("events and rows per second are more than none under a load", true, "");
        self.browser.until("the chart", "document.querySelector('#revenue-chart svg')")?;
        for scheme in ["dark", "light"] {
            self.browser.look(WIDE, scheme)?;
            self.browser.picture(&self.folder.join(format!("{scheme}.png")))?;
        }
        let focus = self.browser.run("return document.activeElement.id")?;
        self.say("the focus is on the figures", focus == "main", focus);
        let kept = self.browser.run("return [location.href, document.cookie, localStorage.length]")?;
        let text = kept.to_string();
        self.say("the token is in no address, cookie or local storage", !text.contains("ey") && kept[2] == 0, text);
        Ok(())
    }

    /// Compares what stands in the page with the API, once nothing moves.
    fn at_the_figures(&mut self, status: &Value, token: &str) -> Result<()> {
        let topic = &status["topics"][0];
        let rows = topic["rows"].as_u64().unwrap_or_default();
        let in_page =
            "[...document.querySelectorAll('#topics tbody tr:first-child > *')].map((cell) => cell.textContent)";
        let cell = |at: usize| format!("{in_page}[{at}].replaceAll(',', '')");
        self.browser.until("all rows", &format!("{} === '{rows}'", cell(3)))?;
        let duplicates = topic["duplicates"].as_u64().unwrap_or_default();
        self.browser.until("all duplicates", &format!("{} === '{duplicates}'", cell(4)))?;
        self.say("rows and duplicates are those of the status", rows > 0 && duplicates > 0, status);

        let dead = self.browser.run(
            "return Object.fromEntries([...document.querySelectorAll('#dead tbody tr')].map((row) => \
             [row.cells[0].textContent.replaceAll(' ', '_'), Number(row.cells[2].textContent)]))",
        )?;
        self.say("dead letters by reason are those of the status", dead == topic["dead_letters"], &dead);
        let lag = self.browser.run("return document.querySelectorAll('#lag tbody tr').length")?;
        let partitions = topic["partitions"].as_array().map_or(0, Vec::len);
        self.say("every partition has its lag", lag == partitions && partitions > 0, lag);
        let breakers = self.browser.run("return document.querySelectorAll('#breakers tbody th').length")?;
        self.say("every breaker is there", breakers == topic["breakers"].as_array().map_or(0, Vec::len), breakers);

        // The page asks its queries every ten seconds, and when it is told to.
        self.browser.run("document.getElementById('revenue-minutes').dispatchEvent(new Event('change'))")?;
        let (code, answer) = self.rig.ask("v1/queries/revenue_per_minute?param_minutes=60", Some(token))?;
        let currency = self.browser.run("return document.getElementById('revenue-currency').value")?;
        let cents = revenue(&answer, currency.as_str().unwrap_or_default());
        let shown = "document.getElementById('revenue-summary').textContent.split(' ')[1].replaceAll(',', '')";
        let expected = format!("{}.{:02}", cents / 100, cents % 100);
        self.browser.until("the revenue of the query", &format!("{shown} === '{expected}'"))?;
        self.say("revenue is that of the query, to the cent", code == 200 && cents > 0, &answer);
        let sum = self.browser.run(
            "return [...document.querySelectorAll('#revenue tbody tr')].reduce((sum, row) => \
             sum + BigInt(row.cells[2].textContent.replace(/[^0-9]/g, '')), 0n).toString()",
        )?;
        self.say("the table beside the chart has the same sum", text(&sum).parse() == Ok(cents), &sum);
        let minutes = self.browser.run("return document.querySelectorAll('#revenue-chart rect').length")?;
        self.say(
            "the chart has a column for each minute",
            minutes.as_u64().is_some_and(|minutes| minutes >= 50),
            &minutes,
        );

        let (_, funnel) = self.rig.ask("v1/queries/funnel", Some(token))?;
        let wanted: Vec<String> = rows_of(&funnel).iter().map(|row| format!("{} {}", text(&row[0]), row[1])).collect();
        let shown = "[...document.querySelectorAll('#funnel tbody tr')].map((row) => \
                     `${row.cells[0].textContent} ${row.cells[2].textContent.replaceAll(',', '')}`).join()";
        self.browser.until("the steps of the query", &format!("{shown} === '{}'", wanted.join(",")))?;
        self.say("orders by step are those of the query", wanted.len() >= 6, wanted.join(", "));
        Ok(())
    }

    /// Pictures and accessibility, light and dark, wide and narrow.
    fn at_its_looks(&mut self) -> Result<()> {
        for (name, width, scheme) in [
            ("wide-light", WIDE, "light"),
            ("wide-dark", WIDE, "dark"),
            ("narrow-dark", NARROW, "dark"),
            ("narrow-light", NARROW, "light"),
        ] {
            self.browser.look(width, scheme)?;
            // The chart is drawn for its place.
            let drawn = "Math.abs(document.querySelector('#revenue-chart svg').viewBox.baseVal.width - \
                         document.getElementById('revenue-chart').clientWidth) < 2";
            self.browser.until("the chart as wide as its place", drawn)?;
            self.accessible(&format!("the figures, {width} wide"), scheme)?;
            self.browser.picture(&self.folder.join(format!("{name}.png")))?;
            let wide = self.browser.run("return document.documentElement.scrollWidth")?;
            self.say(&format!("nothing is wider than {width}"), wide == width, wide);
        }
        self.browser.look(WIDE, "light")
    }

    fn accessible(&mut self, what: &str, scheme: &str) -> Result<()> {
        let found = axe::violations(self.browser, self.axe)?;
        self.say(&format!("accessible: {what}, {scheme}"), found.is_empty(), found.join("; "));
        Ok(())
    }

    fn at_its_requests(&mut self) -> Result<()> {
        let errors = self.browser.console_errors()?;
        self.say("no console errors, and nothing that the policy kept back", errors.is_empty(), errors.join("; "));
        let requests = self.browser.requests()?;
        let foreign: Vec<&String> = requests.iter().filter(|url| !url.starts_with(&self.rig.url())).collect();
        self.say("no request to another host", foreign.is_empty() && requests.len() > 10, format!("{foreign:?}"));
        let told = requests.iter().any(|url| url.contains("ey") || url.contains("token"));
        self.say("no token in any address", !told, "");
        Ok(())
    }

    /// Each token sees what its permissions allow.
    fn at_its_permissions(&mut self) -> Result<()> {
        let hidden = "[...document.querySelectorAll('[data-needs=\"%\"] .notice')].every((notice) => !notice.hidden && \
                      notice.textContent.includes('%:read'))";
        for (role, seen, unseen) in [("viewer", "status", "queries"), ("analyst", "queries", "status")] {
            let token = self.rig.issuer.token(&[role])?;
            self.browser.run(&format!("sessionStorage.setItem('millrace.token', '{token}'); location.reload()"))?;
            let there = if seen == "status" { "#tiles dd" } else { "#funnel tbody th" };
            self.browser.until("what it may see", &format!("document.querySelector('{there}')"))?;
            self.browser.until("what it may not see", &hidden.replace('%', unseen))?;
            self.say(&format!("a token without {unseen}:read sees the rest"), true, "");
        }
        let token = self.rig.issuer.token(&["viewer", "analyst"])?;
        self.browser.run(&format!("sessionStorage.setItem('millrace.token', '{token}'); location.reload()"))?;
        self.browser.until(
            "all of it again",
            "document.querySelector('#tiles dd') && document.querySelector('#funnel tbody th')",
        )
    }

    /// The process goes away, and comes back.
    fn at_its_end(&mut self, millrace: crate::demo::child::Child) -> Result<()> {
        Rig::stop(millrace)?;
        let away = "document.getElementById('connection').textContent.startsWith('No answer since ')";
        self.browser.until("that nobody answers", away)?;
        let figures = self.browser.run(
            "return document.querySelectorAll('#tiles dd').length > 0 && !document.getElementById('retry').hidden",
        )?;
        self.say("a process that is gone is told with the time, and its last figures stay", figures == true, figures);
        self.accessible("a process that is gone", "light")?;
        self.browser.picture(&self.folder.join("away.png"))?;
        let millrace = self.rig.run()?;
        self.browser.until("that it answers again", "document.getElementById('connection').textContent === 'Live'")?;
        self.say("it is found again without anybody's help", true, "");
        Rig::stop(millrace)
    }
}

/// The sum of a currency in cents.
fn revenue(answer: &Value, currency: &str) -> u64 {
    let column = |name: &str| {
        let columns = answer["columns"].as_array().into_iter().flatten();
        columns.map(|column| text(&column["name"])).position(|one| one == name).unwrap_or_default()
    };
    let (of, revenue) = (column("currency"), column("revenue"));
    let rows = rows_of(answer).iter().filter(|row| row[of] == currency);
    rows.filter_map(|row| cents(text(&row[revenue]))).sum()
}

fn cents(decimal: &str) -> Option<u64> {
    let (units, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    Some(units.parse::<u64>().ok()? * 100 + format!("{fraction:0<2}").get(..2)?.parse::<u64>().ok()?)
}

fn rows_of(answer: &Value) -> &[Value] {
    answer["rows"].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn revenue_is_summed_by_currency_to_the_cent() {
        let answer = json!({
            "columns": [{"name": "currency"}, {"name": "revenue"}],
            "rows": [["EUR", "10.05"], ["USD", "7"], ["EUR", "0.9"]],
        });
        assert_eq!([revenue(&answer, "EUR"), revenue(&answer, "USD"), revenue(&answer, "SEK")], [1095, 700, 0]);
    }
}
