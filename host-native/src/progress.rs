//! How far long work is, for people.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for `total` bytes of `what`, drawn by indicatif's `template`; nothing where standard error is
/// no terminal.
#[must_use]
pub fn bar(template: &str, total: u64, what: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total).with_style(style).with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
