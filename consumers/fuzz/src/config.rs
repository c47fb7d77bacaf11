//! The configuration: a text that somebody wrote in a hurry, or did not write at all.

use std::path::Path;

use millrace_consumers::config::{Outside, parse};

/// What every variable and every file holds.
const SECRET: &str = "s3cr3t-of-the-fuzzer";

/// A text is a configuration, or everything that is wrong in it is told with its place; no secret shows in either.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let outside = Outside {
        directory: Path::new("/conf"),
        variable: &|_| Some(SECRET.to_owned()),
        file: &|_| Ok(SECRET.to_owned()),
    };
    let (read, known) = parse(text, &outside);
    let shown = match read {
        Ok(config) => {
            assert!(!config.topics.is_empty());
            assert!(known.contains("topics.name"), "{known:?}");
            format!("{config:?}")
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a word");
            let lines = text.matches('\n').count() + 1;
            for problem in &problems {
                assert!(!problem.message.is_empty());
                assert!(problem.at.is_none_or(|at| (1..=lines).contains(&at.line) && at.column > 0), "{problem:?}");
            }
            format!("{problems:?}")
        }
    };
    assert!(!shown.contains(SECRET) || text.contains(SECRET), "{shown}");
}
