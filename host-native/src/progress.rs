//! How far long work is, for people.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// A bar for `total` bytes of `what`, drawn by indicatif's `template`; nothing where standard error is
/// no terminal.
#[must_use]
pub fn bar(template: &str, total: u64, what: &str) -> ProgressBar {
    ticking(styled(template, total, what))
}

/// Such a bar as one of several. It is not drawn before it has its place among them.
#[must_use]
pub fn bar_among(bars: &MultiProgress, template: &str, total: u64, what: &str) -> ProgressBar {
    ticking(bars.add(styled(template, total, what)))
}

fn styled(template: &str, total: u64, what: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_message(what.to_owned())
}

fn ticking(bar: ProgressBar) -> ProgressBar {
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
