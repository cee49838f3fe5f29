//! Recordings of runs, which whoever has a file gives to be replayed: reading one ends with a recording or with an error that
//! names a line, and so does its replay.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolbay::replay::{self, ReadBounds, Recording};

fuzz_target!(|bytes: &[u8]| {
    let bounds = ReadBounds { max_bytes: 1 << 20, max_line_bytes: 64 << 10 };
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').count();
    match Recording::read(bytes, &bounds) {
        Ok(recording) => {
            if let Err(error) = replay::strict(&recording) {
                assert!((1..=lines).contains(&error.line), "line {} of {lines}", error.line);
                assert!(error.message.len() < 8_000, "an error of {} bytes", error.message.len());
            }
        }
        Err(error) => assert!((1..=lines.max(1)).contains(&error.line), "line {} of {lines}", error.line),
    }
});
