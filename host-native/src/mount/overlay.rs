//! Stacking directories with overlayfs.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::temporary::TemporaryDir;

const SOURCE: &str = "lazystar";
/// What one mount(2) call takes as options, less room for the rest.
const MAX_OPTIONS: usize = 4000;

/// Mounts `lower`, the topmost first, on `dir`; what is written goes to `writable`, if given. With
/// `user_xattrs`, marks are looked for in the `user` family of attributes.
///
/// # Errors
/// When the kernel refuses, or the writable directory cannot hold what overlayfs needs.
pub fn mount(
    lower: &[PathBuf],
    writable: Option<&Path>,
    user_xattrs: bool,
    dir: &Path,
) -> Result<()> {
    let upper = writable.map(Upper::prepare).transpose()?;
    let done = match (lower, &upper) {
        // overlayfs wants two directories; one alone is bound.
        ([only], None) => bind(only, dir),
        _ => stack(lower, upper.as_ref(), user_xattrs, dir),
    };
    done.with_context(|| format!("cannot mount the layers on {}", dir.display()))
}

/// Tries whether overlayfs can keep what is written in `dir`, by writing a file through it.
///
/// # Errors
/// When it cannot.
pub fn probe(dir: &Path, user_xattrs: bool) -> Result<()> {
    let probe = TemporaryDir::new(&dir.join("probe"))?;
    let (lower, merged) = (probe.path().join("lower"), probe.path().join("merged"));
    for dir in [&lower, &merged] {
        fs::create_dir(dir)?;
    }
    fs::write(lower.join("file"), b"below")?;
    mount(&[lower], Some(probe.path()), user_xattrs, &merged)?;
    let written = fs::write(merged.join("file"), b"above");
    rustix::mount::unmount(&merged, UnmountFlags::DETACH)?;
    written.context("overlayfs was mounted, but does not let a file be changed")
}

/// Where overlayfs writes.
struct Upper {
    upper: PathBuf,
    work: PathBuf,
}

impl Upper {
    fn prepare(dir: &Path) -> Result<Self> {
        let named = |name| dir.join(name);
        let both = Self { upper: named("upper"), work: named("work") };
        for dir in [&both.upper, &both.work] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let canonical = |dir: PathBuf| dir.canonicalize();
        Ok(Self { upper: canonical(both.upper)?, work: canonical(both.work)? })
    }
}

fn bind(from: &Path, dir: &Path) -> Result<()> {
    rustix::mount::mount_bind(from, dir)?;
    Ok(())
}

fn stack(lower: &[PathBuf], upper: Option<&Upper>, user_xattrs: bool, dir: &Path) -> Result<()> {
    let mut options = b"lowerdir=".to_vec();
    for (at, lower) in lower.iter().enumerate() {
        if at > 0 {
            options.push(b':');
        }
        options.extend(lower.as_os_str().as_bytes());
    }
    if options.len() > MAX_OPTIONS {
        return stack_many(lower, upper, user_xattrs, dir);
    }
    if user_xattrs {
        options.extend(b",userxattr");
    }
    let mut flags = MountFlags::RDONLY;
    if let Some(Upper { upper, work }) = upper {
        flags = MountFlags::empty();
        for (name, path) in [("upperdir", upper), ("workdir", work)] {
            let path = path.as_os_str().as_bytes();
            if path.iter().any(|byte| matches!(byte, b',' | b':' | b'\\')) {
                bail!("the path of the writable directory may not have ',', ':' or '\\' in it");
            }
            options.extend(format!(",{name}=").bytes());
            options.extend(path);
        }
    }
    rustix::mount::mount(SOURCE, dir, "overlay", flags, &*CString::new(options)?)?;
    Ok(())
}

/// As [`stack`], handing over one directory at a time, which Linux takes from 6.8 on.
fn stack_many(
    lower: &[PathBuf],
    upper: Option<&Upper>,
    user_xattrs: bool,
    dir: &Path,
) -> Result<()> {
    let config = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let fd = &config;
    fsconfig_set_string(fd, "source", SOURCE)?;
    for lower in lower {
        fsconfig_set_string(fd, "lowerdir+", lower)
            .with_context(|| format!("this kernel does not stack {} layers", lower.display()))?;
    }
    match upper {
        Some(Upper { upper, work }) => {
            fsconfig_set_string(fd, "upperdir", upper)?;
            fsconfig_set_string(fd, "workdir", work)?;
        }
        None => fsconfig_set_flag(fd, "ro")?,
    }
    if user_xattrs {
        fsconfig_set_flag(fd, "userxattr")?;
    }
    fsconfig_create(fd)?;
    let mounted = fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(&mounted, "", rustix::fs::CWD, dir, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}
