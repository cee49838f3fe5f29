//! How tools and results look on this wire: the one place where Toolbay's words are put into MCP's.

use std::sync::Arc;

use rmcp::{
    ErrorData,
    model::{
        AudioContent, CallToolResult, ContentBlock, JsonObject, MetaObject, PaginatedRequestParams, ProtocolVersion,
        Tool, ToolAnnotations,
    },
};
use serde_json::{Value, json};
use toolbay_api::{Annotations, Content, ToolError, result::WireError};
use toolbay_runtime::{Reply, ToolInfo};

use crate::{kept::Kept, owner::Owner, resources};

/// What the call used, in a result's `_meta`.
const METADATA_KEY: &str = "toolbay/metadata";
/// What went wrong as data, in a failed result's `_meta`. It is not `structuredContent`, which has to follow the tool's
/// output schema.
const ERROR_KEY: &str = "toolbay/error";

/// Where a page of the tool list begins, as an opaque cursor: behind a name rather than at a position, so that a tool
/// which comes or goes between two pages makes no other be shown twice or not at all.
const CURSOR_PREFIX: &str = "after:";

/// What a revision of the protocol allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revision {
    /// Up to 2025-11-25: structured results are objects.
    ObjectsOnly,
    /// From 2026-07-28: structured results are any JSON value, and so is what an output schema describes (SEP-2106).
    AnyValue,
}

impl Revision {
    /// Dates in ISO form compare as text. A client that has not said its version gets what every version understands.
    pub(crate) fn of(version: Option<&ProtocolVersion>) -> Self {
        match version {
            Some(version) if version.as_str() >= ProtocolVersion::V_2026_07_28.as_str() => Self::AnyValue,
            _ => Self::ObjectsOnly,
        }
    }
}

/// Whether the client knows links to resources in results; the protocol has them from 2025-06-18 on.
pub(crate) fn knows_links(version: Option<&ProtocolVersion>) -> bool {
    version.is_some_and(|version| version.as_str() >= ProtocolVersion::V_2025_06_18.as_str())
}

/// Where results go that are too long for their owner's client.
pub(crate) struct Bounds<'a> {
    pub(crate) results: &'a Kept,
    pub(crate) owner: &'a Owner,
    /// Whether the client knows links.
    pub(crate) links: bool,
}

/// The tool as a client lists it.
pub(crate) fn definition(info: &ToolInfo, revision: Revision) -> Tool {
    let definition = &info.definition;
    let mut tool = Tool::new(
        definition.name.as_str().to_owned(),
        definition.description.clone(),
        Arc::new(input_schema(&definition.parameters)),
    );
    tool.output_schema = output_schema(info, revision).cloned().map(Arc::new);
    tool.annotations = annotations(&definition.annotations);
    tool
}

/// The schema of the tool's structured result, where `revision` can carry one of its type.
fn output_schema(info: &ToolInfo, revision: Revision) -> Option<&JsonObject> {
    let schema = info.definition.output.as_ref()?.as_object()?;
    (revision == Revision::AnyValue || is_of_objects(schema)).then_some(schema)
}

fn is_of_objects(schema: &JsonObject) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("object")
}

/// The parameters with the `type` that MCP asks for; arguments are an object whether or not the schema says so.
fn input_schema(parameters: &Value) -> JsonObject {
    let mut schema = parameters.as_object().cloned().unwrap_or_default();
    if !is_of_objects(&schema) {
        schema.insert("type".to_owned(), "object".into());
    }
    schema
}

fn annotations(said: &Annotations) -> Option<ToolAnnotations> {
    (*said != Annotations::default())
        .then(|| ToolAnnotations::from_raw(None, said.read_only, said.destructive, said.idempotent, said.open_world))
}

/// The reply as a client gets it: text always, and structured where the revision has room for it.
///
/// `info` finds the tool; it is asked only where the answer depends on the tool's output schema. A result that is too long is
/// cut; but what a declared schema describes stays whole, since clients check it.
pub(crate) fn result(
    reply: Reply,
    revision: Revision,
    bounds: &Bounds<'_>,
    info: impl FnOnce() -> Option<ToolInfo>,
) -> CallToolResult {
    let mut meta = JsonObject::new();
    meta.insert(METADATA_KEY.to_owned(), Value::Object(reply.metadata.to_json()));
    let mut result = match reply.result {
        Ok(output) => {
            let text = output.to_text();
            let cut = bounds.results.shortened(bounds.owner, &output.data, text.len());
            let is_object = output.data.is_object();
            // Text and structure say the same twice, so a value that is no object is structured only for the clients
            // that would check it against the schema they were shown.
            let asks = revision == Revision::AnyValue && !is_object || cut.is_some() && is_object;
            let is_described = asks && info().is_some_and(|info| output_schema(&info, revision).is_some());
            let (text, short, link) = match cut {
                Some(cut) => (cut.text, Some(cut.data), cut.link),
                None => (text, None, None),
            };
            // A picture with its data beside it says in words only what was cut off.
            let said = (output.content.is_empty() || short.is_some()).then(|| ContentBlock::text(text));
            let link = link.filter(|_| bounds.links).map(ContentBlock::resource_link);
            let shown = output.content.into_iter().map(block);
            let mut result = CallToolResult::success(said.into_iter().chain(shown).chain(link).collect());
            result.structured_content = match short {
                Some(short) if !is_described => short,
                _ => (is_object || is_described).then_some(output.data),
            };
            result
        }
        Err(error) => {
            meta.insert(ERROR_KEY.to_owned(), json!(WireError::from(&error)));
            CallToolResult::error(vec![ContentBlock::text(error_text(&error, reply.feedback.as_deref()))])
        }
    };
    result.meta = Some(MetaObject(meta));
    result
}

/// What a tool shows, as a block of content.
pub(crate) fn block(content: Content) -> ContentBlock {
    match content {
        Content::Image { data, mime_type } => ContentBlock::image(data, mime_type),
        Content::Audio { data, mime_type } => ContentBlock::Audio(AudioContent::new(data, mime_type)),
        Content::Document(document) => ContentBlock::resource(resources::document_contents(document)),
        other => ContentBlock::text(other.to_text()),
    }
}

/// What the model reads of an error: kind and message, then the details to repair from, then what hooks have to add.
fn error_text(error: &ToolError, feedback: Option<&str>) -> String {
    let mut text = error.to_string();
    if !error.details.is_null() {
        text.push_str("\ndetails: ");
        text.push_str(&error.details.to_string());
    }
    if let Some(feedback) = feedback {
        text.push('\n');
        text.push_str(feedback);
    }
    text
}

/// The page of `all` that `params` asks for, and the cursor of the next one. `all` are sorted by `name`.
///
/// # Errors
/// Invalid parameters where the cursor is none of ours.
pub(crate) fn page<T>(
    mut all: Vec<T>,
    name: impl Fn(&T) -> String,
    params: Option<&PaginatedRequestParams>,
    size: usize,
) -> Result<(Vec<T>, Option<String>), ErrorData> {
    if let Some(cursor) = params.and_then(|params| params.cursor.as_deref()) {
        let Some(last) = cursor.strip_prefix(CURSOR_PREFIX) else {
            let message = "the cursor is none that this server gave; leave it out to begin at the first page";
            return Err(ErrorData::invalid_params(message, None));
        };
        let seen = all.partition_point(|one| name(one).as_str() <= last);
        all.drain(..seen);
    }
    let more = all.len() > size;
    all.truncate(size);
    let last = all.last().filter(|_| more);
    let next = last.map(|one| format!("{CURSOR_PREFIX}{}", name(one)));
    Ok((all, next))
}
