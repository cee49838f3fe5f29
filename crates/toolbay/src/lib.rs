//! Toolbay: gives every tenant's AI agent its own tools, safely.
