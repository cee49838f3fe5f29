//! Small programs that embed Toolbay, one a file in `src/bin`; the test beside them runs each. Larger plugins are in
//! `plugins/`, a plugin author's own crate is in `author/`, how plugins of another framework move over in [`legacy`], and
//! interfaces with several providers in [`abilities`], what the examples of code mode ask about in [`sales`].

pub mod abilities;
pub mod legacy;
pub mod sales;
