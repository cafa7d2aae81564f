//! Whether Docker uses the snapshotter.

use serde_json::Value;

use super::{Finding, Machine, containerd, read};

const AREA: &str = "docker";
const SETTING: &str =
    r#"{"features": {"containerd-snapshotter": true}, "storage-driver": "stargz"}"#;

pub(super) fn examine(machine: &Machine) -> Vec<Finding> {
    let file = machine.docker_config.display().to_string();
    let text = match read(&machine.docker_config) {
        Ok(Some(text)) => text,
        Ok(None) if machine.finds("dockerd") => {
            return vec![Finding::warning(
                AREA,
                format!("Docker is installed, but does not use the snapshotter: no {file}"),
                format!("write {SETTING} to it and restart Docker"),
            )];
        }
        Ok(None) => return Vec::new(),
        Err(why) => return vec![Finding::warning(AREA, why, "run the doctor as root")],
    };
    let config: Value = match serde_json::from_str(&text) {
        Ok(config) => config,
        Err(error) => {
            return vec![Finding::problem(
                AREA,
                format!("{file} is no JSON: {error}"),
                "correct it: Docker does not start with it",
            )];
        }
    };
    let has_store = config["features"]["containerd-snapshotter"] == true;
    let driver = config["storage-driver"].as_str();
    let ours = containerd::plugin_names(machine);
    let is_ours = |driver: &str| match ours.is_empty() {
        true => driver == "stargz",
        false => ours.iter().any(|name| name == driver),
    };
    vec![match driver {
        Some(driver) if is_ours(driver) && has_store => {
            Finding::ok(AREA, format!("Docker uses the snapshotter {driver}"))
        }
        Some(driver) if is_ours(driver) => Finding::problem(
            AREA,
            format!("{file} names the snapshotter {driver}, but not containerd's image store"),
            r#"add "features": {"containerd-snapshotter": true} and restart Docker"#,
        ),
        driver => Finding::warning(
            AREA,
            format!(
                "Docker uses {}, so that it pulls whole images",
                driver.map_or_else(
                    || "its own default driver".to_owned(),
                    |it| format!("the driver {it:?}")
                )
            ),
            format!("write {SETTING} to {file} and restart Docker"),
        ),
    }]
}
