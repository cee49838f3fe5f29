//! Results that are too long for a client: cut with their structure kept, and readable in whole as resources,
//! `toolbay://results/{id}`, page by page. Each is its owner's; to anybody else it is not there.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rmcp::{
    ErrorData,
    model::{ReadResourceResult, Resource},
};
use serde_json::Value;
use tokio::time::Instant;
use toolbay_api::TenantId;
use toolbay_runtime::excerpt;
use uuid::Uuid;

use crate::{options::ResultOptions, owner::Owner, resources};

/// What the addresses of kept results begin with. No plugin's resource is looked for there.
const SCHEME: &str = "toolbay://results/";
const MIME_TYPE: &str = "application/json";

/// The results that are kept for all tenants of a server.
pub(crate) struct Kept {
    options: ResultOptions,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    shelves: Mutex<Shelves>,
}

#[derive(Default)]
struct Shelves {
    /// Each tenant's, the oldest first; a tenant without any is not there.
    tenants: HashMap<TenantId, Shelf>,
    bytes: usize,
}

#[derive(Default)]
struct Shelf {
    results: VecDeque<One>,
    bytes: usize,
}

struct One {
    id: String,
    owner: Owner,
    since: Instant,
    bytes: usize,
    whole: Arc<Value>,
}

/// A result that was cut.
pub(crate) struct Cut {
    /// Its beginning and where the rest is, for the model.
    pub(crate) text: String,
    /// The same without words around it, where it is still an object.
    pub(crate) data: Option<Value>,
    /// The whole, where it was kept.
    pub(crate) link: Option<Resource>,
}

impl Kept {
    pub(crate) fn new(options: ResultOptions) -> Self {
        let options = ResultOptions { max_shown_bytes: options.max_shown_bytes.max(1_000), ..options };
        Self { options, shelves: Mutex::default() }
    }

    /// `whole` as its owner's client is shown it, where it is too long; `bytes` are those of its text.
    pub(crate) fn shortened(&self, owner: &Owner, whole: &Value, bytes: usize) -> Option<Cut> {
        if bytes <= self.options.max_shown_bytes {
            return None;
        }
        let shown = excerpt::cut(whole, self.options.max_shown_bytes);
        let link = self.keep(owner, whole, bytes).map(|id| {
            Resource::new(format!("{SCHEME}{id}"), format!("result-{id}"))
                .with_title("The whole result")
                .with_description("A result that was too long to be shown, as JSON, by pages")
                .with_mime_type(MIME_TYPE)
                .with_size(bytes as u64)
        });
        let said = match &link {
            Some(link) => format!(
                "[cut from {bytes} bytes; the resource {uri} has the whole by pages: {uri}?pointer=/a/0&offset=0 reads the part \
                 at a JSON pointer]",
                uri = link.uri
            ),
            None => format!("[cut from {bytes} bytes; the whole could not be kept: ask for less at once]"),
        };
        let data = serde_json::from_str(&shown).ok().filter(|_| whole.is_object()).filter(Value::is_object);
        Some(Cut { text: format!("{shown}\n{said}"), data, link })
    }

    /// The page that `uri` names; `None` where it is no address of a kept result.
    ///
    /// # Errors
    /// The same as for any resource that is not there, whosever it is.
    pub(crate) fn read(&self, owner: &Owner, uri: &str) -> Option<Result<ReadResourceResult, ErrorData>> {
        let wanted = uri.strip_prefix(SCHEME)?;
        Some(
            self.page(owner, wanted)
                .map(|page| resources::json_page(uri, MIME_TYPE, &page))
                .ok_or_else(|| resources::not_found(uri)),
        )
    }

    fn page(&self, owner: &Owner, wanted: &str) -> Option<Value> {
        let (id, query) = wanted.split_once('?').unwrap_or((wanted, ""));
        let (mut pointer, mut offset) = (String::new(), 0);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "pointer" => pointer = percent_decode_str(value).decode_utf8().ok()?.into_owned(),
                "offset" => offset = value.parse().ok()?,
                _ => {}
            }
        }
        let whole = self.find(owner, id)?;
        let mut page = excerpt::page(whole.pointer(&pointer)?, offset, self.options.max_shown_bytes);
        let next = page.get("next_offset").and_then(Value::as_u64);
        if let (Some(next), Some(fields)) = (next, page.as_object_mut()) {
            let pointer = utf8_percent_encode(&pointer, NON_ALPHANUMERIC);
            fields.insert("next".to_owned(), format!("{SCHEME}{id}?pointer={pointer}&offset={next}").into());
        }
        Some(page)
    }

    fn find(&self, owner: &Owner, id: &str) -> Option<Arc<Value>> {
        let mut shelves = self.shelves();
        shelves.clear(&owner.tenant, self.options.keep);
        let shelf = shelves.tenants.get(&owner.tenant)?;
        let one = shelf.results.iter().find(|one| one.id == id && one.owner == *owner)?;
        Some(Arc::clone(&one.whole))
    }

    fn keep(&self, owner: &Owner, whole: &Value, bytes: usize) -> Option<String> {
        let ResultOptions { max_kept, max_kept_bytes, max_total_bytes, keep, .. } = self.options;
        if bytes > max_kept_bytes || max_kept == 0 {
            return None;
        }
        let mut shelves = self.shelves();
        shelves.clear(&owner.tenant, keep);
        while let Some(shelf) = shelves.tenants.get(&owner.tenant)
            && (shelf.results.len() >= max_kept || shelf.bytes + bytes > max_kept_bytes)
        {
            shelves.drop_oldest(&owner.tenant);
        }
        if shelves.bytes + bytes > max_total_bytes {
            // Others' are not pushed out, or one tenant could take them away from another.
            shelves.clear_all(keep);
        }
        if shelves.bytes + bytes > max_total_bytes {
            return None;
        }
        let id = Uuid::new_v4().simple().to_string();
        let one =
            One { id: id.clone(), owner: owner.clone(), since: Instant::now(), bytes, whole: Arc::new(whole.clone()) };
        shelves.bytes += bytes;
        let shelf = shelves.tenants.entry(owner.tenant.clone()).or_default();
        shelf.bytes += bytes;
        shelf.results.push_back(one);
        Some(id)
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    /// Takes away what the tenant had for too long.
    fn clear(&mut self, tenant: &TenantId, keep: std::time::Duration) {
        let is_old = |shelf: &Shelf| shelf.results.front().is_some_and(|one| one.since.elapsed() >= keep);
        while self.tenants.get(tenant).is_some_and(is_old) {
            self.drop_oldest(tenant);
        }
    }

    fn clear_all(&mut self, keep: std::time::Duration) {
        let tenants: Vec<_> = self.tenants.keys().cloned().collect();
        for tenant in tenants {
            self.clear(&tenant, keep);
        }
    }

    fn drop_oldest(&mut self, tenant: &TenantId) {
        let Some(shelf) = self.tenants.get_mut(tenant) else { return };
        if let Some(one) = shelf.results.pop_front() {
            shelf.bytes -= one.bytes;
            self.bytes -= one.bytes;
        }
        if shelf.results.is_empty() {
            self.tenants.remove(tenant);
        }
    }
}
