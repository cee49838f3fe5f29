//! Schemas as providers take them: what is kept, what is lost and told, and arguments there and back.

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use toolbay_agent::lowering::{Dialect, lower};

fn check(own: Value, dialect: Dialect, expected: Expect) {
    let lowered = lower(&own, dialect);
    let mut text = format!("{}\n", lowered.schema);
    for change in &lowered.changes {
        text.push_str(&format!("{change}\n"));
    }
    if dialect == Dialect::OpenAiStrict {
        text.push_str(&format!("strict {}\n", lowered.strict));
    }
    expected.assert_eq(&text);
}

#[test]
fn the_root_is_an_object_for_everybody() {
    for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
        check(
            json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": [{"required": ["a"]}]}),
            dialect,
            expect![[r#"
                {"type":"object"}
                /anyOf: weakened: left out: providers do not take it at the top
            "#]],
        );
    }
    check(
        json!({"$ref": "#/$defs/Args", "$defs": {"Args": {"type": "object", "properties": {"a": {"type": "string"}}}}}),
        Dialect::OpenAi,
        expect![[r##"
            {"type":"object","properties":{"a":{"type":"string"}},"$defs":{"Args":{"type":"object","properties":{"a":{"type":"string"}}}}}
        "##]],
    );
}

#[test]
fn a_key_that_anthropic_refuses_is_told() {
    check(
        json!({"type": "object", "properties": {"a b": {"type": "object", "properties": {"größe": {"type": "integer"}}}}}),
        Dialect::Anthropic,
        expect![[r#"
            {"type":"object","properties":{"a b":{"type":"object","properties":{"größe":{"type":"integer"}}}}}
            /properties/a b: refused by the provider: a key that the provider does not take: rename it
            /properties/a b/properties/größe: refused by the provider: a key that the provider does not take: rename it
        "#]],
    );
}

#[test]
fn strict_mode_closes_and_requires_and_says_what_it_does_not_check() {
    check(
        json!({
            "type": "object", "additionalProperties": false, "required": ["to"],
            "properties": {
                "to": {"type": "string", "minLength": 3, "description": "Where to."},
                "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                "when": {"type": "string", "format": "date"},
                "who": {"$ref": "#/$defs/Person"},
                "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
            },
            "$defs": {"Person": {"type": "object", "additionalProperties": false, "required": [],
                "properties": {"name": {"type": "string"}, "boss": {"$ref": "#/$defs/Person"}}}},
        }),
        Dialect::OpenAiStrict,
        expect![[r##"
            {"type":"object","required":["to","unit","when","who","tags"],"properties":{"to":{"type":"string","description":"Where to. (minLength: 3)"},"unit":{"type":["string","null"],"enum":["c","f",null],"description":"(default: \"c\")"},"when":{"type":["string","null"],"format":"date"},"who":{"anyOf":[{"$ref":"#/$defs/Person"},{"type":"null"}]},"tags":{"type":["array","null"],"description":"(uniqueItems: true)","items":{"type":"string"}}},"additionalProperties":false,"$defs":{"Person":{"type":"object","required":["name","boss"],"properties":{"name":{"type":["string","null"]},"boss":{"anyOf":[{"$ref":"#/$defs/Person"},{"type":"null"}]}},"additionalProperties":false}}}
            /properties/to/minLength: weakened: not checked by the provider
            /properties/tags/uniqueItems: weakened: not checked by the provider
            strict true
        "##]],
    );
}

#[test]
fn what_strict_mode_has_no_words_for_goes_without_it() {
    for own in [
        json!({"type": "object"}),
        json!({"type": "object", "properties": {"a": {}}}),
        json!({"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}}}),
        json!({"type": "object", "properties": {"a": {"type": "array"}}}),
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]}),
        json!({"type": "object", "properties": {"a": {"allOf": [{"type": "string"}, {"minLength": 2}], "type": "string"}}}),
    ] {
        let lowered = lower(&own, Dialect::OpenAiStrict);
        assert!(!lowered.strict, "{own}");
        assert_eq!(lowered.schema, own);
        assert!(lowered.changes[0].to_string().contains("not strict"), "{:?}", lowered.changes);
    }
}

#[test]
fn arguments_go_there_and_back_through_lists_references_and_alternatives() {
    let own = json!({
        "type": "object", "required": ["items"],
        "properties": {
            "items": {"type": "array", "items": {"type": "object", "required": ["id"],
                "properties": {"id": {"type": "string"}, "note": {"type": ["string", "null"]}, "count": {"type": "integer"}}}},
            "who": {"$ref": "#/$defs/Person"},
            "pay": {"anyOf": [
                {"type": "object", "properties": {"card": {"type": "string"}, "pin": {"type": "string"}}, "required": ["card"]},
                {"type": "object", "properties": {"iban": {"type": "string"}, "name": {"type": "string"}}, "required": ["iban"]},
            ]},
        },
        "$defs": {"Person": {"type": "object", "required": ["name"],
            "properties": {"name": {"type": "string"}, "boss": {"$ref": "#/$defs/Person"}}}},
    });
    let lowered = lower(&own, Dialect::OpenAiStrict);
    assert!(lowered.strict, "{:?}", lowered.changes);
    for (tools_own, models) in [
        (
            // `note` may be null for the tool too, so it keeps a null that the model wrote.
            json!({"items": [{"id": "a", "note": "n"}, {"id": "b", "note": null, "count": 2}]}),
            json!({"items": [{"id": "a", "note": "n", "count": null}, {"id": "b", "note": null, "count": 2}],
                "who": null, "pay": null}),
        ),
        (
            json!({"items": [], "who": {"name": "A", "boss": {"name": "B"}}}),
            json!({"items": [], "who": {"name": "A", "boss": {"name": "B", "boss": null}}, "pay": null}),
        ),
        (
            json!({"items": [], "pay": {"iban": "DE"}}),
            json!({"items": [], "pay": {"iban": "DE", "name": null}, "who": null}),
        ),
    ] {
        assert_eq!(lowered.filled(tools_own.clone()), models);
        assert_eq!(lowered.restored(models), tools_own);
    }
    let filled = lowered.filled(json!({"items": [{"id": "a"}]}));
    assert_eq!(filled, json!({"items": [{"id": "a", "note": null, "count": null}], "who": null, "pay": null}));
}

#[test]
fn gemini_gets_openapi() {
    check(
        json!({
            "type": "object", "additionalProperties": false, "required": ["kind", "gone"],
            "properties": {
                "kind": {"const": "a"},
                "level": {"enum": [1, 2]},
                "maybe": {"type": ["string", "null"], "format": "uri"},
                "some": {"type": ["string", "integer"]},
                "least": {"type": "integer", "exclusiveMinimum": 3},
                "who": {"$ref": "#/$defs/Person"},
                "pick": {"oneOf": [{"type": "string"}, {"type": "null"}]},
            },
            "$defs": {"Person": {"type": "object", "properties": {"boss": {"$ref": "#/$defs/Person"}, "n": {"type": "integer"}}}},
        }),
        Dialect::Gemini,
        expect![[r#"
            {"type":"object","required":["kind"],"properties":{"kind":{"type":"string","enum":["a"]},"level":{"type":"string","description":"(one of: [1,2])"},"maybe":{"nullable":true,"type":"string","description":"(format: \"uri\")"},"some":{"anyOf":[{"type":"string"},{"type":"integer"}]},"least":{"type":"integer","minimum":4},"who":{"type":"object","properties":{"boss":{"type":"object"},"n":{"type":"integer"}}},"pick":{"nullable":true,"anyOf":[{"type":"string"}]}},"description":"(additionalProperties: false)"}
            /additionalProperties: weakened: not known to the provider
            /properties/level/enum: weakened: the provider takes lists of strings only
            /properties/level: narrowed: any value is taken here, and the provider knows none of these
            /properties/maybe/format: weakened: not known to the provider
            /properties/who/properties/boss/$ref: weakened: cut: it leads to itself, and the provider knows no references
            /properties/pick/oneOf: weakened: more than one of the alternatives may fit
        "#]],
    );
}
