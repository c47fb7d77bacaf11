//! Tables of the documentation that tests write.

use std::{env, fs, path::Path};

const MARKS: [&str; 2] = ["<!-- the table: written by a test -->\n", "<!-- end of the table -->\n"];

/// Sees that what lies between the marks of a page in `docs/` is this table; `MILLRACE_BLESS=1` writes it anew.
pub(crate) fn is_documented(page: &str, should: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = fs::read_to_string(&file).unwrap();
    let (head, rest) = text.split_once(MARKS[0]).unwrap();
    let (is, tail) = rest.split_once(MARKS[1]).unwrap();
    if env::var_os("MILLRACE_BLESS").is_some() {
        fs::write(&file, [head, MARKS[0], should, MARKS[1], tail].concat()).unwrap();
        return;
    }
    assert!(is == should, "{} differs; look at it, then MILLRACE_BLESS=1", file.display());
}
