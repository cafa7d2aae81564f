//! Without root: an ordinary user's containerd and BuildKit, in a user namespace, on images that are not downloaded.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::rig::{Rig, Skip, need, need_fuse, need_root, run, test};

/// Ids that an image may use.
const IDS: u64 = 65_536;

/// Pulls `$1` and runs it with a containerd and a snapshotter of the user's own.
const CONTAINERD: &str = r#"
cat >containerd.toml <<TOML
version = 2
root = "$PWD/root"
state = "$PWD/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$PWD/sock"
[ttrpc]
  address = "$PWD/ttrpc"
[proxy_plugins.stargz]
  type = "snapshot"
  address = "$XDG_RUNTIME_DIR/containerd-stargz-grpc/containerd-stargz-grpc.sock"
TOML
lazystar snapshotter 2>snapshotter.log &
containerd --config containerd.toml 2>containerd.log &
for _ in $(seq 100); do
    ctr --address sock snapshots --snapshotter stargz ls >/dev/null 2>&1 && break
    sleep 0.1
done
echo "pulled $(lazystar pull --address "$PWD/sock" "$1" | tail -1)"
# Its own network and no cgroup: those of the machine are not this user's.
ctr --address sock run --rm --cgroup '' --cpu-shares 0 --snapshotter stargz "$1" one sh -c '
    echo "runs $(go version)"
    echo "owned $(stat -c %u:%g /etc/shadow)"
    rm -r /usr/share/doc && mkdir /usr/share/doc && echo "opaque $(ls -A /usr/share/doc | wc -l)"
    rm /usr/bin/dpkg && echo "removed $(ls /usr/bin/dpkg 2>&1 | grep -c "No such file")"' || tail containerd.log >&2
echo "stored $(du -sm root/io.containerd.content.v1.content | cut -f1)"
kill -INT %1 && wait %1
echo "left $(grep -c lazystar /proc/self/mounts || true)"
"#;

/// Builds the hello example on `$1` with `lazystar buildkitd`.
const BUILDKIT: &str = r#"
mkdir context
printf 'package main\nimport "fmt"\nfunc main() { fmt.Println("Hello, world!") }\n' >context/hello.go
cat >context/Dockerfile <<DOCKERFILE
FROM $1 AS dev
COPY ./hello.go /hello.go
RUN HOME=/tmp go build -o /hello /hello.go
FROM scratch
COPY --from=dev /hello /
DOCKERFILE
: >buildkitd.toml
lazystar buildkitd -- --rootless --config buildkitd.toml --addr "unix://$PWD/sock" --oci-worker-net=host \
    --containerd-worker=false --oci-worker-no-process-sandbox 2>log &
for _ in $(seq 200); do
    buildctl --addr "unix://$PWD/sock" debug workers >/dev/null 2>&1 && break
    sleep 0.1
done
buildctl --addr "unix://$PWD/sock" build --progress plain --frontend dockerfile.v0 --local context=context \
    --local dockerfile=context --output type=local,dest=out >build.log 2>&1 || cat log build.log >&2
echo "says $(out/hello)"
echo "lazily $(grep -c '"remote-snapshot-prepared":"true"' log)"
echo "ordinary $(grep -c '"remote-snapshot-prepared":"false"' log || true)"
kill %1
wait %1 || true
"#;

fn rootless(rig: &Rig, script: &str, image: &str) -> Result<String, Skip> {
    let user = user()?;
    let harness = Path::new(env!("CARGO_MANIFEST_DIR")).join("rig/rootless");
    let mut command = Command::new(harness);
    command.args([&user, script, &format!("{}/{image}", rig.registry)]);
    command.env("LAZYSTAR_BIN", rig.binary());
    Ok(run(command))
}

/// Somebody who has ids of his own.
fn user() -> Result<String, Skip> {
    let granted = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let has_ids = |line: &str, name: &str| {
        let mut fields = line.split(':');
        fields.next() == Some(name)
            && fields.nth(1).and_then(|it| it.parse().ok()).is_some_and(|count: u64| count >= IDS)
    };
    let (uids, gids) = (granted("/etc/subuid"), granted("/etc/subgid"));
    let names = uids.lines().filter_map(|line| line.split(':').next());
    let found = names.into_iter().find(|name| {
        [&uids, &gids].iter().all(|file| file.lines().any(|line| has_ids(line, name)))
    });
    found.map(str::to_owned).ok_or_else(|| Skip("no user has ids in /etc/subuid".to_owned()))
}

fn answer<'a>(printed: &'a str, word: &str) -> &'a str {
    let mut answers = printed.lines().filter_map(|line| line.split_once(' '));
    let found = answers.find(|(first, _)| *first == word);
    found.unwrap_or_else(|| panic!("no {word} in {printed}")).1.trim()
}

#[test]
fn an_ordinary_user_runs_a_lazy_image() {
    test("an_ordinary_user_runs_a_lazy_image", |rig| {
        need_root()?;
        need_fuse()?;
        need(&["containerd", "runc", "newuidmap"])?;
        let golang = rig.image(&["golang:ctr-esgz", "golang:esgz"])?;
        let printed = rootless(rig, CONTAINERD, &golang)?;
        let answer = |word: &str| answer(&printed, word);
        assert!(answer("pulled").ends_with(" lazy"), "{printed}");
        assert!(answer("runs").starts_with("go version"), "{printed}");
        // root:shadow as in the image.
        assert_eq!(answer("owned"), "0:42");
        assert_eq!((answer("opaque"), answer("removed")), ("0", "1"));
        assert!(answer("stored").parse::<u64>().expect("a number") < 5, "{printed}");
        assert_eq!(answer("left"), "0");
        Ok(())
    });
}

#[test]
fn an_ordinary_user_builds_on_a_lazy_image() {
    test("an_ordinary_user_builds_on_a_lazy_image", |rig| {
        need_root()?;
        need_fuse()?;
        need(&["buildkitd", "buildctl", "runc", "newuidmap"])?;
        let golang = rig.image(&["golang:ctr-esgz", "golang:esgz"])?;
        let printed = rootless(rig, BUILDKIT, &golang)?;
        let answer = |word: &str| answer(&printed, word);
        assert_eq!(answer("says"), "Hello, world!");
        assert_eq!((answer("lazily"), answer("ordinary")), ("1", "0"));
        Ok(())
    });
}
