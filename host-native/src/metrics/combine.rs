//! Putting together what several processes count.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

#[derive(Default)]
struct Family<'t> {
    /// The `# HELP` and `# TYPE` lines.
    head: Vec<&'t str>,
    /// Samples by name and labels, in the order in which they first came.
    samples: Vec<(&'t str, f64)>,
    /// Where each of them is.
    places: HashMap<&'t str, usize>,
}

/// One text of several in the format of Prometheus: of a sample that is in more than one, the sum.
#[must_use]
pub fn combined(texts: &[impl AsRef<str>]) -> String {
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for text in texts {
        let mut current = "";
        for line in text.as_ref().lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.split(' ').skip(1);
                current = words.next().unwrap_or_default();
                let head = &mut families.entry(current).or_default().head;
                if !head.contains(&line) {
                    head.push(line);
                }
            } else if let Some((sample, value)) = line.rsplit_once(' ') {
                let Ok(value) = value.parse::<f64>() else { continue };
                let Family { samples, places, .. } = families.entry(current).or_default();
                let place = *places.entry(sample).or_insert(samples.len());
                match samples.get_mut(place) {
                    Some((_, sum)) => *sum += value,
                    None => samples.push((sample, value)),
                }
            }
        }
    }
    let mut all = String::new();
    for family in families.values() {
        for line in &family.head {
            let _ = writeln!(all, "{line}");
        }
        for (sample, value) in &family.samples {
            let _ = writeln!(all, "{sample} {value}");
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_what_is_in_both() {
        let one = "# HELP a A.\n# TYPE a counter\na{x=\"1 2\"} 1\na{x=\"3\"} 0.5\n";
        let two = "# HELP a A.\n# TYPE a counter\na{x=\"3\"} 2\n# HELP b B.\n# TYPE b gauge\nb 7\n";
        assert_eq!(
            combined(&[one, two]),
            "# HELP a A.\n# TYPE a counter\na{x=\"1 2\"} 1\na{x=\"3\"} 2.5\n\
             # HELP b B.\n# TYPE b gauge\nb 7\n"
        );
        assert_eq!(combined(&[one]), one);
        assert_eq!(combined(&[""]), "");
    }
}
