//! What people see while images are converted.

use std::io;
use std::sync::{Arc, Mutex};

use indicatif::{HumanBytes, MultiProgress, ProgressDrawTarget, TermLike};
use lazystar::convert::ConvertOptions;
use lazystar_core::Digest;
use lazystar_core::write::Format;
use lazystar_tests::layers::{file, gzip, noise};
use tempfile::TempDir;

use super::{layout_ref, options, tar, to, write_image};

/// All that is written to a terminal, whatever becomes of it there.
#[derive(Clone, Debug, Default)]
struct Terminal(Arc<Mutex<String>>);

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        120
    }
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn write_line(&self, line: &str) -> io::Result<()> {
        self.write_str(line)?;
        self.write_str("\n")
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap().push_str(text);
        Ok(())
    }
    fn clear_line(&self) -> io::Result<()> {
        self.write_str("\n")
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_layer_has_a_bar_with_its_rate_and_the_time_left() {
    let work = TempDir::new().unwrap();
    let layers: Vec<_> = (1..=2)
        .map(|seed| {
            let tar = tar(&[file("noise", noise(5_000_000, seed))]);
            (gzip(&tar), "tar+gzip", tar)
        })
        .collect();
    let source = write_image(&work.path().join("source"), &layers);
    let terminal = Terminal::default();
    let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
    let progress = MultiProgress::with_draw_target(target);
    let options = ConvertOptions { progress, ..options(Format::Estargz) };
    let destination = layout_ref(&work.path().join("destination"), "image");
    to(&source, &destination, &options).await.unwrap();
    let drawn = terminal.0.lock().unwrap();
    for (blob, ..) in &layers {
        let name = &Digest::of(blob).hex()[..12];
        let total = format!("/{} ", HumanBytes(blob.len() as u64));
        let bars: Vec<_> = drawn.lines().filter(|line| line.contains(name)).collect();
        let shows = |bar: &&str| {
            bar.contains(&total) && bar.contains("/s ") && bar.trim_end().ends_with(" left")
        };
        assert!(bars.iter().any(shows), "{name}: {bars:#?}");
    }
}
