//! containerd's `hosts.toml`: what each file makes of the hosts that are asked, live.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lazystar::keychain::Keychain;
use lazystar::oci::Descriptor;
use lazystar::registry::{Client, Hosts, Repository};
use lazystar::source::{Blob, FetchError};
use lazystar_core::Digest;
use lazystar_tests::certificates::{Certificates, Paths};
use lazystar_tests::fault_registry::{Fault, FaultRegistry};

use crate::blobs::{SIZE, content};

fn hosts_in(dir: &Path) -> Hosts {
    Hosts { directories: vec![dir.to_owned()], ..Hosts::default() }
}

fn client(dir: &Path) -> Client {
    crate::client_with(Keychain::Anonymous, hosts_in(dir))
}

fn blob(client: &Client, host: &str) -> Blob {
    let reference = format!("{host}/team/app").parse().unwrap();
    let repository = Repository::new(client, &reference, false).unwrap();
    let digest = Digest::of(&content());
    Blob::registry(
        &repository,
        &Descriptor {
            media_type: String::new(),
            digest,
            size: SIZE as u64,
            annotations: Default::default(),
            platform: None,
            urls: Vec::new(),
        },
    )
}

async fn registry(fault: Fault) -> FaultRegistry {
    let registry = FaultRegistry::start(fault).await.unwrap();
    registry.add_blob(content());
    registry
}

/// Writes `hosts.toml` for `host`.
fn write(dir: &Path, host: &str, text: &str) {
    let dir = dir.join(host.replace(':', "_") + "_");
    fs::create_dir_all(&dir).unwrap();
    // As editors do: the file appears whole.
    fs::write(dir.join("new"), text).unwrap();
    fs::rename(dir.join("new"), dir.join("hosts.toml")).unwrap();
}

/// Each file says in comments which host it is for, and what is then asked, in this order.
#[tokio::test]
async fn give_the_plans_that_they_give_to_containerd() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("native/hosts");
    let mut seen = 0;
    for entry in fs::read_dir(files).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let said = |what: &'static str| {
            text.lines().filter_map(move |line| line.strip_prefix("# ")?.strip_prefix(what))
        };
        let host = said("for: ").next().expect("a host");
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(host);
        fs::create_dir(&dir).unwrap();
        let has_keys = text.lines().any(|line| !line.starts_with('#'));
        if has_keys {
            fs::write(dir.join("hosts.toml"), &text).unwrap();
        }
        let wanted: Vec<_> =
            said("plan: ").map(|it| it.replace("DIR", dir.to_str().unwrap())).collect();
        let reference = format!("{host}/team/app").parse().unwrap();
        let repository = Repository::new(&client(root.path()), &reference, false).unwrap();
        assert_eq!(repository.hosts().await.unwrap(), wanted, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 20, "{seen} files");
}

#[tokio::test]
async fn a_directory_without_hosts_toml_has_certificates_as_docker_does() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("_default");
    fs::create_dir(&dir).unwrap();
    for name in ["ca.crt", "other.crt", "client.cert", "client.key", "lone.cert", "README"] {
        fs::write(dir.join(name), "").unwrap();
    }
    let reference = "registry.example/a".parse().unwrap();
    let repository = Repository::new(&client(root.path()), &reference, false).unwrap();
    let wanted = "https://registry.example/v2/ pull+resolve+push ca=DIR/ca.crt ca=DIR/other.crt \
                  client=DIR/client.cert,DIR/client.key client=DIR/lone.cert";
    assert_eq!(repository.hosts().await.unwrap(), [wanted.replace("DIR", dir.to_str().unwrap())]);
}

#[tokio::test]
async fn edits_count_without_a_restart() {
    let (origin, mirror) = (registry(Fault::Ok).await, registry(Fault::Ok).await);
    let root = tempfile::tempdir().unwrap();
    let host = origin.address().to_string();
    let blob = blob(&client(root.path()), &host);
    let part = content().slice(3..9);
    assert_eq!(blob.fetch_all(3..9).await.unwrap(), part);
    assert_eq!(mirror.counts().registry, 0);

    let with_mirror = format!(
        "[host.\"http://{}\"]\n[host.\"http://{}\".header]\nx-team = \"a\"",
        mirror.address(),
        mirror.address()
    );
    write(root.path(), &host, &with_mirror);
    let edited = Instant::now();
    while mirror.counts().registry == 0 {
        assert_eq!(blob.fetch_all(3..9).await.unwrap(), part);
        assert!(edited.elapsed() < Duration::from_secs(5), "the edit does not count");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let asked = &mirror.asked()[0];
    assert_eq!(asked.headers["x-team"], "a");
    assert!(asked.target.ends_with(&format!("?ns={}", host.replace(':', "%3A"))), "{asked:?}");

    // What cannot be read changes nothing; what can counts again.
    write(root.path(), &host, "[host.");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    mirror.reset();
    assert_eq!(blob.fetch_all(3..9).await.unwrap(), part);
    assert_eq!(mirror.counts().registry, 1);
    write(root.path(), &host, "");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    mirror.reset();
    assert_eq!(blob.fetch_all(3..9).await.unwrap(), part);
    assert_eq!(mirror.counts().registry, 0);
}

/// Who may not resolve is not asked what a tag is, and who may not pull is asked for nothing.
#[tokio::test]
async fn hosts_are_asked_for_what_they_are_capable_of() {
    use lazystar::image::{Image, OpenOptions};
    let (origin, mirror, other) =
        (registry(Fault::Ok).await, registry(Fault::Ok).await, registry(Fault::Ok).await);
    let sample = crate::sample::Sample::new();
    sample.push(&origin, "v1");
    sample.push(&mirror, "v1");
    let root = tempfile::tempdir().unwrap();
    let host = origin.address().to_string();
    let text = format!(
        "[host.\"http://{}\"]\ncapabilities = [\"push\"]\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]",
        other.address(),
        mirror.address()
    );
    write(root.path(), &host, &text);
    let options = OpenOptions {
        client: client(root.path()),
        platform: "linux/riscv64".parse().unwrap(),
        ..OpenOptions::default()
    };
    let image =
        Image::open(&format!("{host}/team/app:v1").parse().unwrap(), &options).await.unwrap();
    image.layers[1].blob.fetch_all(0..9).await.unwrap();
    assert_eq!(other.counts().registry, 0);
    let paths = |registry: &FaultRegistry| -> Vec<String> {
        let asked = registry.asked().into_iter();
        asked.map(|asked| asked.target.split('?').next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(paths(&origin), ["/v2/team/app/manifests/v1"]);
    assert!(paths(&mirror).iter().all(|path| path.contains("sha256:")), "{:?}", paths(&mirror));
    assert!(paths(&mirror).len() >= 2);
}

#[tokio::test]
async fn tls_is_as_configured_and_http_2_where_offered() {
    let certificates = Certificates::new();
    let root = tempfile::tempdir().unwrap();
    let pems = certificates.write(root.path()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let others = Certificates::new().write(elsewhere.path()).unwrap();
    let pair = |paths: &Paths| format!("[{:?}, {:?}]", paths.client, paths.client_key);
    let (client_pair, stranger) = (pair(&pems), pair(&others));
    for (mutual, text, works) in [
        (false, format!("ca = {:?}", pems.authority), true),
        (false, "skip_verify = true".to_owned(), true),
        (false, "skip_verify = false".to_owned(), false),
        (true, format!("ca = {:?}", pems.authority), false),
        (
            true,
            format!(
                "ca = {:?}\nclient = [[{:?}, {:?}]]",
                pems.authority, pems.client, pems.client_key
            ),
            true,
        ),
        (
            true,
            format!(
                "ca = {:?}\nclient = [[{:?}, {:?}]]",
                pems.authority, pems.client, pems.server_key
            ),
            false,
        ),
        // Of several certificates the one that the host takes.
        (true, format!("ca = {:?}\nclient = [{stranger}, {client_pair}]", pems.authority), true),
        (true, format!("skip_verify = true\nclient = [{client_pair}, {stranger}]"), true),
        (true, format!("client = [{client_pair}, {stranger}]"), false),
        (true, format!("ca = {:?}\nclient = [{stranger}, {stranger}]", pems.authority), false),
        (false, format!("ca = {:?}", root.path().join("missing.pem")), false),
        (false, format!("ca = {:?}", pems.client_key), false),
    ] {
        let registry =
            FaultRegistry::start_tls(Fault::BearerAnonymous, certificates.config(mutual))
                .await
                .unwrap();
        registry.add_blob(content());
        let host = format!("localhost:{}", registry.address().port());
        write(root.path(), &host, &format!("server = \"https://{host}\"\n{text}"));
        let fetched = blob(&client(root.path()), &host).fetch_all(7..900).await;
        match fetched {
            Ok(bytes) => {
                assert!(works, "{text}");
                assert_eq!(bytes, content().slice(7..900));
                // The token server's certificate is of the same authority.
                assert_eq!(registry.counts().token, 1);
                let versions = registry.asked();
                assert!(versions.iter().all(|asked| asked.version == axum::http::Version::HTTP_2));
            }
            Err(error) => {
                assert!(!works, "{text}: {error}");
                let is_file =
                    text.contains("missing") || text.contains(pems.server_key.to_str().unwrap());
                let message = error.to_string();
                assert!(matches!(error, FetchError::Unreachable { .. }), "{error:?}");
                if is_file && text.contains("missing") {
                    assert!(message.contains("missing.pem"), "{message}");
                }
                assert_eq!(registry.counts().registry, 0, "{text}");
            }
        }
    }
}

/// A host on this machine is found to speak TLS or not, and found anew when that changes.
#[tokio::test]
async fn hosts_on_this_machine_may_speak_either_protocol() {
    let root = tempfile::tempdir().unwrap();
    let tls = FaultRegistry::start_tls(Fault::Ok, Certificates::new().config(false)).await.unwrap();
    tls.add_blob(content());
    let plain = registry(Fault::Ok).await;
    for registry in [&tls, &plain] {
        let host = registry.address().to_string();
        let blob = blob(&client(root.path()), &host);
        for _ in 0..3 {
            assert_eq!(blob.fetch_all(0..9).await.unwrap(), content().slice(0..9));
        }
        assert_eq!(registry.counts().registry, 3);
    }
}

/// The proxy that hosts.toml names is asked in place of the host.
#[tokio::test]
async fn a_proxy_is_asked_for_the_host_behind_it() {
    let root = tempfile::tempdir().unwrap();
    // To a proxy a request names its host: our registry takes it for a path of its own.
    let proxy = registry(Fault::Ok).await;
    let host = "registry.invalid:5000";
    let text = format!("server = \"http://{host}\"\nproxy = \"http://{}\"", proxy.address());
    write(root.path(), host, &text);
    let bytes = blob(&client(root.path()), host).fetch_all(0..9).await.unwrap();
    assert_eq!(bytes, content().slice(0..9));
    assert_eq!(proxy.asked()[0].headers["host"], host);
}
