//! `lazystar doctor`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::{Opened, configured, usual_keychain};
use crate::cli::{DoctorArgs, Global};
use crate::doctor::{self, Finding, Level, Machine};
use crate::reference::ImageRef;
use crate::registry::Client;

pub(super) async fn run(global: &Global, args: &DoctorArgs) -> Result<()> {
    let findings = match &args.registry {
        Some(name) => {
            let config = configured(global)?;
            let client = Client::new(config.client_options(usual_keychain(&config)));
            doctor::registry::examine(&client, name, global.plain_http).await
        }
        None => examine_machine(global, args).await,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        findings.iter().for_each(show);
    }
    match findings.iter().filter(|finding| finding.level == Level::Problem).count() {
        0 => Ok(()),
        1 => bail!("there is a problem"),
        count => bail!("there are {count} problems"),
    }
}

async fn examine_machine(global: &Global, args: &DoctorArgs) -> Vec<Finding> {
    let uid = rustix::process::geteuid().as_raw();
    let machine = Machine {
        sysroot: PathBuf::from("/"),
        uid,
        user: user_name(uid),
        path: std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect(),
        containerd_config: args.containerd_config.clone(),
        docker_config: args.docker_config.clone(),
        address: args.address.clone(),
        root: args.root.clone(),
    };
    let mut findings = machine.examine();
    if let Some(image) = &args.image {
        findings.extend(examine_image(global, image).await);
    }
    findings
}

async fn examine_image(global: &Global, reference: &ImageRef) -> Vec<Finding> {
    const AREA: &str = "image";
    let opened = match Opened::new(global, reference).await {
        Ok(opened) => opened,
        Err(error) => {
            let fix = "try `lazystar inspect` on it once that is repaired";
            return vec![Finding::problem(AREA, format!("{error:#}"), fix)];
        }
    };
    let count = opened.layers.len();
    let mut findings: Vec<_> = opened
        .layers
        .iter()
        .enumerate()
        .filter_map(|(at, layer)| {
            let what =
                format!("layer {} of {count} is not lazy: {}", at + 1, layer.as_ref().err()?);
            let fix = "it is pulled as a whole; convert the image to eStargz or zstd:chunked";
            Some(Finding::problem(AREA, what, fix))
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, format!("all {count} layers of {reference} are lazy")));
    }
    findings
}

fn show(finding: &Finding) {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Problem => "PROBLEM",
    };
    println!("{level:<8} {:<11} {}", finding.area, finding.what);
    if let Some(fix) = &finding.fix {
        println!("{:21}-> {fix}", "");
    }
}

fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of_uid = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    };
    passwd.lines().find_map(of_uid).unwrap_or_else(|| uid.to_string())
}
