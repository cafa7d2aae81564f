//! `lazystar explore`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::{configured, usual_keychain, with_spinner};
use crate::cli::Global;
use crate::explore::{AllowedRegistry, ExploreOptions, Explorer, NamedImage};
use crate::oci::Platform;

/// `lazystar explore`.
#[derive(Args, Debug)]
pub struct ExploreArgs {
    /// The image to show first
    pub image: Option<NamedImage>,
    /// Serve on this address, as 127.0.0.1:8000 [default: port 7117 of this machine, or any other
    /// when that is taken]
    ///
    /// Whoever reaches an address of the network sees what your credentials give access to, in the
    /// registries that are allowed.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Let the page ask this registry, too, wherever it is; `*` stands for all that are on the
    /// public internet. Always allowed are that of IMAGE, docker.io, ghcr.io, quay.io,
    /// registry.k8s.io, gcr.io, mcr.microsoft.com and public.ecr.aws
    #[arg(long, value_name = "HOST")]
    pub allow: Vec<AllowedRegistry>,
    /// Let registries that were not named by IMAGE or --allow, and redirects, lead to addresses of
    /// this machine and of private networks
    #[arg(long)]
    pub allow_private: bool,
    /// Do not open a browser
    #[arg(long)]
    pub no_open: bool,
    /// Serve the files of the page from this directory, as host-wasm/dist/explorer
    #[arg(long, value_name = "DIR")]
    pub assets: Option<PathBuf>,
    /// Print the URL as JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn run(global: &Global, args: &ExploreArgs) -> Result<()> {
    let config = configured(global)?;
    let options = ExploreOptions {
        image: args.image.clone(),
        listen: args.listen,
        assets: args.assets.clone(),
        allow: args.allow.clone(),
        allow_private: args.allow_private,
        client: config.client_options(usual_keychain(&config)),
        plain_http: global.plain_http,
        platform: global.platform.clone().unwrap_or_else(Platform::host),
    };
    let name = args.image.as_ref().map_or("the explorer", |image| &image.text);
    let starting = with_spinner(format!("opening {name}"), Explorer::start(options));
    let explorer = starting.await?;
    let (url, address) = (explorer.url(), explorer.address());
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate()]
        .into_iter()
        .map(signal)
        .collect::<std::io::Result<Vec<_>>>()?;

    if !address.ip().is_loopback() {
        eprintln!(
            "lazystar: serving on {address}: whoever reaches it sees what your credentials give access to, and the image named here"
        );
    }
    let mut out = std::io::stdout();
    match args.json {
        true => writeln!(out, "{}", json!({ "url": url }))?,
        false => writeln!(out, "{url}")?,
    }
    out.flush()?;
    if !args.no_open {
        open(&url);
    }
    let stop = async move {
        futures_util::future::select_all(signals.iter_mut().map(|it| Box::pin(it.recv()))).await;
    };
    explorer.serve(stop).await
}

/// Opens `url` in a browser, where there is a display for one.
fn open(url: &str) {
    let has_display = ["DISPLAY", "WAYLAND_DISPLAY"]
        .into_iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if !has_display {
        return;
    }
    let mut opener = Command::new("xdg-open");
    opener.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Ctrl-C is for this program, not for the browser.
    opener.process_group(0);
    match opener.spawn() {
        // It is reaped when it ends.
        Ok(_) => {}
        Err(error) => eprintln!("lazystar: open the URL in a browser (xdg-open: {error})"),
    }
}
