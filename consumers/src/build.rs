//! What this program was built from: version, commit and compiler, as the build script found them.

use std::sync::LazyLock;

use crate::time::format_date;

/// The package's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit in full, or `unknown` where the build knew none. Changes in the work tree do not show.
pub const COMMIT: &str = env!("MILLRACE_COMMIT");

const SHORT_COMMIT_LEN: usize = 7;
const DAY_SECONDS: i64 = 86_400;

/// `0.1.0 (commit abc1234, 2026-01-31, rustc 1.95.0)`; the date (UTC) is the commit's.
pub static DESCRIPTION: LazyLock<String> =
    LazyLock::new(|| describe(COMMIT, env!("BUILD_SECONDS"), env!("BUILD_RUSTC")));

fn describe(commit: &str, seconds: &str, rustc: &str) -> String {
    let date = seconds.parse::<i64>().map(|seconds| format!("{}, ", format_date(seconds.div_euclid(DAY_SECONDS))));
    format!("{VERSION} (commit {}, {}rustc {rustc})", short(commit), date.unwrap_or_default())
}

/// The first characters of a commit, as people name it.
pub fn short(commit: &str) -> &str {
    commit.get(..SHORT_COMMIT_LEN).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_names_commit_date_and_compiler_as_far_as_they_are_known() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(
            describe(commit, "1795414604", "1.95.0"),
            format!("{VERSION} (commit 0123456, 2026-11-23, rustc 1.95.0)")
        );
        assert_eq!(describe("unknown", "", "1.95.0"), format!("{VERSION} (commit unknown, rustc 1.95.0)"));
    }

    #[test]
    fn the_image_is_of_this_version_and_by_this_compiler() {
        let dockerfile = include_str!("../../Dockerfile");
        let rustc = env!("BUILD_RUSTC");
        for line in [
            format!("ARG VERSION={VERSION}\n"),
            format!("ARG RUST_IMAGE=rust:{rustc}-bookworm@sha256:"),
            format!("ENV RUSTUP_TOOLCHAIN={rustc}\n"),
            format!("--tag millrace:{VERSION} ."),
        ] {
            assert!(dockerfile.contains(&line), "the Dockerfile has no {line}");
        }
    }
}
