//! The engine in its sandbox, under the native host, gives what the engine inside of it gives.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use lazystar_tests::tree::Tree;

use crate::rig::{Rig, Skip, need_fuse, run, test};

const WASM: [&str; 2] = ["--engine", "wasm"];
/// A file of every root file system here, by a symbolic link.
const SMALL: &str = "/etc/os-release";

/// The rig with a binary that has the sandbox.
fn sandboxed(rig: &Rig) -> Result<Rig, Skip> {
    let binary = std::env::var_os("LAZYSTAR_WASM_BIN")
        .ok_or_else(|| Skip("LAZYSTAR_WASM_BIN is not set".to_owned()))?;
    Ok(rig.with_binary(binary.into()))
}

#[test]
fn a_sandboxed_mount_shows_the_tree_of_its_tar() {
    test("a_sandboxed_mount_shows_the_tree_of_its_tar", |rig| {
        need_fuse()?;
        let rig = sandboxed(rig)?;
        for image in ["layers:ctr-esgz", "layers:ctr-zstdchunked"] {
            let work = rig.work();
            let reference = format!("{}/{}", rig.registry, rig.image(&[image])?);
            let mounted =
                rig.try_mount(&reference, work.path(), &WASM.map(OsStr::new)).expect("it mounts");
            let found = Tree::of_directory(&mounted.directory).expect("it reads");
            let differences = rig.expected(image).differences(&found);
            assert!(differences.is_empty(), "{image}: {}", differences.join("\n"));
            mounted.unmount();
        }
        Ok(())
    });
}

#[test]
fn sandboxed_commands_say_what_the_others_say() {
    test("sandboxed_commands_say_what_the_others_say", |rig| {
        let rig = sandboxed(rig)?;
        let work = rig.work();
        let forms = ["esgz", "zstdchunked", "ctr-exttoc", "ctr-minchunk", "ctr-zstdchunked"];
        for form in forms {
            let image = format!("{}/{}", rig.registry, rig.image(&[&format!("debian:{form}")])?);
            let calls: [&[&str]; 5] = [
                &["cat", &image, SMALL, "/usr/bin/perl"],
                &["ls", "--long", &image, "/etc"],
                &["ls", "--json", &image, SMALL],
                &["stat", "--json", &image, "/usr/bin/passwd", SMALL],
                &["tree", "--json", &image, "/usr/share"],
            ];
            for call in calls {
                let of = |engine: &[&str]| {
                    let mut command = rig.lazystar(["--plain-http", "--cache-dir"]);
                    command.arg(work.path()).args(engine).args(call);
                    let output = command.output().expect("timeout is installed");
                    assert!(output.status.success(), "{call:?}: {output:?}");
                    output.stdout
                };
                assert!(of(&[]) == of(&WASM), "{call:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn the_plugin_writes_the_tar_and_checks_the_image() {
    test("the_plugin_writes_the_tar_and_checks_the_image", |rig| {
        let program = sandboxed(rig)?.binary().with_file_name("examples/lazystar-plugin");
        let plugin = |arguments: &[&str]| {
            let mut command = Command::new(&program);
            let component = concat!(env!("CARGO_MANIFEST_DIR"), "/../host-wasm/dist/engine.wasm");
            command.args(["--plain-http", "--component", component]).args(arguments);
            let output = command.output().expect("the example is built beside the binary");
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            output.stdout
        };
        let image = rig.image(&["layers:ctr-zstdchunked"])?;
        let reference = format!("{}/{image}", rig.registry);
        let work = rig.work();
        let tar = work.path().join("tar");
        fs::write(&tar, plugin(&["tar", &reference])).expect("the rig is writable");
        // It has no entry for the directory that its names are relative to.
        let differences = rig.expected(&image).differences(&Tree::of_tar(&tar).expect("a tar"));
        assert_eq!(differences, [": missing"]);
        let verified = plugin(&["verify", &reference]);
        assert!(verified.ends_with(b"all as digested\n"), "{verified:?}");
        let listed = String::from_utf8(plugin(&["ls", &reference])).expect("names");
        assert!(!listed.is_empty());
        Ok(())
    });
}

#[test]
fn a_sandbox_refuses_what_nobody_vouches_for() {
    test("a_sandbox_refuses_what_nobody_vouches_for", |rig| {
        let rig = sandboxed(rig)?;
        let image = format!("{}/{}", rig.registry, rig.special("debian:stargz")?);
        let arguments = |more: &'static [&'static str]| {
            let common = ["cat", "--plain-http", &image, SMALL].map(str::to_owned);
            common.into_iter().chain(WASM.iter().chain(more).map(|it| (*it).to_owned()))
        };
        let output = rig.lazystar(arguments(&[])).output().expect("timeout is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("cannot be verified"), "{errors}");
        let content = run(rig.lazystar(arguments(&["--allow-unverified"])));
        assert!(content.contains("VERSION_CODENAME"), "{content}");
        Ok(())
    });
}
