//! containerd 2 with Lazystar as its snapshotter, and what is new in it: pulls by the transfer service, which sends labels
//! only when told to.

use std::path::Path;
use std::process::Command;

use crate::rig::{Rig, Skip, need_fuse, need_root, run, test};

/// Pulls by each client, and runs what was pulled. Prints what the test wants to know, a word before each answer.
/// Arguments: the registry, and images of the same content, none of which may have a layer of another.
const SCRIPT: &str = r#"
registry=$1 pulled=$2 rpulled=$3 transferred=$4 plain=$5
digest='tar --create --sort=name --format=gnu --numeric-owner /usr 2>/dev/null | sha256sum'
count() { grep -c "\"remote-snapshot-prepared\":\"$1\"" lazystar.log || true; }
# A container that does not run ends the script, with what ctr says of it.
run() {
    local of
    of=$(ctr run --rm --net-host --snapshotter "$2" "$registry/$3" "run-$RANDOM-$$" sh -c "$digest")
    echo "$1 $of"
}
ctr images pull --local --plain-http "$registry/$plain" >/dev/null
run expected overlayfs "$plain"
before=$(du -sk root/io.containerd.content.v1.content | cut -f1)
lazystar pull --address sock "$registry/$pulled" >&2
run pulled stargz "$pulled"
ctr-remote --address "$state/sock" images rpull --plain-http "$registry/$rpulled" >&2
run rpulled stargz "$rpulled"
before_transfer=$(count true)
ctr images pull --plain-http --snapshotter stargz "$registry/$transferred" >&2
run transferred stargz "$transferred"
echo "by-transfer $(($(count true) - before_transfer))"
echo "ordinary $(count false)"
echo "stored $(($(du -sk root/io.containerd.content.v1.content | cut -f1) - before))"
"#;

fn in_containerd2(rig: &Rig, annotations: bool, arguments: &[&str]) -> Result<String, Skip> {
    rig.file("forky/usr/bin/containerd")?;
    let in_lazy = Path::new(env!("CARGO_MANIFEST_DIR")).join("rig/in-lazy");
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "120"]).arg(in_lazy).arg(SCRIPT).args(arguments);
    command.env("LAZYSTAR_BIN", rig.binary()).env("annotations", annotations.to_string());
    Ok(run(command))
}

fn every_client_pulls_lazily(rig: &Rig, annotations: bool) -> Result<(), Skip> {
    need_root()?;
    need_fuse()?;
    let [pulled, rpulled, transferred, plain] =
        ["debian:ctr-zstdchunked", "debian:ctr-minchunk", "debian:ctr-esgz", "debian:plain"]
            .map(|name| rig.image(&[name]));
    let (pulled, rpulled, transferred, plain) = (pulled?, rpulled?, transferred?, plain?);
    let printed = in_containerd2(
        rig,
        annotations,
        &[&rig.registry, &pulled, &rpulled, &transferred, &plain],
    )?;
    let answer = |word: &str| {
        let mut answers = printed.lines().filter_map(|line| line.split_once(' '));
        let found = answers.find(|(first, _)| *first == word);
        found.unwrap_or_else(|| panic!("no {word} in {printed}")).1.trim()
    };
    let number = |word: &str| answer(word).parse::<u64>().expect("a number");
    for client in ["pulled", "rpulled", "transferred"] {
        assert_eq!(answer(client), answer("expected"), "{client}");
    }
    assert!(number("by-transfer") > 0 && number("ordinary") == 0, "{printed}");
    assert!(number("stored") < 500, "{printed}");
    Ok(())
}

#[test]
fn every_client_pulls_lazily_with_labels() {
    test("every_client_pulls_lazily_with_labels", |rig| every_client_pulls_lazily(rig, true));
}

#[test]
fn every_client_pulls_lazily_without_labels() {
    test("every_client_pulls_lazily_without_labels", |rig| every_client_pulls_lazily(rig, false));
}
