//! The alphabet of the protocol between host and worker: integers, texts and JSON values in a frame.
//!
//! A frame is four bytes of length, little-endian, and as many bytes of content. The envelope is binary, because it is
//! read for each call; values are JSON text, because their bounds are stated in bytes of JSON. Whoever reads treats
//! every byte as hostile: each length is checked against what is there, each JSON text against a depth before it is
//! parsed.

use serde::{Serialize, de::DeserializeOwned};

/// Bytes of a frame's length.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Levels of JSON that a frame may hold: 64 for a value, and a few of what is around it.
pub(crate) const MAX_NESTING: usize = 68;

/// Something in a frame that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Writes one frame behind others.
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    /// Begins a frame at the end of `out`.
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        Self { out, start }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A text that may be missing.
    pub(crate) fn maybe(&mut self, text: Option<&str>) {
        self.u8(u8::from(text.is_some()));
        self.text(text.unwrap_or_default());
    }

    /// `value` as JSON. What has no JSON form, which none of our types lack, is written as an empty text, and the
    /// reader refuses that.
    pub(crate) fn json(&mut self, value: &impl Serialize) {
        let place = self.out.len();
        self.u32(0);
        if serde_json::to_writer(&mut *self.out, value).is_err() {
            self.out.truncate(place + LENGTH_BYTES);
        }
        let length = self.out.len() - place - LENGTH_BYTES;
        patch(self.out, place, length);
    }

    /// What was written already, as the rest of this frame.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Ends the frame.
    pub(crate) fn end(self) {
        let length = self.out.len() - self.start - LENGTH_BYTES;
        patch(self.out, self.start, length);
    }
}

fn patch(out: &mut [u8], place: usize, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    if let Some(bytes) = out.get_mut(place..place + LENGTH_BYTES) {
        bytes.copy_from_slice(&length.to_le_bytes());
    }
}

/// Reads a frame's content.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(content: &'a [u8]) -> Self {
        Self(content)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("a frame ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed("a frame ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    pub(crate) fn maybe(&mut self) -> Result<Option<&'a str>, Malformed> {
        let is_there = self.u8()? != 0;
        let text = self.text()?;
        Ok(is_there.then_some(text))
    }

    pub(crate) fn json<T: DeserializeOwned>(&mut self) -> Result<T, Malformed> {
        self.bytes().and_then(read_json)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Makes sure that nothing is left.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("a frame has something behind its end")) }
    }
}

/// A value out of JSON `text`.
pub(crate) fn read_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, Malformed> {
    if is_nested_deeper_than(text, MAX_NESTING) {
        return Err(Malformed("a value is nested too deeply"));
    }
    serde_json::from_slice(text).map_err(|_| Malformed("a value is not the JSON that it should be"))
}

/// Whether JSON `text` opens more than `allowed` arrays and objects inside one another. Text that is no JSON gets some
/// answer, and the parser refuses it.
pub(crate) fn is_nested_deeper_than(text: &[u8], allowed: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > allowed {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Bytes as they come from the other side, cut into frames.
#[derive(Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    read: usize,
}

impl Inbox {
    /// Where to append what was received.
    pub(crate) fn space(&mut self) -> &mut Vec<u8> {
        if self.read > 0 {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        // One large frame must not hold its memory for ever.
        if self.bytes.is_empty() && self.bytes.capacity() > 1 << 20 {
            self.bytes = Vec::new();
        }
        &mut self.bytes
    }

    /// The next whole frame's content, if it is there. None is longer than `longest`.
    pub(crate) fn next(&mut self, longest: usize) -> Result<Option<&[u8]>, Malformed> {
        let waiting = self.bytes.get(self.read..).unwrap_or_default();
        let Some((length, content)) = waiting.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > longest {
            return Err(Malformed("a frame is longer than any may be"));
        }
        if content.len() < length {
            return Ok(None);
        }
        let start = self.read + LENGTH_BYTES;
        self.read = start + length;
        Ok(self.bytes.get(start..self.read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        let mut frame = Writer::begin(&mut out);
        frame.u8(7);
        frame.u64(1 << 40);
        frame.maybe(None);
        frame.json(&json!({"a": [1, 2.5, "x"]}));
        frame.end();
        let mut inbox = Inbox::default();
        inbox.space().extend_from_slice(&out);
        let mut reader = Reader::new(inbox.next(1_000).unwrap().unwrap());
        assert_eq!(reader.u8().unwrap(), 7);
        assert_eq!(reader.u64().unwrap(), 1 << 40);
        assert_eq!(reader.maybe().unwrap(), None);
        assert_eq!(reader.json::<Value>().unwrap(), json!({"a": [1, 2.5, "x"]}));
        reader.finish().unwrap();
        assert_eq!(inbox.next(1_000).unwrap(), None);
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        assert!(Reader::new(&[255, 255, 255, 255, 1]).bytes().is_err());
        let mut inbox = Inbox::default();
        inbox.space().extend_from_slice(&[255, 255, 255, 127]);
        assert!(inbox.next(1_000).is_err());
    }

    #[test]
    fn brackets_inside_of_texts_do_not_count() {
        assert!(!is_nested_deeper_than(br#"{"a":"[[[[\"[["}"#, 1));
        assert!(is_nested_deeper_than(b"[[]]", 1));
    }
}
