//! Docker, and the BuildKit in it, with Lazystar as snapshotter: the example of BuildKit's own document on lazy pulling.

use std::path::Path;
use std::process::Command;

use crate::registry::Registry;
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

/// Pulls `$1/$2` and builds on it, in two stages; then the pulled image and the result go elsewhere: to the registry `$3`
/// and into a tar, from where a containerd runs them without Lazystar.
const ELSEWHERE: &str = r#"
registry=$1 base=$1/$2 elsewhere=$3
digest='tar --create --sort=name --format=gnu --numeric-owner /usr /copied 2>/dev/null | sha256sum'
docker pull --quiet "$base" >&2
echo "lazily $(grep -c '"remote-snapshot-prepared":"true"' lazystar.log)"
echo "ordinary $(grep -c '"remote-snapshot-prepared":"false"' lazystar.log)"
echo "stored $(du -sk root/io.containerd.content.v1.content | cut -f1)"
echo "pulled $(docker run --rm --network host "$base" sh -c "$digest")"
mkdir context
cat >context/Dockerfile <<DOCKERFILE
FROM $base AS one
RUN --mount=type=cache,target=/cache echo cached >/cache/x && cp /usr/bin/dpkg /from-lazy && rm -r /usr/share/doc
FROM $base
COPY --from=one /from-lazy /copied/
COPY --from=$base /usr/lib/os-release /copied/
RUN --mount=type=cache,target=/cache cat /cache/x >/copied/cache; rm /usr/bin/dpkg
DOCKERFILE
build() { docker build --progress plain --network host --tag "$elsewhere/built:1" context 2>&1; }
build >&2
echo "cached $(build | grep -c CACHED)"
echo "built $(docker run --rm --network host "$elsewhere/built:1" sh -c "$digest")"
echo "copied $(docker run --rm --network host "$elsewhere/built:1" sh -c 'cat /copied/cache; ls /copied | wc -l')" | tr '
' ' '
echo
docker tag "$base" "$elsewhere/pulled:1"
for image in pulled built; do
    lazystar fetch --address "$state/sock" --namespace moby --plain-http "$elsewhere/$image:1" >&2
    docker push --quiet "$elsewhere/$image:1" >&2
    docker save "$elsewhere/$image:1" --output "$image.tar"
    ctr --namespace pushed images pull --local --plain-http "$elsewhere/$image:1" >/dev/null
    ctr --namespace saved images import --local "$image.tar" >/dev/null
    for from in pushed saved; do
        name=$(ctr --namespace $from images ls --quiet | grep "$image:1")
        echo "$image-$from $(ctr --namespace $from run --rm --net-host "$name" "$image-$from-$$" sh -c "$digest")"
    done
done
"#;

/// Runs a script beside a dockerd with a storage driver: `stargz` is Lazystar.
pub(crate) fn in_docker(
    rig: &Rig,
    driver: &str,
    script: &str,
    arguments: &[&str],
) -> Result<String, Skip> {
    rig.file("forky/usr/sbin/dockerd")?;
    let in_docker = Path::new(env!("CARGO_MANIFEST_DIR")).join("rig/in-docker");
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "240"]).arg(in_docker).arg(script).args(arguments);
    command.env("LAZYSTAR_BIN", rig.binary()).env("driver", driver);
    Ok(run(command))
}

/// What the script printed after a word.
fn answer<'a>(printed: &'a str, word: &str) -> &'a str {
    let mut answers = printed.lines().filter_map(|line| line.split_once(' '));
    let found = answers.find(|(first, _)| *first == word);
    found.unwrap_or_else(|| panic!("no {word} in {printed}")).1.trim()
}

#[test]
fn docker_pulls_lazily_and_its_images_go_elsewhere() {
    test("docker_pulls_lazily_and_its_images_go_elsewhere", |rig| {
        need_root()?;
        need_fuse()?;
        let debian = rig.image(&["debian:ctr-esgz", "debian:esgz"])?;
        let work = rig.work();
        let elsewhere = Registry::start(work.path(), None)?;
        let printed =
            in_docker(rig, "stargz", ELSEWHERE, &[&rig.registry, &debian, &elsewhere.address])?;
        let answer = |word: &str| answer(&printed, word);
        let number = |word: &str| answer(word).parse::<u64>().expect("a number");
        assert!(number("lazily") > 0 && number("ordinary") == 0, "{printed}");
        // The image has 50 MB; its manifest and configuration are there.
        assert!(number("stored") < 500, "{printed}");
        assert_eq!(number("cached"), 4, "all steps of the second build: {printed}");
        assert_eq!(answer("copied"), "cached 3");
        for image in ["pulled", "built"] {
            for from in ["pushed", "saved"] {
                let place = format!("{image}-{from}");
                assert_eq!(answer(&place), answer(image), "{place}");
            }
        }
        assert_ne!(answer("pulled"), answer("built"));
        Ok(())
    });
}

#[test]
fn docker_builds_and_runs_on_lazy_images() {
    test("docker_builds_and_runs_on_lazy_images", |rig| {
        need_root()?;
        need_fuse()?;
        let golang = rig.image(&["golang:ctr-esgz", "golang:esgz"])?;
        let debian = rig.image(&["debian:ctr-esgz", "debian:esgz"])?;
        let printed = in_docker(rig, "stargz", SCRIPT, &[&rig.registry, &golang, &debian])?;
        let answer = |word: &str| answer(&printed, word);
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
