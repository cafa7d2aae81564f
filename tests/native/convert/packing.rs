//! What `pack` leaves out, changes and puts first.

use std::fs;

use lazystar::pack::{PackOptions, Packed, Wanted, pack_directory, pack_tar};
use lazystar_tests::layers::{dir, file};
use serde_json::Value;
use tempfile::TempDir;

use super::tar;

#[test]
fn packing_leaves_out_changes_and_puts_first_what_it_is_told() {
    let names = |toc: &[u8]| -> Vec<(String, u64, u64, String)> {
        let toc: Value = serde_json::from_slice(toc).unwrap();
        let entries = toc["entries"].as_array().unwrap().iter();
        let entry = |entry: &Value| {
            let number = |key: &str| entry[key].as_u64().unwrap_or(0);
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            (text("name"), number("uid"), number("gid"), text("modtime"))
        };
        entries.map(entry).collect()
    };
    let work = TempDir::new().unwrap();
    let at = |name: &str| work.path().join(name);
    fs::create_dir_all(at("a/cache")).unwrap();
    fs::write(at("a/cache/x"), b"x").unwrap();
    for name in ["a/1.py", "a/2.py", "a/3.pyc", "b"] {
        fs::write(at(name), name).unwrap();
    }
    let options = PackOptions {
        excluded: ["*.pyc", "/a/cache"].map(|glob| glob.parse().unwrap()).to_vec(),
        prioritised: vec!["b".into(), Wanted::parse("a/*.py").unwrap()],
        owner: Some((7, 8)),
        mtime: Some(1_000_000_000),
        ..PackOptions::default()
    };
    let expected = ["b", "a/", "a/1.py", "a/2.py", ".prefetch.landmark"]
        .map(|name| (name.to_owned(), 7, 8, "2001-09-09T01:46:40Z".to_owned()));
    let expect = |packed: Packed| {
        let mut found = names(&packed.toc_json);
        let landmark = found.last_mut().unwrap();
        assert_eq!((landmark.1, landmark.2, &*landmark.3), (0, 0, ""));
        (landmark.1, landmark.2, landmark.3) = (7, 8, expected[0].3.clone());
        assert_eq!(found, expected);
    };
    expect(pack_directory(work.path(), &options, &mut Vec::new()).unwrap());
    let items = [
        dir("a/").owner(1, 1),
        dir("a/cache/"),
        file("a/cache/x", b"x"),
        file("a/1.py", b"1").mtime(5),
        file("a/2.py", b"2"),
        file("./a/3.pyc", b"3"),
        file("b", b"b"),
    ];
    expect(pack_tar(&tar(&items)[..], &options, &mut Vec::new()).unwrap());
    let limited = PackOptions { mtime_limit: Some(3), ..PackOptions::default() };
    let packed = pack_tar(&tar(&items)[..], &limited, &mut Vec::new()).unwrap();
    assert!(names(&packed.toc_json).iter().any(|it| it.0 == "a/1.py" && it.3.ends_with(":03Z")));
    let none = PackOptions { prioritised: vec![Wanted::parse("z*").unwrap()], ..limited };
    let refused = pack_tar(&tar(&items)[..], &none, &mut Vec::new()).unwrap_err();
    assert_eq!(refused.to_string(), "the layer has no z*");
}
