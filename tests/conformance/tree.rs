//! The tree of a layer: every kind of entry, in every format and spelling of names.

use lazystar_core::layer::FetchPolicy;
use lazystar_core::open::OpenOptions;
use lazystar_core::toc::{Assurance, Landmark as Shown};
use lazystar_core::write::{Format, Landmark};
use lazystar_tests::corpus::trees::trees;
use lazystar_tests::layers::{
    Built, FORMATS, Item, PREFIXES, build, build_with, file, noise, options,
};
use lazystar_tests::naive;
use lazystar_tests::script_host::{Answers, ScriptHost, open};

/// Opens a layer as an image's manifest would have it opened.
pub(crate) fn host(built: &Built, answers: Answers) -> ScriptHost {
    let options = OpenOptions {
        toc_digest: built.summary.toc_digest,
        unverified: built.summary.toc_digest.is_none(),
        ..OpenOptions::default()
    };
    let toc = open(&built.blob, Some(&built.toc), options, answers).unwrap();
    ScriptHost::new(toc, &built.blob, FetchPolicy::default(), answers)
}

/// Builds the items in every format and spelling; each must show the tree that they mean.
fn check(name: &str, chunk_size: u32, min_chunk_size: u32, items: &[Item]) {
    let expected = naive::tree(items).unwrap();
    for prefix in PREFIXES {
        let items: Vec<_> = items.iter().map(|item| item.clone().prefixed(prefix)).collect();
        for format in FORMATS {
            let built = build(options(format, chunk_size, min_chunk_size), &items);
            let mut host = host(&built, Answers::Whole);
            let case = format!("{name}, {format:?}, prefix {prefix:?}");
            let assurance = match format {
                Format::LegacyStargz if !host.toc.chunks().is_empty() => Assurance::Unverified,
                Format::LegacyStargz => Assurance::Consistent,
                _ => Assurance::Verified,
            };
            assert_eq!(host.toc.assurance(), assurance, "{case}");
            assert_eq!(naive::shown(&mut host), expected, "{case}");
            let stated = built.summary.toc_digest.unwrap_or_else(|| host.toc.digest());
            assert_eq!(host.toc.digest(), stated, "{case}");
        }
    }
}

#[test]
fn every_kind_of_entry_is_shown_as_the_tar_has_it() {
    for (name, chunk_size, min_chunk_size, items) in trees() {
        check(name, chunk_size, min_chunk_size, &items);
    }
}

#[test]
fn a_landmark_at_the_root_is_hidden_and_says_what_to_prefetch() {
    let items = [file("a", noise(100, 1)), file("b", noise(5000, 2)), file("c", noise(100, 3))];
    for format in FORMATS {
        for min in [0, 20_000] {
            let with = |landmark| {
                let built = build_with(options(format, 1000, min), &items, landmark);
                host(&built, Answers::Whole).toc
            };
            let toc = with(Some((2, Landmark::Prefetch)));
            let names: Vec<_> =
                toc.entries(lazystar_core::Toc::ROOT).map(|entry| entry.name).collect();
            assert_eq!(names, [b"a", b"b", b"c"]);
            let node = |name: &[u8]| toc.lookup(lazystar_core::Toc::ROOT, name).unwrap();
            assert_eq!(
                toc.landmark(),
                Shown::Prefetch(toc.flat_range(node(b"c")).start),
                "{format:?}"
            );
            assert!(toc.flat_range(node(b"b")).end <= toc.flat_range(node(b"c")).start);
            assert_eq!(with(Some((0, Landmark::NoPrefetch))).landmark(), Shown::NoPrefetch);
            assert_eq!(with(Some((0, Landmark::Prefetch))).landmark(), Shown::Prefetch(0));
            assert_eq!(with(None).landmark(), Shown::None);
        }
    }
}
