//! A plugin's package as it goes to a worker: everything but its packaged files, which are sent when they are asked
//! for.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use toolbay_api::{Assets, Manifest, Package, PermissionSet, PluginContext};

use crate::{
    frame::{read_limits, write_limits},
    wire::{LENGTH_BYTES, Malformed, Reader, Writer},
};

/// A package with what the runner knows when it loads it.
pub(crate) struct PackageFrame {
    pub(crate) package: Package,
    pub(crate) context: PluginContext,
    pub(crate) form: Form,
}

/// What a worker is to make of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Something whose functions are called.
    Plugin,
    /// Something that is run from top to bottom.
    Program,
    /// Nothing that is kept: what it says of itself.
    Declaration,
}

impl PackageFrame {
    /// The bytes to send.
    pub(crate) fn write(package: &Package, context: &PluginContext, form: Form) -> Vec<u8> {
        let mut out = Vec::new();
        let mut frame = Writer::begin(&mut out);
        frame.u8(form as u8);
        write_limits(&mut frame, &context.limits);
        frame.json(&*context.grants);
        frame.json(&context.scope);
        frame.text(&package.origin.to_string_lossy());
        frame.json(&package.manifest);
        frame.u32(u32::try_from(package.files.len()).unwrap_or(u32::MAX));
        for (name, source) in &package.files {
            frame.text(name);
            frame.text(source);
        }
        frame.end();
        out.drain(..LENGTH_BYTES);
        out
    }

    /// What [`write`](Self::write) wrote.
    pub(crate) fn read(content: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(content);
        let form = match reader.u8()? {
            0 => Form::Plugin,
            1 => Form::Program,
            2 => Form::Declaration,
            _ => return Err(Malformed("an unknown form of package")),
        };
        let limits = read_limits(&mut reader)?;
        let grants: PermissionSet = reader.json()?;
        let scope = reader.json()?;
        let origin = PathBuf::from(reader.text()?);
        let manifest: Option<Manifest> = reader.json()?;
        let mut files = BTreeMap::new();
        for _ in 0..reader.u32()? {
            files.insert(reader.text()?.to_owned(), Arc::from(reader.text()?));
        }
        reader.finish()?;
        let package = Package { origin, manifest, files, assets: Assets::default() };
        Ok(Self { package, context: PluginContext { scope, limits, grants: Arc::new(grants) }, form })
    }
}
