//! Images through the sandbox.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;

use crate::engine::Engine;
use crate::error::Error;
use crate::layers::{Descriptor, Span, Summary};
use crate::oci::Document;
use crate::overlay::{DirectoryEntry, Found, Located, Location};
use crate::sandbox::{Handle, Sandbox, Source};
use crate::types::{Assurance, Entry, EntryKind, ErrorCode};

/// The most entries of a page, and spans of a reader.
pub(crate) const PAGE: u32 = 1000;

/// An image whose layers are open in a sandbox of its own.
pub struct Image<S> {
    sandbox: Sandbox,
    layers: Vec<(Handle, S)>,
    tree: Handle,
}

/// What [`Image::verify`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files read, those that upper layers hide included.
    pub files: u64,
    /// Plain bytes of them.
    pub bytes: u64,
}

impl<S: Source + Sync> Image<S> {
    /// Opens an image by its manifest, which is parsed in the sandbox; `blobs` are its layers, the
    /// bottom one first. Without a `digest` nothing vouches for the manifest.
    ///
    /// # Errors
    /// When the manifest is not the one with the digest, or a layer cannot be read lazily, or cannot
    /// be trusted as far as `least`.
    pub fn open(
        engine: &Engine,
        manifest: &[u8],
        digest: Option<&str>,
        least: Assurance,
        blobs: Vec<S>,
    ) -> Result<Self, Error> {
        let sandbox = engine.sandbox()?;
        let digest = digest.map(str::to_owned);
        let document = sandbox.call(|api, store| {
            api.lazystar_engine_oci().call_parse(store, manifest, digest.as_ref())
        })??;
        let unsupported = |why: &str| Err(ErrorCode::Unsupported(why.to_owned()).into());
        match document {
            Document::Manifest(manifest) if manifest.layers.len() == blobs.len() => {
                let layers = manifest.layers.into_iter().zip(blobs).collect();
                Self::of_layers(sandbox, layers, least)
            }
            Document::Manifest(_) => unsupported("the manifest has another number of layers"),
            Document::Index(_) => unsupported("an index where a manifest is needed"),
        }
    }

    /// Opens layers by their descriptors, the bottom one first, side by side.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of_layers(
        sandbox: Sandbox,
        layers: Vec<(Descriptor, S)>,
        least: Assurance,
    ) -> Result<Self, Error> {
        let open =
            &|(descriptor, source): &(Descriptor, S)| sandbox.open(descriptor, least, source);
        let handles: Result<Vec<Handle>, Error> = thread::scope(|scope| {
            let opening: Vec<_> =
                layers.iter().map(|layer| scope.spawn(move || open(layer))).collect();
            let died = |_| Err(Error::Stopped("a thread died".to_owned()));
            opening.into_iter().map(|it| it.join().unwrap_or_else(died)).collect()
        });
        let handles = handles?;
        let sources = layers.into_iter().map(|(_, source)| source);
        let opened = handles.iter().copied().zip(sources).collect();
        let tree = sandbox.call(|api, store| {
            api.lazystar_engine_overlay().rootfs().call_constructor(store, &handles)
        })?;
        Ok(Self { sandbox, layers: opened, tree })
    }

    /// The object at a path; a symbolic link at its end is followed if `follow` is set.
    ///
    /// # Errors
    /// When the path leads nowhere.
    pub fn lookup(&self, path: &str, follow: bool) -> Result<Located, Error> {
        let tree = self.tree;
        Ok(self.sandbox.call(|api, store| {
            api.lazystar_engine_overlay().rootfs().call_lookup(store, tree, path, follow)
        })??)
    }

    /// The top directory.
    ///
    /// # Errors
    /// When there is none.
    pub fn root(&self) -> Result<Located, Error> {
        let tree = self.tree;
        Ok(self
            .sandbox
            .call(|api, store| api.lazystar_engine_overlay().rootfs().call_root(store, tree))??)
    }

    /// The object at a location.
    ///
    /// # Errors
    /// When there is none.
    pub fn stat(&self, at: Location) -> Result<Located, Error> {
        let tree = self.tree;
        let found = self.sandbox.call(|api, store| {
            api.lazystar_engine_overlay().rootfs().call_stat(store, tree, &[at])
        })??;
        Ok(found.first().copied().ok_or(ErrorCode::NotFound)?)
    }

    /// What is known of each layer, the bottom one first.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn layers(&self) -> Result<Vec<Summary>, Error> {
        let summary = |(layer, _): &(Handle, S)| {
            let layer = *layer;
            self.sandbox
                .call(|api, store| api.lazystar_engine_layers().layer().call_summary(store, layer))
        };
        self.layers.iter().map(summary).collect()
    }

    /// All names in a directory, sorted by their bytes.
    ///
    /// # Errors
    /// When it is none.
    pub fn children(&self, directory: &Located) -> Result<Vec<DirectoryEntry>, Error> {
        let (tree, at) = (self.tree, location(directory));
        let (mut all, mut start) = (Vec::new(), Some(0));
        while let Some(from) = start {
            let page = self.sandbox.call(|api, store| {
                api.lazystar_engine_overlay().rootfs().call_children(store, tree, at, from, PAGE)
            })??;
            all.extend(page.entries);
            start = page.next;
        }
        Ok(all)
    }

    /// Starts a walk through all that is below a directory; see [`next`](Self::next).
    ///
    /// # Errors
    /// When it is none.
    pub fn walk(&self, directory: &Located) -> Result<Handle, Error> {
        let (tree, at) = (self.tree, location(directory));
        Ok(self.sandbox.call(|api, store| {
            api.lazystar_engine_overlay().rootfs().call_walk(store, tree, at, "")
        })??)
    }

    /// The next objects of a walk, a directory before what is in it; nothing after the last.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn next(&self, walk: Handle) -> Result<Vec<Found>, Error> {
        self.sandbox
            .call(|api, store| api.lazystar_engine_overlay().walk().call_next(store, walk, PAGE))
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// When it is none.
    pub fn read_link(&self, link: &Located) -> Result<String, Error> {
        let layer = self.layer(link)?;
        let mut targets = self.sandbox.call(|api, store| {
            api.lazystar_engine_layers().layer().call_read_links(store, layer, &[link.entry.id])
        })??;
        Ok(targets.pop().unwrap_or_default())
    }

    /// The extended attributes of an object.
    ///
    /// # Errors
    /// When there is no such object.
    pub fn xattrs(&self, object: &Located) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let layer = self.layer(object)?;
        let xattrs = self.sandbox.call(|api, store| {
            api.lazystar_engine_layers().layer().call_xattrs(store, layer, object.entry.id)
        })??;
        Ok(xattrs.into_iter().map(|xattr| (xattr.name, xattr.value)).collect())
    }

    /// Reads files, one after the other: `each` gets the position of a file in the list and verified
    /// bytes of it. Files of one layer that stand together are fetched together.
    ///
    /// # Errors
    /// When one of them is no regular file or cannot be read, or what `each` says.
    pub fn read(
        &self,
        files: &[Located],
        mut each: impl FnMut(usize, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut first = 0;
        for run in files.chunk_by(|one, other| one.layer == other.layer) {
            let Some(file) = run.first() else { continue };
            let (layer, source) =
                self.layers.get(file.layer as usize).ok_or(ErrorCode::NotFound)?;
            for (at, part) in run.chunks(PAGE as usize).enumerate() {
                let spans: Vec<_> = part.iter().map(|file| whole(&file.entry)).collect();
                let first = first + at * PAGE as usize;
                let read = self.sandbox.read(*layer, &spans, source, |data| {
                    each(first + data.span as usize, &data.bytes)
                });
                read?;
            }
            first += run.len();
        }
        Ok(())
    }

    /// A part of a file. All chunks that it touches are fetched.
    ///
    /// # Errors
    /// When it is no regular file, is shorter than that, or cannot be read.
    pub fn read_part(&self, file: &Located, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        let (layer, source) = self.layers.get(file.layer as usize).ok_or(ErrorCode::NotFound)?;
        let span = Span { file: file.entry.id, offset, length };
        let mut bytes = Vec::new();
        self.sandbox.read(*layer, &[span], source, |data| {
            bytes.extend(data.bytes);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Reads every file of every layer, so that every chunk is checked.
    ///
    /// # Errors
    /// What is wrong with the first one that is damaged.
    pub fn verify(&self) -> Result<Verified, Error> {
        let mut sum = Verified::default();
        for (layer, source) in &self.layers {
            let layer = *layer;
            let summary = self.sandbox.call(|api, store| {
                api.lazystar_engine_layers().layer().call_summary(store, layer)
            })?;
            let mut start = 0;
            while start < summary.entries {
                let end = summary.entries.min(start + PAGE);
                let ids: Vec<_> = (start..end).collect();
                let entries = self.sandbox.call(|api, store| {
                    api.lazystar_engine_layers().layer().call_stat(store, layer, &ids)
                })??;
                let regular = entries.iter().filter(|it| matches!(it.kind, EntryKind::Regular));
                let spans: Vec<_> = regular.map(whole).collect();
                sum.files += spans.len() as u64;
                let read = self.sandbox.read(layer, &spans, source, |data| {
                    sum.bytes += data.bytes.len() as u64;
                    Ok(())
                });
                read?;
                start = end;
            }
        }
        Ok(sum)
    }

    fn layer(&self, object: &Located) -> Result<Handle, Error> {
        let layer = self.layers.get(object.layer as usize);
        Ok(layer.map(|(layer, _)| *layer).ok_or(ErrorCode::NotFound)?)
    }
}

fn location(object: &Located) -> Location {
    Location { layer: object.layer, entry: object.entry.id }
}

fn whole(file: &Entry) -> Span {
    Span { file: file.id, offset: 0, length: file.size }
}

impl<S> fmt::Debug for Image<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} layers)", self.layers.len())
    }
}
