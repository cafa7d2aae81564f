//! A registry that fails costs what was not read yet, for as long as it fails, and nothing else.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lazystar_tests::proxy::{Network, Proxy};
use lazystar_tests::tree::Kind;

use crate::rig::{Rig, Skip, need_fuse, test};

const SMALL: &str = "usr/lib/os-release";
/// Longer than a read may wait for a registry that refuses connections.
const DEADLINE: Duration = Duration::from_secs(60);

/// The largest image there is: the least likely to be fetched before the registry fails.
fn image(rig: &Rig) -> Result<String, Skip> {
    rig.image(&["golang:esgz", "golang:ctr-esgz", "debian:esgz", "debian:ctr-esgz"])
}

/// Paths of the regular files of `image` that have content, in a fixed order.
fn files(rig: &Rig, image: &str) -> Vec<PathBuf> {
    let expected = rig.expected(image);
    let has_content = |kind: &Kind| matches!(kind, Kind::File { size: 1.., .. });
    expected
        .nodes
        .iter()
        .filter(|(_, node)| has_content(&node.kind))
        .map(|(path, _)| path.clone())
        .collect()
}

/// Reads a file, waiting no longer than the deadline.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || sender.send(fs::read(path)));
    receiver.recv_timeout(DEADLINE).expect("a read ends within the deadline")
}

#[test]
fn reads_fail_and_recover_with_the_registry() {
    test("reads_fail_and_recover_with_the_registry", |rig| {
        need_fuse()?;
        let image = image(rig)?;
        let files = files(rig, &image);
        let proxy = Proxy::start(&rig.registry).expect("a port on loopback");
        let work = rig.work();
        let config = work.path().join("config.toml");
        fs::write(&config, "[lazystar]\non_unavailable = \"error\"\n")
            .expect("the rig is writable");
        let name = format!("{}/{image}", proxy.address());
        let options = [OsStr::new("--config"), config.as_os_str()];
        let mounted = rig.try_mount(&name, work.path(), &options).expect("the registry is up");
        let small = mounted.directory.join(SMALL);
        let content = read(&small).expect("the registry is up");
        proxy.set(Network::Down);

        let started = Instant::now();
        let failed =
            files.iter().find_map(|path| Some((path, read(&mounted.directory.join(path)).err()?)));
        let Some((failed, error)) = failed else {
            return Err(Skip(format!("all of {image} was fetched before its registry could fail")));
        };
        println!("{}: {error} after {:.1?}", failed.display(), started.elapsed());
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
        assert_eq!(read(&small).expect("what was read stays readable"), content);
        assert!(fs::read_dir(&mounted.directory).expect("the mount lives").count() > 5);

        proxy.set(Network::Up);
        let started = Instant::now();
        let recovered = loop {
            match read(&mounted.directory.join(failed)) {
                Ok(recovered) => break recovered,
                Err(error) => {
                    assert!(started.elapsed() < Duration::from_secs(30), "no recovery: {error}")
                }
            }
            thread::sleep(Duration::from_millis(200));
        };
        println!("recovered after {:.1?}", started.elapsed());
        let size = recovered.len() as u64;
        let digest = lazystar_core::Digest::of(&recovered);
        assert_eq!(rig.expected(&image).nodes[failed].kind, Kind::File { size, digest });
        mounted.unmount();
        Ok(())
    });
}

#[test]
fn a_reader_blocked_on_a_hanging_registry_can_be_killed() {
    test("a_reader_blocked_on_a_hanging_registry_can_be_killed", |rig| {
        need_fuse()?;
        let image = image(rig)?;
        let files = files(rig, &image);
        let proxy = Proxy::start(&rig.registry).expect("a port on loopback");
        let work = rig.work();
        let mounted = rig.mount(&format!("{}/{image}", proxy.address()), work.path());
        proxy.set(Network::Blackhole);
        // An argument list has a limit; a thousand files are more than one request brings.
        let paths = files
            .iter()
            .step_by(files.len().div_ceil(1000))
            .map(|path| mounted.directory.join(path));
        let mut through_pages = Command::new("cat");
        through_pages.args(paths);
        // The kernel gives this one no page to wait for: it waits for the answer itself.
        let mut without = Command::new("dd");
        let last = files.iter().rev().find(|path| path.extension().is_some_and(|it| it == "so"));
        let last = mounted.directory.join(last.unwrap_or(&files[files.len() - 1]));
        without.arg(format!("if={}", last.display())).args([
            "of=/dev/null",
            "bs=4k",
            "iflag=direct",
        ]);
        let mut readers = [through_pages, without].map(|mut reader| {
            reader.stdout(Stdio::null()).stderr(Stdio::null());
            reader.spawn().expect("it is installed")
        });
        thread::sleep(Duration::from_secs(2));
        for reader in &mut readers {
            if reader.try_wait().expect("it is our child").is_some() {
                return Err(Skip(format!(
                    "all of {image} was fetched before its registry could hang"
                )));
            }
            reader.kill().expect("it is our child");
            let killed = Instant::now();
            while reader.try_wait().expect("it is our child").is_none() {
                assert!(killed.elapsed() < Duration::from_secs(1), "the reader is still there");
                thread::sleep(Duration::from_millis(10));
            }
            println!("gone after {:.0?}", killed.elapsed());
        }
        assert!(fs::read_dir(&mounted.directory).expect("the mount lives").count() > 5);
        proxy.set(Network::Up);
        mounted.unmount();
        Ok(())
    });
}

/// How long the registry is away below. Longer than any patience that a registry might be thought to need.
const BLACKHOLE: Duration = Duration::from_secs(60);
/// The deadline of whoever wants an error.
const SOON: Duration = Duration::from_secs(5);

/// A minute in which packets go nowhere, in the middle of a read: who waits, knows of nothing afterwards; who wants an
/// error, has it in time; both read on when it is over.
#[test]
fn a_minute_without_a_network() {
    test("a_minute_without_a_network", |rig| {
        need_fuse()?;
        let image = image(rig)?;
        let expected = rig.expected(&image);
        let files = files(rig, &image);
        let proxy = Proxy::start(&rig.registry).expect("a port on loopback");
        let name = format!("{}/{image}", proxy.address());
        let (patient, hasty) = (rig.work(), rig.work());
        let config = hasty.path().join("config.toml");
        let text = format!(
            "[lazystar]\non_unavailable = \"error\"\nunavailable_deadline_sec = {}\n",
            SOON.as_secs()
        );
        fs::write(&config, text).expect("the rig is writable");
        let options = [OsStr::new("--config"), config.as_os_str()];
        let waits = rig.mount(&name, patient.path());
        let fails = rig.try_mount(&name, hasty.path(), &options).expect("the registry is up");
        let content = read(&waits.directory.join(SMALL)).expect("the registry is up");

        // From the end, far from what was read ahead.
        let paths: Vec<_> = files.iter().rev().step_by(7).take(300).cloned().collect();
        let below = waits.directory.clone();
        let reading = thread::spawn(move || {
            let read = paths.into_iter().map(|path| (fs::read(below.join(&path)), path));
            read.collect::<Vec<_>>()
        });
        thread::sleep(Duration::from_millis(50));
        proxy.set(Network::Blackhole);
        let began = Instant::now();
        let failed = files.iter().find_map(|path| {
            let started = Instant::now();
            let error = fs::read(fails.directory.join(path)).err()?;
            Some((path, error, started.elapsed()))
        });
        let Some((failed, error, took)) = failed else {
            return Err(Skip(format!("all of {image} was fetched before its registry could hang")));
        };
        println!("{error} after {took:.1?}");
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
        assert!(took < SOON + Duration::from_secs(1), "{took:?}");
        assert_eq!(fs::read(waits.directory.join(SMALL)).expect("it is cached"), content);

        thread::sleep(BLACKHOLE.saturating_sub(began.elapsed()));
        assert!(!reading.is_finished(), "nothing was left to wait for");
        proxy.set(Network::Up);
        let back = Instant::now();
        for (read, path) in reading.join().expect("it does not panic") {
            let read = read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let (size, digest) = (read.len() as u64, lazystar_core::Digest::of(&read));
            assert_eq!(
                expected.nodes[&path].kind,
                Kind::File { size, digest },
                "{}",
                path.display()
            );
        }
        println!("read on {:.1?} after the network was back", back.elapsed());
        read(&fails.directory.join(failed)).expect("the registry is back");
        waits.unmount();
        fails.unmount();
        Ok(())
    });
}
