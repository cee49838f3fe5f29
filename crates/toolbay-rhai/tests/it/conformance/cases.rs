//! The cases of the suite for runners as Rhai scripts, for both of the runners that load those.

use toolbay_api::Package;
use toolbay_testkit::Case;

/// A script that does what the case says.
pub(crate) fn package(case: Case) -> Option<Package> {
    let (name, permissions) = (case.name(), case.permission().map(|one| format!("{one:?}")).unwrap_or_default());
    let (parameters, body) = match case {
        Case::Echo => (
            "type: \"object\", properties: #{ text: #{ type: \"string\" } }, required: [\"text\"]",
            "kv_set(\"reached\", args.text); args",
        ),
        Case::Throw => ("type: \"object\"", "throw \"no such order\""),
        Case::Spin => ("type: \"object\"", "loop { }"),
        Case::Allocate => {
            ("type: \"object\"", "let held = []; loop { let text = \"x\"; text.pad(60000, \"y\"); held.push(text); }")
        }
        Case::Flood => ("type: \"object\"", "let text = \"x\"; text.pad(100000, \"y\"); text"),
        Case::Ungranted => ("type: \"object\"", "kv_get(\"reached\")"),
        Case::Sleep => ("type: \"object\"", "call_tool(\"test.hang\", #{})"),
        Case::Panic => ("type: \"object\"", "call_tool(\"test.panic\", #{})"),
    };
    let source = format!(
        "const PLUGIN = #{{ name: \"{name}\", version: \"1.0.0\", description: \"A case\", permissions: [{permissions}],
            tools: #{{ {name}: #{{ description: \"Does as its name says\", parameters: #{{ {parameters} }} }} }} }};
        fn {name}(args) {{ {body} }}"
    );
    Some(Package::one_file(format!("{name}.rhai"), source))
}
