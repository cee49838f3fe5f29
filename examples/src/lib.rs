//! Small programs that embed Toolbay, one a file in `src/bin`; the test beside them runs each. Larger plugins are in
//! `plugins/`.
