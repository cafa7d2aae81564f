//! What containers read under the snapshotter, and what becomes of that.

use std::fs;

use rustix::process::Signal;

use crate::containerd::Containerd;
use crate::convert::names;
use crate::rig::{run, test};

/// The paths in a file of records, in their order.
fn paths(records: &str) -> Vec<String> {
    let path = |line: &str| -> String {
        let record: serde_json::Value = serde_json::from_str(line).expect("it is a record");
        assert_eq!(record["layerIndex"], 0);
        assert_eq!(record["chunks"][0], 0, "{line}");
        record["path"].as_str().expect("it has a path").to_owned()
    };
    records.lines().map(path).collect()
}

#[test]
fn what_containers_read_comes_first_in_the_next_image() {
    test("what_containers_read_comes_first_in_the_next_image", |rig| {
        let mut it = Containerd::start(rig)?;
        let image = rig.image(&["debian:ctr-esgz", "debian:esgz"])?;
        let at = |name: &str| it.work.path().join(name);
        let (root, cache, records, layout) = (at("lazy"), at("cache"), at("records"), at("layout"));
        let record = |image: &str, root: &std::path::Path| {
            let mut command = rig.lazystar(["record", "--plain-http", "--cache-dir"]);
            command.arg(&cache).arg("--root").arg(root).arg(format!("{}/{image}", rig.registry));
            command
        };
        let refused = |image: &str, root: &std::path::Path, why: &str| {
            let output = record(image, root).output().expect("timeout is installed");
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && errors.contains(why), "{errors}");
        };
        refused(&image, &root, "has no layer of");
        refused(&image, &at("nowhere"), "no snapshotter serves layers");

        it.pull_lazily(&image);
        assert_eq!(run(record(&image, &root)), "", "nothing was read");
        // Two containers; what the first one read comes first.
        it.run("stargz", &image, "cat /etc/debian_version");
        it.run("stargz", &image, "cat /etc/issue /etc/debian_version");
        let first = paths(&run(record(&image, &root)));
        let place = |paths: &[String], of: &str| {
            let found = paths.iter().position(|path| path == of);
            found.unwrap_or_else(|| panic!("{of} was read: {paths:?}"))
        };
        let in_order = ["usr/bin/dash", "usr/bin/cat", "etc/debian_version", "etc/issue"];
        let places = in_order.map(|of| place(&first, of));
        assert!(places.is_sorted(), "{first:?}");
        assert!(first.len() < 40, "{first:?}");

        // The daemon may be killed in between.
        it.kill_lazystar(Signal::KILL);
        it.start_lazystar();
        it.wait_until("containerd connects again", || {
            let listed = it.ctr(&["snapshots", "--snapshotter=stargz", "ls"]).output();
            listed.is_ok_and(|output| output.status.success())
        });
        it.run("stargz", &image, "cat /usr/bin/dpkg >/dev/null");
        let mut command = record(&image, &root);
        command.arg("--output").arg(&records);
        run(command);
        let all = paths(&fs::read_to_string(&records).expect("it is there"));
        assert_eq!(all[..first.len()], first);
        assert!(place(&all, "usr/bin/dpkg") >= first.len());

        // What is hot in the first layer of an image that the record makes.
        let hot = |tag: &str, command: &str, workload: &[&str]| {
            let to = format!("oci:{}:{tag}", layout.display());
            let mut command = rig.lazystar([command, "--plain-http", "--cache-dir"]);
            command.arg(&cache).args([&format!("{}/debian:plain", rig.registry), &to]);
            command.arg("--from-record").arg(&records).args(workload);
            run(command);
            let names = names(rig, &to, &layout, &cache).remove(0);
            let landmark = place(&names, ".prefetch.landmark");
            let hot = names[..landmark].iter().filter(|name| !name.ends_with('/'));
            hot.map(|name| name.trim_start_matches("./").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(hot("converted", "convert", &[]), all);
        // With what a command reads beside it, which comes after that.
        let merged = hot("optimized", "optimize", &["--", "/usr/bin/true"]);
        assert_eq!(merged[..all.len()], all);
        assert_eq!(merged[all.len()..], ["usr/bin/true"]);
        Ok(())
    });
}
