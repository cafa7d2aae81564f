//! The interface is well formed and documented to the last item.

use std::path::Path;

use wit_parser::{Docs, Resolve, Stability, TypeDefKind, TypeOwner};

/// Counts what lacks documentation or a version.
#[derive(Default)]
struct Gaps(Vec<String>);

impl Gaps {
    fn docs(&mut self, docs: &Docs, name: &str) {
        if docs.contents.as_deref().is_none_or(|text| text.trim().is_empty()) {
            self.0.push(format!("{name} is not documented"));
        }
    }

    fn item(&mut self, docs: &Docs, stability: &Stability, name: &str) {
        self.docs(docs, name);
        if !matches!(stability, Stability::Stable { .. }) {
            self.0.push(format!("{name} lacks @since"));
        }
    }

    fn parts<'a>(&mut self, name: &str, parts: impl Iterator<Item = (&'a String, &'a Docs)>) {
        parts.for_each(|(part, docs)| self.docs(docs, &format!("{name}.{part}")));
    }
}

#[test]
fn every_item_is_documented_and_has_a_version() {
    let mut resolve = Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let (package, _) = resolve.push_dir(wit).unwrap();
    let mut gaps = Gaps::default();
    gaps.docs(&resolve.packages[package].docs, "the package");
    assert_eq!(resolve.packages[package].name.to_string(), "lazystar:engine@0.1.0");

    for (_, world) in &resolve.worlds {
        gaps.item(&world.docs, &world.stability, &world.name);
        assert!(world.imports.is_empty(), "{} imports", world.name);
        assert_eq!(world.exports.len(), resolve.interfaces.len());
    }
    for (_, interface) in &resolve.interfaces {
        let of = interface.name.clone().unwrap();
        gaps.item(&interface.docs, &interface.stability, &of);
        for (name, function) in &interface.functions {
            gaps.item(&function.docs, &function.stability, &format!("{of}/{name}"));
        }
    }
    let mut types = 0;
    for (_, def) in &resolve.types {
        let (Some(name), TypeOwner::Interface(owner)) = (&def.name, def.owner) else { continue };
        let name = &format!("{}/{name}", resolve.interfaces[owner].name.as_ref().unwrap());
        if let TypeDefKind::Type(wit_parser::Type::Id(_)) = def.kind {
            continue; // a `use`
        }
        types += 1;
        gaps.item(&def.docs, &def.stability, name);
        match &def.kind {
            TypeDefKind::Record(it) => {
                gaps.parts(name, it.fields.iter().map(|it| (&it.name, &it.docs)))
            }
            TypeDefKind::Variant(it) => {
                gaps.parts(name, it.cases.iter().map(|it| (&it.name, &it.docs)))
            }
            TypeDefKind::Enum(it) => {
                gaps.parts(name, it.cases.iter().map(|it| (&it.name, &it.docs)))
            }
            TypeDefKind::Flags(it) => {
                gaps.parts(name, it.flags.iter().map(|it| (&it.name, &it.docs)))
            }
            _ => {}
        }
    }
    assert!(types > 20, "only {types} types were seen");
    assert!(gaps.0.is_empty(), "{}", gaps.0.join("\n"));
}
