//! The keys, section by section, with what each means here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use toml::de::{DeTable, DeValue};

use super::read::{ConfigError, Reader, Section, Value};
use super::{
    Cluster, Config, CriKeychain, Loaded, Lookup, Prefetch, PullSecrets, RegistryConfig,
    Verification,
};
use crate::registry::{Hosts, Mirror, Outage};

/// containerd's socket.
pub(super) const CONTAINERD: &str = "/run/containerd/containerd.sock";

const ONE_CACHE: &str = "content is kept once, verified, in one sparse file a layer on the disk";
const NOTHING_WAITS: &str = "nothing waits for a prefetch: a read waits for its own chunks alone";
const NO_BACKGROUND: &str = "what nobody reads is not fetched in the background";
const NO_CHECKS: &str = "the registry is asked only for content that is not in the cache";
const FOR_EVER: &str = "a layer never changes, so the kernel keeps what it was told";
const PAGE_CACHE: &str = "the kernel opens files by itself and keeps their pages";
const APART: &str = "layers are always served by a process of their own";
const ADAPTIVE: &str = "the size of requests follows the measured speed of the link";

pub(super) fn read<'t>(text: &'t str, root: &'t DeTable<'t>) -> Result<Loaded, ConfigError> {
    let (mut reader, top) = Reader::new(text, root);
    let it = &mut reader;
    let no_prometheus = it.get::<bool>(&top, "no_prometheus")?.unwrap_or(false);
    let metrics_address = it.get_set::<&str>(&top, "metrics_address")?.map(tcp_address);
    let metrics_address =
        metrics_address.transpose().map_err(|why| it.fail(&top, "metrics_address", why))?;
    let ttl = it.get_set::<u64>(&top, "resolve_result_entry_ttl_sec")?;
    it.ignore::<bool>(&top, "ipfs", "layers come from registries alone")?;
    let in_memory = "tables of contents are kept in memory in a compact form";
    it.ignore::<&str>(&top, "metadata_store", in_memory)?;
    it.ignore::<&str>(&top, "http_cache_type", ONE_CACHE)?;
    it.ignore::<&str>(&top, "filesystem_cache_type", ONE_CACHE)?;
    it.ignore::<i64>(&top, "resolve_result_entry", "it never had one")?;
    it.ignore::<i64>(&top, "prefetch_timeout_sec", NOTHING_WAITS)?;
    it.ignore::<i64>(&top, "prefetch_async_size", NOTHING_WAITS)?;
    it.ignore::<bool>(&top, "debug", "what FUSE is asked shows with --log-level trace")?;
    let config = Config {
        verification: verification(it, &top)?,
        prefetch: prefetch(it, &top)?,
        resolved_ttl: ttl.map(Duration::from_secs),
        log_file_access: it.get(&top, "log_file_access")?.unwrap_or(false),
        metrics_address: metrics_address.filter(|_| !no_prometheus),
        debug_address: it.get_set::<&str>(&top, "debug_address")?.map(PathBuf::from),
        registry: registry(it, &top)?,
        cri_keychain: cri_keychain(it, &top)?,
        pull_secrets: secrets(it, &top)?,
        ..ours(it, &top)?
    };
    unused_sections(it, &top)?;
    let notes = reader.finish()?;
    Ok(Loaded { config, notes })
}

fn verification<'t>(it: &mut Reader<'t>, top: &Section<'t>) -> Result<Verification, ConfigError> {
    let off = it.get::<bool>(top, "disable_verification")?.unwrap_or(false);
    let skippable = it.get::<bool>(top, "allow_no_verification")?.unwrap_or(false);
    Ok(match (off, skippable) {
        (true, _) => Verification::Off,
        (false, true) => Verification::Skippable,
        (false, false) => Verification::Required,
    })
}

fn prefetch<'t>(it: &mut Reader<'t>, top: &Section<'t>) -> Result<Prefetch, ConfigError> {
    let usual = Prefetch::default();
    it.ignore::<bool>(top, "no_background_fetch", NO_BACKGROUND)?;
    it.ignore::<i64>(top, "max_concurrency", NO_BACKGROUND)?;
    Ok(Prefetch {
        enabled: !it.get::<bool>(top, "noprefetch")?.unwrap_or(!usual.enabled),
        size: it.get(top, "prefetch_size")?.unwrap_or(usual.size),
    })
}

fn registry<'t>(it: &mut Reader<'t>, top: &Section<'t>) -> Result<RegistryConfig, ConfigError> {
    let blob = it.section(top, "blob")?;
    it.ignore::<i64>(&blob, "valid_interval", NO_CHECKS)?;
    it.ignore::<bool>(&blob, "check_always", NO_CHECKS)?;
    it.ignore::<i64>(&blob, "chunk_size", ADAPTIVE)?;
    it.ignore::<i64>(&blob, "prefetch_chunk_size", ADAPTIVE)?;
    let single = "every request is for a single range";
    it.ignore::<bool>(&blob, "force_single_range_mode", single)?;
    let seconds = it.get_set::<u64>(&blob, "fetching_timeout_sec")?;
    let retries = it.get_set::<u64>(&blob, "max_retries")?;
    let retries = retries.map(|retries| u32::try_from(retries).unwrap_or(u32::MAX));
    let shortest = it.get_set::<u64>(&blob, "min_wait_msec")?;
    let longest = it.get_set::<u64>(&blob, "max_wait_msec")?;
    Ok(RegistryConfig {
        hosts: hosts(it, top)?,
        attempts: retries.map(|retries| retries.saturating_add(1)),
        backoff: shortest.map(Duration::from_millis),
        longest_pause: longest.map(Duration::from_millis),
        total_timeout: seconds.map(Duration::from_secs),
        outage: outage(it, top)?,
    })
}

fn hosts<'t>(it: &mut Reader<'t>, top: &Section<'t>) -> Result<Hosts, ConfigError> {
    let resolver = it.section(top, "resolver")?;
    let patience = patience(it, &resolver)?;
    let mut mirrors = BTreeMap::new();
    for (host, section) in it.named(&resolver, "host")? {
        let tables = it.array(&section, "mirrors")?;
        let of_host = tables.iter().map(|table| mirror(it, table)).collect::<Result<_, _>>()?;
        mirrors.insert(host.to_ascii_lowercase(), of_host);
    }
    let ours = it.section(top, "lazystar")?;
    // An empty text turns it off.
    let directories = it.get::<&str>(&ours, "config_path")?.map(|list| {
        std::env::split_paths(list).filter(|dir| !dir.as_os_str().is_empty()).collect()
    });
    let directories: Vec<PathBuf> = directories.unwrap_or_else(Hosts::usual_directories);
    if let Some(relative) = directories.iter().find(|dir| dir.is_relative()) {
        let why = format!("{} is relative; write where it begins, as /etc", relative.display());
        return Err(it.fail(&ours, "config_path", why));
    }
    Ok(Hosts { mirrors, directories, patience })
}

/// What a reader gets while its registry is away.
fn outage<'t>(it: &mut Reader<'t>, top: &Section<'t>) -> Result<Outage, ConfigError> {
    let ours = it.section(top, "lazystar")?;
    let usual = match it.get::<&str>(&ours, "on_unavailable")?.unwrap_or("wait") {
        "wait" => Outage::WAIT,
        "error" => Outage::ERROR,
        other => {
            let why = format!("on_unavailable is \"wait\" or \"error\", not {other:?}");
            return Err(it.fail(&ours, "on_unavailable", why));
        }
    };
    let seconds = it.get_set::<u64>(&ours, "unavailable_deadline_sec")?;
    Ok(Outage { deadline: seconds.map_or(usual.deadline, Duration::from_secs), ..usual })
}

fn mirror<'t>(it: &mut Reader<'t>, table: &Section<'t>) -> Result<Mirror, ConfigError> {
    let mut headers = Vec::new();
    let written = it.get::<&DeTable<'t>>(table, "header")?;
    for (name, value) in written.into_iter().flatten() {
        let values = <Vec<&str>>::read(value.get_ref()).map_err(|wanted| {
            it.fail(table, "header", format!("the header {:?} takes {wanted}", &**name.get_ref()))
        })?;
        let name = name.get_ref();
        headers.extend(values.into_iter().map(|value| (name.to_string(), value.to_owned())));
    }
    let mirror = Mirror {
        host: it.get::<&str>(table, "host")?.unwrap_or_default().to_owned(),
        insecure: it.get(table, "insecure")?.unwrap_or(false),
        patience: patience(it, table)?,
        headers,
    };
    mirror.check().map_err(|why| it.fail(table, "host", why))?;
    Ok(mirror)
}

/// How long a request may take; for ever if negative, as usual if 0.
fn patience<'t>(
    it: &mut Reader<'t>,
    section: &Section<'t>,
) -> Result<Option<Duration>, ConfigError> {
    let seconds = it.get_set::<i64>(section, "request_timeout_sec")?;
    Ok(seconds.map(|seconds| seconds.try_into().map_or(Duration::MAX, Duration::from_secs)))
}

/// Pull secrets: files and directories, and those of a cluster.
fn secrets<'t>(it: &mut Reader<'t>, top: &Section<'t>) -> Result<PullSecrets, ConfigError> {
    let kubernetes = it.section(top, "kubeconfig_keychain")?;
    let enabled = it.get(&kubernetes, "enable_keychain")?.unwrap_or(false);
    let kubeconfig = it.get_set::<&str>(&kubernetes, "kubeconfig_path")?.map(PathBuf::from);
    let ours = it.section(top, "lazystar")?;
    let paths = it.get::<Vec<&str>>(&ours, "pull_secrets")?.unwrap_or_default();
    Ok(PullSecrets {
        paths: paths.into_iter().map(PathBuf::from).collect(),
        cluster: enabled.then_some(Cluster { kubeconfig }),
    })
}

fn cri_keychain<'t>(
    it: &mut Reader<'t>,
    top: &Section<'t>,
) -> Result<Option<CriKeychain>, ConfigError> {
    let cri = it.section(top, "cri_keychain")?;
    let enabled = it.get(&cri, "enable_keychain")?.unwrap_or(false);
    let containerd = it.get_set::<&str>(&cri, "image_service_path")?.unwrap_or(CONTAINERD);
    let keychain = CriKeychain {
        image_service_path: PathBuf::from(containerd),
        listen_path: it.get_set::<&str>(&cri, "listen_path")?.map(PathBuf::from),
    };
    Ok(enabled.then_some(keychain))
}

/// `[lazystar]`, which the other program ignores.
fn ours<'t>(it: &mut Reader<'t>, top: &Section<'t>) -> Result<Config, ConfigError> {
    let ours = it.section(top, "lazystar")?;
    let limit = it.get_set::<Size>(&ours, "cache_limit")?;
    let usual = Lookup::default();
    let containerd = it.get_set::<&str>(&ours, "containerd_address")?;
    Ok(Config {
        cache_limit: limit.map(|Size(bytes)| bytes),
        pinned_images: it
            .get::<Vec<&str>>(&ours, "pinned_images")?
            .unwrap_or_default()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        lookup: Lookup {
            enabled: it.get(&ours, "lookup_unlabelled")?.unwrap_or(usual.enabled),
            containerd_address: containerd.map_or(usual.containerd_address, PathBuf::from),
        },
        ..Config::default()
    })
}

fn unused_sections<'t>(it: &mut Reader<'t>, top: &Section<'t>) -> Result<(), ConfigError> {
    let cache = it.section(top, "directory_cache")?;
    it.ignore::<i64>(&cache, "max_lru_cache_entry", ONE_CACHE)?;
    it.ignore::<i64>(&cache, "max_cache_fds", ONE_CACHE)?;
    it.ignore::<bool>(&cache, "sync_add", ONE_CACHE)?;
    it.ignore::<bool>(&cache, "direct", ONE_CACHE)?;
    it.ignore::<bool>(&cache, "fadv_dontneed", ONE_CACHE)?;
    let fuse = it.section(top, "fuse")?;
    it.ignore::<i64>(&fuse, "attr_timeout", FOR_EVER)?;
    it.ignore::<i64>(&fuse, "entry_timeout", FOR_EVER)?;
    it.ignore::<bool>(&fuse, "passthrough", PAGE_CACHE)?;
    it.ignore::<i64>(&fuse, "merge_buffer_size", PAGE_CACHE)?;
    it.ignore::<i64>(&fuse, "merge_worker_count", PAGE_CACHE)?;
    let snapshotter = it.section(top, "snapshotter")?;
    let never = "a layer that cannot be mounted again never keeps the snapshotter from starting";
    it.ignore::<bool>(&snapshotter, "allow_invalid_mounts_on_restart", never)?;
    let apart = it.section(top, "fuse_manager")?;
    it.ignore::<bool>(&apart, "enable", APART)?;
    it.ignore::<&str>(&apart, "address", APART)?;
    it.ignore::<&str>(&apart, "path", APART)?;
    it.ignore::<&str>(&apart, "metrics_address", "metrics_address at the top serves all of them")
}

/// A size in bytes: a number, or a text such as `20GB` or `20GiB`.
#[derive(Clone, Copy, Default, PartialEq)]
struct Size(u64);

impl<'t> Value<'t> for Size {
    fn read(value: &'t DeValue<'t>) -> Result<Self, &'static str> {
        let size = match value {
            DeValue::String(text) => text.parse().ok().map(|ByteSize(bytes)| bytes),
            _ => u64::read(value).ok(),
        };
        size.map(Self).ok_or("a size such as \"20GB\" or a number of bytes")
    }
}

/// An address to listen on; without a host it is all of this machine's.
fn tcp_address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    match port {
        Some(("", port)) => Ok(format!("0.0.0.0:{port}")),
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("{text:?} is no address with a port, as \"127.0.0.1:8234\"")),
    }
}
