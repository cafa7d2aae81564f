//! Mounted images show exactly what their tar has, for as few requests as promised.

use std::fs;
use std::process::Command;
use std::time::Instant;

use lazystar_tests::proxy::Proxy;
use lazystar_tests::tree::Tree;

use crate::rig::{need, need_fuse, run, test};

/// A small file of every root file system here.
const SMALL: &str = "usr/lib/os-release";

#[test]
fn every_image_shows_the_tree_of_its_tar() {
    test("every_image_shows_the_tree_of_its_tar", |rig| {
        need_fuse()?;
        let mut failures = Vec::new();
        for image in rig.images() {
            let work = rig.work();
            let started = Instant::now();
            let mounted =
                match rig.try_mount(&format!("{}/{image}", rig.registry), work.path(), &[]) {
                    Ok(mounted) => mounted,
                    Err(error) if image.ends_with(":plain") => {
                        println!("{image}: refused: {error}");
                        continue;
                    }
                    Err(error) => {
                        failures.push(format!("{image}: {error}"));
                        continue;
                    }
                };
            let mount_time = started.elapsed();
            match Tree::of_directory(&mounted.directory) {
                Ok(found) => {
                    let differences = rig.expected(&image).differences(&found);
                    failures
                        .extend(differences.iter().take(20).map(|line| format!("{image}: {line}")));
                    if differences.len() > 20 {
                        failures.push(format!("{image}: {} differences in all", differences.len()));
                    }
                    println!(
                        "{image}: {} paths, mount {mount_time:.2?}, all {:.2?}",
                        found.nodes.len(),
                        started.elapsed()
                    );
                }
                Err(error) => failures.push(format!("{image}: {error}")),
            }
            mounted.unmount();
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(())
    });
}

#[test]
fn mounting_costs_one_get_for_each_layer() {
    test("mounting_costs_one_get_for_each_layer", |rig| {
        need_fuse()?;
        need(&["skopeo"])?;
        let image = rig.image(&["debian:esgz", "debian:ctr-esgz"])?;
        let mut inspect = Command::new("skopeo");
        inspect.args([
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{range .Layers}}{{println .}}{{end}}",
        ]);
        inspect.arg(format!("docker://{}/{image}", rig.registry));
        let layers = run(inspect);
        let layers: Vec<&str> = layers.split_whitespace().collect();

        let proxy = Proxy::start(&rig.registry).expect("a port on loopback");
        let work = rig.work();
        let mounted = rig.mount(&format!("{}/{image}", proxy.address()), work.path());
        let requests = proxy.take_requests();
        let is_layer = |request: &String| layers.iter().any(|layer| request.ends_with(layer));
        let gets =
            requests.iter().filter(|request| request.starts_with("GET ") && is_layer(request));
        assert_eq!(gets.count(), layers.len(), "{requests:#?}");
        mounted.unmount();
        Ok(())
    });
}

#[test]
fn a_second_mount_reads_no_blob_again() {
    test("a_second_mount_reads_no_blob_again", |rig| {
        need_fuse()?;
        let image = rig.image(&["debian:esgz", "debian:ctr-esgz"])?;
        let proxy = Proxy::start(&rig.registry).expect("a port on loopback");
        let work = rig.work();
        let reference = format!("{}/{image}", proxy.address());
        let mounted = rig.mount(&reference, work.path());
        let first = fs::read(mounted.directory.join(SMALL)).expect("the file reads");
        mounted.unmount();
        let requests = proxy.take_requests();
        assert!(requests.iter().any(|request| request.contains("/blobs/")), "{requests:#?}");

        let mounted = rig.mount(&reference, work.path());
        let second = fs::read(mounted.directory.join(SMALL)).expect("the file reads");
        let requests = proxy.take_requests();
        assert_eq!(first, second);
        assert!(!requests.iter().any(|request| request.contains("/blobs/")), "{requests:#?}");
        mounted.unmount();
        Ok(())
    });
}

#[test]
fn a_file_is_read_without_mounting() {
    test("a_file_is_read_without_mounting", |rig| {
        let image = rig.image(&["debian:esgz", "debian:ctr-esgz"])?;
        let proxy = Proxy::start(&rig.registry).expect("a port on loopback");
        let reference = format!("{}/{image}", proxy.address());
        let of_command =
            |name: &str, path: &str| run(rig.lazystar([name, "--plain-http", &reference, path]));
        assert!(of_command("cat", "/usr/lib/os-release").contains("VERSION_CODENAME=bookworm"));
        let names = of_command("ls", "/");
        assert!(["bin", "etc", "usr"].iter().all(|name| names.contains(name)), "{names}");
        assert!(of_command("stat", "/usr/bin/perl").contains("perl"));
        assert!(
            proxy.bytes() < 8 << 20,
            "{} bytes for one file and two directories",
            proxy.bytes()
        );
        Ok(())
    });
}
