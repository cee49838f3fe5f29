//! Texts as base64, hexadecimal and URL encoding, and SHA-256.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rhai::{Blob, ImmutableString, Module};
use sha2::{Digest, Sha256};

use super::{charge_bytes, fail, register::add};
use crate::call::{self, HostResult};

/// What RFC 3986 calls unreserved stays as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub(super) fn register(module: &mut Module) {
    add(module, "base64_encode", ["text"], |text: ImmutableString| base64_encode(text.as_bytes()));
    add(module, "base64_encode", ["blob"], |blob: Blob| base64_encode(&blob));
    add(module, "base64_decode", ["text"], |text: ImmutableString| base64_decode(&text));
    add(module, "base64_decode_text", ["text"], |text: ImmutableString| decoded_text(base64_decode(&text)?));
    add(module, "hex_encode", ["text"], |text: ImmutableString| hex_encode(text.as_bytes()));
    add(module, "hex_encode", ["blob"], |blob: Blob| hex_encode(&blob));
    add(module, "hex_decode", ["text"], |text: ImmutableString| hex_decode(&text));
    add(module, "sha256", ["text"], |text: ImmutableString| sha256(text.as_bytes()));
    add(module, "sha256", ["blob"], |blob: Blob| sha256(&blob));
    add(module, "url_encode", ["text"], |text: ImmutableString| url_encode(&text));
    add(module, "url_decode", ["text"], |text: ImmutableString| url_decode(&text));
}

fn base64_encode(bytes: &[u8]) -> HostResult<ImmutableString> {
    charge_bytes(bytes.len())?;
    call::with(|call| call.admit_string(bytes.len().div_ceil(3).saturating_mul(4)))?;
    Ok(STANDARD.encode(bytes).into())
}

fn base64_decode(text: &str) -> HostResult<Blob> {
    charge_bytes(text.len())?;
    // Both alphabets and both habits about padding are met in practice.
    let plain: String = text
        .trim()
        .trim_end_matches('=')
        .chars()
        .map(|character| match character {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    let decoded = base64::engine::general_purpose::STANDARD_NO_PAD.decode(plain);
    decoded.or_else(|error| fail(format!("the text is not base64: {error}")))
}

fn decoded_text(bytes: Blob) -> HostResult<ImmutableString> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.into()),
        Err(_) => fail("the decoded bytes are not UTF-8 text"),
    }
}

fn hex_encode(bytes: &[u8]) -> HostResult<ImmutableString> {
    charge_bytes(bytes.len())?;
    call::with(|call| call.admit_string(bytes.len().saturating_mul(2)))?;
    Ok(hex(bytes).into())
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn hex_decode(text: &str) -> HostResult<Blob> {
    charge_bytes(text.len())?;
    let text = text.trim();
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|d| d.try_into().ok())).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, nibble| byte << 4 | nibble)).collect())
        }
        _ => fail("the text is not hexadecimal: use pairs of 0-9 a-f"),
    }
}

fn sha256(bytes: &[u8]) -> HostResult<ImmutableString> {
    charge_bytes(bytes.len())?;
    Ok(hex(&Sha256::digest(bytes)).into())
}

fn url_encode(text: &str) -> HostResult<ImmutableString> {
    charge_bytes(text.len())?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    let escaped = text.bytes().filter(|byte| !plain(*byte)).count();
    call::with(|call| call.admit_string(text.len().saturating_add(escaped.saturating_mul(2))))?;
    Ok(utf8_percent_encode(text, RESERVED).to_string().into())
}

fn url_decode(text: &str) -> HostResult<ImmutableString> {
    charge_bytes(text.len())?;
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(text) => Ok(text.into_owned().into()),
        Err(_) => fail("the decoded bytes are not UTF-8 text"),
    }
}
