//! Toolbay over the Model Context Protocol: a server for every tenant's tools.
