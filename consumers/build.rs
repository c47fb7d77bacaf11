//! Tells the program what it was built from: commit, time of that commit, compiler. Two builds of one commit say the same.
//!
//! `MILLRACE_COMMIT` and `SOURCE_DATE_EPOCH` (seconds since 1970) say it for builds without a git folder, and come first.

#![allow(clippy::print_stdout, reason = "a build script speaks to cargo by what it prints")]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["MILLRACE_COMMIT", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let git = repository();
    if let Some(git) = &git {
        // HEAD changes when another branch is checked out, its log whenever another commit is. A file that is not there
        // would be looked for in each build, and everything be compiled again.
        for name in ["HEAD", "logs/HEAD"] {
            let path = git.join(name);
            if path.is_file() {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
    }
    let told = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let of_head = |format: &str| git.as_ref().and_then(|_| output("git", &["log", "-1", format]));
    let commit = told("MILLRACE_COMMIT").or_else(|| of_head("--format=%H"));
    let seconds = told("SOURCE_DATE_EPOCH").or_else(|| of_head("--format=%ct"));
    let compiler = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    let compiler = compiler.as_deref().and_then(|line| line.split(' ').nth(1)).unwrap_or("unknown");
    println!("cargo::rustc-env=MILLRACE_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=BUILD_SECONDS={}", seconds.unwrap_or_default());
    println!("cargo::rustc-env=BUILD_RUSTC={compiler}");
}

/// The git folder of this clone or work tree; `None` where these sources lie inside somebody else's repository, or in none.
fn repository() -> Option<PathBuf> {
    let ours = Path::new(&env::var_os("CARGO_MANIFEST_DIR")?).parent()?.canonicalize().ok()?;
    let answer = output("git", &["rev-parse", "--show-toplevel", "--absolute-git-dir"])?;
    let (top, git) = answer.split_once('\n')?;
    (Path::new(top).canonicalize().ok()? == ours).then(|| PathBuf::from(git))
}

/// What a program prints, without the newline at its end; `None` if it fails.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim_end().to_owned())
}
