//! The corpus that hosts of the component are measured by has something of everything.

use std::collections::BTreeMap;

use lazystar_tests::corpus::{cases, outcome};
use serde_json::Value;

/// How often each end occurs below a value: the tags of errors.
fn count(value: &Value, counts: &mut BTreeMap<String, u32>) {
    match value {
        Value::Object(members) => {
            if let Some(tag) = members.get("tag").and_then(Value::as_str) {
                *counts.entry(tag.to_owned()).or_default() += 1;
            }
            members.values().for_each(|value| count(value, counts));
        }
        Value::Array(items) => items.iter().for_each(|value| count(value, counts)),
        _ => {}
    }
}

#[test]
fn every_end_that_a_layer_can_come_to_is_in_the_corpus() {
    let cases = cases();
    let outcomes: Vec<_> = cases.iter().map(outcome::image).collect();
    let (mut opening, mut reading) = (BTreeMap::new(), BTreeMap::new());
    let (mut open, mut merged) = (0, 0);
    for outcome in &outcomes {
        merged += u32::from(!outcome["tree"].is_null());
        for layer in outcome["layers"].as_array().unwrap() {
            open += u32::from(layer.get("summary").is_some());
            count(&layer["error"], &mut opening);
            count(&layer["entries"], &mut reading);
        }
    }
    println!("{} images, {open} layers open, {merged} trees", cases.len());
    println!("not opened: {opening:?}; not read: {reading:?}");
    let tags = |counts: &BTreeMap<String, u32>| counts.keys().cloned().collect::<Vec<_>>();
    let expected = ["digest-mismatch", "limit-exceeded", "malformed", "not-lazy", "unverifiable"];
    assert_eq!(tags(&opening), expected);
    assert_eq!(tags(&reading), ["digest-mismatch", "limit-exceeded", "malformed"]);
    assert!(open > 500 && merged > 50);
}
