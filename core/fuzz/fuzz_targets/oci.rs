//! Documents of images: no panic, and what is read came out of the document.
#![no_main]

use lazystar_core::oci::{Config, Descriptor, Document};
use libfuzzer_sys::fuzz_target;

fn bytes(descriptor: &Descriptor) -> usize {
    let annotations = descriptor.annotations.iter().map(|(key, value)| key.len() + value.len());
    descriptor.media_type.len() + descriptor.digest.len() + annotations.sum::<usize>()
}

fuzz_target!(|document: &[u8]| {
    // A byte that is no UTF-8 becomes three.
    let most = 3 * document.len();
    let parsed = Document::parse(document);
    assert_eq!(parsed, Document::parse(document));
    match parsed {
        Ok(Document::Index(manifests)) => {
            assert!(manifests.iter().map(bytes).sum::<usize>() <= most);
        }
        Ok(Document::Manifest { config, layers }) => {
            assert!(bytes(&config) + layers.iter().map(bytes).sum::<usize>() <= most);
        }
        Err(_) => {}
    }
    if let Ok(config) = Config::parse(document) {
        let env = config.env.iter().map(String::len).sum::<usize>();
        assert!(env + config.diff_ids.iter().map(String::len).sum::<usize>() <= most);
    }
});
