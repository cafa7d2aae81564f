//! Parts of files that are read at once, and kept for a moment for those who read on.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use lazystar_plugin::overlay::Located;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::SandboxedImage;
use super::recent::Recent;
use crate::lock::lock;

/// How much of a file is read at once: a chunk, where an image does not have chunks of another size.
const WINDOW: u64 = 4 << 20;
/// How much of the files that follow a small one is read with it.
const TOGETHER: u64 = 1 << 20;
/// How many of them.
const FILES: usize = 256;
/// How much is kept.
const KEPT: u64 = 64 << 20;

/// Layer and number of a file, and where a window begins in it.
type Key = (u32, u32, u64);

/// The windows of an image.
#[derive(Debug)]
pub(super) struct Windows(Mutex<Recent<Key, Arc<Window>>>);

/// A part of a file, or several small files.
#[derive(Debug)]
pub(super) struct Window {
    parts: Vec<(Located, Range<u64>)>,
    content: OnceCell<HashMap<Key, Vec<u8>>>,
}

impl Default for Windows {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(KEPT)))
    }
}

impl Windows {
    /// The window with what `file` has at `at`, and where it ends there. A new one for a small file
    /// has the first of the files that `following` gives, of which this one comes first.
    pub(super) fn at(
        &self,
        file: &Located,
        at: u64,
        following: impl FnOnce() -> Vec<Located>,
    ) -> (Arc<Window>, u64) {
        let start = at - at % WINDOW;
        let end = (start + WINDOW).min(file.entry.size);
        if let Some(known) = lock(&self.0).get(&key(file, start)) {
            return (known, end);
        }
        let parts = if file.entry.size > TOGETHER {
            vec![(*file, start..end)]
        } else {
            let mut left = TOGETHER;
            let fits = |it: &Located| {
                let rest = left.checked_sub(it.entry.size).filter(|_| it.layer == file.layer);
                left = rest.unwrap_or(left);
                rest.is_some()
            };
            let files = following().into_iter().take_while(fits).take(FILES);
            files.map(|it| (it, 0..it.entry.size)).collect()
        };
        let window = Arc::new(Window { parts, content: OnceCell::new() });
        let mut windows = lock(&self.0);
        for (file, part) in &window.parts {
            windows.put(key(file, part.start), Arc::clone(&window), part.end - part.start);
        }
        (window, end)
    }
}

impl Window {
    /// Adds to `bytes` what of `range` of `file` is in this window.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn read(
        &self,
        image: &Arc<SandboxedImage>,
        file: &Located,
        range: Range<u64>,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        let (_, part) = self.parts.iter().find(|(it, _)| is_same(it, file)).context("no part")?;
        let content = self.content.get_or_try_init(|| fetch(image, self.parts.clone())).await;
        let alone;
        let content = match content {
            Ok(content) => content,
            // What is wrong with another file is not this one's fault.
            Err(_) if self.parts.len() > 1 => {
                alone = fetch(image, vec![(*file, part.clone())]).await?;
                &alone
            }
            Err(error) => return Err(error),
        };
        let (from, to) = (range.start.max(part.start), range.end.min(part.end));
        let index = |at: u64| usize::try_from(at - part.start);
        let found = content.get(&key(file, part.start));
        // The sandbox is not trusted to give as much as it was asked for.
        let wanted = found.and_then(|it| it.get(index(from).ok()?..index(to).ok()?));
        bytes.extend(wanted.context("the engine gave too little")?);
        Ok(())
    }
}

async fn fetch(
    image: &Arc<SandboxedImage>,
    parts: Vec<(Located, Range<u64>)>,
) -> Result<HashMap<Key, Vec<u8>>> {
    let image = Arc::clone(image);
    let work = move || {
        let mut content: Vec<_> = parts.iter().map(|_| Vec::new()).collect();
        match parts.as_slice() {
            [(file, part)] => {
                content = vec![image.read_part(file, part.start, part.end - part.start)?]
            }
            several => {
                let files: Vec<_> = several.iter().map(|(file, _)| *file).collect();
                image.read(&files, |at, bytes| {
                    content.get_mut(at).into_iter().for_each(|it| it.extend(bytes));
                    Ok(())
                })?;
            }
        }
        let keys = parts.iter().map(|(file, part)| key(file, part.start));
        Ok(keys.zip(content).collect())
    };
    spawn_blocking(work).await?
}

fn key(file: &Located, start: u64) -> Key {
    (file.layer, file.entry.id, start)
}

fn is_same(one: &Located, other: &Located) -> bool {
    key(one, 0) == key(other, 0)
}
