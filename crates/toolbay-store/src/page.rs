//! Parts of lists: where one ends, and how the next is asked for.

use toolbay_api::ToolError;
use toolbay_runtime::store::{Listed, Page};
use uuid::Uuid;

use crate::fault::invalid;

/// The most that one part holds, whatever was asked for.
const MOST: u32 = 1_000;

/// How many rows to ask for: one more than is given, to know whether there are more.
pub(crate) fn rows_of(page: &Page) -> i64 {
    i64::from(page.limit.clamp(1, MOST)) + 1
}

/// The part that `items` is, of which there is one more than was asked for where there are more.
pub(crate) fn listed<T>(mut items: Vec<T>, page: &Page, position: impl Fn(&T) -> String) -> Listed<T> {
    let limit = page.limit.clamp(1, MOST) as usize;
    let next = if items.len() > limit {
        items.truncate(limit);
        items.last().map(position)
    } else {
        None
    };
    Listed { items, next }
}

/// A position in a list that is ordered by a time and a number.
pub(crate) fn moment(at: i64, id: Uuid) -> String {
    format!("{at}.{id}")
}

/// The position that `page` begins after, or `first`.
pub(crate) fn after_moment(page: &Page, first: (i64, Uuid)) -> Result<(i64, Uuid), ToolError> {
    let Some(after) = &page.after else { return Ok(first) };
    let parts = after.split_once('.').and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    parts.ok_or_else(no_position)
}

/// The same for a list that is ordered by a number.
pub(crate) fn after_number(page: &Page, first: i64) -> Result<i64, ToolError> {
    let Some(after) = &page.after else { return Ok(first) };
    after.parse().map_err(|_| no_position())
}

fn no_position() -> ToolError {
    invalid("the list cannot go on from there; give what the part before said, or nothing for the beginning")
}
