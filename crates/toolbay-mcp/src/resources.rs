//! How resources look on this wire.

use base64::{Engine, engine::general_purpose::STANDARD};
use rmcp::{
    ErrorData,
    model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate},
};
use serde_json::json;
use toolbay_api::{Content, Document, DocumentBody, ToolOutput};
use toolbay_runtime::{ResourceInfo, Session};

/// The resource as a client lists it.
pub(crate) fn definition(info: &ResourceInfo) -> Resource {
    let declared = &info.declaration;
    let mut resource =
        Resource::new(declared.uri.clone(), info.name.to_string()).with_description(declared.description.clone());
    resource.mime_type.clone_from(&declared.mime_type);
    resource
}

/// Many resources of one form, as a client lists them.
pub(crate) fn template(info: &ResourceInfo) -> ResourceTemplate {
    let declared = &info.declaration;
    let mut template = ResourceTemplate::new(declared.uri.clone(), info.name.to_string())
        .with_description(declared.description.clone());
    template.mime_type.clone_from(&declared.mime_type);
    template
}

/// The resource at `uri` and what stands in the places of its template; one with just this address before any template.
pub(crate) fn find(session: &Session, uri: &str) -> Option<(ResourceInfo, Vec<(String, String)>)> {
    let all = session.resources();
    let exact = all.iter().find(|info| info.declaration.uri == uri && !info.declaration.is_template());
    if let Some(info) = exact {
        return Some((info.clone(), Vec::new()));
    }
    all.into_iter().find_map(|info| {
        let variables = info.declaration.is_template().then(|| info.declaration.variables(uri))??;
        Some((info, variables))
    })
}

/// The address is the client's own; no more of it is given back than one can have.
pub(crate) fn not_found(uri: &str) -> ErrorData {
    let uri: String = uri.chars().take(2_000).collect();
    ErrorData::resource_not_found(
        "there is no such resource; resources/list has those that there are",
        Some(json!({ "uri": uri })),
    )
}

/// The file that the resource is.
pub(crate) fn file(info: &ResourceInfo, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let bytes = info.file().ok_or_else(|| not_found(uri))?;
    let mime_type = info.declaration.mime_type.clone();
    let contents = match std::str::from_utf8(bytes) {
        Ok(text) => text_of(uri, mime_type, text.to_owned()),
        Err(_) => blob(uri, mime_type, STANDARD.encode(bytes)),
    };
    Ok(ReadResourceResult::new(vec![contents]))
}

/// What a tool gave for the resource.
pub(crate) fn given(info: &ResourceInfo, uri: &str, output: ToolOutput) -> ReadResourceResult {
    let mime_type = &info.declaration.mime_type;
    if output.content.is_empty() {
        return ReadResourceResult::new(vec![text_of(uri, mime_type.clone(), output.to_text())]);
    }
    let contents = output.content.into_iter().map(|content| match content {
        Content::Image { data, mime_type } | Content::Audio { data, mime_type } => blob(uri, Some(mime_type), data),
        Content::Document(document) => document_contents(document),
        other => text_of(uri, mime_type.clone(), other.to_text()),
    });
    ReadResourceResult::new(contents.collect())
}

/// A document as it is embedded in results and prompts.
pub(crate) fn document_contents(document: Document) -> ResourceContents {
    let Document { uri, mime_type, body } = document;
    match body {
        DocumentBody::Text(text) => text_of(&uri, mime_type, text),
        DocumentBody::Base64(data) => blob(&uri, mime_type, data),
    }
}

/// One page of something that is read by pages.
pub(crate) fn json_page(uri: &str, mime_type: &str, page: &serde_json::Value) -> ReadResourceResult {
    ReadResourceResult::new(vec![text_of(uri, Some(mime_type.to_owned()), page.to_string())])
}

fn text_of(uri: &str, mime_type: Option<String>, text: String) -> ResourceContents {
    ResourceContents::TextResourceContents { uri: uri.to_owned(), mime_type, text, meta: None }
}

fn blob(uri: &str, mime_type: Option<String>, blob: String) -> ResourceContents {
    ResourceContents::BlobResourceContents { uri: uri.to_owned(), mime_type, blob, meta: None }
}
