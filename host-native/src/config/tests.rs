use std::time::Duration;

use super::*;

fn parsed(text: &str) -> Config {
    Config::parse(text).map(|it| it.config).expect(text)
}

fn refused(text: &str) -> String {
    Config::parse(text).expect_err(text).to_string()
}

#[test]
fn nothing_written_is_the_defaults() {
    let Loaded { config, notes } = Config::parse("# nothing\n").expect("empty");
    assert_eq!((config.clone(), notes), (Config::default(), Vec::new()));
    let options = config.client_options(Keychain::Anonymous);
    assert_eq!(options.attempts, ClientOptions::default().attempts);
}

#[test]
fn every_documented_key_counts_or_says_why_not() {
    let text = r#"
metrics_address = "127.0.0.1:8234"
no_prometheus = false
debug_address = "/run/debug.sock"
ipfs = true
metadata_store = "db"
http_cache_type = "memory"
filesystem_cache_type = "memory"
resolve_result_entry_ttl_sec = 90
resolve_result_entry = 1
prefetch_size = 1000
prefetch_timeout_sec = 1
prefetch_async_size = 1
noprefetch = true
no_background_fetch = true
debug = true
allow_no_verification = true
disable_verification = false
max_concurrency = 7
log_file_access = true

[blob]
valid_interval = 1
check_always = true
chunk_size = 1
fetching_timeout_sec = 17
force_single_range_mode = true
prefetch_chunk_size = 1
max_retries = 2
min_wait_msec = 3
max_wait_msec = 4000

[directory_cache]
max_lru_cache_entry = 1
max_cache_fds = 1
sync_add = true
direct = true
fadv_dontneed = true

[fuse]
attr_timeout = 1
entry_timeout = 1
passthrough = true
merge_buffer_size = 1
merge_worker_count = 1

[kubeconfig_keychain]
enable_keychain = true
kubeconfig_path = "/k"

[cri_keychain]
enable_keychain = true
image_service_path = "/run/other.sock"
listen_path = "/run/cri.sock"

[snapshotter]
allow_invalid_mounts_on_restart = true

[fuse_manager]
enable = true
address = "/run/fuse.sock"
path = "/bin/x"
metrics_address = "127.0.0.1:1"

[resolver]
request_timeout_sec = 5
[[resolver.host."docker.io".mirrors]]
host = "mirror.example:5000"
insecure = true
request_timeout_sec = -1
[resolver.host."docker.io".mirrors.header]
X-One = "a"
x-two = ["b", "c"]
[[resolver.host."docker.io".mirrors]]
host = "second.example"

[lazystar]
cache_limit = "20GB"
pinned_images = ["registry.k8s.io/pause"]
lookup_unlabelled = false
containerd_address = "/run/k3s/containerd/containerd.sock"
config_path = "/etc/certs.d:/usr/share/certs.d"
on_unavailable = "error"
unavailable_deadline_sec = 7
pull_secrets = ["/run/secrets/pull"]
"#;
    let Loaded { config, notes } = Config::parse(text).expect("all keys");
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mirrors = &config.registry.hosts.mirrors["docker.io"];
    assert_eq!(mirrors[0].host, "mirror.example:5000");
    assert!(mirrors[0].insecure && !mirrors[1].insecure);
    assert_eq!((mirrors[0].patience, mirrors[1].patience), (Some(Duration::MAX), None));
    let headers = [header("X-One", "a"), header("x-two", "b"), header("x-two", "c")];
    assert_eq!(mirrors[0].headers, headers);
    assert!(!format!("{mirrors:?}").contains("\"a\""), "values of headers may be secrets");
    assert_eq!(mirrors[1].host, "second.example");
    assert_eq!(
        Config { registry: RegistryConfig::default(), ..config.clone() },
        Config {
            registry: RegistryConfig::default(),
            verification: Verification::Skippable,
            prefetch: Prefetch { enabled: false, size: 1000 },
            resolved_ttl: Some(Duration::from_secs(90)),
            log_file_access: true,
            metrics_address: Some("127.0.0.1:8234".into()),
            debug_address: Some("/run/debug.sock".into()),
            pull_secrets: PullSecrets {
                paths: vec!["/run/secrets/pull".into()],
                cluster: Some(Cluster { kubeconfig: Some("/k".into()) }),
            },
            cri_keychain: Some(CriKeychain {
                image_service_path: "/run/other.sock".into(),
                listen_path: Some("/run/cri.sock".into()),
            }),
            cache_limit: Some(20_000_000_000),
            pinned_images: vec!["registry.k8s.io/pause".into()],
            lookup: Lookup {
                enabled: false,
                containerd_address: "/run/k3s/containerd/containerd.sock".into()
            },
        }
    );
    let options = config.client_options(Keychain::Anonymous);
    assert_eq!((options.attempts, options.backoff), (3, Duration::from_millis(3)));
    assert_eq!(options.longest_pause, Duration::from_secs(4));
    assert_eq!(options.total_timeout, Duration::from_secs(17));
    assert_eq!(options.hosts.patience, Some(Duration::from_secs(5)));
    let directories = ["/etc/certs.d", "/usr/share/certs.d"].map(PathBuf::from);
    assert_eq!(options.hosts.directories, directories);
    assert_eq!(options.outage, Outage { wait: false, deadline: Duration::from_secs(7) });
    assert_eq!(config.pull_secrets.keychains().len(), 2);

    // What is read again by another process is the same.
    let json = serde_json::to_string(&config).expect("json");
    assert_eq!(serde_json::from_str::<Config>(&json).expect("json"), config);

    let mut said: Vec<_> = notes.iter().map(|note| note.key.as_str()).collect();
    said.sort_unstable();
    assert_eq!(
        said.join(" "),
        "blob.check_always blob.chunk_size blob.force_single_range_mode blob.prefetch_chunk_size \
         blob.valid_interval debug directory_cache.direct directory_cache.fadv_dontneed \
         directory_cache.max_cache_fds directory_cache.max_lru_cache_entry \
         directory_cache.sync_add filesystem_cache_type fuse.attr_timeout fuse.entry_timeout \
         fuse.merge_buffer_size fuse.merge_worker_count fuse.passthrough fuse_manager.address \
         fuse_manager.enable fuse_manager.metrics_address fuse_manager.path http_cache_type ipfs \
         max_concurrency metadata_store no_background_fetch \
         prefetch_async_size prefetch_timeout_sec resolve_result_entry \
         snapshotter.allow_invalid_mounts_on_restart"
    );
    let ipfs = notes.iter().find(|note| note.key == "ipfs").expect("said");
    assert_eq!(ipfs.to_string(), "line 5: ipfs has no effect: layers come from registries alone");
}

#[test]
fn hosts_are_where_containerd_has_them_unless_that_is_turned_off() {
    let directories = |text: &str| parsed(text).registry.hosts.directories;
    assert_eq!(directories("")[0], PathBuf::from("/etc/containerd/certs.d"));
    assert_eq!(directories("[lazystar]\nconfig_path = \"\""), Vec::<PathBuf>::new());
    let relative = refused("[lazystar]\nconfig_path = \"certs.d\"");
    assert!(relative.starts_with("line 2: certs.d is relative"), "{relative}");
}

#[test]
fn an_outage_is_waited_for_or_not() {
    let outage = |text: &str| parsed(&format!("[lazystar]\n{text}")).registry.outage;
    assert_eq!(outage(""), Outage::WAIT);
    assert_eq!(outage("on_unavailable = \"wait\""), Outage::WAIT);
    assert_eq!(outage("on_unavailable = \"error\""), Outage::ERROR);
    let deadline = Duration::from_secs(60);
    assert_eq!(outage("unavailable_deadline_sec = 60"), Outage { deadline, ..Outage::WAIT });
    let why = refused("[lazystar]\non_unavailable = \"hang\"");
    assert_eq!(why, "line 2: on_unavailable is \"wait\" or \"error\", not \"hang\"");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
    assert_eq!(
        refused("\nprefech_size = 3"),
        r#"line 2: unknown key "prefech_size"; did you mean "prefetch_size"?"#
    );
    assert_eq!(
        refused("[blob]\nnoprefetch = true"),
        r#"line 2: unknown key "noprefetch" in [blob]; it belongs at the top, before the first section"#
    );
    assert_eq!(
        refused("max_retries = 1"),
        r#"line 1: unknown key "max_retries"; it belongs in [blob]"#
    );
    let mirror = "[[resolver.host.\"x\".mirrors]]\nhost = \"m\"\nheaders = {}";
    assert_eq!(
        refused(mirror),
        r#"line 3: unknown key "headers" in [resolver.host.*.mirrors]; did you mean "header"?"#
    );
    assert!(refused("[resolver.hosts.\"x\"]").contains("did you mean \"host\"?"));
    assert!(refused("[lazystar]\nwhatever = 1").starts_with("line 2: unknown key \"whatever\""));
}

#[test]
fn a_value_that_cannot_be_meant_is_refused() {
    for (text, why) in [
        ("noprefetch = 1", "line 1: noprefetch takes true or false, not 1"),
        ("prefetch_size = -1", "not negative, not -1"),
        ("prefetch_size = \"1\"", "a whole number that is not negative, not a text"),
        ("http_cache_type = 3", "http_cache_type takes a text in quotes, not 3"),
        ("blob = 3", "blob takes a table, not 3"),
        ("resolver.host.x.mirrors = 3", "mirrors takes an array of tables, not 3"),
        ("resolver.host.x = 3", "\"x\" takes a table, not 3"),
        ("resolver.host.x.mirrors = [3]", "mirrors takes tables, not 3"),
        ("metrics_address = \"8234\"", "is no address with a port"),
        ("lazystar.cache_limit = \"much\"", "a size such as"),
        ("a = \nb = 1", "line 1: this is no TOML"),
        ("noprefetch = true\nnoprefetch = true", "line 2: this is no TOML"),
    ] {
        let refusal = refused(text);
        assert!(refusal.contains(why), "{text}: {refusal}");
    }
    for (mirror, why) in [
        ("host = \"\"", "a mirror needs its host"),
        ("insecure = true", "a mirror needs its host"),
        ("host = \"https://m\"", "without a scheme or a path"),
        ("host = \"m/v2\"", "without a scheme or a path"),
        ("host = \"u:p@m\"", "without a scheme or a path"),
        ("host = \"m\"\nheader.x = 3", "the header \"x\" takes a text or a list of texts"),
        ("host = \"m\"\nheader.x = [3]", "the header \"x\" takes a text or a list of texts"),
        ("host = \"m\"\nheader.\"x y\" = \"\"", "the name of the header \"x y\" cannot be sent"),
        ("host = \"m\"\nheader.x = \"a\\nb\"", "the value of the header \"x\" cannot be sent"),
    ] {
        let refusal = refused(&format!("[[resolver.host.x.mirrors]]\n{mirror}"));
        assert!(refusal.contains(why), "{mirror}: {refusal}");
    }
}

#[test]
fn zero_and_empty_are_as_good_as_absent() {
    let text = "metrics_address = \"\"\ndebug_address = \"\"\n\
         [blob]\nmax_retries = 0\n[resolver]\nrequest_timeout_sec = 0\n[lazystar]\ncache_limit = 0";
    assert_eq!(parsed(text), Config::default());
    let off = "metrics_address = \"127.0.0.1:1\"\nno_prometheus = true";
    assert_eq!(parsed(off).metrics_address, None);
    let all = parsed("metrics_address = \":8234\"").metrics_address;
    assert_eq!(all.as_deref(), Some("0.0.0.0:8234"));
}

#[test]
fn only_the_default_file_may_be_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.toml");
    let missing = Config::load(Some(&path)).expect_err("missing");
    assert!(format!("{missing:#}").contains(&path.display().to_string()), "{missing:#}");
    std::fs::write(&path, b"noprefetch = true\n\xff").expect("written");
    let binary = Config::load(Some(&path)).expect_err("no text");
    assert!(format!("{binary:#}").contains("line 2: this is no UTF-8 text"), "{binary:#}");
    std::fs::write(&path, "noprefetch = true").expect("written");
    assert!(!Config::load(Some(&path)).expect("a configuration").config.prefetch.enabled);
    std::fs::write(&path, " ".repeat(2 << 20)).expect("written");
    assert!(Config::load(Some(&path)).is_err());
}
