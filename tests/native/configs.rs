//! Configuration files as somebody's slip of the hand leaves them.

use lazystar::config::Config;
use proptest::prelude::*;

const SAMPLE: &str = r#"
metrics_address = "127.0.0.1:8234"
noprefetch = false
prefetch_size = 0x10
[blob]
max_retries = 5
[resolver]
request_timeout_sec = -1
[[resolver.host."docker.io".mirrors]]
host = "mirror.example"
insecure = true
header = { X-One = "a", x-two = ["b", "c"] }
[lazystar]
cache_limit = "20GB"
"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any text gives a configuration or an error at a line that the text has.
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        check(&text)?;
    }

    /// So does a good one in which a piece was replaced.
    #[test]
    fn so_is_a_damaged_one(
        at in 0..SAMPLE.len(),
        length in 0..20_usize,
        piece in r#"[a-z\[\]{}="'\n\.,0-9_é-]{0,6}"#,
    ) {
        let end = (at + length).min(SAMPLE.len());
        check(&format!("{}{piece}{}", &SAMPLE[..at], &SAMPLE[end..]))?;
    }
}

fn check(text: &str) -> Result<(), TestCaseError> {
    match Config::parse(text) {
        Ok(loaded) => {
            let json = serde_json::to_string(&loaded.config).expect("a configuration is JSON");
            let again: Config = serde_json::from_str(&json).expect("and read again");
            prop_assert_eq!(again, loaded.config);
        }
        Err(error) => {
            prop_assert!((1..=text.lines().count() + 1).contains(&error.line), "{}", error)
        }
    }
    Ok(())
}

#[test]
fn the_sample_is_a_good_one() {
    assert!(Config::parse(SAMPLE).is_ok());
}
