//! Examples are the binaries beside this file.
