//! The endpoints, a file for each subject.

mod audit;
mod keys;
mod mounted;
mod plugins;
mod quarantine;
mod runs;
mod secrets;
mod streams;
mod system;
mod tenants;
mod tools;

use crate::table::Endpoint;

pub(crate) use mounted::{Mounted, serve};

/// All endpoints.
pub(crate) fn all(open_metrics: bool) -> Vec<Endpoint> {
    let groups = [
        plugins::group(),
        tools::group(),
        streams::group(),
        runs::group(),
        quarantine::group(),
        audit::group(),
        secrets::group(),
        tenants::group(),
        keys::group(),
        system::group(open_metrics),
    ];
    groups.into_iter().flat_map(|group| group.into_endpoints().collect::<Vec<_>>()).collect()
}
