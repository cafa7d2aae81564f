//! A writable mount is a root file system to work in.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::rig::{need_fuse, need_root, run, shell, test};

const HELLO: &str = r#"package main

import "fmt"

func main() { fmt.Println("hello from a lazy mount") }
"#;

#[test]
fn go_builds_in_a_writable_mount() {
    test("go_builds_in_a_writable_mount", |rig| {
        need_fuse()?;
        need_root()?;
        let image = rig.image(&["golang:esgz", "golang:ctr-esgz"])?;
        let work = rig.work();
        let changes = work.path().join("changes");
        let reference = format!("{}/{image}", rig.registry);
        let options = [OsStr::new("--rw"), changes.as_os_str()];
        let mounted = rig
            .try_mount(&reference, work.path(), &options)
            .unwrap_or_else(|error| panic!("{error}"));
        fs::write(mounted.directory.join("root/hello.go"), HELLO).expect("the mount is writable");
        // A private mount namespace takes /proc and /dev away again.
        let script = r#"
            mount --rbind /dev "$1/dev"
            mount -t proc proc "$1/proc"
            exec chroot "$1" env HOME=/tmp GOCACHE=/tmp/cache GO111MODULE=off PATH=/usr/bin:/bin \
                sh -c 'cd /root && go build hello.go && ./hello'"#;
        let mut build = shell(
            "exec unshare --mount --propagation private bash -ec \"$2\" bash \"$1\"",
            [&mounted.directory],
        );
        build.arg(script);
        assert_eq!(run(build), "hello from a lazy mount\n");

        let release = mounted.directory.join("usr/lib/os-release");
        fs::write(&release, "changed").expect("a lower file is writable");
        fs::remove_file(mounted.directory.join("usr/bin/perl"))
            .expect("a lower file can be removed");
        assert_eq!(fs::read_to_string(&release).expect("it reads"), "changed");
        mounted.unmount();

        let mounted = rig
            .try_mount(&reference, work.path(), &options)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            fs::read_to_string(mounted.directory.join("usr/lib/os-release")).expect("it reads"),
            "changed"
        );
        assert!(!mounted.directory.join("usr/bin/perl").exists());
        assert!(mounted.directory.join(Path::new("root/hello")).exists());
        mounted.unmount();
        Ok(())
    });
}
