//! The checks. Each makes its own snapshots and removes them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;

use lazystar::proto::services::snapshots::v1::{Info, Kind};
use tonic::Code;

use crate::client::{Client, Mounted, ROOT_LABEL, code, unique};
use crate::files::{dir, list, mode, own, remove, rename, write};

type Check = for<'a> fn(&'a Client, &'a str) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), |client, name| Box::pin($name(client, name)))),*]
    };
}

/// All checks by name, in the order in which they run.
pub(crate) const ALL: &[(&str, Check)] = checks![
    basic,
    stat_tells_name_kind_and_parent,
    parents_are_kept,
    keys_are_unique,
    labels_are_updated,
    keys_can_be_used_again,
    lists_are_filtered,
    files_are_updated_in_layers,
    lower_directories_are_removed,
    owners_change,
    directory_permissions_are_committed,
    parents_cannot_be_removed,
    deleted_files_stay_deleted,
    files_move_from_lower_layers,
    views_are_read_only,
    lists_and_stat_agree,
    cleaning_up_twice_is_harmless,
    the_root_directory_is_open_to_all,
    files_are_renamed,
    usage_is_told,
    wrong_calls_are_refused,
    a_hundred_and_twenty_eight_layers,
];

/// Stacks layers made by `changes`, and after each compares with a directory that they were all made to.
async fn stack(client: &Client, name: &str, changes: &[&dyn Fn(&Path)]) {
    let flat = tempfile::tempdir().expect("a directory");
    mode(flat.path(), "", 0o755);
    let (mut names, mut parent) = (Vec::new(), String::new());
    for change in changes {
        let layer = unique(name);
        client.layer(&layer, &parent, change).await;
        change(flat.path());
        assert_eq!(client.listing(&layer).await, list(flat.path()), "{layer}");
        names.insert(0, layer.clone());
        parent = layer;
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    client.remove_all(&names).await;
}

async fn basic(client: &Client, name: &str) {
    let (base, top, active) = (unique(name), unique(name), unique(name));
    client
        .layer(&base, "", |root| {
            write(root, "foo", "foo\n");
            mode(root, "foo", 0o777);
            dir(root, "a/b/c");
        })
        .await;
    let info = client.stat(&base).await.expect("it was committed");
    assert_eq!((info.parent.as_str(), info.kind()), ("", Kind::Committed));
    assert_eq!(code(client.stat(&format!("{base}-active")).await), Code::NotFound);
    let mounts = client.prepare(&active, &base, &[]).await.expect("it can be prepared");
    assert_eq!(client.mounts(&active).await.expect("it is active"), mounts);
    let mounted = Mounted::new(&mounts);
    assert_eq!(list(mounted.path()), client.listing(&base).await);
    write(mounted.path(), "foo", "changed\n");
    write(mounted.path(), "bar", "bar\n");
    remove(mounted.path(), "a/b");
    let changed = list(mounted.path());
    drop(mounted);
    let info = client.stat(&active).await.expect("it is active");
    assert_eq!((&info.parent, info.kind()), (&base, Kind::Active));
    client.commit(&top, &active, &[]).await.expect("it can be committed");
    assert_eq!(client.listing(&top).await, changed);
    let refused = client.remove(&base).await.expect_err("it has a child");
    assert!(refused.message().contains("remove"), "{refused}");
    client.remove_all(&[&top, &base]).await;
}

async fn stat_tells_name_kind_and_parent(client: &Client, name: &str) {
    let (base, active, view) = (unique(name), unique(name), unique(name));
    client.layer(&base, "", |root| write(root, "x", "")).await;
    client.prepare(&active, &base, &[]).await.expect("prepared");
    client.view(&view, &base, &[]).await.expect("viewed");
    for (key, parent, kind) in
        [(&base, "", Kind::Committed), (&active, &*base, Kind::Active), (&view, &base, Kind::View)]
    {
        let info = client.stat(key).await.expect("it is there");
        assert_eq!((&info.name, info.parent.as_str(), info.kind()), (key, parent, kind));
    }
    client.remove_all(&[&view, &active, &base]).await;
}

async fn parents_are_kept(client: &Client, name: &str) {
    let (lower, upper) = (unique(name), unique(name));
    client.layer(&lower, "", |root| write(root, "x", "")).await;
    client.layer(&upper, &lower, |root| write(root, "y", "")).await;
    assert_eq!(client.stat(&upper).await.expect("there").parent, lower);
    assert_eq!(client.stat(&lower).await.expect("there").parent, "");
    client.remove_all(&[&upper, &lower]).await;
}

async fn keys_are_unique(client: &Client, name: &str) {
    let (base, active, view) = (unique(name), unique(name), unique(name));
    client.layer(&base, "", |_| ()).await;
    client.prepare(&active, &base, &[]).await.expect("prepared");
    client.view(&view, &base, &[]).await.expect("viewed");
    for key in [&active, &view] {
        assert_eq!(code(client.prepare(key, &base, &[]).await), Code::AlreadyExists);
        assert_eq!(code(client.view(key, &base, &[]).await), Code::AlreadyExists);
    }
    client.remove_all(&[&view, &active, &base]).await;
}

async fn labels_are_updated(client: &Client, name: &str) {
    let base = unique(name);
    client.layer(&base, "", |_| ()).await;
    let before = client.stat(&base).await.expect("there");
    // Without the label that keeps it, containerd may collect the snapshot between two calls.
    let kept = || before.labels.iter().filter(|(key, _)| *key == ROOT_LABEL);
    let with = |pairs: &[(&str, &str)]| {
        let labels = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let kept = kept().map(|(key, value)| (key.clone(), value.clone()));
        Info { name: base.clone(), labels: labels.chain(kept).collect(), ..Info::default() }
    };
    let all = client.update(with(&[("l1", "a"), ("l2", "b")]), &["labels"]).await.expect("updated");
    assert_eq!(all.labels.len(), 3);
    assert_eq!(all.created_at, before.created_at);
    let (then, now) = (before.updated_at.expect("a time"), all.updated_at.expect("a time"));
    assert!((now.seconds, now.nanos) > (then.seconds, then.nanos));
    let some =
        client.update(with(&[("l1", "c"), ("l3", "d")]), &["labels.l1"]).await.expect("updated");
    assert_eq!(some.labels.get("l1").map(String::as_str), Some("c"));
    assert_eq!(some.labels.get("l2").map(String::as_str), Some("b"));
    assert_eq!(some.labels.get("l3"), None);
    let gone = client.update(with(&[]), &["labels.l1"]).await.expect("updated");
    assert_eq!(gone.labels, with(&[("l2", "b")]).labels);
    let whole = Info { parent: "another".to_owned(), ..with(&[("l4", "e")]) };
    let whole = client.update(whole, &[]).await.expect("updated");
    assert_eq!((whole.parent.as_str(), &whole.labels), ("", &with(&[("l4", "e")]).labels));
    assert_eq!(code(client.update(with(&[]), &["parent"]).await), Code::InvalidArgument);
    assert_eq!(client.stat(&base).await.expect("there"), whole);
    client.remove_all(&[&base]).await;
}

async fn keys_can_be_used_again(client: &Client, name: &str) {
    let (base, key) = (unique(name), unique(name));
    for _ in 0..2 {
        client.layer(&base, "", |root| write(root, "x", "")).await;
        client.prepare(&key, &base, &[]).await.expect("prepared");
        client.remove(&key).await.expect("removed");
        client.view(&key, &base, &[]).await.expect("viewed");
        client.remove_all(&[&key, &base]).await;
    }
}

async fn lists_are_filtered(client: &Client, name: &str) {
    let (base, active, view) = (unique("walk-base"), unique("walk-active"), unique("walk-view"));
    let label = ("containerd.io/snapshot/suite", name);
    client.layer(&base, "", |_| ()).await;
    client.prepare(&active, &base, &[label, ("l", "1")]).await.expect("prepared");
    client.view(&view, &base, &[label, ("l", "2")]).await.expect("viewed");
    let mine = format!("labels.\"{}\"=={name}", label.0);
    for (filters, wanted) in [
        (vec![mine.clone()], vec![&active, &view]),
        (vec![format!("kind==active,{mine}")], vec![&active]),
        (vec![format!("kind!=active,{mine}")], vec![&view]),
        (vec![format!("name=={active}"), format!("name=={base}")], vec![&active, &base]),
        (vec![format!("name=={active},labels.l==2")], vec![]),
        (vec![format!("parent=={base}")], vec![&active, &view]),
        (vec![format!("labels.l,{mine}")], vec![&active, &view]),
        (vec![format!("labels.l~=^[2-9]$,{mine}")], vec![&view]),
        (vec!["name~=^walk-,parent==\"\"".to_owned()], vec![&base]),
    ] {
        let filters: Vec<_> = filters.iter().map(String::as_str).collect();
        let found = client.list(&filters).await.expect("well-formed");
        assert_eq!(found.iter().map(|info| &info.name).collect::<Vec<_>>(), wanted, "{filters:?}");
    }
    // containerd itself says Unknown here, we InvalidArgument.
    assert_ne!(code(client.list(&["name==,"]).await), Code::Ok);
    client.remove_all(&[&view, &active, &base]).await;
}

async fn files_are_updated_in_layers(client: &Client, name: &str) {
    for round in 0..3 {
        let first = |root: &Path| {
            write(root, "etc/hosts", "127.0.0.1 a\n");
            write(root, "etc/profile", "one\n");
            write(root, "root/.bashrc", "x\n");
        };
        let second = |root: &Path| {
            write(root, "etc/hosts", &format!("127.0.0.1 {round}\n"));
            mode(root, "etc/hosts", 0o666);
            mode(root, "etc/profile", 0o666);
        };
        stack(client, name, &[&first, &second]).await;
    }
}

async fn lower_directories_are_removed(client: &Client, name: &str) {
    let first = |root: &Path| {
        write(root, "lib/hidden", "should not be seen\n");
        write(root, "lib/deep/hidden", "neither\n");
    };
    let second = |root: &Path| {
        remove(root, "lib");
        write(root, "lib/a", "a\n");
    };
    let third = |root: &Path| write(root, "lib/b", "b\n");
    stack(client, name, &[&first, &second, &third]).await;
}

async fn owners_change(client: &Client, name: &str) {
    let first = |root: &Path| write(root, "opt/a/b/file", "x\n");
    let second = |root: &Path| own(root, "opt", 1);
    stack(client, name, &[&first, &second]).await;
}

async fn directory_permissions_are_committed(client: &Client, name: &str) {
    let first = |root: &Path| {
        dir(root, "dir1");
        mode(root, "dir1", 0o700);
        dir(root, "dir2");
        dir(root, "dir3");
        own(root, "dir3", 5);
    };
    let second = |root: &Path| {
        own(root, "dir1", 1);
        remove(root, "dir2");
        dir(root, "dir2");
        mode(root, "dir2", 0o711);
    };
    let third = |root: &Path| {
        remove(root, "dir3");
        dir(root, "dir3");
        mode(root, "dir1", 0o755);
    };
    stack(client, name, &[&first, &second, &third]).await;
}

async fn parents_cannot_be_removed(client: &Client, name: &str) {
    let (base, middle, top) = (unique(name), unique(name), unique(name));
    client.layer(&base, "", |_| ()).await;
    client.layer(&middle, &base, |_| ()).await;
    client.prepare(&top, &middle, &[]).await.expect("prepared");
    for key in [&middle, &base] {
        assert_eq!(code(client.remove(key).await), Code::FailedPrecondition);
    }
    client.remove_all(&[&top, &middle, &base]).await;
}

async fn deleted_files_stay_deleted(client: &Client, name: &str) {
    let first = |root: &Path| {
        write(root, "foo/file", "x\n");
        write(root, "kept", "x\n");
    };
    let second = |root: &Path| remove(root, "foo/file");
    let third = |_: &Path| ();
    stack(client, name, &[&first, &second, &third]).await;
}

async fn files_move_from_lower_layers(client: &Client, name: &str) {
    let first = |root: &Path| {
        write(root, "dir1/f1", "foo\n");
        dir(root, "dir2");
    };
    let second = |root: &Path| {
        fs::hard_link(root.join("dir1/f1"), root.join("dir2/f2")).expect("it can be linked");
        remove(root, "dir1/f1");
    };
    stack(client, name, &[&first, &second]).await;
}

async fn views_are_read_only(client: &Client, name: &str) {
    let (one, two, view) = (unique(name), unique(name), unique(name));
    client.layer(&one, "", |root| write(root, "x", "")).await;
    client.layer(&two, &one, |root| write(root, "y", "")).await;
    for parent in [&one, &two] {
        let mounted = Mounted::new(&client.view(&view, parent, &[]).await.expect("viewed"));
        let refused = fs::write(mounted.path().join("z"), "z").expect_err("it is read-only");
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        drop(mounted);
        client.remove(&view).await.expect("removed");
    }
    client.remove_all(&[&two, &one]).await;
}

async fn lists_and_stat_agree(client: &Client, name: &str) {
    let (base, active) = (unique(name), unique(name));
    client.layer(&base, "", |_| ()).await;
    client.prepare(&active, &base, &[("l", "1")]).await.expect("prepared");
    for info in client.list(&[]).await.expect("all") {
        assert_eq!(client.stat(&info.name).await.expect("it was listed"), info);
    }
    client.remove_all(&[&active, &base]).await;
}

/// Of a snapshotter behind a socket, closing cannot be seen; cleaning up is what a client may repeat.
async fn cleaning_up_twice_is_harmless(client: &Client, name: &str) {
    let base = unique(name);
    client.layer(&base, "", |root| write(root, "x", "kept\n")).await;
    for _ in 0..2 {
        client.cleanup().await.expect("it can be cleaned up");
    }
    assert!(client.listing(&base).await.contains_key("x"));
    client.remove_all(&[&base]).await;
}

async fn the_root_directory_is_open_to_all(client: &Client, name: &str) {
    let active = unique(name);
    let mounted = Mounted::new(&client.prepare(&active, "", &[]).await.expect("prepared"));
    let metadata = fs::metadata(mounted.path()).expect("it is mounted");
    assert_eq!(metadata.mode() & 0o7777, 0o755);
    drop(mounted);
    client.remove_all(&[&active]).await;
}

async fn files_are_renamed(client: &Client, name: &str) {
    let first = |root: &Path| {
        write(root, "foo1", "foo\n");
        write(root, "foo2", "bar\n");
        write(root, "some/file", "x\n");
    };
    let second = |root: &Path| {
        rename(root, "foo1", "foo2");
        rename(root, "some/file", "some/other");
        dir(root, "new");
        rename(root, "new", "newer");
    };
    stack(client, name, &[&first, &second]).await;
}

async fn usage_is_told(client: &Client, name: &str) {
    let (base, active) = (unique(name), unique(name));
    client.layer(&base, "", |root| write(root, "x", &"x".repeat(100_000))).await;
    let (size, inodes) = client.usage(&base).await.expect("it is there");
    assert!(size >= 100_000 && inodes == 2, "{size} bytes, {inodes} inodes");
    client.prepare(&active, &base, &[]).await.expect("prepared");
    let (size, inodes) = client.usage(&active).await.expect("it is there");
    assert!(size < 100_000 && inodes == 1, "{size} bytes, {inodes} inodes");
    client.remove_all(&[&active, &base]).await;
}

async fn wrong_calls_are_refused(client: &Client, name: &str) {
    let (base, active, other) = (unique(name), unique(name), unique(name));
    client.layer(&base, "", |_| ()).await;
    client.prepare(&active, &base, &[]).await.expect("prepared");
    assert_eq!(code(client.prepare(&other, "nowhere", &[]).await), Code::NotFound);
    assert_eq!(code(client.prepare(&other, &active, &[]).await), Code::InvalidArgument);
    assert_eq!(code(client.mounts("nowhere").await), Code::NotFound);
    assert_eq!(code(client.remove("nowhere").await), Code::NotFound);
    assert_eq!(code(client.commit(&other, "nowhere", &[]).await), Code::NotFound);
    assert_eq!(code(client.commit(&base, &active, &[]).await), Code::AlreadyExists);
    assert_eq!(code(client.stat(&other).await), Code::NotFound, "nothing is half-made");
    client.remove_all(&[&active, &base]).await;
}

async fn a_hundred_and_twenty_eight_layers(client: &Client, name: &str) {
    let flat = tempfile::tempdir().expect("a directory");
    mode(flat.path(), "", 0o755);
    let (mut names, mut parent) = (Vec::new(), String::new());
    for number in 0..128 {
        let change = |root: &Path| {
            write(root, "bar", &format!("{number}\n"));
            write(root, &format!("layer-{number}"), &format!("{number}\n"));
        };
        let layer = unique(name);
        client.layer(&layer, &parent, change).await;
        change(flat.path());
        names.insert(0, layer.clone());
        parent = layer;
    }
    assert_eq!(client.listing(&parent).await, list(flat.path()));
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    client.remove_all(&names).await;
}
