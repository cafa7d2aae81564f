//! Writing archives as `docker save` writes them: an OCI layout with `manifest.json` beside it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::json;

use crate::oci::Manifest;

/// Makes the archive `path` of the layout `dir`, whose image has the manifest `manifest`.
pub(super) fn write_archive(
    dir: &Path,
    path: &Path,
    manifest: &[u8],
    name: Option<&str>,
) -> io::Result<()> {
    let manifest: Manifest = serde_json::from_slice(manifest)?;
    let file = |digest: lazystar_core::Digest| format!("blobs/sha256/{}", digest.hex());
    let saved = json!([{
        "Config": file(manifest.config.digest),
        "RepoTags": name.into_iter().collect::<Vec<_>>(),
        "Layers": manifest.layers.iter().map(|layer| file(layer.digest)).collect::<Vec<_>>(),
    }]);
    let partial = dir.join("archive.tar");
    let mut archive = tar::Builder::new(BufWriter::new(File::create(&partial)?));
    let mut blobs: Vec<_> = fs::read_dir(dir.join("blobs/sha256"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    blobs.sort();
    for directory in ["blobs/", "blobs/sha256/"] {
        let mut header = header(tar::EntryType::Directory, 0, 0o755);
        archive.append_data(&mut header, directory, io::empty())?;
    }
    for blob in blobs {
        let name = format!("blobs/sha256/{blob}");
        add(&mut archive, &name, &mut File::open(dir.join(&name))?)?;
    }
    for name in ["index.json", "oci-layout"] {
        add(&mut archive, name, &mut File::open(dir.join(name))?)?;
    }
    let saved = saved.to_string();
    let mut header = header(tar::EntryType::Regular, saved.len() as u64, 0o644);
    archive.append_data(&mut header, "manifest.json", saved.as_bytes())?;
    archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
    fs::rename(partial, path)
}

fn add(archive: &mut tar::Builder<impl Write>, name: &str, file: &mut File) -> io::Result<()> {
    let mut header = header(tar::EntryType::Regular, file.metadata()?.len(), 0o644);
    archive.append_data(&mut header, name, file)
}

/// The same on every machine and at any time.
fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header
}
