//! The program as a person starts it: `check-config`, and `dev` with its
//! private servers through clean stops, kills and failed starts.

#![cfg(test)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_freshet");
/// Generous: the machine may be busy with the other tests.
const PATIENCE: Duration = Duration::from_secs(90);

/// Who may enter the folder in which the data folder is made.
#[derive(Clone, Copy)]
enum Reach {
    Everybody,
    /// Under root's tests, PostgreSQL's account cannot.
    OwnerOnly,
}

/// A data folder that leaves nothing behind.
struct Place {
    home: TempDir,
}

impl Place {
    fn new(reach: Reach) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mode = match reach {
            Reach::Everybody => 0o755,
            Reach::OwnerOnly => 0o700,
        };
        fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
        Self { home }
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The first line of a file with a process id.
    fn pid(&self, file: &str) -> Option<u32> {
        let text = fs::read_to_string(self.data().join(file)).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    fn postgres_pid(&self) -> Option<u32> {
        self.pid("postgres/postmaster.pid")
    }

    fn redis_pid(&self) -> u32 {
        self.pid("redis.pid").unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Where the cluster stands elsewhere, the data folder has a link to it.
        let elsewhere = fs::read_link(self.data().join("postgres"));
        if let Some(parent) = elsewhere.ok().as_deref().and_then(Path::parent) {
            let _ = fs::remove_dir_all(parent);
        }
    }
}

/// A running `freshet dev`.
struct Dev {
    child: Child,
    clients: SocketAddr,
}

fn dev_command(place: &Place, listen: SocketAddr) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["dev", "--data-dir"])
        .arg(place.data())
        .args(["--listen", &listen.to_string()])
        .env("FRESHET_ADMIN_ADDRESS", "127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

impl Dev {
    fn start(place: &Place) -> Self {
        let errors = place.home.path().join("stderr");
        let mut child = dev_command(place, any_port())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut clients = None;
        for line in lines.map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("listening on ") {
                clients = address.parse().ok();
            }
            if line.starts_with("Ctrl-C") {
                break;
            }
        }
        let Some(clients) = clients else {
            let _ = child.wait();
            panic!("no start: {}", fs::read_to_string(errors).unwrap());
        };
        Self { child, clients }
    }

    /// The first line of the reply to an inline command.
    fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.clients).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).unwrap();
        reply.trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill(self.child.id(), signal);
    }

    fn stop(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.child.wait().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // A failed test stops its servers too.
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Whether a process is there and has not ended.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

#[test]
fn check_config_reports_every_mistake_at_once() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("proxy.toml");
    fs::write(
        &file,
        "[listen]\nadress = \"127.0.0.1:1\"\n[commit]\nqueue_units = 0\n",
    )
    .unwrap();
    let output = run(&["check-config", "--config", file.to_str().unwrap()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.contains("2 mistakes"), "{text}");
    assert!(
        text.contains("proxy.toml:2: listen.adress is not a setting"),
        "{text}"
    );
    assert!(
        text.contains("proxy.toml:4: commit.queue_units must be from 1 to"),
        "{text}"
    );
    fs::write(&file, "").unwrap();
    assert!(
        run(&["check-config", "--config", file.to_str().unwrap()])
            .status
            .success()
    );
}

#[test]
fn dev_keeps_data_between_runs_and_stops_cleanly() {
    let place = Place::new(Reach::Everybody);
    let dev = Dev::start(&place);
    assert_eq!(dev.ask("SET k v"), "+OK");
    let (postgres, redis) = (place.postgres_pid().unwrap(), place.redis_pid());
    let second = dev_command(&place, any_port()).output().unwrap();
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains("another `freshet dev` runs"), "{text}");
    assert!(dev.stop(Signal::INT).success());
    assert!(!runs(postgres) && !runs(redis));
    let notes = fs::read_to_string(place.data().join("dev.toml")).unwrap();

    let dev = Dev::start(&place);
    assert_eq!(dev.ask("STRLEN k"), ":1");
    assert_eq!(
        fs::read_to_string(place.data().join("dev.toml")).unwrap(),
        notes
    );
    assert!(dev.stop(Signal::TERM).success());
}

#[test]
fn dev_takes_over_from_a_killed_run_and_starts_a_killed_cache_again() {
    let place = Place::new(Reach::OwnerOnly);
    let mut dev = Dev::start(&place);
    assert_eq!(dev.ask("SET k v"), "+OK");
    let (postgres, redis) = (place.postgres_pid().unwrap(), place.redis_pid());
    kill(redis, Signal::KILL);
    wait_until("Redis runs again", || place.redis_pid() != redis);
    assert_eq!(dev.ask("SET k v2"), "+OK");
    let redis = place.redis_pid();
    dev.signal(Signal::KILL);
    dev.child.wait().unwrap();
    assert!(runs(postgres) && runs(redis), "nobody has stopped them");

    let dev = Dev::start(&place);
    assert!(
        !runs(postgres) && !runs(redis),
        "stopped before others started"
    );
    assert_eq!(dev.ask("STRLEN k"), ":2");
    assert!(dev.stop(Signal::TERM).success());
}

#[test]
fn dev_that_cannot_listen_stops_what_it_started() {
    let place = Place::new(Reach::Everybody);
    let occupied = TcpListener::bind(any_port()).unwrap();
    let address = occupied.local_addr().unwrap();
    let output = dev_command(&place, address).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains(&format!("[listen] address {address}")),
        "{text}"
    );
    assert!(!runs(place.redis_pid()));
    assert_eq!(place.postgres_pid(), None);
}

#[test]
fn dev_says_which_packages_are_missing() {
    let place = Place::new(Reach::Everybody);
    let output = dev_command(&place, any_port())
        .env("PATH", "")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("Debian package: redis-server"), "{text}");
    assert!(
        !place.data().exists(),
        "nothing is made before all is there"
    );
}
