//! Serving figures over HTTP.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::socket::listen;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves what `render` returns at `/metrics` of a TCP address until the future is dropped.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve<R, F>(address: &str, render: R) -> Result<()>
where
    R: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = String> + Send + 'static,
{
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot serve metrics on {address} (metrics_address)"))?;
    tracing::info!(address, "serving metrics");
    Ok(axum::serve(listener, metrics(render)).await?)
}

/// Serves `/metrics` and `/debug/vars` on a unix socket, for whoever may read it.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve_debug<R, F>(socket: &Path, render: R) -> Result<()>
where
    R: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = String> + Send + 'static,
{
    let listener = listen(socket, "").context("cannot serve variables (debug_address)")?;
    tracing::info!(socket = %socket.display(), "serving variables");
    let vars = async || ([(CONTENT_TYPE, "application/json")], variables());
    let absent = "here are /metrics and /debug/vars; profiles of Go are not to be had\n";
    let router = metrics(render)
        .route("/debug/vars", get(vars))
        .fallback(async move || (StatusCode::NOT_FOUND, absent));
    Ok(axum::serve(listener, router).await?)
}

fn metrics<R, F>(render: R) -> Router
where
    R: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = String> + Send + 'static,
{
    let text = async move || ([(CONTENT_TYPE, TEXT)], render().await);
    Router::new().route("/metrics", get(text))
}

/// What Go's expvar shows, as far as it means anything here.
fn variables() -> String {
    let args: Vec<_> = std::env::args_os().map(|it| it.to_string_lossy().into_owned()).collect();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    serde_json::json!({
        "cmdline": args,
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "threads": of("Threads:"),
        "memstats": { "Rss": of("VmRSS:").map(|kib| kib * 1024), "Peak": of("VmHWM:").map(|kib| kib * 1024) },
    })
    .to_string()
}
