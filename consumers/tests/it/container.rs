//! `millrace run` as in its container: nothing but the files of the image, a root that cannot be written, a user without
//! rights. Needs root, as the chaos cases do that part networks.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::small::{Running, Small};

/// That of the image (Dockerfile).
const USER: &str = "65532";
/// Libraries of the image's base, and the one that the Dockerfile copies.
const LIBRARIES: [&str; 7] =
    ["ld-linux-x86-64.so.2", "libc.so.6", "libcrypto.so.3", "libgcc_s.so.1", "libm.so.6", "libssl.so.3", "libz.so.1"];

/// A folder with the files that the image has, as far as the program could use them.
struct Image(PathBuf);

impl Image {
    fn new(root: PathBuf, config: &str, password: &str) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_millrace"));
        put(program, &root.join("usr/local/bin/millrace"));
        for library in libraries(program) {
            put(&library, &root.join(library.strip_prefix("/").unwrap()));
        }
        for (name, text) in [("etc/millrace/millrace.toml", config), ("run/secrets/clickhouse", password)] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), text).unwrap();
        }
        for mount in ["proc", "dev"] {
            fs::create_dir(root.join(mount)).unwrap();
        }
        Self(root)
    }

    /// A command in it, in a mount namespace of its own that goes with the process.
    fn command(&self, arguments: &[&str]) -> Command {
        // The shell is gone once the program runs: it is replaced, and so keeps its process.
        const ENTER: &str = r#"mount --bind "$ROOT" "$ROOT" && mount --bind /proc "$ROOT/proc" &&
            mount --bind /dev "$ROOT/dev" && mount -o remount,bind,ro "$ROOT" &&
            exec chroot --userspec="$0:$0" --groups= "$ROOT" /usr/local/bin/millrace "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", ENTER, USER]).args(arguments);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("ROOT", &self.0).env("MILLRACE_CONFIG", "/etc/millrace/millrace.toml");
        command
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_its_container_it_lands_events_writes_no_file_and_answers_for_its_health() {
    let small = Small::new().await;
    let password_file = small.world.stack.admin.password_file.to_str().unwrap();
    let schema = small.world.directory.join("small.avsc");
    let config = small
        .world
        .config
        .replace(password_file, "/run/secrets/clickhouse")
        .replace(schema.to_str().unwrap(), "small.avsc")
        .replace("#[admin]\n#listen = \"127.0.0.1:9465\"\n# \"jwt\"", "[admin]\nlisten = \"127.0.0.1:0\"\n# \"jwt\"")
        .replace("#auth = \"jwt\"", "auth = \"none\"");
    let image = Image::new(small.world.directory.join("image"), &config, &fs::read_to_string(password_file).unwrap());
    fs::copy(&schema, image.0.join("etc/millrace/small.avsc")).unwrap();

    small.produce(0, 0..1000).await;
    let log = small.world.directory.join("log");
    let child = image.command(&["run"]).stderr(Stdio::from(File::create(&log).unwrap())).spawn().unwrap();
    let mut running = Running { child, log, port: small.port };
    small.until_rows(1000, Duration::from_secs(20), &running).await;

    let process = PathBuf::from(format!("/proc/{}", running.child.id()));
    let status = fs::read_to_string(process.join("status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}\n")), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000\n") && status.contains("Groups:\t \n"), "{status}");
    let mounts = fs::read_to_string(process.join("mountinfo")).unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{mounts}");
    let writes = fs::read_dir(process.join("fd")).unwrap().filter_map(|file| fs::read_link(file.unwrap().path()).ok());
    let files: Vec<PathBuf> = writes.filter(|file| file.starts_with(&image.0)).collect();
    assert_eq!(files, Vec::<PathBuf>::new(), "it holds no file of its root open");

    let health = |arguments: &[&str]| {
        let url = format!("http://127.0.0.1:{}", small.port);
        image.command(&[&["health", "--url", &url], arguments].concat()).output().unwrap()
    };
    let alive = health(&[]);
    assert_eq!((alive.status.code(), &*alive.stdout), (Some(0), &b"alive\n"[..]), "{alive:?}");
    // The first rows may land before the topic says that it is ready.
    let deadline = Instant::now() + Duration::from_secs(10);
    let ready = loop {
        let asked = health(&["--ready"]);
        if asked.status.success() || Instant::now() > deadline {
            break asked;
        }
    };
    assert_eq!((ready.status.code(), &*ready.stdout), (Some(0), &b"ready\n"[..]), "{ready:?}");
    let (ended, _) = running.terminate().await;
    assert!(ended.success(), "{}", running.log());
    let asked = health(&[]);
    let words = String::from_utf8(asked.stderr).unwrap();
    assert!(asked.status.code() == Some(1) && words.contains("connection refused"), "{words}");
    small.world.clean_up().await;
}

#[test]
fn the_program_loads_no_library_that_the_image_lacks() {
    let libraries = libraries(Path::new(env!("CARGO_BIN_EXE_millrace")));
    let mut names: Vec<&str> = libraries.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, LIBRARIES, "the Dockerfile, and this list, have to be looked at");
}

/// What the dynamic linker loads for a program, itself included.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

fn put(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}
