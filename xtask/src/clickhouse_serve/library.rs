//! The only `unsafe` outside tests: calling two functions of libchdb.
//!
//! libchdb is ClickHouse as a C library and has no safe interface. Nothing of ours is shared with it but the arguments
//! of one call, which last longer than the call.
#![allow(unsafe_code, reason = "a C library is loaded and called")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use anyhow::{Context as _, Result};
use libloading::{Library, Symbol};

/// `chdb_result *chdb_query_cmdline(int argc, char **argv)` in chdb.h.
type QueryCmdline = unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut c_void;
/// `const char *chdb_result_error(chdb_result *result)`: null if there is none.
type ResultError = unsafe extern "C" fn(*mut c_void) -> *const c_char;

/// Runs ClickHouse with these arguments (the first is the program's name) until it ends, and returns its error, if any.
///
/// # Errors
/// If the library cannot be loaded or is not libchdb.
pub(super) fn query_cmdline(library: &Path, arguments: &[CString]) -> Result<Option<String>> {
    let count = c_int::try_from(arguments.len()).context("too many arguments")?;
    // C's `main` convention: writable strings, and a null pointer after the last.
    let mut owned: Vec<Vec<u8>> = arguments.iter().map(|a| a.as_bytes_with_nul().to_vec()).collect();
    let mut pointers: Vec<*mut c_char> = owned.iter_mut().map(|a| a.as_mut_ptr().cast()).collect();
    pointers.push(ptr::null_mut());

    // SAFETY: loading runs the library's initialisers. The file is the one that the installation checked, and this
    // process does nothing else.
    let loaded = unsafe { Library::new(library) };
    let loaded = loaded.with_context(|| format!("cannot load {}", library.display()))?;
    // Never unloaded: that would run its destructors while threads of ClickHouse may still be there.
    let loaded: &'static Library = Box::leak(Box::new(loaded));
    // SAFETY: the types are those of chdb.h of the pinned version.
    let query: Symbol<'_, QueryCmdline> =
        unsafe { loaded.get(b"chdb_query_cmdline\0") }.context("this is no libchdb")?;
    // SAFETY: as above.
    let error: Symbol<'_, ResultError> = unsafe { loaded.get(b"chdb_result_error\0") }.context("this is no libchdb")?;

    // SAFETY: `pointers` holds `count` zero-terminated strings and a null that live until the end of
    // this function. No reference into `owned` exists meanwhile, so libchdb may write to the strings.
    let result = unsafe { query(count, pointers.as_mut_ptr()) };
    if result.is_null() {
        return Ok(Some("ended without a result".to_owned()));
    }
    // SAFETY: `result` is what chdb_query_cmdline returned, and not freed: the process ends soon.
    let text = unsafe { error(result) };
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, so a zero-terminated string owned by `result`.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        let error = query_cmdline(Path::new("/nowhere/libchdb.so"), &[]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/libchdb.so"));
    }

    #[test]
    fn a_library_without_the_function_is_refused() {
        let libc = if cfg!(target_os = "linux") { "libc.so.6" } else { "libSystem.dylib" };
        let error = query_cmdline(Path::new(libc), &[c"clickhouse".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "this is no libchdb");
    }
}
