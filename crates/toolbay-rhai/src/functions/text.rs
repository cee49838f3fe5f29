//! Rhai's text functions that can blow up within one operation, again, with the size checked before it is reached.
//!
//! `replace` of each letter of a megabyte by a megabyte, `pad` with an empty text (which never ends), `split` into a
//! million pieces: Rhai looks at the result when it is there. These have Rhai's names and types and come before them.

use rhai::{Array, INT, ImmutableString, Module};

use super::{
    charge_bytes,
    register::{add, add_mut},
};
use crate::call::{self, HostResult};

type Text = ImmutableString;

pub(super) fn register(module: &mut Module) {
    let names = ["text", "find", "with"];
    add_mut(module, "replace", names, |text: &mut Text, find: Text, with: Text| replace(text, &find, &with));
    add_mut(module, "replace", names, |text: &mut Text, find: Text, with: char| {
        replace(text, &find, one(with, &mut [0; 4]))
    });
    add_mut(module, "replace", names, |text: &mut Text, find: char, with: Text| {
        replace(text, one(find, &mut [0; 4]), &with)
    });
    add_mut(module, "replace", names, |text: &mut Text, find: char, with: char| {
        replace(text, one(find, &mut [0; 4]), one(with, &mut [0; 4]))
    });
    let names = ["text", "length", "with"];
    add_mut(module, "pad", names, |text: &mut Text, len: INT, with: Text| pad(text, len, &with));
    add_mut(module, "pad", names, |text: &mut Text, len: INT, with: char| pad(text, len, one(with, &mut [0; 4])));
    add(module, "to_chars", ["text"], |text: Text| pieces(&text, text.chars().map(rhai::Dynamic::from)));
    splits(module);
}

fn splits(module: &mut Module) {
    add(module, "split", ["text"], |text: Text| pieces(&text, text.split_whitespace().map(Into::into)));
    let names = ["text", "delimiter"];
    add(module, "split", names, |text: Text, at: Text| pieces(&text, text.split(&*at).map(Into::into)));
    add(module, "split", names, |text: Text, at: char| pieces(&text, text.split(at).map(Into::into)));
    add(module, "split_rev", names, |text: Text, at: Text| pieces(&text, text.rsplit(&*at).map(Into::into)));
    add(module, "split_rev", names, |text: Text, at: char| pieces(&text, text.rsplit(at).map(Into::into)));
    let names = ["text", "delimiter", "segments"];
    add(module, "split", names, |text: Text, at: Text, n: INT| {
        pieces(&text, text.splitn(count(n), &*at).map(Into::into))
    });
    add(module, "split", names, |text: Text, at: char, n: INT| {
        pieces(&text, text.splitn(count(n), at).map(Into::into))
    });
    add(module, "split_rev", names, |text: Text, at: Text, n: INT| {
        pieces(&text, text.rsplitn(count(n), &*at).map(Into::into))
    });
    add(module, "split_rev", names, |text: Text, at: char, n: INT| {
        pieces(&text, text.rsplitn(count(n), at).map(Into::into))
    });
}

fn one(character: char, buffer: &mut [u8; 4]) -> &str {
    character.encode_utf8(buffer)
}

/// The number of segments that a script asked for: at least one.
fn count(segments: INT) -> usize {
    usize::try_from(segments.max(1)).unwrap_or(usize::MAX)
}

fn replace(text: &mut Text, find: &str, with: &str) -> HostResult<()> {
    charge_bytes(text.len())?;
    let found = text.matches(find).count();
    if found == 0 {
        return Ok(());
    }
    let removed = found.saturating_mul(find.len());
    let length = (text.len() - removed.min(text.len())).saturating_add(found.saturating_mul(with.len()));
    call::with(|call| call.admit_string(length))?;
    charge_bytes(length)?;
    *text = text.replace(find, with).into();
    Ok(())
}

/// Appends `with` until there are `len` characters.
fn pad(text: &mut Text, len: INT, with: &str) -> HostResult<()> {
    let Ok(len) = usize::try_from(len) else { return Ok(()) };
    charge_bytes(text.len())?;
    let missing = len.saturating_sub(text.chars().count());
    let width = with.chars().count();
    if missing == 0 || width == 0 {
        return Ok(());
    }
    let whole = missing / width;
    let rest: String = with.chars().take(missing % width).collect();
    let length = text.len().saturating_add(whole.saturating_mul(with.len())).saturating_add(rest.len());
    call::with(|call| call.admit_string(length))?;
    charge_bytes(length)?;
    let mut padded = String::with_capacity(length);
    padded.push_str(text);
    padded.push_str(&with.repeat(whole));
    padded.push_str(&rest);
    *text = padded.into();
    Ok(())
}

/// Gathers pieces of `text` into an array, counting them while they come.
pub(super) fn pieces(text: &str, pieces: impl Iterator<Item = rhai::Dynamic>) -> HostResult<Array> {
    charge_bytes(text.len())?;
    call::with(|call| {
        let mut array = Array::new();
        for piece in pieces {
            call.charge(1)?;
            call.admit_array(array.len() + 1)?;
            array.push(piece);
        }
        Ok(array)
    })
}
