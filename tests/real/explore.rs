//! `lazystar explore` before docker-registry: what the page gets is what the registry has.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lazystar_core::Digest;
use lazystar_tests::http::{Answer, ask};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::registries::log_in;
use crate::registry::{PASSWORD, Registry};
use crate::rig::{Rig, Skip, test};

/// How long it may take to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// The running command.
struct Explorer {
    process: Child,
    address: SocketAddr,
    url: String,
    runtime: Runtime,
}

impl Explorer {
    /// Starts it with a page of one file in `page`, and with variables.
    fn start(rig: &Rig, page: &Path, arguments: &[&str], variables: &[(&str, &OsStr)]) -> Self {
        fs::create_dir_all(page).expect("the rig is writable");
        fs::write(page.join("index.html"), "page").expect("the rig is writable");
        let mut command = Command::new(rig.binary());
        command.args(["explore", "--json", "--listen", "127.0.0.1:0", "--assets"]);
        command.arg(page).args(arguments).stdout(Stdio::piped());
        command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
        let mut process = command.envs(variables.iter().copied()).spawn().expect("it starts");
        let out = process.stdout.take().expect("it is a pipe");
        let line = BufReader::new(out).lines().next().expect("it prints a line");
        let said: Value = serde_json::from_str(&line.expect("it is text")).expect("it is JSON");
        let url = said["url"].as_str().expect("it has a URL").to_owned();
        let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        let address = host.expect("it has a host").parse().expect("it is an address");
        Self { process, address, url, runtime: Runtime::new().expect("threads") }
    }

    fn get(&self, path: &str, headers: &[&str]) -> Answer {
        let line = format!("GET {path}");
        let asked = ask(self.address, &line, headers);
        self.runtime.block_on(asked).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Stops it as a service manager does; gives its exit status.
    fn stop(mut self) -> Option<i32> {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).expect("it is our child");
        let asked = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(asked.elapsed() < PATIENCE, "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Explorer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_page_gets_what_the_registry_has() {
    test("the_page_gets_what_the_registry_has", |rig| {
        let image = rig.image(&["debian:esgz", "debian:ctr-esgz"])?;
        let (name, tag) = image.split_once(':').expect("it has a tag");
        let work = rig.work();
        let registry = &rig.registry;
        let explorer =
            Explorer::start(rig, &work.path().join("page"), &[&format!("{registry}/{image}")], &[]);
        let host = explorer.address;
        assert_eq!(explorer.url, format!("http://{host}/#/r/{registry}/{name}:{tag}"));
        assert_eq!(explorer.get("/", &[]).text(), "page");

        let base = format!("/registry/{registry}/v2");
        assert_eq!(explorer.get(&format!("{base}/"), &[]).status, 200);
        let catalog: Value =
            serde_json::from_slice(&explorer.get(&format!("{base}/_catalog?n=1000"), &[]).body)
                .expect("it is JSON");
        let repositories = catalog["repositories"].as_array().expect("a list");
        assert!(repositories.contains(&Value::from(name)), "{catalog}");
        let tags: Value =
            serde_json::from_slice(&explorer.get(&format!("{base}/{name}/tags/list"), &[]).body)
                .expect("it is JSON");
        assert!(tags["tags"].as_array().expect("a list").contains(&Value::from(tag)), "{tags}");
        let one = explorer.get(&format!("{base}/_catalog?n=1"), &[]);
        let next = one.header("link").trim_start_matches('<').split('>').next().expect("a part");
        assert!(next.starts_with(&format!("{base}/_catalog?")), "{next}");
        assert_eq!(explorer.get(next, &[]).status, 200);

        let manifest = explorer.get(&format!("{base}/{name}/manifests/{tag}"), &[]);
        assert_eq!(manifest.status, 200, "{}", manifest.text());
        let stated = manifest.header("docker-content-digest");
        assert_eq!(stated, Digest::of(&manifest.body).to_string());
        let manifest: Value = serde_json::from_slice(&manifest.body).expect("it is JSON");
        let layer = &manifest["layers"][0];
        let digest = layer["digest"].as_str().expect("a digest");
        let size = layer["size"].as_u64().expect("a size");
        let blob = format!("{base}/{name}/blobs/{digest}");
        let whole = explorer.get(&blob, &[]);
        assert_eq!(Digest::of(&whole.body).to_string(), digest);
        for (asked, from, to) in [
            ("bytes=100-299".to_owned(), 100, 300),
            ("bytes=-51".to_owned(), size - 51, size),
            (format!("bytes={}-", size - 10), size - 10, size),
        ] {
            let part = explorer.get(&blob, &[&format!("range: {asked}")]);
            assert_eq!(part.status, 206, "{asked}");
            assert_eq!(part.header("content-range"), format!("bytes {from}-{}/{size}", to - 1));
            assert!(part.body == whole.body[from as usize..to as usize], "{asked}");
        }
        // Its own words.
        let missing = explorer.get(&format!("{base}/{name}/manifests/not-there"), &[]);
        let said: Value = serde_json::from_slice(&missing.body).expect("it is JSON");
        assert_eq!((missing.status, &said["errors"][0]["code"]), (404, &"MANIFEST_UNKNOWN".into()));
        assert_eq!(explorer.stop(), Some(0));
        Ok(())
    });
}

#[test]
fn passwords_stay_with_the_explorer() {
    test("passwords_stay_with_the_explorer", |rig| -> Result<(), Skip> {
        let work = rig.work();
        let content = rig.file("registry")?;
        let registry = Registry::start(&work.path().join("registry"), Some(&content))?;
        let host = &registry.address;
        let docker = log_in(work.path(), host, PASSWORD);
        let page = work.path().join("page");
        let empty = work.path().join("empty");
        fs::create_dir_all(&empty).expect("the rig is writable");
        for (docker, status) in [(&docker, 200), (&empty, 401)] {
            let variables = [("DOCKER_CONFIG", docker.as_os_str())];
            let explorer = Explorer::start(rig, &page, &["--allow", host], &variables);
            for path in ["", "_catalog"] {
                let answer = explorer.get(&format!("/registry/{host}/v2/{path}"), &[]);
                assert_eq!(answer.status, status, "{}", answer.text());
                assert_eq!(answer.header("www-authenticate"), "");
                let caching = if status == 200 { "no-store" } else { "no-cache" };
                assert_eq!(answer.header("cache-control"), caching);
            }
            let other = explorer.get(&format!("/registry/{}/v2/", rig.registry), &[]);
            assert_eq!(other.status, 403, "{}", other.text());
            assert_eq!(explorer.stop(), Some(0));
        }
        Ok(())
    });
}

#[test]
fn a_browser_is_opened_where_there_is_a_display() {
    test("a_browser_is_opened_where_there_is_a_display", |rig| {
        let work = rig.work();
        let (bin, opened) = (work.path().join("bin"), work.path().join("opened"));
        fs::create_dir_all(&bin).expect("the rig is writable");
        let opener = bin.join("xdg-open");
        let script =
            format!("#!/bin/sh\necho \"$@\" > {0}.part\nmv {0}.part {0}\n", opened.display());
        fs::write(&opener, script).expect("the rig is writable");
        fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let mut path = OsString::from(&bin);
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let page = work.path().join("page");
        let display = OsStr::new(":0");
        for (arguments, display, is_opened) in [
            (&["alpine"][..], Some(display), true),
            (&["--no-open", "alpine"], Some(display), false),
            (&["alpine"], None, false),
        ] {
            let _ = fs::remove_file(&opened);
            let mut variables = vec![("PATH", path.as_os_str())];
            variables.extend(display.map(|display| ("DISPLAY", display)));
            let explorer = Explorer::start(rig, &page, arguments, &variables);
            let url = explorer.url.clone();
            let asked = Instant::now();
            while is_opened && !opened.exists() {
                assert!(asked.elapsed() < PATIENCE, "no browser was opened");
                std::thread::sleep(Duration::from_millis(20));
            }
            // It is opened before it is served.
            assert_eq!(explorer.get("/", &[]).status, 200);
            assert_eq!(explorer.stop(), Some(0));
            let said = fs::read_to_string(&opened).ok();
            assert_eq!(said.as_deref().map(str::trim), is_opened.then_some(&*url));
        }
        Ok(())
    });
}
