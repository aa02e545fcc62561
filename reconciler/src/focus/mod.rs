//! The FOCUS export.
