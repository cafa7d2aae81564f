//! Docker, and the BuildKit in it, with Lazystar as snapshotter: the example of BuildKit's own document on lazy pulling.

use std::path::Path;
use std::process::Command;

use crate::rig::{Rig, Skip, need_fuse, need_root, run, test};

/// Builds the hello example on the Go image `$1/$2`, twice, and runs the result; then runs an image that nobody pulled,
/// `$1/$3`. Prints what the test wants to know, a word before each answer.
const SCRIPT: &str = r#"
registry=$1 golang=$2 debian=$3
mkdir context
cat >context/hello.go <<'GO'
package main

import "fmt"

func main() {
	fmt.Println("Hello, world!")
}
GO
cat >context/Dockerfile <<DOCKERFILE
FROM $registry/$golang AS dev
COPY ./hello.go /hello.go
RUN --mount=type=cache,target=/tmp/cache GOCACHE=/tmp/cache HOME=/tmp go build -o /hello /hello.go
FROM scratch
COPY --from=dev /hello /
ENTRYPOINT ["/hello"]
DOCKERFILE
docker build --quiet --network host --tag hello context >&2
echo "says $(docker run --rm --network host hello)"
echo "cached $(docker build --progress plain --network host --tag hello context 2>&1 | grep -c CACHED)"
echo "version $(docker run --rm --network host "$registry/$debian" sh -c 'dpkg --version | head -1')"
docker save hello --output hello.tar
echo "saved $(tar -tf hello.tar | grep -c '^blobs/sha256/.')"
echo "lazily $(grep -c '"remote-snapshot-prepared":"true"' lazystar.log)"
echo "stored $(du -sm root/io.containerd.content.v1.content | cut -f1)"
"#;

fn in_docker(rig: &Rig, arguments: &[&str]) -> Result<String, Skip> {
    rig.file("forky/usr/sbin/dockerd")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("rig/in-docker");
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "240"]).arg(script).arg(SCRIPT).args(arguments);
    command.env("LAZYSTAR_BIN", rig.binary());
    Ok(run(command))
}

#[test]
fn docker_builds_and_runs_on_lazy_images() {
    test("docker_builds_and_runs_on_lazy_images", |rig| {
        need_root()?;
        need_fuse()?;
        let golang = rig.image(&["golang:ctr-esgz", "golang:esgz"])?;
        let debian = rig.image(&["debian:ctr-esgz", "debian:esgz"])?;
        let printed = in_docker(rig, &[&rig.registry, &golang, &debian])?;
        let answer = |word: &str| {
            let line = printed.lines().find_map(|line| line.strip_prefix(word));
            line.unwrap_or_else(|| panic!("no {word} in {printed}")).trim()
        };
        let number = |word: &str| answer(word).parse::<u64>().expect("a number");
        assert_eq!(answer("says"), "Hello, world!");
        assert_eq!(number("cached"), 3, "all steps of the second build");
        assert!(answer("version").contains("dpkg"), "{printed}");
        assert!(number("saved") >= 2, "{printed}");
        assert!(number("lazily") >= 2, "{printed}");
        // The layer of the Go image alone has 250 MB.
        assert!(number("stored") < 50, "{printed}");
        Ok(())
    });
}
