//! Denials where an effect would have happened: each leaves an audit record, whoever asked and however often.
//!
//! It stands apart from the hosts of plugins since all of them deny, and a plugin decides how often it asks and what for.

use std::sync::{Mutex, PoisonError};

use toolbay_api::{Caller, ErrorKind, ToolError};

use crate::{
    audit::{AuditSink, DenialRecord, trace_denial},
    catalog::Owner,
    redact::Redactor,
};

/// Denials of one call that are recorded. A script can ask as often as its call may call its host.
const MAX_RECORDED: usize = 16;
/// Bytes of a permission and of a reason: names of tools, events and hosts are the plugin's own words.
const MAX_PERMISSION: usize = 256;
const MAX_REASON: usize = 512;

/// The denials of one call.
#[derive(Debug, Default)]
// std's Mutex: held for a look only.
pub(crate) struct Denials(Mutex<Vec<(String, String)>>);

/// Whose call it is.
pub(crate) struct Denied<'a> {
    pub(crate) audit: Option<&'a dyn AuditSink>,
    pub(crate) caller: Option<&'a Caller>,
    pub(crate) owner: &'a Owner,
    pub(crate) call: &'a str,
    pub(crate) depth: u32,
    pub(crate) redactor: Option<&'a Redactor>,
}

impl Denials {
    /// Records that `error` denied `permission`, where it is a denial and not one that this call has had already. Who knows
    /// less of it than who denied it names the beginning of the permission.
    pub(crate) fn note(&self, of: &Denied<'_>, permission: &str, error: &ToolError) {
        if error.kind != ErrorKind::PermissionDenied {
            return;
        }
        // Hidden before it is cut, or a piece of a secret would be left at the end.
        let shown = |text: &str, max: usize| {
            let text = of.redactor.map_or_else(|| text.into(), |redactor| redactor.text(text));
            let text = text.get(..text.floor_char_boundary(max)).unwrap_or_default();
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>()
        };
        let (permission, reason) = (shown(permission, MAX_PERMISSION), shown(&error.message, MAX_REASON));
        let is_same = |(before, why): &(String, String)| *why == reason && before.starts_with(&permission);
        let is_last = {
            let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if noted.len() >= MAX_RECORDED || noted.iter().any(is_same) {
                return;
            }
            noted.push((permission.clone(), reason.clone()));
            noted.len() == MAX_RECORDED
        };
        let record = DenialRecord {
            caller: of.caller,
            plugin: &of.owner.name,
            version: &of.owner.version,
            scope: &of.owner.scope,
            call: of.call,
            depth: of.depth,
            permission: &permission,
            reason: &reason,
            is_last,
        };
        match of.audit {
            Some(audit) => audit.denied(&record),
            // Whoever keeps no audit learns of it all the same.
            None => trace_denial(&record),
        }
    }
}
