//! A bridge to the rig framework.
