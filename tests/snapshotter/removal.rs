//! What removing a lazy snapshot ends: what is fetched for it, and the space that it has in the cache.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lazystar::demo::registry::{Registry, RegistryOptions};
use lazystar::pack::{ImageConfig, LayerBlob, PackOptions, Packed, pack_tar, write_oci_layout};
use tokio::time::sleep;

use crate::client::Client;
use crate::{Daemon, PATIENCE, binary};

const FILE: &str = "large";
const SIZE: usize = 24 << 20;
/// The file would take ten seconds.
const BANDWIDTH: u64 = 2_400_000;

/// An image of one layer whose only file, which does not compress, is to be fetched ahead.
fn image(dir: &Path) -> Packed {
    let mut content = Vec::new();
    let mut random = File::open("/dev/urandom").expect("the kernel has one").take(SIZE as u64);
    random.read_to_end(&mut content).expect("it does not end");
    let mut header = tar::Header::new_ustar();
    header.set_size(SIZE as u64);
    header.set_mode(0o644);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, FILE, content.as_slice()).expect("memory can be written");
    let tar = tar.into_inner().expect("memory can be written");

    let blob = dir.join("blob");
    let mut out = BufWriter::new(File::create(&blob).expect("the directory is writable"));
    let options = PackOptions { prioritised: vec![FILE.into()], ..PackOptions::default() };
    let packed = pack_tar(tar.as_slice(), &options, &mut out).expect("it is a tar");
    out.flush().expect("the directory is writable");
    let layer = LayerBlob { path: &blob, summary: &packed.summary };
    write_oci_layout(&dir.join("layout"), &[layer], &ImageConfig::default(), "large")
        .expect("the directory is writable");
    packed
}

/// Waits until `condition` holds.
async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Bytes that the cache has on the disk.
fn cached(root: &Path) -> u64 {
    let output = Command::new("du").args(["--summarize", "--block-size=1"]).arg(root).output();
    let text = String::from_utf8(output.expect("it runs").stdout).expect("digits");
    text.split_whitespace().next().expect("a figure").parse().expect("a figure")
}

#[tokio::test]
async fn removing_a_snapshot_stops_its_fetches_and_frees_its_space() {
    let name = "removing_a_snapshot_stops_its_fetches_and_frees_its_space";
    let Some(binary) = binary(name) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let packed = image(dir.path());
    let layout = dir.path().join("layout");
    let options = RegistryOptions { layout, latency: Duration::ZERO, bandwidth: Some(BANDWIDTH) };
    let registry = Registry::start(options).await.expect("a port on loopback");

    let (socket, root) = (dir.path().join("sock"), dir.path().join("root"));
    let mut command = Command::new(binary);
    command.args(["snapshotter", "--no-lookup", "--log-level", "warn", "--address"]);
    command.arg(&socket).arg("--root").arg(&root).stdin(Stdio::null());
    let _daemon = Daemon::start(command, &socket);
    let empty = cached(&root);
    let client = Client::new(socket, "lazystar");
    let blob = packed.summary.blob_digest.to_string();
    let toc = packed.summary.toc_digest.expect("eStargz has one").to_string();
    let labels = [
        ("containerd.io/snapshot.ref", "layer"),
        ("containerd.io/snapshot/cri.image-ref", &registry.reference("large")),
        ("containerd.io/snapshot/cri.layer-digest", &blob),
        ("containerd.io/snapshot/stargz/toc.digest", &toc),
    ];
    let lazy = client.prepare("a", "", &labels).await.expect_err("a lazy layer is not prepared");
    assert_eq!(lazy.code(), tonic::Code::AlreadyExists, "{lazy}");
    wait_until("nothing is fetched ahead", || cached(&root) > empty + (2 << 20)).await;

    client.remove("layer").await.expect("it is there");
    client.cleanup().await.expect("it cleans up");
    // What was under way may still arrive.
    sleep(Duration::from_millis(500)).await;
    let served = registry.served().bytes;
    assert!(served < SIZE as u64 / 2, "{served} bytes before it was removed");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(registry.served().bytes, served, "fetched after the snapshot was removed");
    let left = cached(&root);
    assert!(left < empty + (1 << 20), "{left} bytes on the disk, {empty} before the layer");
}
