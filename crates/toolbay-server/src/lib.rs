//! Toolbay over HTTP.
