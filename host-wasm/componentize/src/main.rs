//! Makes a component out of a core module, and JSON of the interface for hosts that call the core
//! module: `lazystar-componentize MODULE COMPONENT WIT JSON`.
//!
//! It refuses to write a component that imports anything.

mod describe;

use std::env;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use wasmparser::{BinaryReader, Parser, Payload};
use wit_component::ComponentEncoder;
use wit_parser::Resolve;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [module, component, wit, json] = arguments.as_slice() else {
        eprintln!("usage: lazystar-componentize MODULE COMPONENT WIT JSON");
        return ExitCode::from(2);
    };
    match run(module, component).and_then(|()| describe(wit, json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lazystar-componentize: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(module: &str, component: &str) -> Result<()> {
    let core = fs::read(module).with_context(|| format!("cannot read {module}"))?;
    let encoded =
        without_names(&ComponentEncoder::default().validate(true).module(&core)?.encode()?)?;
    let imports = imports(&encoded)?;
    if !imports.is_empty() {
        bail!("the component imports {}; it must import nothing", imports.join(", "));
    }
    fs::write(component, encoded).with_context(|| format!("cannot write {component}"))
}

/// The component without the custom section that names what is inside, for people who debug its making.
fn without_names(component: &[u8]) -> Result<Vec<u8>> {
    let mut reader = BinaryReader::new(component, 0);
    let mut stripped = reader.read_bytes(8)?.to_vec();
    while !reader.eof() {
        let start = component.len() - reader.bytes_remaining();
        let custom = reader.read_u8()? == 0;
        let content = reader.read_reader()?;
        let named = custom && content.clone().read_string()? == "component-name";
        if !named {
            stripped.extend(&component[start..component.len() - reader.bytes_remaining()]);
        }
    }
    Ok(stripped)
}

/// Writes the types and functions of the interface as JSON.
fn describe(wit: &str, json: &str) -> Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).with_context(|| format!("cannot read {wit}"))?;
    let description = describe::describe(&resolve, package)?;
    fs::write(json, description.to_string()).with_context(|| format!("cannot write {json}"))
}

/// What the component itself imports.
fn imports(component: &[u8]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            // Modules and components inside import from each other.
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    names.push(format!("{:?}", import?.name));
                }
            }
            _ => {}
        }
    }
    Ok(names)
}
