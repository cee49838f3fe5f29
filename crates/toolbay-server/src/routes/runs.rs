//! Runs that are kept.

use axum::{http::Method, response::Response};

use crate::{
    call::{Call, ok},
    problem::Problem,
    table::{Endpoint, Group},
    views::{Page, RunView},
};

pub(super) fn group() -> Group {
    let mut group = Group::new("runs");
    group.per_tenant(
        &Endpoint::new(Method::GET, "/runs", "listRuns", "Lists runs", list)
            .paged()
            .gives::<Page<RunView>>(200, "A part of the runs, newest first, without their states."),
    );
    group.per_tenant(
        &Endpoint::new(Method::GET, "/runs/{run}", "getRun", "Shows a run", get).gives::<RunView>(200, "The run."),
    );
    group
}

async fn list(call: Call) -> Result<Response, Problem> {
    let listed = call.app.control.runs(&call.actor()?, call.tenant()?, call.page()?).await?;
    ok(&Page { items: listed.items.iter().map(RunView::from).collect(), next: listed.next })
}

async fn get(call: Call) -> Result<Response, Problem> {
    let id = call.id("run")?;
    ok(&RunView::from(&call.app.control.run(&call.actor()?, call.tenant()?, id).await?))
}
