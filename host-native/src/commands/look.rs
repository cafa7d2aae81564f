//! `lazystar ls`, `cat`, `stat` and `tree`: looking into an image without mounting it.

mod files;
#[cfg(feature = "wasm-engine")]
mod sandboxed;

use std::io::{self, BufWriter, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use lazystar_core::image::ImageNode;
use lazystar_core::toc::{Attr, Kind};
use serde::Serialize;

use crate::cli::{Global, LsArgs};
use crate::progress::bar;
use crate::reference::ImageRef;
use crate::show::{mode_text, time_text};
use files::Files;

pub(super) async fn ls(global: &Global, args: &LsArgs) -> Result<()> {
    let image = files::open(global, &args.image).await?;
    let node = find(&*image, &args.path, true)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut show = |name: &str, node: ImageNode| -> Result<()> {
        let entry = Entry::new(&*image, name, node)?;
        if args.json {
            entry.write_json(&mut out)
        } else if args.long {
            Ok(writeln!(out, "{}", entry.long())?)
        } else {
            Ok(writeln!(out, "{}", entry.name)?)
        }
    };
    if image.attr(node)?.kind == Kind::Directory {
        for (name, node) in image.names(node)? {
            show(&name, node)?;
        }
    } else {
        show(&args.path, find(&*image, &args.path, false)?)?;
    }
    Ok(out.flush()?)
}

pub(super) async fn cat(global: &Global, image: &ImageRef, paths: &[String]) -> Result<()> {
    let image = files::open(global, image).await?;
    let mut found = Vec::new();
    for path in paths {
        let node = find(&*image, path, true)?;
        let attr = image.attr(node)?;
        match attr.kind {
            Kind::Regular => found.push((path, node, attr.size)),
            Kind::Directory => bail!("{path} is a directory"),
            _ => bail!("{path} is not a regular file"),
        }
    }
    for (path, file, size) in found {
        let progress = progress(size, path);
        let mut write = |bytes: &[u8]| {
            io::stdout().lock().write_all(bytes)?;
            progress.inc(bytes.len() as u64);
            Ok(())
        };
        let read = image.read(file, &mut write).await;
        read.with_context(|| format!("cannot read {path}"))?;
        progress.finish_and_clear();
    }
    Ok(io::stdout().lock().flush()?)
}

/// A bar on the terminal, unless that is where the file goes.
fn progress(size: u64, path: &str) -> ProgressBar {
    if io::stdout().is_terminal() || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    bar(style, size, path)
}

pub(super) async fn stat(
    global: &Global,
    image: &ImageRef,
    paths: &[String],
    json: bool,
) -> Result<()> {
    let image = files::open(global, image).await?;
    let mut out = BufWriter::new(io::stdout().lock());
    for path in paths {
        let node = find(&*image, path, false)?;
        let entry = Entry::new(&*image, path, node)?;
        if json {
            entry.write_json(&mut out)?;
        } else {
            entry.write_text(&mut out)?;
        }
    }
    Ok(out.flush()?)
}

pub(super) async fn tree(
    global: &Global,
    image: &ImageRef,
    path: &str,
    depth: Option<usize>,
    json: bool,
) -> Result<()> {
    let image = files::open(global, image).await?;
    let top = find(&*image, path, true)?;
    let mut out = BufWriter::new(io::stdout().lock());
    if !json {
        writeln!(out, "{path}")?;
    }
    let mut walk = Walk { image: &*image, out: &mut out, depth: depth.unwrap_or(usize::MAX), json };
    let prefix = if json { path.trim_end_matches('/') } else { "" };
    walk.directory(top, prefix, 0)?;
    Ok(out.flush()?)
}

struct Walk<'a, W> {
    image: &'a dyn Files,
    out: &'a mut W,
    depth: usize,
    json: bool,
}

impl<W: Write> Walk<'_, W> {
    fn directory(&mut self, dir: ImageNode, prefix: &str, level: usize) -> Result<()> {
        if level >= self.depth {
            return Ok(());
        }
        let entries = self.image.names(dir)?;
        for (at, (name, node)) in entries.iter().enumerate() {
            let entry = Entry::new(self.image, name, *node)?;
            let is_last = at + 1 == entries.len();
            let below = if self.json {
                let path = format!("{prefix}/{}", entry.name);
                Entry { name: path.clone(), ..entry.clone() }.write_json(self.out)?;
                path
            } else {
                let branch = if is_last { "└── " } else { "├── " };
                writeln!(self.out, "{prefix}{branch}{}", entry.name_and_target())?;
                format!("{prefix}{}", if is_last { "    " } else { "│   " })
            };
            if entry.kind == "directory" {
                self.directory(*node, &below, level + 1)?;
            }
        }
        Ok(())
    }
}

fn find(image: &dyn Files, path: &str, follow: bool) -> Result<ImageNode> {
    image.find(path, follow).with_context(|| format!("cannot find {path}"))
}

/// What is shown of a file.
#[derive(Clone, Debug, Serialize)]
struct Entry {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    nlink: u32,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(String, String)>,
    layer: u32,
    #[serde(skip)]
    attr: Attr,
}

impl Entry {
    fn new(image: &dyn Files, name: &str, node: ImageNode) -> Result<Self> {
        let attr = image.attr(node)?;
        let is_link = attr.kind == Kind::Symlink;
        let is_device = matches!(attr.kind, Kind::CharDevice | Kind::BlockDevice);
        let xattrs = image.xattrs(node)?.into_iter();
        Ok(Self {
            name: name.to_owned(),
            kind: kind_name(attr.kind),
            mode: format!("{:04o}", attr.mode),
            uid: attr.uid,
            gid: attr.gid,
            size: attr.size,
            nlink: attr.nlink,
            mtime: time_text(attr.mtime_nanos),
            target: is_link.then(|| image.target(node)).transpose()?,
            device: is_device.then_some(attr.device),
            xattrs: xattrs.map(|(name, value)| (name, value.escape_ascii().to_string())).collect(),
            layer: node.layer,
            attr,
        })
    }

    fn name_and_target(&self) -> String {
        match &self.target {
            Some(target) => format!("{} -> {target}", self.name),
            None => self.name.clone(),
        }
    }

    fn long(&self) -> String {
        let size = match self.device {
            Some((major, minor)) => format!("{major}, {minor}"),
            None => self.size.to_string(),
        };
        let mode = mode_text(&self.attr);
        format!(
            "{mode} {:>3} {:>5} {:>5} {size:>11} {} {}",
            self.nlink,
            self.uid,
            self.gid,
            self.mtime,
            self.name_and_target()
        )
    }

    fn write_json(&self, out: &mut impl Write) -> Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        Ok(out.write_all(b"\n")?)
    }

    fn write_text(&self, out: &mut impl Write) -> Result<()> {
        writeln!(out, "  File: {}", self.name_and_target())?;
        writeln!(out, "  Type: {}, {} links, in layer {}", self.kind, self.nlink, self.layer)?;
        writeln!(out, "  Size: {}", self.size)?;
        writeln!(out, "  Mode: {} ({})", self.mode, mode_text(&self.attr))?;
        writeln!(out, " Owner: {}:{}", self.uid, self.gid)?;
        if let Some((major, minor)) = self.device {
            writeln!(out, "Device: {major}, {minor}")?;
        }
        writeln!(out, "Modify: {}", self.mtime)?;
        for (name, value) in &self.xattrs {
            writeln!(out, " Xattr: {name}={value}")?;
        }
        Ok(())
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Directory => "directory",
        Kind::Regular => "file",
        Kind::Symlink => "symlink",
        Kind::CharDevice => "char-device",
        Kind::BlockDevice => "block-device",
        Kind::Fifo => "fifo",
        Kind::Whiteout => "whiteout",
    }
}
