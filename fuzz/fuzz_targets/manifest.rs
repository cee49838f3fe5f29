//! Manifest files in the three formats: no text makes the reader panic, hang or take much memory, an error points into the
//! text, and what is taken is the same in every format and fits the schema.
#![no_main]

use std::sync::LazyLock;

use jsonschema::Validator;
use libfuzzer_sys::fuzz_target;
use toolbay::{Manifest, manifest::schema::json_schema, parse_manifest};

static SCHEMA: LazyLock<Validator> = LazyLock::new(|| jsonschema::validator_for(&json_schema()).expect("a schema"));

fuzz_target!(|text: &str| {
    let [toml, yaml, json] = ["plugin.toml", "plugin.yaml", "plugin.json"].map(|name| taken(name, text));
    // YAML counts -0 among the whole numbers and JSON does not.
    if !text.contains("-0") {
        for (one, other) in [(&yaml, &json), (&toml, &json)] {
            if let (Some(one), Some(other)) = (one, other) {
                assert_eq!(one, other, "two formats take the same text differently");
            }
        }
    }
});

fn taken(name: &str, text: &str) -> Option<Manifest> {
    match parse_manifest(name, text) {
        Ok(manifest) => {
            let value = serde_json::to_value(&manifest).expect("a manifest is plain data");
            assert!(SCHEMA.is_valid(&value), "the schema refuses what the parser takes: {value}");
            let again = Manifest::from_json(value).expect("what was taken is taken again");
            assert_eq!(again, manifest);
            Some(manifest)
        }
        Err(error) => {
            let shown = error.to_string();
            assert!(shown.len() < 8_000, "an error of {} bytes", shown.len());
            if let Some((line, column)) = error.position {
                assert!(line >= 1 && column >= 1 && line <= text.split('\n').count() + 1, "{name}:{line}:{column}");
            }
            None
        }
    }
}
