//! Registries as they are: private ones with TLS and passwords or a token server, pull-through caches, mirrors that die;
//! and containerd, which is asked which hosts it would ask.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lazystar_core::Digest;
use lazystar_tests::certificates::Certificates;
use lazystar_tests::proxy::{Proxy, tunnels};
use lazystar_tests::tree::Kind;

use crate::registry::{Options, PASSWORD, Registry, USER};
use crate::rig::{Rig, Skip, need, need_fuse, run, test};
use crate::tokens::TokenServer;

/// The image that is read here.
fn image(rig: &Rig) -> Result<String, Skip> {
    rig.image(&["debian:esgz", "debian:ctr-esgz"])
}

/// A configuration whose hosts are those of `hosts.toml`, for `host` in `work`.
fn configure(work: &Path, host: &str, hosts_toml: &str) -> PathBuf {
    let root = work.join("certs.d");
    let dir = root.join(host.replace(':', "_") + "_");
    fs::create_dir_all(&dir).expect("the rig is writable");
    fs::write(dir.join("hosts.toml"), hosts_toml).expect("the rig is writable");
    let config = work.join("config.toml");
    let text = format!("[lazystar]\nconfig_path = {root:?}\n");
    fs::write(&config, text).expect("the rig is writable");
    config
}

/// Logs in to `host` as `docker login` does; gives the directory for `DOCKER_CONFIG`.
pub(crate) fn log_in(work: &Path, host: &str, password: &str) -> PathBuf {
    let dir = work.join("docker");
    fs::create_dir_all(&dir).expect("the rig is writable");
    let auth = STANDARD.encode(format!("{USER}:{password}"));
    let config = format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#);
    fs::write(dir.join("config.json"), config).expect("the rig is writable");
    dir
}

/// The size of the blob of the only layer of an image of the rig.
fn layer_size(rig: &Rig, image: &str) -> u64 {
    let name = format!("{}/{image}", rig.registry);
    let said = run(rig.lazystar(["inspect", "--json", "--plain-http", &name]));
    let said: serde_json::Value = serde_json::from_str(&said).expect("it prints JSON");
    let layers = said["layers"].as_array().expect("it has layers");
    layers.iter().filter_map(|layer| layer["size"].as_u64()).sum()
}

/// The regular files of an image that have content.
fn files(rig: &Rig, image: &str) -> Vec<(PathBuf, u64, Digest)> {
    let expected = rig.expected(image);
    let file = |(path, node): (&PathBuf, &lazystar_tests::tree::Node)| match node.kind {
        Kind::File { size: size @ 1.., digest } => Some((path.clone(), size, digest)),
        _ => None,
    };
    expected.nodes.iter().filter_map(file).collect()
}

/// `lazystar cat` of a file, which has to be what it should; what it prints on standard error otherwise.
fn cat(rig: &Rig, arguments: &[&OsStr], docker: &Path, image: &str) -> Result<(), String> {
    let (path, _, digest) =
        files(rig, &image[image.rfind('/').map_or(0, |at| at + 1)..]).swap_remove(3);
    let mut command = rig.lazystar(arguments);
    command.arg("cat").arg(image).arg(Path::new("/").join(path)).env("DOCKER_CONFIG", docker);
    let output = command.output().expect("it starts");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    assert_eq!(Digest::of(&output.stdout), digest);
    Ok(())
}

#[test]
fn a_private_registry_with_tls_and_client_certificates() {
    test("a_private_registry_with_tls_and_client_certificates", |rig| {
        let image = image(rig)?;
        let work = rig.work();
        let pems = Certificates::new().write(work.path()).expect("the rig is writable");
        let content = rig.file("registry")?;
        let options = Options {
            content: Some(&content),
            password: true,
            tls: Some(&pems),
            ..Options::default()
        };
        let registry = Registry::start_as(&work.path().join("registry"), &options)?;
        let host = &registry.address;
        let name = format!("{host}/{image}");
        let (ca, certificate, key) = (&pems.authority, &pems.client, &pems.client_key);
        let server = format!("server = \"https://{host}\"\nca = {ca:?}\n");
        let with_client = format!("{server}client = [[{certificate:?}, {key:?}]]\n");
        let docker = log_in(work.path(), host, PASSWORD);
        let attempt = |hosts_toml: &str, docker: &Path, cache: &str| {
            let config = configure(work.path(), host, hosts_toml);
            let cache = work.path().join(cache);
            let arguments = [
                OsStr::new("--config"),
                config.as_os_str(),
                OsStr::new("--cache-dir"),
                cache.as_os_str(),
            ];
            cat(rig, &arguments, docker, &name)
        };
        attempt(&with_client, &docker, "one").unwrap_or_else(|error| panic!("{error}"));
        let error = attempt(&server, &docker, "two").expect_err("it has no certificate");
        assert!(error.contains(host), "{error}");
        let wrong = log_in(&work.path().join("wrong"), host, "not it");
        let error = attempt(&with_client, &wrong, "three").expect_err("it has the wrong password");
        assert!(error.contains("docker login"), "{error}");
        assert!(!error.contains("not it"), "{error}");
        // What is cached needs neither.
        attempt(&with_client, &docker, "one").expect("it is cached");

        let config = configure(work.path(), host, &with_client);
        let mut doctor = rig.lazystar(["doctor", "--registry", host]);
        doctor.arg("--config").arg(config).env("DOCKER_CONFIG", &docker);
        let said = run(doctor);
        for part in [
            "Basic",
            "it then answers 200",
            "HTTP/2.0",
            "ranges: they work",
            "redirects: none",
            "rate:",
        ] {
            assert!(said.contains(part), "{part:?} is not in\n{said}");
        }
        Ok(())
    });
}

#[test]
fn a_registry_with_a_token_server() {
    test("a_registry_with_a_token_server", |rig| {
        let image = image(rig)?;
        let work = rig.work();
        let tokens = TokenServer::start(work.path(), USER, PASSWORD);
        let content = rig.file("registry")?;
        let realm = tokens.realm();
        let options = Options {
            content: Some(&content),
            tokens: Some((&realm, tokens.bundle())),
            ..Options::default()
        };
        let registry = Registry::start_as(&work.path().join("registry"), &options)?;
        let name = format!("{}/{image}", registry.address);
        let docker = log_in(work.path(), &registry.address, PASSWORD);
        let cache = work.path().join("cache");
        let arguments = [OsStr::new("--cache-dir"), cache.as_os_str()];
        cat(rig, &arguments, &docker, &name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(tokens.issued(), 1, "manifest and blobs share a token");

        let mut doctor = rig.lazystar(["doctor", "--registry", &name]);
        let said = run({
            doctor.env("DOCKER_CONFIG", &docker);
            doctor
        });
        assert!(said.contains("Bearer") && said.contains("ranges: they work"), "{said}");
        let wrong = log_in(&work.path().join("wrong"), &registry.address, "not it");
        let other = work.path().join("other");
        let arguments = [OsStr::new("--cache-dir"), other.as_os_str()];
        let error = cat(rig, &arguments, &wrong, &name).expect_err("it has the wrong password");
        assert!(error.contains("docker login"), "{error}");
        Ok(())
    });
}

/// A proxy of the environment is asked for whatever host, unless that is excepted.
#[test]
fn proxies_of_the_environment() {
    test("proxies_of_the_environment", |rig| {
        let image = image(rig)?;
        let work = rig.work();
        // To a proxy a request names its host, which a registry does not mind.
        let proxy = format!("http://{}", rig.registry);
        let name = format!("registry.invalid:5000/{image}");
        let list = |cache: &str, excepted: &str| {
            let mut command = rig.lazystar(["--plain-http", "--cache-dir"]);
            command.arg(work.path().join(cache)).args(["ls", &name, "/etc"]);
            command.env("HTTP_PROXY", &proxy).env("NO_PROXY", excepted).output().expect("it starts")
        };
        let listed = list("one", "");
        let errors = String::from_utf8_lossy(&listed.stderr).into_owned();
        assert!(listed.status.success(), "{errors}");
        assert!(String::from_utf8_lossy(&listed.stdout).contains("passwd"));
        assert!(!list("two", "registry.invalid").status.success());
        Ok(())
    });
}

/// The same with TLS, for which a proxy makes tunnels.
#[test]
fn tunnels_of_the_environment() {
    test("tunnels_of_the_environment", |rig| {
        let image = image(rig)?;
        let work = rig.work();
        let pems = Certificates::new().write(work.path()).expect("the rig is writable");
        let content = rig.file("registry")?;
        let options = Options { content: Some(&content), tls: Some(&pems), ..Options::default() };
        let registry = Registry::start_as(&work.path().join("registry"), &options)?;
        let (proxy, named) = tunnels(&registry.address).expect("a port on loopback");
        let host = "registry.invalid:5000";
        let (certificate, key) = (&pems.client, &pems.client_key);
        let hosts_toml = format!(
            "server = \"https://{host}\"\nskip_verify = true\nclient = [[{certificate:?}, {key:?}]]\n"
        );
        let config = configure(work.path(), host, &hosts_toml);
        let list = |cache: &str, excepted: &str| {
            let mut command = rig.lazystar(["ls", &format!("{host}/{image}"), "/etc"]);
            command.arg("--config").arg(&config).arg("--cache-dir").arg(work.path().join(cache));
            command.env("HTTPS_PROXY", format!("http://{proxy}")).env("NO_PROXY", excepted);
            command.output().expect("it starts")
        };
        let listed = list("one", "");
        let errors = String::from_utf8_lossy(&listed.stderr).into_owned();
        assert!(listed.status.success(), "{errors}");
        assert!(String::from_utf8_lossy(&listed.stdout).contains("passwd"));
        let mut named = named.lock().expect("nobody panics").clone();
        named.dedup();
        assert_eq!(named, [host]);
        assert!(!list("two", "registry.invalid").status.success());
        Ok(())
    });
}

/// Whatever reads an image takes credentials from wherever they may be.
#[test]
fn credentials_are_taken_from_everywhere() {
    test("credentials_are_taken_from_everywhere", |rig| {
        let image = rig.image(&["layers:ctr-esgz"])?;
        let work = rig.work();
        let content = rig.file("registry")?;
        let registry = Registry::start(&work.path().join("registry"), Some(&content))?;
        let name = format!("{}/{image}", registry.address);
        let file = log_in(work.path(), &registry.address, PASSWORD).join("config.json");
        let below = |dir: &str| {
            let path = work.path().join(dir).join("containers/auth.json");
            fs::create_dir_all(path.parent().expect("it has one")).expect("the rig is writable");
            fs::copy(&file, path).expect("the rig is writable");
            work.path().join(dir)
        };
        let config = work.path().join("config.toml");
        fs::write(&config, format!("[lazystar]\npull_secrets = [{file:?}]\n"))
            .expect("the rig is writable");
        let nowhere = work.path().join("nowhere");
        let verify = |variable: &str, value: &Path, more: &[&OsStr]| {
            let cache = tempfile::tempdir_in(work.path()).expect("the rig is writable");
            let mut command = rig.lazystar(["verify", &name]);
            command.arg("--cache-dir").arg(cache.path()).args(more);
            for unset in ["DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "HOME"] {
                command.env(unset, &nowhere);
            }
            command.env_remove("REGISTRY_AUTH_FILE").env(variable, value);
            command.output().expect("it starts")
        };
        let nothing = verify("DOCKER_CONFIG", &nowhere, &[]);
        assert!(String::from_utf8_lossy(&nothing.stderr).contains("docker login"), "{nothing:?}");
        for (variable, value, more) in [
            ("DOCKER_CONFIG", file.parent().expect("it has one").to_owned(), &[][..]),
            ("REGISTRY_AUTH_FILE", file.clone(), &[]),
            ("XDG_RUNTIME_DIR", below("run"), &[]),
            ("XDG_CONFIG_HOME", below("config"), &[]),
            ("DOCKER_CONFIG", nowhere.clone(), &[OsStr::new("--config"), config.as_os_str()]),
        ] {
            let verified = verify(variable, &value, more);
            assert!(verified.status.success(), "{variable}: {verified:?}");
        }
        Ok(())
    });
}

/// How a fleet shares downloads: what one machine read, the next ones have from the cache, and the registry is asked for
/// each blob once.
#[test]
fn a_pull_through_cache_fetches_a_blob_once_for_all() {
    test("a_pull_through_cache_fetches_a_blob_once_for_all", |rig| {
        need_fuse()?;
        let image = image(rig)?;
        let work = rig.work();
        let proxy = Proxy::start(&rig.registry).expect("a port on loopback");
        let upstream = proxy.address();
        let options = Options { cache_of: Some(&upstream), ..Options::default() };
        let cache = Registry::start_as(&work.path().join("registry"), &options)?;
        // The registry itself is not there: whatever is read comes from the cache.
        let host = "registry.invalid:5000";
        let front = Proxy::start(&cache.address).expect("a port on loopback");
        let hosts_toml = format!("[host.\"http://{}\"]\n", front.address());
        let config = configure(work.path(), host, &hosts_toml);
        let options = [OsStr::new("--config"), config.as_os_str()];
        let name = format!("{host}/{image}");
        let files = files(rig, &image);
        let mut sent = 0;
        for machine in ["one", "two"] {
            let dir = work.path().join(machine);
            fs::create_dir(&dir).expect("the rig is writable");
            let mounted =
                rig.try_mount(&name, &dir, &options).unwrap_or_else(|error| panic!("{error}"));
            for (path, size, digest) in &files {
                let read = fs::read(mounted.directory.join(path))
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                assert_eq!(
                    (read.len() as u64, Digest::of(&read)),
                    (*size, *digest),
                    "{}",
                    path.display()
                );
            }
            mounted.unmount();
            let total = proxy.bytes();
            println!("machine {machine}: {} bytes from the registry", total - sent);
            if machine == "one" {
                let blob = front.bytes();
                let size = layer_size(rig, &image);
                assert!(blob < size + size / 10, "{blob} bytes of a blob of {size}");
            } else {
                assert!(
                    total - sent < 100_000,
                    "{} bytes more for the second machine",
                    total - sent
                );
            }
            sent = total;
        }
        // The cache had to fetch the blob, and sent all of it meanwhile: the first machine kept that, and asked no more.
        let of_blobs = |proxy: &Proxy| {
            let requests = proxy.take_requests();
            requests.iter().filter(|it| it.starts_with("GET") && it.contains("/blobs/")).count()
        };
        println!(
            "requests for blobs: {} to the cache, {} by it",
            of_blobs(&front),
            of_blobs(&proxy)
        );
        Ok(())
    });
}

/// The mirror is killed while files are read through it: no read fails, and none takes two seconds longer.
#[test]
fn a_mirror_that_is_killed_in_the_middle_of_a_read() {
    test("a_mirror_that_is_killed_in_the_middle_of_a_read", |rig| {
        need_fuse()?;
        let image = rig.image(&["golang:esgz", "golang:ctr-esgz", "debian:esgz"])?;
        let work = rig.work();
        let content = rig.file("registry")?;
        let options = Options { content: Some(&content), ..Options::default() };
        let mut mirror = Registry::start_as(&work.path().join("registry"), &options)?;
        let (front, origin) = (
            Proxy::start(&mirror.address).expect("a port on loopback"),
            Proxy::start(&rig.registry).expect("a port on loopback"),
        );
        let hosts_toml = format!("[host.\"http://{}\"]\n", front.address());
        let config = configure(work.path(), &origin.address(), &hosts_toml);
        let options = [OsStr::new("--config"), config.as_os_str()];
        let name = format!("{}/{image}", origin.address());
        let mounted =
            rig.try_mount(&name, work.path(), &options).unwrap_or_else(|error| panic!("{error}"));
        let mut longest = Duration::ZERO;
        let files = files(rig, &image);
        let step = files.len().div_ceil(1500);
        for (at, (path, size, digest)) in files.iter().step_by(step).enumerate() {
            if at == 100 {
                assert_eq!(origin.bytes(), 0, "the mirror has everything");
                assert!(front.bytes() > 0);
                mirror.kill();
            }
            let started = Instant::now();
            let read = fs::read(mounted.directory.join(path))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            longest = longest.max(started.elapsed());
            assert_eq!(
                (read.len() as u64, Digest::of(&read)),
                (*size, *digest),
                "{}",
                path.display()
            );
        }
        println!(
            "the longest read took {longest:.1?}; {} bytes came from the registry",
            origin.bytes()
        );
        assert!(longest < Duration::from_secs(2), "{longest:?}");
        assert!(origin.bytes() > 0, "all of it was fetched before the mirror was killed");
        mounted.unmount();
        Ok(())
    });
}

/// containerd's own client, asked for the same images by the same files, asks the same hosts in the same order.
#[test]
fn containerd_asks_the_same_hosts() {
    test("containerd_asks_the_same_hosts", |rig| {
        need(&["ctr"])?;
        let work = rig.work();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("native/hosts");
        let mut compared = 0;
        for entry in fs::read_dir(golden).expect("it is checked in").flatten() {
            let text = fs::read_to_string(entry.path()).expect("it is text");
            let said = |what: &'static str| {
                text.lines().filter_map(move |line| line.strip_prefix("# ")?.strip_prefix(what))
            };
            let host = said("for: ").next().expect("a host");
            let file = entry.file_name().to_string_lossy().into_owned();
            let plan: Vec<_> = said("plan: ").collect();
            // What it fails on before it asks anybody: certificates that are not there, and what is newer than it.
            // This version also takes a file without mirrors for a broken one.
            let has_mirrors = text.contains("\n[host.");
            let unasked = !has_mirrors
                || plan.iter().any(|it| {
                    it.contains(" ca=") || it.contains(" client=") || it.contains(" proxy")
                })
                || file.contains("referrers")
                || file.contains("duration");
            // Nobody answers in a test at these, and TLS is tried before plain HTTP.
            if unasked
                || host.starts_with("localhost")
                || host.starts_with("127.")
                || plan.iter().any(|it| it.contains("192.168"))
            {
                continue;
            }
            let root = work.path().join(&file);
            fs::create_dir_all(root.join(host)).expect("the rig is writable");
            if text.lines().any(|line| !line.starts_with('#')) {
                fs::write(root.join(host).join("hosts.toml"), &text).expect("the rig is writable");
            }
            let digest = format!("sha256:{}", "0".repeat(64));
            let reference = format!("{host}/team/app:latest");
            let mut ctr = Command::new("timeout");
            ctr.args(["60", "ctr", "--debug", "content", "fetch-object", "--hosts-dir"]);
            let output =
                ctr.arg(&root).args([&reference, &digest]).output().expect("timeout is installed");
            let log = String::from_utf8_lossy(&output.stderr);
            // No host answers; each failure says what was asked.
            let mut asked: Vec<String> = Vec::new();
            for part in log.split("Head \\\"").skip(1) {
                let url = part.split("\\\"").next().unwrap_or_default().to_owned();
                if asked.last() != Some(&url) {
                    asked.push(url);
                }
            }
            let resolve = plan.iter().filter(|it| it.contains("resolve"));
            let mut wanted: Vec<_> = resolve.map(|it| resolving(it)).collect();
            // One that is listed twice is asked twice, which does not show.
            wanted.dedup();
            // The client repeats what all of them failed at.
            asked.truncate(wanted.len());
            assert_eq!(asked, wanted, "{file}\n{log}");
            compared += 1;
        }
        println!("{compared} files compared");
        assert!(compared >= 10);
        Ok(())
    });
}

/// The request that a line of a plan stands for.
fn resolving(line: &str) -> String {
    let mut words = line.split(' ');
    let base = words.next().unwrap_or_default();
    let namespace = words.find_map(|word| word.strip_prefix("ns="));
    let query = namespace.map(|it| format!("?ns={}", it.replace(':', "%3A"))).unwrap_or_default();
    format!("{base}team/app/manifests/latest{query}")
}
