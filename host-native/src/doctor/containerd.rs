//! Whether containerd knows the snapshotter, and tells it what it needs.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Finding, Machine, read};

const AREA: &str = "containerd";
/// Where the CRI plugin's settings of images are, in configurations of version 1, 2 and 3.
const CRI_IMAGES: [&[&str]; 3] = [
    &["plugins", "cri", "containerd"],
    &["plugins", "io.containerd.grpc.v1.cri", "containerd"],
    &["plugins", "io.containerd.cri.v1.images"],
];
const TRANSFER: [&str; 2] = ["plugins", "io.containerd.transfer.v1.local"];

pub(super) fn examine(machine: &Machine) -> Vec<Finding> {
    let file = machine.containerd_config.display();
    let config = match load(&machine.containerd_config) {
        Ok(Some(config)) => config,
        Ok(None) => {
            return vec![Finding::problem(
                AREA,
                format!("containerd does not know the snapshotter: there is no {file}"),
                format!("write this to it and restart containerd: {}", snippet(machine)),
            )];
        }
        Err(why) => return vec![Finding::problem(AREA, why, "correct it, and restart containerd")],
    };
    let name = match proxy(machine, &config) {
        Ok(name) => name,
        Err(finding) => return vec![finding],
    };
    let mut findings =
        vec![Finding::ok(AREA, format!("containerd knows the snapshotter as {name:?}"))];
    findings.extend(cri(&config, &name));
    findings.extend(transfer(&config, &name));
    findings
}

/// The names under which containerd knows the snapshotter.
pub(super) fn plugin_names(machine: &Machine) -> Vec<String> {
    let config = load(&machine.containerd_config).ok().flatten().unwrap_or_default();
    proxies(&config)
        .filter(|(_, proxy)| address(proxy) == machine.address.to_str())
        .map(|(name, _)| name.clone())
        .collect()
}

fn proxies(config: &Table) -> impl Iterator<Item = (&String, &Value)> {
    let of_snapshotters = |(_, proxy): &(&String, &Value)| {
        proxy.get("type").and_then(Value::as_str) == Some("snapshot")
    };
    config
        .get("proxy_plugins")
        .and_then(Value::as_table)
        .into_iter()
        .flatten()
        .filter(of_snapshotters)
}

fn address(proxy: &Value) -> Option<&str> {
    proxy.get("address")?.as_str()
}

fn proxy(machine: &Machine, config: &Table) -> Result<String, Finding> {
    let served = machine.address.display();
    let found = proxies(config).find(|(_, proxy)| address(proxy) == machine.address.to_str());
    if let Some((name, _)) = found {
        return Ok(name.clone());
    }
    let file = machine.containerd_config.display();
    Err(match proxies(config).next() {
        Some((name, other)) => Finding::problem(
            AREA,
            format!(
                "containerd looks for the snapshotter {name:?} at {}, but it serves {served}",
                address(other).unwrap_or("no address")
            ),
            format!(
                "set proxy_plugins.{name}.address in {file} to {served} and restart containerd"
            ),
        ),
        None => Finding::problem(
            AREA,
            format!("containerd does not know the snapshotter: no proxy_plugins in {file}"),
            format!("add this to it and restart containerd: {}", snippet(machine)),
        ),
    })
}

fn snippet(machine: &Machine) -> String {
    format!(
        "[proxy_plugins.stargz] type = \"snapshot\" address = {:?}",
        machine.address.display().to_string()
    )
}

/// Kubernetes' way in. Its settings matter only when it uses the snapshotter.
fn cri(config: &Table, name: &str) -> Vec<Finding> {
    let of_cri: Vec<_> = CRI_IMAGES.iter().filter_map(|path| table(config, path)).collect();
    let snapshotter = of_cri.iter().find_map(|it| it.get("snapshotter")?.as_str());
    match snapshotter {
        Some(used) if used == name => {}
        Some(used) => {
            let is_proxy = proxies(config).any(|(name, _)| name == used);
            let is_known = is_proxy
                || matches!(
                    used,
                    "overlayfs" | "native" | "btrfs" | "zfs" | "devmapper" | "erofs" | "blockfile"
                );
            return vec![match is_known {
                true => Finding::warning(
                    AREA,
                    format!("Kubernetes pulls whole images: its snapshotter is {used:?}"),
                    format!("where it should not, set snapshotter = {name:?} beside it"),
                ),
                false => Finding::problem(
                    AREA,
                    format!(
                        "Kubernetes is told to use the snapshotter {used:?}, which is not there"
                    ),
                    format!("set snapshotter = {name:?} in its place"),
                ),
            }];
        }
        None => return Vec::new(),
    }
    let disabled = of_cri.iter().find_map(|it| it.get("disable_snapshot_annotations")?.as_bool());
    vec![match disabled {
        Some(false) => Finding::ok(AREA, "Kubernetes uses the snapshotter and names layers to it"),
        _ => Finding::problem(
            AREA,
            "Kubernetes uses the snapshotter, but does not tell it which layers it wants",
            "set disable_snapshot_annotations = false beside its snapshotter",
        ),
    }]
}

/// The transfer service, which pulls for `ctr` and others since containerd 2.
fn transfer(config: &Table, name: &str) -> Option<Finding> {
    let version = config.get("version").and_then(Value::as_integer).unwrap_or(1);
    let unpack = table(config, &TRANSFER)
        .and_then(|it| it.get("unpack_config")?.as_array())
        .map(Vec::as_slice)
        .unwrap_or_default();
    let is_there =
        unpack.iter().any(|it| it.get("snapshotter").and_then(Value::as_str) == Some(name));
    let exports = config.get("proxy_plugins").and_then(|it| {
        it.get(name)?.get("exports")?.get("enable_remote_snapshot_annotations")?.as_str()
    }) == Some("true");
    match (is_there, exports) {
        (true, true) => Some(Finding::ok(AREA, "the transfer service unpacks for the snapshotter")),
        (true, false) => Some(Finding::problem(
            AREA,
            "the transfer service does not tell the snapshotter which layers it wants",
            format!(
                "add exports = {{ enable_remote_snapshot_annotations = \"true\" }} to proxy_plugins.{name}"
            ),
        )),
        (false, _) if version >= 3 => Some(Finding::warning(
            AREA,
            "the transfer service (`ctr images pull`) does not unpack for the snapshotter",
            format!(
                "add [[plugins.'io.containerd.transfer.v1.local'.unpack_config]] with platform = \"linux\" and snapshotter = {name:?}; `lazystar pull` does without"
            ),
        )),
        (false, _) => None,
    }
}

fn table<'t>(config: &'t Table, path: &[&str]) -> Option<&'t Table> {
    path.iter().try_fold(config, |table, key| table.get(*key)?.as_table())
}

/// The configuration with what it imports.
fn load(path: &Path) -> Result<Option<Table>, String> {
    let Some(text) = read(path)? else { return Ok(None) };
    let mut config = parse(path, &text)?;
    let imports = config.get("imports").and_then(Value::as_array).cloned().unwrap_or_default();
    for import in imports.iter().filter_map(Value::as_str) {
        for file in matching(&path.parent().unwrap_or(path).join(import)) {
            if let Some(text) = read(&file)? {
                merge(&mut config, parse(&file, &text)?);
            }
        }
    }
    Ok(Some(config))
}

fn parse(path: &Path, text: &str) -> Result<Table, String> {
    text.parse().map_err(|error: toml::de::Error| {
        let line = 1 + text[..error.span().map_or(0, |it| it.start)].matches('\n').count();
        format!("{}, line {line}, is no TOML: {}", path.display(), error.message())
    })
}

/// The files that a path with a `*` in its last part names.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((before, after)) = name.split_once('*') else { return vec![pattern.to_owned()] };
    let entries = pattern.parent().and_then(|dir| fs::read_dir(dir).ok());
    let mut files: Vec<_> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        })
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(known)), Value::Table(more)) => merge(known, more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
