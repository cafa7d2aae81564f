//! `lazystar snapshotter` as what it stands in for is started and watched.

use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lazystar_tests::processes::mount_process;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::{Daemon, PATIENCE, binary, block_on};

const TARGET: &str = "containerd.io/snapshot.ref";

fn output(command: &mut Command) -> (Output, String) {
    let output = command.output().expect("it runs");
    let printed = [&*output.stdout, &*output.stderr].concat();
    (output, String::from_utf8_lossy(&printed).into_owned())
}

#[test]
fn takes_name_and_flags_of_what_it_stands_in_for() {
    let Some(binary) = binary("takes_name_and_flags_of_what_it_stands_in_for") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let name = dir.path().join("containerd-stargz-grpc");
    symlink(binary, &name).expect("a link");
    let (_, version) = output(Command::new(&name).arg("-version"));
    let words: Vec<_> = version.split_whitespace().collect();
    assert_eq!(words[..2], ["containerd-stargz-grpc", env!("CARGO_PKG_VERSION")], "{version}");
    assert_eq!(words.len(), 3, "name, version, revision: {version}");

    let root = dir.path().join("root");
    let start = |config: &Path| {
        let mut command = Command::new(&name);
        command.arg("-config").arg(config).arg("-root").arg(&root);
        command.arg("-address").arg(dir.path().join("sock")).args(["-log-level", "panic"]);
        output(&mut command)
    };
    let config = dir.path().join("config.toml");
    let (missing, said) = start(&config);
    assert_eq!(missing.status.code(), Some(1));
    assert!(said.contains(&config.display().to_string()), "{said}");
    fs::write(&config, "# x\nprefetch_sise = 1\n").expect("written");
    let (refused, said) = start(&config);
    assert_eq!(refused.status.code(), Some(1));
    let expected = r#"line 2: unknown key "prefetch_sise"; did you mean "prefetch_size"?"#;
    assert!(said.contains(expected), "{said}");
}

/// Receives what systemd would be told until `wanted` is.
fn told(notified: &UnixDatagram, wanted: &str) {
    let mut message = [0; 256];
    loop {
        let length = notified.recv(&mut message).expect("it is told in time");
        let text = String::from_utf8_lossy(&message[..length]);
        if text.lines().any(|line| line == wanted) {
            return;
        }
    }
}

#[test]
fn is_started_and_watched_by_systemd() {
    let Some(binary) = binary("is_started_and_watched_by_systemd") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let notified = UnixDatagram::bind(at("notify")).expect("a socket");
    notified.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let listener = UnixListener::bind(at("opened")).expect("a socket");
    // Twice on one socket: it outlives the daemon.
    for _ in 0..2 {
        let opened = OwnedFd::from(listener.try_clone().expect("a descriptor"));
        let mut command = Command::new("sh");
        command.args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 </dev/null"#, "sh"]);
        command.arg(&binary).args(["snapshotter", "--log-level", "warn", "--no-lookup"]);
        command.arg("--root").arg(at("root")).arg("--address").arg(at("unused"));
        command.env("NOTIFY_SOCKET", at("notify")).stdin(opened);
        let daemon = Daemon(command.spawn().expect("it starts"));
        told(&notified, "READY=1");
        let client = Client::new(at("opened"), "stargz");
        block_on(async {
            client.prepare("active", "", &[]).await.expect("a snapshot");
            client.remove("active").await.expect("it is there");
        });
        assert!(!at("unused").exists(), "it listens on the socket that was opened for it alone");
        let pid = rustix::process::Pid::from_child(&daemon.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        told(&notified, "STOPPING=1");
        drop(daemon);
        assert!(at("opened").exists(), "the socket is systemd's");
    }
}

/// The file that comes with the message `FDSTORE=1`.
fn stored(notified: &UnixDatagram) -> OwnedFd {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut message = [0; 256];
        let mut parts = [IoSliceMut::new(&mut message)];
        rustix::net::recvmsg(notified, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .expect("it is told in time");
        let files = ancillary.drain().filter_map(|it| match it {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        if let Some(file) = files.last() {
            assert!(String::from_utf8_lossy(&message).contains("FDSTORE=1"));
            return file;
        }
    }
}

#[test]
fn the_mount_outlives_all_processes_while_systemd_holds_it() {
    let name = "the_mount_outlives_all_processes_while_systemd_holds_it";
    let Some(binary) = binary(name) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let notified = UnixDatagram::bind(at("notify")).expect("a socket");
    notified.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let start = |script: &str, device: Stdio| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&binary).args(["snapshotter", "--no-lookup"]);
        command.arg("--root").arg(at("root")).arg("--address").arg(at("sock"));
        command.env("NOTIFY_SOCKET", at("notify")).stdin(device).stderr(Stdio::null());
        Daemon(command.spawn().expect("it starts"))
    };
    let mut daemon = start(r#"exec "$@""#, Stdio::null());
    let device = stored(&notified);
    told(&notified, "READY=1");
    let user = fs::File::open(at("root/layers")).expect("it is mounted");
    rustix::fs::fstatfs(&user).expect("it is served");
    daemon.0.kill().expect("it runs");
    daemon.0.wait().expect("it ends");
    let process = mount_process(&at("root")).expect("it runs");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("it runs");
    let script =
        r#"LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=lazystar-fuse exec "$@" 3<&0 </dev/null"#;
    let _daemon = start(script, device.into());
    told(&notified, "READY=1");
    rustix::fs::fstatfs(&user).expect("it is served again");
}

/// What an HTTP server says to `GET path`: status line and body.
fn get(mut stream: impl Read + Write, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// A daemon that is configured by `config`, and its directory.
fn configured(binary: &Path, config: &str) -> (TempDir, Daemon) {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("config.toml"), config.replace("DIR", &dir.path().display().to_string()))
        .expect("written");
    let mut command = Command::new(binary);
    command.args(["snapshotter", "--config"]).arg(at("config.toml"));
    command.arg("--root").arg(at("root")).arg("--address").arg(at("sock"));
    command.stderr(fs::File::create(at("log")).expect("a file")).stdout(Stdio::null());
    let daemon = Daemon::start(command, &at("sock"));
    (dir, daemon)
}

#[test]
fn serves_figures_where_its_configuration_says() {
    let Some(binary) = binary("serves_figures_where_its_configuration_says") else { return };
    let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let config = format!(
        "metrics_address = \"{free}\"\ndebug_address = \"DIR/debug/sock\"\n\
         http_cache_type = \"memory\"\n[lazystar]\nlookup_unlabelled = false\n"
    );
    let (dir, _daemon) = configured(&binary, &config);
    let client = Client::new(dir.path().join("sock"), "stargz");
    block_on(async {
        // The client does not say which layer it wants, so it gets an ordinary snapshot.
        client.prepare("active", "", &[(TARGET, "sha256:x")]).await.expect("a snapshot");
    });
    let started = Instant::now();
    let stream = loop {
        match TcpStream::connect(free) {
            Ok(stream) => break stream,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let (status, body) = get(stream, "/metrics");
    assert!(status.contains("200"), "{status}");
    for line in [
        r#"lazystar_fallbacks_total{reason="no_labels"} 1"#,
        "lazystar_verify_failures_total 0",
        "lazystar_cache_bytes 0",
        "# TYPE lazystar_bytes_total counter",
    ] {
        assert_eq!(body.lines().filter(|it| *it == line).count(), 1, "{line} in\n{body}");
    }
    let debug = || UnixStream::connect(dir.path().join("debug/sock")).expect("it listens");
    let (_, variables) = get(debug(), "/debug/vars");
    let variables: Value = serde_json::from_str(&variables).expect("JSON");
    assert!(variables["memstats"]["Rss"].as_u64().is_some_and(|rss| rss > 1 << 20));
    assert_eq!(get(debug(), "/metrics").1, body, "figures that nothing changed");
    assert!(get(debug(), "/debug/pprof/").0.contains("404"));
    let log = fs::read_to_string(dir.path().join("log")).expect("a log");
    let note = log.lines().find(|line| line.contains("http_cache_type has no effect"));
    assert!(note.is_some_and(|line| line.contains("line 3")), "{log}");
}

#[test]
fn is_examined_by_the_doctor() {
    let Some(binary) = binary("is_examined_by_the_doctor") else { return };
    let (dir, daemon) = configured(&binary, "[lazystar]\nlookup_unlabelled = false\n");
    let at = |name: &str| dir.path().join(name);
    let containerd = format!(
        "version = 2\n[proxy_plugins.stargz]\ntype = \"snapshot\"\naddress = {:?}\n",
        at("sock")
    );
    fs::write(at("containerd.toml"), containerd).expect("written");
    let examine = || {
        let mut command = Command::new(&binary);
        command.args(["doctor", "--json", "--address"]).arg(at("sock"));
        command.arg("--root").arg(at("root"));
        command.arg("--containerd-config").arg(at("containerd.toml"));
        command.arg("--docker-config").arg(at("docker.json"));
        let output = command.output().expect("it runs");
        let findings: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let levels: Vec<_> = ["socket", "containerd", "storage"]
            .map(|area| {
                let all = findings.as_array().expect("a list").iter();
                let of_area: Vec<_> = all.filter(|it| it["area"] == area).collect();
                assert!(!of_area.is_empty(), "nothing of {area}: {findings}");
                of_area.iter().all(|it| it["level"] == "ok")
            })
            .into();
        (output.status.code(), levels)
    };
    let (code, levels) = examine();
    assert_eq!(levels, [true, true, true]);
    assert!(matches!(code, Some(0 | 1)), "the machine may have other problems");
    drop(daemon);
    assert_eq!(examine(), (Some(1), vec![false, true, true]));
}
