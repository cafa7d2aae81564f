//! The interface as JSON, for hosts that call the core module: the types by number, and for each
//! function the numbers or names of the types of its parameters and result.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};
use wit_parser::{Case, Handle, PackageId, Resolve, Type, TypeDefKind, TypeId};

/// Describes a package of which every interface is exported.
pub(crate) fn describe(resolve: &Resolve, package: PackageId) -> Result<Value> {
    let mut interfaces = Map::new();
    for (name, id) in &resolve.packages[package].interfaces {
        let functions = resolve.interfaces[*id].functions.iter().map(|(name, function)| {
            let parameters: Vec<_> = function.params.iter().map(|it| of(&it.ty)).collect();
            let result = optional(function.result.as_ref());
            (name.clone(), json!({ "parameters": parameters, "result": result }))
        });
        interfaces.insert(resolve.id_of(*id).unwrap_or_else(|| name.clone()), functions.collect());
    }
    let types = resolve.types.iter().map(|(id, _)| shape(resolve, id));
    Ok(json!({ "interfaces": interfaces, "types": types.collect::<Result<Vec<_>>>()? }))
}

fn shape(resolve: &Resolve, id: TypeId) -> Result<Value> {
    let definition = &resolve.types[id];
    let cases = |cases: &[Case]| -> Vec<Value> {
        cases.iter().map(|it| json!([it.name, optional(it.ty.as_ref())])).collect()
    };
    Ok(match &definition.kind {
        TypeDefKind::Type(it) => json!({ "type": of(it) }),
        TypeDefKind::List(it) => json!({ "list": of(it) }),
        TypeDefKind::Option(it) => json!({ "option": of(it) }),
        TypeDefKind::Result(it) => json!({ "result": [
            optional(it.ok.as_ref()), optional(it.err.as_ref())
        ] }),
        TypeDefKind::Tuple(it) => {
            json!({ "tuple": it.types.iter().map(of).collect::<Vec<_>>() })
        }
        TypeDefKind::Record(it) => {
            let fields = it.fields.iter().map(|it| json!([it.name, of(&it.ty)]));
            json!({ "record": fields.collect::<Vec<_>>(), "name": definition.name })
        }
        TypeDefKind::Variant(it) => json!({ "variant": cases(&it.cases) }),
        TypeDefKind::Enum(it) => {
            json!({ "enum": it.cases.iter().map(|it| &it.name).collect::<Vec<_>>() })
        }
        TypeDefKind::Resource => json!({ "resource": definition.name }),
        TypeDefKind::Handle(Handle::Own(it)) => json!({ "own": it.index() }),
        TypeDefKind::Handle(Handle::Borrow(it)) => json!({ "borrow": it.index() }),
        other => {
            bail!("the interface has a type of kind {}, which is not described", other.as_str())
        }
    })
}

fn of(ty: &Type) -> Value {
    match ty {
        Type::Id(id) => json!(id.index()),
        primitive => json!(format!("{primitive:?}").to_lowercase()),
    }
}

fn optional(ty: Option<&Type>) -> Value {
    ty.map_or(Value::Null, of)
}
