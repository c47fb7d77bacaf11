//! What is made of certificates, made again when the files change. Nothing watches the files: whoever needs it asks.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{Material, TlsFiles};

/// How often files are looked at, at most.
pub const CHECK_EVERY: Duration = Duration::from_secs(2);

type Make<T> = dyn Fn(&Material) -> Result<T> + Send + Sync;

/// A value that is made of the files of a section.
pub struct Renewed<T> {
    section: &'static str,
    files: TlsFiles,
    make: Box<Make<T>>,
    state: Mutex<State<T>>,
}

struct State<T> {
    looked: Instant,
    material: Material,
    value: T,
    /// Why the files as they now are cannot be used.
    refused: Option<String>,
}

impl<T: Clone> Renewed<T> {
    /// Reads the files for the first time; `section` is what errors and log lines call them.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn new(
        section: &'static str,
        files: &TlsFiles,
        make: impl Fn(&Material) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let material = Material::read(section, files)?;
        let state = State { looked: Instant::now(), value: make(&material)?, material, refused: None };
        Ok(Self { section, files: files.clone(), make: Box::new(make), state: Mutex::new(state) })
    }

    /// What the files come to now. Looks at them at most every [`CHECK_EVERY`]; as long as they cannot be used, because one
    /// of them is replaced and the other not yet, it stays as it was.
    pub fn get(&self) -> T {
        self.get_after(CHECK_EVERY)
    }

    pub(crate) fn get_after(&self, rest: Duration) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.files.is_empty() && state.looked.elapsed() >= rest {
            state.looked = Instant::now();
            self.look(&mut state);
        }
        state.value.clone()
    }

    fn look(&self, state: &mut State<T>) {
        let read = Material::read(self.section, &self.files);
        if read.as_ref().is_ok_and(|material| *material == state.material) {
            state.refused = None;
            return;
        }
        match read.and_then(|material| Ok(((self.make)(&material)?, material))) {
            Ok((value, material)) => {
                tracing::info!(section = self.section, "certificates have changed and are used from now on");
                (state.value, state.material, state.refused) = (value, material, None);
            }
            Err(error) => {
                let error = format!("{error:#}");
                if state.refused.as_ref() != Some(&error) {
                    tracing::warn!(
                        section = self.section,
                        error,
                        "certificates have changed and cannot be used; the earlier ones stay, and the files are looked at again"
                    );
                }
                state.refused = Some(error);
            }
        }
    }
}
