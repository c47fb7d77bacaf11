//! Other builds of `millrace` than the one under test, such as an earlier version of it.

use std::path::Path;
use std::process::{Command, Output};

use crate::config::Config;
use crate::process::Millrace;
use crate::world::World;

impl World {
    /// `millrace run` of another build.
    pub fn start_build(&self, millrace: &Path, config: &Config) -> Millrace {
        let file = self.write(config);
        Millrace::start_as(Command::new(millrace), &file, file.with_extension("log"), &[])
    }

    /// A command of another build, to its end.
    pub fn command_of(&self, millrace: &Path, command: &str, arguments: &[&str], config: &Config) -> Output {
        Command::new(millrace).arg(command).arg("--config").arg(self.write(config)).args(arguments).output().unwrap()
    }

    /// `millrace migrate --apply` of a build, as administrator; what it printed.
    pub fn migrate(&self, millrace: &Path, config: &Config) -> String {
        let password = self.stack.admin.password_file.display().to_string();
        let admin = ["--apply", "--user", &self.stack.admin.user, "--password-file", &password];
        let migrated = self.command_of(millrace, "migrate", &admin, config);
        assert!(migrated.status.success(), "{migrated:?}");
        String::from_utf8(migrated.stdout).unwrap()
    }
}
